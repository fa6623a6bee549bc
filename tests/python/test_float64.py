"""Float64 variables are updated in full float64 precision, whatever the option and the backend.

A Python number that is rounded to float32 on its way costs 1e-8. Keras' operators do this where
float32 is the default dtype.
"""

import keras
import numpy as np
import pytest
from conftest import floats

import adadelta
from driver import MODES, Driver, numpy, sparse
from stepper import Stepper

# None of the numbers is exact in float32, except the powers of 2 of a dynamic loss scale.
BASE = {"learning_rate": 0.3, "rho": 0.93, "epsilon": 1.1e-3}
OPTIONS = {
    "none": {},
    "weight_decay": {"weight_decay": 0.013},
    "coupled": {"weight_decay": 0.013, "decoupled_weight_decay": False},
    "clipnorm": {"clipnorm": 0.7},
    "clipvalue": {"clipvalue": 0.37},
    "global_clipnorm": {"global_clipnorm": 0.7},
    "average": {"use_ema": True, "ema_momentum": 0.977},
    "overwriting": {"use_ema": True, "ema_momentum": 0.977, "ema_overwrite_frequency": 2},
    "loss_scale_factor": {"loss_scale_factor": 3.3},
    "small scale": {"loss_scale_factor": 0.33, "skip_nonfinite": True},
    "dynamic scale": {"loss_scale_factor": "dynamic", "clipvalue": 1e-5},
    "accumulation": {"gradient_accumulation_steps": 3},
    "maximize": {"maximize": True},
    "everything": {
        "weight_decay": 0.013,
        "global_clipnorm": 0.7,
        "use_ema": True,
        "ema_momentum": 0.977,
        "loss_scale_factor": 3.3,
        "gradient_accumulation_steps": 3,
        "maximize": True,
    },
}
# Relative to the largest element: six updates of about ten roundings, 1e-16 each, and cancellation.
ROUNDING = 1e-14


@pytest.fixture(autouse=True)
def float64_is_allowed():
    """Allow float64, but keep float32 as the default dtype."""
    with floats("float64"):
        keras.config.set_floatx("float32")
        yield


def gradients_of(shapes, calls):
    generator = np.random.default_rng(0)
    return [[generator.normal(size=shape) for shape in shapes] for _ in range(calls)]


def reference(arguments, start, gradients):
    arguments = dict(arguments)
    mode = "decoupled" if arguments.pop("decoupled_weight_decay", True) else "coupled"
    if arguments.get("loss_scale_factor") == "dynamic":
        arguments["loss_scale_factor"] = 2.0**15
    variables = [{"initial": value.copy(), "constraint": None} for value in start]
    exact = Stepper(arguments, mode, variables)
    for its_gradients in gradients:
        exact.call(its_gradients)
    return exact


def check(run, exact):
    for slot in ("variables", "square_avg", "acc_delta", "average", "window"):
        right = getattr(exact, slot)
        for ours, its_right in zip(run.state(slot) if right else (), right or (), strict=True):
            room = ROUNDING * max(np.max(np.abs(its_right)), 1e-300)
            np.testing.assert_allclose(ours, its_right, rtol=0, atol=room, err_msg=slot)


# (fused, mode): the kernel in compiled code, and the rule both in compiled code and eagerly.
PATHS = sorted({(False, MODES[0]), (False, MODES[-1]), (True, MODES[-1])})


@pytest.mark.parametrize(("fused", "mode"), PATHS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_numbers_keep_their_digits(options, fused, mode):
    start = gradients_of([(5, 3), (4,), ()], 1)[0]
    gradients = gradients_of([(5, 3), (4,), ()], 6)
    arguments = BASE | options
    variables = [keras.Variable(value, dtype="float64") for value in start]
    run = Driver(adadelta.Adadelta(**arguments, fused=fused), variables, mode)
    for its_gradients in gradients:
        run.call(its_gradients)
    check(run, reference(arguments, start, gradients))


RATES = {
    "variable": lambda: keras.Variable(0.3, dtype="float64"),
    "function": lambda: lambda: 0.3,
}


# XLA can't call a Python function.
@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("rate", RATES)
def test_rates_keep_their_digits(rate, mode):
    start, *gradients = gradients_of([(4,)], 4)
    optimizer = adadelta.Adadelta(**BASE | {"learning_rate": RATES[rate](), "weight_decay": 0.013})
    run = Driver(optimizer, [keras.Variable(start[0], dtype="float64")], mode)
    for its_gradients in gradients:
        run.call(its_gradients)
    check(run, reference(BASE | {"weight_decay": 0.013}, start, gradients))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    ["none", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "accumulation"],
)
def test_numbers_of_rows_keep_their_digits(options, mode):
    arguments = BASE | OPTIONS[options]
    start, *gradients = gradients_of([(3, 2)], 4)
    ids = np.array([2, 0, 2])
    dense = [np.zeros((5, 2)) for _ in gradients]
    for whole, (values,) in zip(dense, gradients, strict=True):
        np.add.at(whole, ids, values)
    begin = np.vstack([start[0], start[0][:2]])
    run = Driver(adadelta.Adadelta(**arguments), [keras.Variable(begin, dtype="float64")], mode)
    for (values,) in gradients:
        to_tensor = keras.ops.convert_to_tensor
        run.call([sparse(to_tensor(ids), to_tensor(values), (5, 2))])
    check(run, reference(arguments, [begin], [[it] for it in dense]))


def test_a_norm_over_two_dtypes_has_the_digits_of_float64():
    generator = np.random.default_rng(0)
    gradients = [generator.normal(size=50).astype("float32"), generator.normal(size=50)]
    arguments = BASE | {"global_clipnorm": 0.7}
    exact = reference(arguments, [np.zeros(50)] * 2, [[it.astype("float64") for it in gradients]])
    for fused in (True, False):
        variables = [keras.Variable(np.zeros(50), dtype=str(it.dtype)) for it in gradients]
        run = Driver(adadelta.Adadelta(**arguments, fused=fused), variables)
        run.call([keras.ops.convert_to_tensor(it) for it in gradients])
        ours, right = numpy(variables[1]), exact.variables[1]
        np.testing.assert_allclose(ours, right, rtol=0, atol=ROUNDING * np.max(np.abs(right)))
