"""Where tf_keras' own classes go wrong and ours does not; each trap is shown on both."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.saving.serialization_lib import SafeModeScope

import adadelta.tf_keras

OURS = adadelta.tf_keras.Adadelta
HOST = tf_keras.optimizers.Adadelta
LEGACY = tf_keras.optimizers.legacy.Adadelta


def exact(start, gradients, rate=1.0, rho=0.95, epsilon=1e-7):
    """Apply the rule in float64; return the value and the average of squared gradients."""
    x = np.array(start, np.float64)
    v, u = np.zeros_like(x), np.zeros_like(x)
    for g in np.asarray(gradients, np.float64):
        v = rho * v + (1 - rho) * g * g
        step = np.sqrt(u + epsilon) / np.sqrt(v + epsilon) * g
        u = rho * u + (1 - rho) * step * step
        x = x - rate * step
    return x, v


def stepped(optimizer, start, gradients, dtype="float32"):
    x = tf.Variable(start, dtype=dtype)
    for gradient in gradients:
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.constant(gradient, dtype)
        optimizer.apply_gradients([(gradient, x)])
    return x.numpy()


def model_of(optimizer, **options):
    layer = tf_keras.layers.Dense(
        1, use_bias=False, kernel_initializer=tf_keras.initializers.Constant(0.5)
    )
    model = tf_keras.Sequential([tf_keras.Input((2,)), layer])
    model.compile(optimizer, lambda truth, output: output, **options)
    return model


def fit(model, calls):
    model.fit(np.ones((calls, 2)), np.zeros(calls), batch_size=1, verbose=0)


# 41


def lr_of(cls):
    return float(cls(lr=0.5).learning_rate)


def test_lr_is_the_learning_rate():
    assert lr_of(OURS) == 0.5
    optimizer = OURS(lr=0.5)
    optimizer.lr = 0.25
    assert float(optimizer.learning_rate) == float(optimizer.lr) == 0.25


def test_lr_is_ignored_by_tf_keras():
    assert lr_of(HOST) == pytest.approx(0.001)


def test_lr_and_learning_rate_together_are_refused():
    with pytest.raises(TypeError, match="Only one of `learning_rate` and `lr`"):
        OURS(0.5, lr=0.1)


# 42

TWO_CLIPS = [
    {"clipnorm": 1.0, "clipvalue": 0.5},
    {"clipvalue": 0.5, "global_clipnorm": 1.0},
    {"clipnorm": 1.0, "global_clipnorm": 1.0},
]


@pytest.mark.parametrize("clips", TWO_CLIPS)
def test_two_clips_at_once_are_refused(clips):
    with pytest.raises(ValueError, match="Only one of `clipnorm`, `clipvalue` and `global_clip"):
        OURS(**clips)


@pytest.mark.parametrize("clips", TWO_CLIPS[:2])
def test_one_of_two_clips_is_ignored_by_tf_keras(clips):
    optimizer = HOST(**clips)
    clipped = optimizer._clip_gradients([tf.constant([0.6, 0.6])])[0].numpy()
    np.testing.assert_allclose(clipped, [0.6, 0.6])  # and clipvalue is 0.5


# 43


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    "rate",
    [0.1, np.float32(0.1), 1, lambda: 0.1, "schedule"],
    ids=["float", "float32", "int", "function", "schedule"],
)
def test_the_config_survives_json(rate):
    if isinstance(rate, str):
        rate = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = OURS(rate, use_ema=True, clipnorm=np.float64(2), weight_decay=np.float32(0.5))
    config = json.loads(json.dumps(optimizer.get_config()))
    assert config.keys() == optimizer.get_config().keys()
    with SafeModeScope(False):  # as load_model(..., safe_mode=False) does, for the lambda
        again = OURS.from_config(config)
    given, kept = config.pop("learning_rate"), again.get_config().pop("learning_rate")
    assert {**again.get_config(), "learning_rate": given} == {**config, "learning_rate": given}
    if callable(rate):
        # A lambda's code is serialized with different references each time.
        assert float(again.learning_rate) == pytest.approx(0.1)
    else:
        assert given == kept == float(rate)


def test_the_config_does_not_survive_json_in_tf_keras():
    with pytest.raises(TypeError, match="float32 is not JSON serializable"):
        json.dumps(HOST(0.1).get_config())


# 44


def rates_seen(cls, **options):
    """Return the rates of 4 steps of fit(), with a function that returns 1, 1/2, 1/3..."""
    calls = []

    def rate():
        calls.append(1)
        return 1 / len(calls)

    seen = []
    model = model_of(cls(rate, rho=0.0, epsilon=1.0), **options)
    before = model.get_weights()[0]
    for _ in range(4):
        fit(model, 1)
        after = model.get_weights()[0]
        seen.append(float((before - after)[0, 0]))
        before = after
    # With rho = 0, each step is sqrt((u + 1) / 2) long, where u is that of the step before.
    u, expected = 0.0, []
    for length in seen:
        step = np.sqrt((u + 1) / 2)
        expected.append(length / step)
        u = step * step
    return expected, len(calls)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["compiled", "eager"])
def test_a_function_is_asked_for_the_rate_at_every_step(options):
    seen, calls = rates_seen(OURS, **options)
    np.testing.assert_allclose(seen, [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-5)
    assert calls == 4


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["compiled", "eager"])
def test_a_function_is_asked_once_by_tf_keras(options):
    seen, _ = rates_seen(HOST, **options)
    np.testing.assert_allclose(seen, [1, 1, 1, 1], rtol=1e-5)


def test_a_function_that_returns_a_variable_works():
    rate = tf.Variable(1.0)
    model = model_of(OURS(lambda: rate, rho=0.0, epsilon=1.0))
    fit(model, 1)
    rate.assign(0.0)
    before = model.get_weights()[0]
    fit(model, 2)
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_a_function_under_xla_is_refused_with_what_to_do():
    model = model_of(OURS(lambda: 0.1), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="needs_jit_compile_False"):
        fit(model, 1)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_function_that_fails_changes_nothing(compiled):
    answers = iter([1.0, -1.0])
    optimizer, x = OURS(lambda: next(answers), use_ema=True), tf.Variable([1.0])
    optimizer.build([x])

    def step():
        optimizer.apply_gradients([(tf.constant([1.0]), x)])

    step = tf.function(step) if compiled else step
    step()
    before = [x.numpy(), *optimizer.get_weights()]
    with pytest.raises((ValueError, tf.errors.OpError), match=r"`learning_rate\(\)` must be"):
        step()
    for old, new in zip(before, [x.numpy(), *optimizer.get_weights()], strict=True):
        np.testing.assert_array_equal(old, new)


# 45


def repeated_rows():
    return [tf.IndexedSlices(tf.constant([[0.9], [0.9]]), tf.constant([1, 1]), (3, 1))]


@pytest.mark.parametrize("clip", [{"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}])
def test_rows_are_summed_before_they_are_clipped(clip):
    sparse = stepped(OURS(1.0, **clip), np.ones((3, 1)), repeated_rows())
    dense = stepped(OURS(1.0, **clip), np.ones((3, 1)), [[[0.0], [1.8], [0.0]]])
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)


def test_rows_are_summed_after_they_are_clipped_by_tf_keras():
    optimizer = HOST(1.0, clipvalue=1.0)
    stepped(optimizer, np.ones((3, 1)), repeated_rows())
    # (1 - rho) 1.8^2, where (1 - rho) 1 is right.
    assert optimizer._accumulated_grads[0].numpy()[1, 0] == pytest.approx(0.05 * 1.8**2)


# 46, 47


def rate_error(cls, rate=0.1, rho=0.95):
    """Return the error of a float64 parameter after 20 steps, relative to its displacement."""
    gradients = np.random.default_rng(0).normal(size=(20, 3))
    expected, _ = exact(np.zeros(3), gradients, rate, rho)
    got = stepped(cls(rate, rho), np.zeros(3), gradients, "float64")
    return np.max(np.abs(got - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("compiled", [True, False])
def test_hyperparameters_keep_their_precision(compiled):
    assert rate_error(OURS) < 1e-13
    x, optimizer = tf.Variable([0.0], dtype="float64"), OURS(0.3)
    optimizer.learning_rate = 0.1
    gradient = tf.constant([1.0], "float64")

    def step():
        optimizer.apply_gradients([(gradient, x)])

    (tf.function(step) if compiled else step)()
    np.testing.assert_allclose(x.numpy(), exact([0.0], [[1.0]], 0.1)[0], rtol=1e-14)


def test_hyperparameters_are_rounded_to_float32_by_tf_keras():
    assert rate_error(HOST) > 1e-9
    assert rate_error(LEGACY) > 1e-8
    assert rate_error(LEGACY, rate=0.5) > 1e-8  # which is exact, so it is rho


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_updated_in_float32(dtype):
    gradients = np.ones((300, 1)) * 2
    expected, square_avg = exact([0.0], gradients, rho=0.999)
    optimizer = OURS(1.0, rho=0.999, use_ema=True)
    got = stepped(optimizer, [0.0], gradients, dtype)
    assert optimizer._accumulated_grads[0].dtype == tf.float32
    assert optimizer._model_variables_moving_average[0].dtype == tf.float32
    np.testing.assert_allclose(optimizer._accumulated_grads[0].numpy(), square_avg, rtol=1e-5)
    # 300 roundings of the weight itself, each up to 0.4 % in bfloat16.
    np.testing.assert_allclose(got.astype("float64"), expected, rtol=0.2)


def test_rho_is_1_in_bfloat16_in_the_legacy_class():
    optimizer, x = LEGACY(1.0, rho=0.999), tf.Variable([0.0], dtype="bfloat16")
    for _ in range(3):
        optimizer.apply_gradients([(tf.constant([2.0], "bfloat16"), x)])
    assert float(optimizer.get_weights()[1][0]) == 0  # the average of squared gradients


# 48


def test_epsilon_0_is_refused():
    with pytest.raises(ValueError, match="`epsilon` must be a finite number greater than 0"):
        OURS(epsilon=0)


def test_epsilon_0_becomes_another_one_in_the_legacy_class():
    assert LEGACY(epsilon=0).epsilon == 1e-7


def test_epsilon_none_is_that_of_the_backend():
    before = tf_keras.backend.epsilon()
    try:
        tf_keras.backend.set_epsilon(1e-4)
        assert OURS(epsilon=None).epsilon == 1e-4
    finally:
        tf_keras.backend.set_epsilon(before)


# 49


def sparse_and_dense(cls, dtype="float32", **options):
    """Return the weights after steps with sparse gradients, and after the same dense steps."""
    generator = np.random.default_rng(1)
    rows = [generator.integers(0, 5, size=3) for _ in range(8)]
    values = [generator.normal(size=(3, 2)) for _ in rows]
    sparse, dense = [], []
    for indices, value in zip(rows, values, strict=True):
        sparse.append(tf.IndexedSlices(tf.constant(value, dtype), tf.constant(indices), (5, 2)))
        full = np.zeros((5, 2))
        np.add.at(full, indices, value)
        dense.append(full)
    return [stepped(cls(1.0, **options), np.ones((5, 2)), it, dtype) for it in (sparse, dense)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"clipnorm": 0.5},
        {"use_ema": True},
        {"maximize": True},
        {"skip_nonfinite": True},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_sparse_gradients_give_the_numbers_of_dense_ones(options, dtype):
    sparse, dense = sparse_and_dense(OURS, dtype, **options)
    # The rows are summed in bfloat16, which rounds their sums by 0.4 %.
    tolerance = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 0.02}[dtype]
    np.testing.assert_allclose(sparse.astype("float64"), dense.astype("float64"), rtol=tolerance)


def test_sparse_gradients_give_other_numbers_in_the_legacy_class():
    sparse, dense = sparse_and_dense(LEGACY)
    assert np.max(np.abs(sparse - dense)) > 1e-4


def test_a_sparse_gradient_without_a_shape_works():
    x = tf.Variable(np.ones((3, 2), "float32"))
    rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]))
    OURS(1.0).apply_gradients([(rows, x)])
    assert np.all(x.numpy()[1] < 1) and np.all(x.numpy()[[0, 2]] == 1)


# 50


@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_a_clip_of_0_is_refused(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a number greater than 0"):
        OURS(**{argument: 0})


def test_a_clip_of_0_freezes_training_in_the_legacy_class():
    np.testing.assert_array_equal(stepped(LEGACY(1.0, clipnorm=0.0), [1.0], [[1.0]]), [1.0])


# 51


def resumed(cls, path):
    """Return calls and the sum of squared gradients after saving and loading a trained model."""
    tf_keras.utils.get_custom_objects().pop("<lambda>", None)
    model = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    model.compile(cls(1.0), "mse")
    fit(model, 3)
    model.save(path)
    again = tf_keras.models.load_model(path)
    assert type(again.optimizer) is cls
    variables = again.optimizer.variables
    variables = variables() if cls is LEGACY else variables
    return int(again.optimizer.iterations), len(variables)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_files_keep_the_state(ending, tmp_path):
    assert resumed(OURS, tmp_path / f"model.{ending}") == (3, 5)


def test_the_keras_format_loses_the_state_of_the_legacy_class(tmp_path):
    assert resumed(LEGACY, tmp_path / "model.keras")[0] == 0


# What ours does beyond the numbered list


def constrained(cls):
    """Return a weight after finalizing, where its constraint keeps it at least 0."""
    x = tf.Variable([0.5], constraint=lambda value: tf.maximum(value, 0.0))
    optimizer = cls(1.0, epsilon=1.0, use_ema=True, ema_momentum=0.5)
    for _ in range(10):
        optimizer.apply_gradients([(tf.constant([1.0]), x)])
    optimizer.finalize_variable_values([x])
    return x.numpy()[0]


def test_the_average_is_of_constrained_weights():
    assert constrained(OURS) >= 0


def test_the_average_leaves_the_constraint_in_tf_keras():
    assert constrained(HOST) < 0


def test_a_gradient_whose_square_overflows_does_not_freeze_the_weight():
    def last_step(cls):
        x, optimizer = tf.Variable([0.0]), cls(1.0, rho=0.5)
        optimizer.apply_gradients([(tf.constant([1e20]), x)])
        for _ in range(200):
            optimizer.apply_gradients([(tf.constant([1.0]), x)])
        before = x.numpy()
        optimizer.apply_gradients([(tf.constant([1.0]), x)])
        return abs(float((x.numpy() - before)[0]))

    assert last_step(OURS) > 1e-5
    assert last_step(HOST) == 0


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_a_norm_does_not_overflow_and_infinity_means_no_clipping(clip):
    def step(cls, limit, gradient):
        return stepped(cls(1.0, **{clip: limit}), [0.0, 0.0], [gradient])

    np.testing.assert_allclose(step(OURS, 1.0, [1e20, 0.0]), step(OURS, 2.0, [1.0, 0.0]))
    assert not np.allclose(step(HOST, 1.0, [1e20, 0.0]), step(HOST, 2.0, [1.0, 0.0]))
    np.testing.assert_allclose(step(OURS, np.inf, [3.0, 4.0]), step(OURS, 6.0, [3.0, 4.0]))
    assert np.all(np.isnan(step(HOST, np.inf, [3.0, 4.0])))


def test_complex_weights_are_pairs_of_real_ones():
    def distance(cls):
        x, optimizer = tf.Variable([1.0 + 2.0j], dtype="complex64"), cls(1.0, epsilon=1e-2)
        for _ in range(60):
            optimizer.apply_gradients([(tf.convert_to_tensor(x), x)])
        return abs(x.numpy()[0])

    assert distance(OURS) < 1.5
    assert distance(HOST) > 2.3 or not np.isfinite(distance(HOST))


def test_empty_and_scalar_weights_work():
    for shape in ((0, 3), (0,), (), (1, 1, 2)):
        for options in ({"clipnorm": 1.0}, {"use_ema": True, "weight_decay": 0.1}):
            got = stepped(OURS(1.0, **options), np.ones(shape), [np.ones(shape)] * 2)
            assert got.shape == shape and np.all(got < 1)


def test_a_fit_without_an_epoch_changes_nothing():
    model = model_of(OURS(use_ema=True))
    before = model.get_weights()
    model.fit(np.ones((2, 2)), np.zeros(2), epochs=1, initial_epoch=1, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
