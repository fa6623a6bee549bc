"""`adadelta.optax` reproduces the 50-digit numbers of tests/vectors, eagerly and compiled."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta.optax
import vectors
from adadelta._core import hyperparameters
from jax_tools import assert_close, cases, floats, schedule_of

# The reasons are in tests/python/test_vectors.py. JAX evaluates the schedules exactly in float64.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
CASES = cases(vectors.load, vectors.NAMES, "coupled")
MAKERS = (adadelta.optax.adadelta, adadelta.optax.fused_adadelta)


def arguments_of(case):
    given = dict(case["arguments"])
    given["eps"] = given.pop("epsilon")
    given["learning_rate"] = schedule_of(given["learning_rate"])
    given.pop("decay", None)
    return given


def add(params, updates):
    return [p if u is None else p + u for p, u in zip(params, updates, strict=True)]


def stepper(made):
    if isinstance(made, adadelta.optax.FusedOptimizer):
        return lambda gradients, state, params: made.apply(params, state, gradients)

    def step(gradients, state, params):
        updates, state = made.update(gradients, state, params)
        return add(params, updates), state

    return step


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 20
    assert any(callable(arguments_of(case)["learning_rate"]) for case in CASES)
    assert any(case["arguments"].get("weight_decay") for case in CASES)
    assert any(
        gradient is None for case in CASES for call in case["gradients"] for gradient in call
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_numbers(case, make, compiled, dtype):
    with floats(dtype):
        made = make(**arguments_of(case))
        params = [jnp.asarray(variable["initial"], dtype) for variable in case["variables"]]
        state = made.init(params)
        step = jax.jit(stepper(made)) if compiled else stepper(made)
        expected = {it["call"]: it for it in case["expected"]}
        for call, gradients in enumerate(case["gradients"], start=1):
            gradients = [None if g is None else jnp.asarray(g, dtype) for g in gradients]
            params, state = step(gradients, state, params)
            if call not in expected:
                continue
            assert int(state.count) == call
            ours = {"variables": params, "square_avg": state.e_g, "acc_delta": state.e_x}
            for slot, arrays in ours.items():
                for array, exact in zip(arrays, expected[call][slot], strict=True):
                    assert array.dtype == dtype and array.shape == np.shape(exact)
                    assert_close(array, exact, TOLERANCE[dtype], f"{slot} after call {call}")


@pytest.mark.parametrize("make", MAKERS)
def test_the_defaults_are_those_of_optax_but_that_it_descends(make):
    found = {name: it.default for name, it in inspect.signature(make).parameters.items()}
    assert list(found) == ["learning_rate", "rho", "eps", "weight_decay", "weight_decay_mask"]
    known = vectors.defaults()["optax"]
    convention = hyperparameters.CONVENTIONS["optax"]
    assert {name: getattr(convention, name) for name in known} == known
    assert found.pop("weight_decay_mask") is None
    found["epsilon"] = found.pop("eps")
    assert found == {name: known[name] for name in found}


def test_the_signature_is_that_of_optax():
    optax = pytest.importorskip("optax")
    theirs = inspect.signature(optax.adadelta).parameters
    assert list(theirs) == list(inspect.signature(adadelta.optax.adadelta).parameters)
    for name in ("rho", "eps", "weight_decay", "weight_decay_mask"):
        ours = inspect.signature(adadelta.optax.adadelta).parameters[name]
        assert ours.default == theirs[name].default
