"""The numbers equal those of `brainpy.optim.Adadelta` over 300 random steps, for shared options."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brainpy")
from brainpy_tools import COMPILES, Ours, Theirs, bm, brainpy, stepper, variable
from jax_tools import assert_close, floats

# float32: both round by 6e-8 in each of a dozen operations, and 300 steps add up. float64: the
# same with 1e-16; BrainPy's schedulers compute in float32 even then, but both use the same ones.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

SHAPES = {"kernel": (3, 4), "bias": (4,), "scalar": ()}
RATES = {
    "a number": lambda: 0.5,
    "a variable": lambda: bm.Variable(jnp.asarray(0.5)),
    "StepLR": lambda: brainpy.optim.StepLR(0.5, 2, 0.5),
    "MultiStepLR": lambda: brainpy.optim.MultiStepLR(0.5, [1, 3], 0.5),
    "CosineAnnealingLR": lambda: brainpy.optim.CosineAnnealingLR(0.5, 10),
    "ExponentialLR": lambda: brainpy.optim.ExponentialLR(0.5, 0.9),
    "CosineAnnealingWarmRestarts": lambda: brainpy.optim.CosineAnnealingWarmRestarts(0.5, 20, 3),
    "ExponentialDecayLR": lambda: brainpy.optim.ExponentialDecayLR(0.5, 10, 0.9),
    "InverseTimeDecayLR": lambda: brainpy.optim.InverseTimeDecayLR(0.5, 10, 0.9),
    "PolynomialDecayLR": lambda: brainpy.optim.PolynomialDecayLR(0.5, 200, 0.1),
    "PiecewiseConstantLR": lambda: brainpy.optim.PiecewiseConstantLR([50, 150], [0.5, 0.2, 0.1]),
}
NEED_COMPILING = ("MultiStepLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate, decay", list(itertools.product(RATES, [None, 0.05])))
def test_same_numbers(rate, decay, dtype):
    if rate in NEED_COMPILING and not COMPILES:
        pytest.skip("this BrainPy's jit, which the scheduler uses, needs JAX 0.8 or newer")
    with floats(dtype):
        generator = np.random.default_rng(0)
        start = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
        runs = []
        for cls in (Ours, Theirs):
            trained = {name: variable(value, dtype) for name, value in start.items()}
            arguments = {"weight_decay": decay, "epsilon": 1e-5, "rho": 0.9}
            optimizer = cls(RATES[rate](), trained, **arguments)
            runs.append((optimizer, stepper(optimizer, "jit" if COMPILES else "eager")))
        for call in range(300):
            gradients = {
                name: jnp.asarray(generator.normal(size=shape), dtype)
                for name, shape in SHAPES.items()
            }
            for optimizer, step in runs:
                step(gradients)
                if call % 30 == 29:
                    optimizer.lr.step_epoch()
        (ours, _), (theirs, _) = runs
        for name in SHAPES:
            pairs = [(ours.vars_to_train[name], theirs.vars_to_train[name])]
            for slot in ("_cache", "_delta"):
                pairs.append((ours.implicit_vars[name + slot], theirs.implicit_vars[name + slot]))
            for mine, other in pairs:
                assert_close(bm.as_jax(mine), bm.as_jax(other), TOLERANCE[dtype], name)
