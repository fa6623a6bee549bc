"""float16 and bfloat16: the state is float32, and only the parameter is rounded."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import adadelta
from driver import BACKEND, MODES, Driver
from stepper import Stepper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from traps.tools import COMPILED, FITS, numpy

# Bits of the significand, and the exponent of the smallest normal number.
FORMATS = {"float16": (11, -14), "bfloat16": (8, -126)}
STEPS = 1000


def spacing(x, dtype):
    """Return the distance between two neighboring numbers of the format at x."""
    bits, smallest = FORMATS[dtype]
    exponent = np.maximum(np.frexp(x)[1] - 1, smallest)
    return np.ldexp(1.0, exponent - (bits - 1))


def rounded(x, dtype):
    unit = spacing(x, dtype)
    return np.round(x / unit) * unit


def test_rounding_is_that_of_the_formats():
    values = np.random.default_rng(1).normal(size=1000) * 10.0 ** np.arange(-5, 5).repeat(100)
    np.testing.assert_array_equal(rounded(values, "float16"), np.float64(np.float16(values)))
    assert rounded(np.array([1 + 2**-9]), "bfloat16") == 1.0
    assert rounded(np.array([1 + 2**-7]), "bfloat16") == 1 + 2**-7


@pytest.mark.parametrize("epsilon", [1e-6, 1e-7])
@pytest.mark.parametrize("size", [1.0, 1e-4, 300.0])
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_thousand_steps_differ_by_the_rounding_of_the_parameter_alone(dtype, size, epsilon):
    random = np.random.default_rng(1000)
    start = rounded(random.normal(size=64), dtype)
    gradients = [rounded(size * (0.5 + random.normal(size=64)), dtype) for _ in range(STEPS)]
    arguments = {"learning_rate": 1.0, "rho": 0.95, "epsilon": epsilon}
    described = [{"initial": start, "constraint": None}]
    exact, rounding = Stepper(arguments, None, described), Stepper(arguments, None, described)
    run = Driver(adadelta.Adadelta(**arguments), [keras.Variable(start, dtype=dtype)], COMPILED)
    lost = np.zeros(64)  # at most, by rounding
    coarsest = np.zeros(64)
    for gradient in gradients:
        run.call([_as(gradient, dtype)])
        exact.call([gradient])
        rounding.call([gradient])
        rounding.variables[0] = rounded(rounding.variables[0], dtype)
        unit = spacing(rounding.variables[0], dtype)
        lost += unit / 2
        coarsest = np.maximum(coarsest, unit)

    value = numpy(run.variables[0]).astype("float64")
    for ours, right in (
        (run.optimizer._accumulated_grads[0], exact.square_avg[0]),
        (run.optimizer._accumulated_delta_vars[0], exact.acc_delta[0]),
    ):
        assert keras.backend.standardize_dtype(ours.dtype) == "float32"
        np.testing.assert_allclose(numpy(ours), right, rtol=1e-4)
    # Half a unit in the last place for each step: the most that rounding x alone can add up to. The
    # bound changes with x, which may be just beside a power of two: hence the extra tenth.
    assert np.all(np.abs(value - exact.variables[0]) <= 1.1 * lost)
    # Ours is also rounded correctly, except where float32 falls on the other side of a tie.
    units = np.abs(value - rounding.variables[0]) / coarsest
    assert np.max(units) <= 3
    assert np.mean(units > 0) <= 0.25


def _as(value, dtype):
    return keras.ops.cast(keras.ops.convert_to_tensor(value.astype("float32")), dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FORMATS)
def test_all_state_is_float32(dtype, mode):
    variable = keras.Variable([1.0, 2.0], dtype=dtype)
    optimizer = adadelta.Adadelta(use_ema=True, gradient_accumulation_steps=2)
    run = Driver(optimizer, [variable], mode)
    for _ in range(4):
        run.call([_as(np.ones(2), dtype)])
    for slot in (
        optimizer._accumulated_grads,
        optimizer._accumulated_delta_vars,
        optimizer._model_variables_moving_average,
        optimizer._accumulated_gradients,
    ):
        assert keras.backend.standardize_dtype(slot[0].dtype) == "float32"
    assert keras.backend.standardize_dtype(variable.dtype) == dtype


def _trained(policy, optimizer, options, **compile_options):
    random = np.random.default_rng(3)
    x = random.normal(size=(64, 4)).astype("float32")
    y = x[:, :1] - x[:, 1:2]
    keras.utils.set_random_seed(7)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        )
        model.compile(optimizer, "mse", **options, **compile_options)
        history = model.fit(x, y, batch_size=8, epochs=12, verbose=0, shuffle=False)
    finally:
        keras.config.set_dtype_policy(before)
    return model, history.history["loss"]


# For mixed_float16, compile() adds Keras' LossScaleOptimizer, which on JAX needs compiled steps.
CASES = [
    (policy, name)
    for policy in ("mixed_float16", "mixed_bfloat16")
    for name in FITS
    if (BACKEND, policy) != ("jax", "mixed_float16") or name == "compiled"
]


@pytest.mark.parametrize(("policy", "name"), CASES, ids=lambda value: value.replace(" ", "-"))
def test_mixed_precision_trains(policy, name):
    model, loss = _trained(policy, adadelta.Adadelta(learning_rate=1.0, epsilon=1e-4), FITS[name])
    assert np.all(np.isfinite(loss))
    assert loss[-1] < 0.5 * loss[0]
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert isinstance(inner, adadelta.Adadelta)
    assert (inner is not model.optimizer) == (policy == "mixed_float16")


@pytest.mark.parametrize("name", FITS, ids=lambda name: name.replace(" ", "-"))
def test_mixed_float16_trains_with_our_own_loss_scale(name):
    optimizer = adadelta.Adadelta(learning_rate=1.0, epsilon=1e-4, loss_scale_factor="dynamic")
    model, loss = _trained("mixed_float16", optimizer, FITS[name], auto_scale_loss=False)
    assert model.optimizer is optimizer
    assert np.all(np.isfinite(loss))
    assert loss[-1] < 0.5 * loss[0]
    assert int(numpy(optimizer.iterations)) + optimizer.skipped == 12 * 8


class Scaling:
    """An optimizer with a dynamic loss scale, and a weight to control it with."""

    def __init__(self, mode):
        self.weight = keras.Variable([1.0], dtype="float32")
        self.optimizer = adadelta.Adadelta(learning_rate=1.0, loss_scale_factor="dynamic")
        self.run = Driver(self.optimizer, [self.weight], mode)
        self.optimizer.build([self.weight])

    @property
    def scale(self):
        return float(numpy(self.optimizer._state.loss_scale))

    def call(self, gradient):
        self.run.call([np.array([gradient])])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_is_not_finite_halves_the_scale(mode, bad):
    it = Scaling(mode)
    assert it.scale == 2.0**15
    it.call(bad)
    assert it.scale == 2.0**14
    assert it.optimizer.skipped == 1
    assert float(numpy(it.weight)[0]) == 1.0
    it.call(it.scale)
    assert it.scale == 2.0**14
    assert float(numpy(it.weight)[0]) < 1.0


@pytest.mark.parametrize("mode", MODES)
def test_the_scale_is_divided_out(mode):
    it = Scaling(mode)
    plain = keras.Variable([1.0], dtype="float32")
    other = Driver(adadelta.Adadelta(learning_rate=1.0), [plain], mode)
    for gradient in (1.0, -3.0, 0.25):
        it.call(gradient * it.scale)
        other.call([np.array([gradient])])
    np.testing.assert_allclose(numpy(it.weight), numpy(plain), rtol=1e-6)
    loss = it.optimizer.scale_loss(keras.ops.convert_to_tensor(0.5))
    assert float(numpy(loss)) == 0.5 * 2.0**15


@pytest.mark.parametrize("mode", MODES)
def test_two_thousand_finite_gradients_in_a_row_double_the_scale(mode):
    it = Scaling(mode)
    steps = 2000
    if mode == "eager" and BACKEND != "torch":
        it.optimizer._state.finite_calls.assign(1990)  # it would take long
        steps = 10
    for _ in range(steps - 1):
        it.call(1.0)
    assert it.scale == 2.0**15
    it.call(1.0)
    assert it.scale == 2.0**16
    it.optimizer._state.finite_calls.assign(1998)
    it.call(1.0)
    it.call(np.nan)
    assert it.scale == 2.0**15
    it.call(1.0)
    assert it.scale == 2.0**15


@pytest.mark.parametrize("mode", MODES)
def test_the_scale_stays_in_its_range(mode):
    it = Scaling(mode)
    for _ in range(20):
        it.call(np.nan)
    assert it.scale == 1.0
    it.call(1.0)
    assert np.isfinite(numpy(it.weight)[0])
    for before, after in ((2.0**23, 2.0**24), (2.0**24, 2.0**24)):
        it.optimizer._state.loss_scale.assign(before)
        it.optimizer._state.finite_calls.assign(1999)
        it.call(1.0)
        assert it.scale == after
