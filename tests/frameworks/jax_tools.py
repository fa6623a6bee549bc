"""Tools shared by the tests of the front ends on plain JAX."""

import contextlib

import jax
import numpy as np


@contextlib.contextmanager
def floats(dtype):
    """Compute in `dtype`; JAX has to be told to allow float64."""
    with contextlib.ExitStack() as stack:
        if dtype in ("float64", "complex128"):
            allow = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
            stack.enter_context(allow(True))
        yield dtype


def assert_close(actual, expected, tolerance, message=""):
    """Compare with a tolerance relative to the largest expected number."""
    expected = np.asarray(expected)
    scale = max(np.max(np.abs(expected), initial=0.0), 1e-30)
    np.testing.assert_allclose(
        np.asarray(actual) / scale, expected / scale, rtol=0, atol=tolerance, err_msg=message
    )


def schedule_of(rate):
    """Return the learning rate of a test vector, as a number or a function of the step."""
    if not isinstance(rate, dict):
        return rate
    assert rate["schedule"] == "exponential_decay"
    decay, steps = rate["decay_rate"], rate["decay_steps"]
    # JAX divides two integers in float32, and an integer by a float in the widest float.
    return lambda step: rate["initial_learning_rate"] * decay ** (step / float(steps))


def cases(load, names, mode):
    """Return the test vectors that use no arguments but these."""
    known = {"learning_rate", "rho", "epsilon", "weight_decay"}
    return [
        case
        for name in names
        for case in load(name)
        if not {key for key, value in case["arguments"].items() if value} - known
        and case.get("weight_decay_mode") in (None, mode)
        and all(variable["constraint"] is None for variable in case["variables"])
    ]
