"""`adadelta.brainpy` reproduces the 50-digit numbers of tests/vectors, eagerly and compiled."""

import inspect

import jax.numpy as jnp
import pytest

pytest.importorskip("brainpy")
import vectors
from adadelta._core import hyperparameters
from brainpy_tools import MODES, Ours, Theirs, bm, stepper, variable
from jax_tools import assert_close, cases, floats, schedule_of

# The reasons are in tests/python/test_vectors.py.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
CASES = cases(vectors.load, vectors.NAMES, "unscaled")


def arguments_of(case):
    given = dict(case["arguments"])
    given["lr"] = schedule_of(given.pop("learning_rate"))
    if given.get("weight_decay") == 0:
        given["weight_decay"] = None
    given.pop("decay", None)
    return given


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 20
    assert any(callable(arguments_of(case)["lr"]) for case in CASES)
    assert any(case["arguments"].get("weight_decay") for case in CASES)
    assert any(
        gradient is None for case in CASES for call in case["gradients"] for gradient in call
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_numbers(case, mode, dtype):
    with floats(dtype):
        trained = {it["name"]: variable(it["initial"], dtype) for it in case["variables"]}
        optimizer = Ours(train_vars=trained, **arguments_of(case))
        step = stepper(optimizer, mode)
        expected = {it["call"]: it for it in case["expected"]}
        for call, gradients in enumerate(case["gradients"], start=1):
            gradients = [None if g is None else jnp.asarray(g, dtype) for g in gradients]
            step(dict(zip(trained, gradients, strict=True)))
            if call not in expected:
                continue
            assert int(optimizer.step.value) == call
            implicit = optimizer.implicit_vars
            ours = {
                "variables": list(trained.values()),
                "square_avg": [implicit[f"{name}_cache"] for name in trained],
                "acc_delta": [implicit[f"{name}_delta"] for name in trained],
            }
            for slot, variables in ours.items():
                for mine, exact in zip(variables, expected[call][slot], strict=True):
                    array = bm.as_jax(mine)
                    assert array.dtype == dtype and array.shape == exact.shape
                    assert_close(array, exact, TOLERANCE[dtype], f"{slot} after call {call}")


def test_signature_and_defaults_are_those_of_brainpy():
    ours, theirs = (inspect.signature(cls).parameters for cls in (Ours, Theirs))
    assert list(ours) == list(theirs)
    assert [it.default for it in ours.values()] == [it.default for it in theirs.values()]
    known = vectors.defaults()["brainpy"]
    convention = hyperparameters.CONVENTIONS["brainpy"]
    assert {name: getattr(convention, name) for name in known} == known
    found = {name: it.default for name, it in ours.items()}
    found["learning_rate"] = found.pop("lr")
    for name in ("learning_rate", "rho", "epsilon", "weight_decay"):
        assert found[name] == known[name]
