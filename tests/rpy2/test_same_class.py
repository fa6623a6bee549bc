"""The optimizer of R's optimizer_adadelta() is the Python class itself, and does the same."""

import sys

import keras
import numpy as np
import pytest

import adadelta

# R code, and the Python arguments that mean the same.
PAIRS = {
    "defaults": ("", {}),
    "rate 1": ("1", {"learning_rate": 1.0}),
    "decay and clipping": (
        "0.5, 0.9, 1e-6, weight_decay = 0.01, clipnorm = 1",
        {
            "learning_rate": 0.5,
            "rho": 0.9,
            "epsilon": 1e-6,
            "weight_decay": 0.01,
            "clipnorm": 1.0,
        },
    ),
    "average and accumulation": (
        "1, use_ema = TRUE, ema_overwrite_frequency = 2, gradient_accumulation_steps = 3",
        {
            "learning_rate": 1.0,
            "use_ema": True,
            "ema_overwrite_frequency": 2,
            "gradient_accumulation_steps": 3,
        },
    ),
    "what goes through the dots": (
        "1, weight_decay = 0.1, decoupled_weight_decay = FALSE, maximize = TRUE",
        {
            "learning_rate": 1.0,
            "weight_decay": 0.1,
            "decoupled_weight_decay": False,
            "maximize": True,
        },
    ),
    "a function": ("function() 0.5", {"learning_rate": 0.5}),
    "a function of the step": (
        "function(step) 0.5^step",
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)},
    ),
}


def after_steps(optimizer, calls=12):
    """Return parameters and state after steps with the same random gradients for each optimizer."""
    random = np.random.default_rng(1)
    variables = [
        keras.Variable(random.normal(size=shape), name=f"parameter{len(shape)}")
        for shape in ((), (5,), (3, 4))
    ]
    for _ in range(calls):
        gradients = [random.normal(size=tuple(variable.shape)) for variable in variables]
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients], variables)
    state = {}
    optimizer.save_own_variables(state)
    state.pop("learning_rate", None)  # there for a number, not for a function of the same value
    return [*(variable.numpy() for variable in variables), *state.values()]


def test_python_is_this_python(r):
    r('reticulate::py_run_string("import sys; sys.seen_from_r = True")')
    assert sys.seen_from_r


def test_the_package_is_this_package(from_r):
    assert from_r("reticulate::import('adadelta')") is adadelta


@pytest.mark.parametrize("name", PAIRS)
def test_same_class_and_same_steps(from_r, name):
    code, arguments = PAIRS[name]
    ours = from_r(f"optimizer_adadelta({code})")
    theirs = adadelta.Adadelta(**arguments)
    assert type(ours) is adadelta.Adadelta
    for mine, other in zip(after_steps(ours), after_steps(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_configurations_agree(from_r):
    ours = from_r("optimizer_adadelta(1, 0.9, clipvalue = 2, gradient_accumulation_steps = 4)")
    theirs = adadelta.Adadelta(
        1.0, 0.9, clipvalue=2.0, gradient_accumulation_steps=4, name="adadelta"
    )
    assert ours.get_config() == theirs.get_config()
    assert [type(value) for value in ours.get_config().values()] == [
        type(value) for value in theirs.get_config().values()
    ]


def test_a_model_trains_with_it(from_r):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=from_r("optimizer_adadelta(1, epsilon = 1e-4)"), loss="mse")
    x = np.random.default_rng(1).normal(size=(64, 2))
    losses = model.fit(x, x @ [[2.0], [-1.0]], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 10
