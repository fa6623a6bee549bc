"""Files and checkpoints: training goes on bit for bit, and what does not fit changes nothing."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import adadelta
import adadelta.tf_keras
from adadelta.state import StateMismatchError

OURS = adadelta.tf_keras.Adadelta
HOST = tf_keras.optimizers.Adadelta
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 4)).astype("float32"), RNG.normal(size=(24, 1)).astype("float32")
EVERYTHING = {
    "use_ema": True,
    "ema_overwrite_frequency": 4,
    "weight_decay": 0.01,
    "clipnorm": 1.0,
    "skip_nonfinite": True,
}


def network(optimizer):
    tf_keras.utils.set_random_seed(3)
    model = tf_keras.Sequential(
        [tf_keras.Input((4,)), tf_keras.layers.Dense(3, "tanh"), tf_keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, begin, end):
    for start in range(begin, end):
        model.train_on_batch(X[2 * start : 2 * start + 2], Y[2 * start : 2 * start + 2])
    return model


def same(one, other):
    for ours, theirs in zip(
        [*one.get_weights(), *one.optimizer.get_weights()],
        [*other.get_weights(), *other.optimizer.get_weights()],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_training_resumes_from_a_saved_model(ending, options, tmp_path):
    path = tmp_path / f"model.{ending}"
    whole = fit(network(OURS(0.7, **options)), 0, 12)
    fit(network(OURS(0.7, **options)), 0, 5).save(path)
    again = tf_keras.models.load_model(path)
    assert type(again.optimizer) is OURS
    assert again.optimizer.get_config() == whole.optimizer.get_config()
    same(fit(again, 5, 12), whole)


@pytest.mark.parametrize("ending", ["weights.h5", "ckpt"])
def test_training_resumes_from_saved_weights(ending, tmp_path):
    path = str(tmp_path / f"model.{ending}")
    whole = fit(network(OURS(0.7, **EVERYTHING)), 0, 12)
    fit(network(OURS(0.7, **EVERYTHING)), 0, 5).save_weights(path)
    again = network(OURS(0.7, **EVERYTHING))
    fit(again, 0, 1)
    again.load_weights(path)
    same(fit(again, 5, 12), whole)


@pytest.mark.parametrize("restore_before_build", [True, False])
def test_training_resumes_from_a_checkpoint(restore_before_build, tmp_path):
    def start():
        optimizer = OURS(0.7, **EVERYTHING)
        x = tf.Variable([1.0, 2.0])
        return optimizer, x, tf.train.Checkpoint(optimizer=optimizer, x=x)

    def steps(optimizer, x, count):
        for _ in range(count):
            optimizer.apply_gradients([(2 * x, x)])

    optimizer, x, checkpoint = start()
    steps(optimizer, x, 5)
    path = checkpoint.save(tmp_path / "checkpoint")
    steps(optimizer, x, 7)
    other, y, again = start()
    if restore_before_build:
        status = again.restore(path)
        steps(other, y, 7)
        status.assert_consumed()
    else:
        steps(other, y, 2)
        again.restore(path).assert_consumed()
        steps(other, y, 7)
    np.testing.assert_array_equal(x.numpy(), y.numpy())
    for ours, theirs in zip(optimizer.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ending", ["keras", "h5", "ckpt"])
def test_what_the_host_saved_goes_on_with_ours(ending, tmp_path):
    options = {"use_ema": True, "weight_decay": 0.01}
    path = str(tmp_path / f"model.{ending}")
    model = fit(network(HOST(0.5, **options)), 0, 5)
    saved = [variable.numpy() for variable in model.optimizer.variables]
    weights = ending == "ckpt"
    (model.save_weights if weights else model.save)(path)
    if weights:
        again = network(OURS(0.5, **options))
        again.load_weights(path)
        fit(fit(model, 5, 6), 6, 8)
        fit(again, 5, 8)
        expected = [variable.numpy() for variable in model.optimizer.variables]
        for ours, theirs in zip(again.optimizer.get_weights(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-8)
        return
    again = tf_keras.models.load_model(path, custom_objects={"Adadelta": OURS})
    if type(again.optimizer) is not OURS:
        # tf_keras takes its own class for this name in .h5 files.
        again = tf_keras.models.load_model(path, compile=False)
        again.compile(OURS(0.5, **options), "mse")
        again.optimizer.build(again.trainable_variables)
        again.optimizer.set_weights(saved)
    for ours, theirs in zip(again.optimizer.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Store(dict):
    """What tf_keras gives to `save_own_variables()`."""

    def __init__(self, optimizer):
        optimizer.save_own_variables(self)
        super().__init__({name: np.array(value) for name, value in sorted(self.items())})


def variables_named(*names):
    return [tf.Variable(np.ones((2, 3), "float32"), name=name) for name in names]


def trained(*names, cls=OURS, calls=3, **options):
    optimizer, variables = cls(0.5, **options), variables_named(*names)
    optimizer.build(variables)
    for call in range(calls):
        gradients = np.random.default_rng(call).normal(size=(len(names), 2, 3))
        pairs = zip(gradients.astype("float32"), variables, strict=True)
        optimizer.apply_gradients([(tf.constant(g), v) for g, v in pairs])
    return optimizer


@pytest.mark.parametrize(
    ("saved", "into", "message"),
    [
        (trained("a", "b", use_ema=True), trained("a", "b"), "has average"),
        (trained("a", "b"), trained("a", "b", use_ema=True), "it has no average"),
        (trained("a"), trained("a", "b"), "missing: b"),
        (trained("a", "c"), trained("a", "b"), "missing: b; not in this optimizer: c"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(saved, into, message):
    before = into.get_weights()
    with pytest.raises(StateMismatchError, match=message):
        into.load_own_variables(Store(saved))
    for old, new in zip(before, into.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_file_is_read_by_name():
    saved, into = trained("a", "b"), trained("b", "a", calls=0)
    into.load_own_variables(Store(saved))
    ours, theirs = adadelta.export_state(into), adadelta.export_state(saved)
    assert ours == theirs


def test_a_file_of_the_host_that_does_not_fit_changes_nothing():
    host = trained("a", cls=HOST)
    into = trained("a", "b")
    before = into.get_weights()
    with pytest.raises(ValueError, match="must be a list of 5 arrays"):
        into.load_own_variables(Store(host))
    for old, new in zip(before, into.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_optimizer_that_is_not_built_keeps_the_state_until_it_is():
    saved = trained("a", "b")
    optimizer = OURS(0.5)
    optimizer.load_own_variables(Store(saved))
    assert Store(optimizer).keys() == Store(saved).keys()
    optimizer.build(variables_named("a", "b"))
    assert adadelta.export_state(optimizer) == adadelta.export_state(saved)


# Portable state


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_state_moves_to_another_optimizer_and_through_a_file(options, tmp_path):
    path = tmp_path / "state.safetensors"
    optimizer = trained("a", "b", **options)
    adadelta.save_state(optimizer, path)
    again = trained("a", "b", calls=0, **options)
    adadelta.load_state(again, path)
    assert adadelta.export_state(again) == adadelta.export_state(optimizer)
    for ours, theirs in zip(again.get_weights(), optimizer.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_rate_comes_with_the_state():
    optimizer = trained("a")
    optimizer.learning_rate = 0.3
    state = adadelta.export_state(optimizer)
    assert state.hyperparameters["learning_rate"] == 0.3
    again = trained("a", calls=0)
    adadelta.import_state(again, state)
    assert again.get_config()["learning_rate"] == 0.3


def test_state_that_does_not_fit_changes_nothing():
    optimizer = trained("a")
    with pytest.raises(StateMismatchError, match="not built"):
        adadelta.export_state(OURS())
    state = adadelta.export_state(trained("a", use_ema=True))
    before = optimizer.get_weights()
    with pytest.raises(StateMismatchError, match="has average"):
        adadelta.import_state(optimizer, state)
    state = adadelta.export_state(optimizer)
    for name, value, message in (
        ("skipped", 1, "1 skipped calls"),
        ("update", 1, "1 updates in 3 calls"),
        ("window", 2, "a window of 2 calls"),
        ("loss_scale", 8.0, "dynamic loss scale"),
    ):
        changed = adadelta.export_state(optimizer)
        setattr(changed, name, value)
        with pytest.raises(StateMismatchError, match=message):
            adadelta.import_state(optimizer, changed)
    for old, new in zip(before, optimizer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_state_goes_on_from_the_keras_optimizer():
    import keras

    starts = np.random.default_rng(1).normal(size=(2, 3)).astype("float32")
    gradients = np.random.default_rng(2).normal(size=(9, 2, 3)).astype("float32")
    x, optimizer = keras.Variable(starts, name="a"), adadelta.Adadelta(0.5, epsilon=1e-3)
    for gradient in gradients[:4]:
        optimizer.apply([keras.ops.array(gradient)], [x])
    y, other = tf.Variable(x.numpy(), name="a"), OURS(0.1, epsilon=1e-3)
    other.build([y])
    adadelta.import_state(other, adadelta.export_state(optimizer))
    assert int(other.iterations) == 4 and other.get_config()["learning_rate"] == 0.5
    for gradient in gradients[4:]:
        optimizer.apply([keras.ops.array(gradient)], [x])
        other.apply_gradients([(tf.constant(gradient), y)])
    # Weights of about 1 in float32, of which each step rounds by 6e-8.
    np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=0, atol=1e-6)
    adadelta.import_state(optimizer, adadelta.export_state(other))
    assert int(optimizer.iterations) == 9


def test_names_that_repeat_are_numbered():
    assert list(adadelta.export_state(trained("a", "a", "b")).parameters) == ["a", "a#2", "b"]
    assert len(set(itertools.chain(*adadelta.export_state(trained("a")).parameters.values()))) == 2
