"""Tools shared by the tests of the BrainPy front end."""

import jax.numpy as jnp
import pytest

import adadelta.brainpy

brainpy = pytest.importorskip("brainpy")
bm = brainpy.math

Ours, Theirs = adadelta.brainpy.Adadelta, brainpy.optim.Adadelta


def _compiles():
    variable = bm.Variable(jnp.zeros(1))

    @bm.jit
    def step():
        variable.value = variable.value + 1

    try:
        step()
    except AssertionError:
        return False
    return True


COMPILES = _compiles()
NEEDS_JAX = "this BrainPy's jit, grad and for_loop need JAX 0.8 or newer"
needs_compiling = pytest.mark.skipif(not COMPILES, reason=NEEDS_JAX)
MODES = ["eager", pytest.param("jit", marks=needs_compiling)]


def variable(values, dtype="float32"):
    return bm.TrainVar(jnp.asarray(values, dtype))


def stepper(optimizer, mode):
    """Return the optimizer's update, compiled or not."""
    if mode == "eager":
        return optimizer.update

    @bm.jit
    def step(grads):
        optimizer.update(grads)

    return step
