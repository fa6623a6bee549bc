"""`kernel_info()` of a BrainPy optimizer lists which variables the kernel updates, and why not."""

import jax.numpy as jnp
import pytest

import adadelta

pytest.importorskip("brainpy")
from brainpy_tools import MODES, Ours, stepper, variable


def reasons(optimizer):
    return {row["variable"]: row["reason"] for row in adadelta.kernel_info(optimizer)}


@pytest.fixture(autouse=True)
def needs_kernel():
    kernel = adadelta.kernel_info()["xla"]
    if not kernel["serves"]:
        pytest.skip(kernel["reason"])


def test_it_is_known_before_the_first_step():
    optimizer = Ours(train_vars={"w": variable([1.0, 2.0]), "z": variable([1j], "complex64")})
    row, other = adadelta.kernel_info(optimizer)
    assert (row["variable"], row["shape"], row["dtype"]) == ("w", (2,), "float32")
    assert (row["engine"], row["reason"]) == ("xla", None)
    assert (other["engine"], other["reason"]) == ("operators of JAX", "it is complex64")
    assert adadelta.kernel_info(Ours()) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_shows_in_a_step_is_known_after_it(mode):
    variables = {"half": variable([1.0], "bfloat16"), "full": variable([1.0])}
    optimizer = Ours(train_vars=variables)
    assert reasons(optimizer) == {"half": None, "full": None}
    wide = {name: jnp.ones(1) for name in variables}
    stepper(optimizer, mode)(wide)
    assert reasons(optimizer) == {"half": "it is bfloat16, its gradient float32", "full": None}
