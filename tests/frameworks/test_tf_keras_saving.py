"""Training continues bit for bit from files and checkpoints; a mismatch changes nothing."""

import itertools
import json
import re
import warnings
import zipfile

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
    again = tf_keras.models.load_model(path, compile=False)
    again.compile(OURS(0.5, **options), "mse")
    again.optimizer.build(again.trainable_variables)
    again.optimizer.set_weights(saved)
    for ours, theirs in zip(again.optimizer.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"use_ema": True}], ids=["plain", "average"])
def test_ours_takes_the_place_of_the_host_in_a_keras_file(options, tmp_path):
    path = tmp_path / "model.keras"
    model = fit(network(HOST(0.5, **options)), 0, 3)
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    # tf_keras looks up `custom_objects` only for classes that have a registered name.
    config["compile_config"]["optimizer"]["registered_name"] = "Adadelta"
    files["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", adadelta.StateWarning)
        again = tf_keras.models.load_model(path, custom_objects={"Adadelta": OURS})
    assert type(again.optimizer) is OURS
    for ours, theirs in zip(again.optimizer.get_weights(), model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


class Store(dict):
    """The store that tf_keras passes to `save_own_variables()`."""

    def __init__(self, optimizer):
        optimizer.save_own_variables(self)
        super().__init__({name: np.array(value) for name, value in sorted(self.items())})


def is_new(optimizer):
    """Whether the optimizer is in its initial state, with its learning rate kept."""
    state = adadelta.export_state(optimizer)
    zero = all(
        not np.any(array)
        for slots in state.parameters.values()
        for slot, array in slots.items()
        if slot != "average"
    )
    return zero and (state.step, state.skipped) == (0, 0) and float(optimizer.learning_rate) == 0.5


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
        (trained("a", "c"), trained("a", "b"), r"\(missing: b; 1 more problem\)"),
        (trained("d"), trained("a", "b", "c"), "missing: a, b, c; 1 more problem"),
    ],
)
def test_a_file_that_does_not_fit_is_left_out_with_one_warning(saved, into, message):
    with pytest.warns(adadelta.StateWarning, match=message) as caught:
        into.load_own_variables(Store(saved))
    assert len(caught) == 1 and "starts anew" in str(caught[0].message)
    assert is_new(into)


def test_a_file_is_read_by_name():
    saved, into = trained("a", "b"), trained("b", "a", calls=0)
    into.load_own_variables(Store(saved))
    ours, theirs = adadelta.export_state(into), adadelta.export_state(saved)
    assert ours == theirs


def test_numbered_arrays_of_unknown_origin_are_not_taken():
    for saved in (trained("a", "b", cls=HOST), trained("a", cls=tf_keras.optimizers.Adam)):
        for into in (trained("a", "b"), trained("a"), OURS(0.5)):
            before = Store(into)
            with pytest.warns(adadelta.StateWarning, match="does not say whose it is") as caught:
                into.load_own_variables(Store(saved))
            assert len(caught) == 1 and "stays as it was" in str(caught[0].message)
            assert before.keys() == Store(into).keys()
            for name, array in Store(into).items():
                np.testing.assert_array_equal(array, before[name])


def test_an_optimizer_that_is_not_built_keeps_the_state_until_it_is():
    saved = trained("a", "b")
    optimizer = OURS(0.5)
    optimizer.load_own_variables(Store(saved))
    assert Store(optimizer).keys() == Store(saved).keys()
    optimizer.build(variables_named("a", "b"))
    assert adadelta.export_state(optimizer) == adadelta.export_state(saved)


def test_what_waits_is_no_part_of_the_function_that_builds_the_optimizer():
    optimizer, variables = OURS(0.5), variables_named("a", "b")
    optimizer.load_own_variables(Store(trained("a", "b")))

    @tf.function
    def step():
        optimizer.build(variables)
        optimizer.apply_gradients([(tf.ones_like(it), it) for it in variables])

    step(), step()
    assert int(optimizer.iterations) == 5


# With a model: the weights are loaded, whatever happens to the optimizer's state


@tf_keras.utils.register_keras_serializable("adadelta-tests")
class Nest(tf_keras.layers.Dense):
    """A layer that creates an inner layer, which gets the next number in the process."""

    def build(self, shape):
        self.inner = tf_keras.layers.Dense(2, name=None)
        super().build(shape)

    def call(self, x):
        return self.inner(super().call(x))


@tf_keras.utils.register_keras_serializable("adadelta-tests")
class Block(tf_keras.layers.Layer):
    """A residual block that creates its layers in its constructor."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width
        self.first, self.second = tf_keras.layers.Dense(width), tf_keras.layers.Dense(width)

    def call(self, x):
        return x + self.second(tf_keras.activations.tanh(self.first(x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def nested(optimizer):
    inputs = tf_keras.Input((4,))
    x = Nest(3)(Nest(3)(inputs))
    x = Block(2)(Block(2)(x))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(x))
    model.compile(optimizer, "mse")
    return model


def shared(optimizer):
    inputs, layer = tf_keras.Input((4,)), tf_keras.layers.Dense(4)
    wrapped = tf_keras.layers.TimeDistributed(Block(4))
    x = wrapped(tf_keras.layers.Reshape((2, 4))(tf_keras.layers.Dense(8)(layer(layer(inputs)))))
    x = tf_keras.layers.Bidirectional(tf_keras.layers.SimpleRNN(2))(x)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(x))
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("make", [nested, shared])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_layers_that_get_other_numbers_are_loaded_with_their_state(make, ending, tmp_path):
    tf_keras.utils.set_random_seed(1)
    model = make(OURS(0.5, weight_decay=0.1, use_ema=True))
    excluded = [v for v in model.trainable_variables if "bias" in v.name]
    model.optimizer.exclude_from_weight_decay(var_list=excluded)
    fit(model, 0, 3)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    # tf_keras does not look up registered classes inside TimeDistributed.
    again = tf_keras.models.load_model(path, custom_objects={"Block": Block})
    assert int(again.optimizer.iterations) == 3
    same(again, model)
    same(fit(again, 3, 6), fit(model, 3, 6))


def frozen(model, layer, is_frozen):
    model.layers[layer].trainable = not is_frozen
    return model


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("before", [False, True])
def test_a_model_whose_layers_were_frozen_or_not_after_training(before, ending, tmp_path):
    model = fit(compiled(frozen(network(OURS(0.5)), 0, before)), 0, 3)
    frozen(model, 0, not before)
    model.save(tmp_path / f"model.{ending}")
    message = "not in this optimizer: dense" if not before else "missing: dense"
    with pytest.warns(adadelta.StateWarning, match=message) as caught:
        again = tf_keras.models.load_model(tmp_path / f"model.{ending}")
    assert sum(it.category is adadelta.StateWarning for it in caught) == 1
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert is_new(again.optimizer)
    again.fit(X, Y, verbose=0)
    assert int(again.optimizer.iterations) == 1


def wrapped(optimizer):
    return tf_keras.mixed_precision.LossScaleOptimizer(optimizer, dynamic=False, initial_scale=1)


OTHERS = {
    "Adam": lambda: tf_keras.optimizers.Adam(0.1),
    "SGD": lambda: tf_keras.optimizers.SGD(0.1),
    "RMSprop": lambda: tf_keras.optimizers.RMSprop(0.1),
    "tf_keras' Adadelta": lambda: HOST(0.1),
    "a moving average": lambda: OURS(0.1, use_ema=True),
    "skipped calls": lambda: OURS(0.1, use_ema=True, skip_nonfinite=True),
}


@pytest.mark.parametrize(
    ("other", "is_wrapped", "trained"),
    [
        *((other, False, True) for other in OTHERS),
        *((other, False, False) for other in ("Adam", "a moving average")),
        # tf_keras itself puts their state into our variables, by position.
        *((other, True, True) for other in ("Adam", "tf_keras' Adadelta")),
    ],
)
def test_weights_of_another_optimizer(other, is_wrapped, trained, tmp_path):
    wrap = wrapped if is_wrapped else lambda it: it
    path = str(tmp_path / "model.weights.h5")
    model = fit(network(wrap(OTHERS[other]())), 0, 1)
    model.save_weights(path)
    own = network(wrap(OURS(0.5)))
    inner = getattr(own.optimizer, "inner_optimizer", own.optimizer)
    if trained:
        fit(own, 1, 3)
    before = inner.get_weights()
    with pytest.warns(adadelta.StateWarning) as caught:
        own.load_weights(path)
        for mine, theirs in zip(own.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        kept = trained and all(map(np.array_equal, before, inner.get_weights()))
        own.fit(X, Y, epochs=2, verbose=0)
    assert sum(it.category is adadelta.StateWarning for it in caught) == 1
    assert float(inner.learning_rate) == 0.5
    assert int(inner.iterations) == 2 + 2 * kept
    messages = [str(it.message) for it in caught if it.category is adadelta.StateWarning]
    assert kept == (trained and "stays as it was" in messages[0])
    assert kept == (
        trained and not is_wrapped and other not in ("a moving average", "skipped calls")
    )


def test_weights_of_the_hosts_adadelta_are_taken_on_request(tmp_path):
    path = str(tmp_path / "model.weights.h5")
    model = fit(network(HOST(0.5, use_ema=True)), 0, 2)
    model.save_weights(path)
    own = network(OURS(0.5, use_ema=True))
    with pytest.warns(adadelta.StateWarning, match="adadelta.load_keras_adadelta"):
        own.load_weights(path)
    adadelta.load_keras_adadelta(own, path)
    for mine, theirs in zip(own.optimizer.get_weights(), model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs.numpy())
    other = fit(network(OURS(0.5)), 0, 1)
    before = other.optimizer.get_weights()
    with pytest.raises(StateMismatchError, match="it has 13 arrays without names"):
        adadelta.load_keras_adadelta(other, path)
    own.save_weights(path)
    with pytest.raises(StateMismatchError, match="has average"):
        adadelta.load_keras_adadelta(other, path)
    fit(network(tf_keras.optimizers.Adam()), 0, 1).save(tmp_path / "adam.keras")
    with pytest.raises(StateMismatchError, match="Adam has written it"):
        adadelta.load_keras_adadelta(other, tmp_path / "adam.keras")
    for mine, theirs in zip(other.optimizer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_saved_model_says_that_the_state_is_left_out_and_how_to_get_it(tmp_path):
    whole = fit(network(OURS(0.5, **EVERYTHING)), 0, 6)
    fit(network(OURS(0.5, **EVERYTHING)), 0, 3).save(tmp_path / "model", save_format="tf")
    with pytest.warns(adadelta.StateWarning, match="from a SavedModel") as caught:
        again = tf_keras.models.load_model(tmp_path / "model")
    assert sum(it.category is adadelta.StateWarning for it in caught) == 1
    assert type(again.optimizer) is OURS and int(again.optimizer.iterations) == 0
    message = str(caught[-1].message)
    (ending,) = re.findall(r'load_weights\(f"\{path\}(.*)"\)', message)
    assert len(message) <= 200
    again.load_weights(f"{tmp_path / 'model'}{ending}")
    same(fit(again, 3, 6), whole)


CHECKPOINTS = {
    "it is that of another optimizer": lambda: network(tf_keras.optimizers.Adam(0.1)),
    "`use_ema` was True": lambda: network(OURS(0.1, use_ema=True)),
    "it is for other parameters": lambda: compiled(frozen(network(OURS(0.1)), 0, True)),
}


def compiled(model):
    # tf_keras reads `trainable` here.
    model.compile(model.optimizer, "mse")
    return model


@pytest.mark.parametrize(
    ("problem", "is_trained"),
    [*((it, True) for it in CHECKPOINTS), *((it, False) for it in list(CHECKPOINTS)[:2])],
)
def test_a_checkpoint_of_another_optimizer(problem, is_trained, tmp_path):
    model = fit(CHECKPOINTS[problem](), 0, 1)
    model.save_weights(tmp_path / "checkpoint")
    own = network(OURS(0.5))
    if is_trained:
        fit(own, 1, 3)
    before = own.optimizer.get_weights()
    with pytest.warns(adadelta.StateWarning, match=problem) as caught:
        own.load_weights(tmp_path / "checkpoint")
        for mine, theirs in zip(own.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        if is_trained and "stays as it was" in str(caught[0].message):
            for mine, theirs in zip(own.optimizer.get_weights(), before, strict=True):
                np.testing.assert_array_equal(mine, theirs)
        else:
            assert not is_trained or is_new(own.optimizer)
        calls = int(own.optimizer.iterations)
        own.fit(X, Y, epochs=2, verbose=0)
    assert sum(it.category is adadelta.StateWarning for it in caught) == 1
    assert float(own.optimizer.learning_rate) == 0.5
    assert int(own.optimizer.iterations) == calls + 2 and calls in (0, 2)


def test_a_model_that_was_not_trained_is_loaded_without_a_warning(tmp_path):
    for name in ("model.keras", "model.h5", "model"):
        network(OURS(0.5)).save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error", adadelta.StateWarning)
            again = tf_keras.models.load_model(tmp_path / name)
        assert float(again.optimizer.learning_rate) == 0.5
        fit(again, 0, 1)


def test_positions_are_strict_where_they_are_asked_for():
    optimizer = trained("a", "b")
    before = optimizer.get_weights()
    with pytest.raises(ValueError, match="must be a list of 5 arrays"):
        optimizer.set_weights(before[:3])
    for mine, theirs in zip(optimizer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


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
        ("step", 2**63, "counts up to"),
        ("window", 2, "a window of 2 calls"),
        ("loss_scale", 8.0, "dynamic loss scale"),
    ):
        changed = adadelta.export_state(optimizer)
        setattr(changed, name, value)
        with pytest.raises(StateMismatchError) as error:
            adadelta.import_state(optimizer, changed)
        assert message in "; ".join(error.value.problems)
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
    # Weights of about 1 in float32: each step rounds them by 6e-8.
    np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=0, atol=1e-6)
    adadelta.import_state(optimizer, adadelta.export_state(other))
    assert int(optimizer.iterations) == 9


def test_names_that_repeat_are_numbered():
    assert list(adadelta.export_state(trained("a", "a", "b")).parameters) == ["a", "a#2", "b"]
    assert len(set(itertools.chain(*adadelta.export_state(trained("a")).parameters.values()))) == 2
