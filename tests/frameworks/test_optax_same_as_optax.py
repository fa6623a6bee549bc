"""Over 300 random steps, the numbers equal those of `optax.adadelta`, with every set of options."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta.optax
from jax_tools import assert_close, floats

optax = pytest.importorskip("optax")

# float32: both round by 6e-8 in each of a dozen operations, and 300 steps add up. float64: the
# same with 1e-16.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

SHAPES = {"a": {"w": (3, 4), "b": (4,)}, "c": ()}
MASKS = {
    "no mask": None,
    "a tree": {"a": {"w": True, "b": False}, "c": True},
    "the beginning of a tree": {"a": True, "c": False},
    "a function": lambda params: jax.tree.map(lambda it: it.ndim > 1, params),
}
RATES = {"a rate": 0.5, "a schedule": lambda count: 1.0 / (1.0 + 0.1 * count)}
DECAYS = {"no decay": 0.0, "a decay": 0.1, "a decay schedule": lambda count: 0.2 / (1.0 + count)}


def random_tree(generator, dtype):
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(size=shape), dtype),
        SHAPES,
        is_leaf=lambda it: isinstance(it, tuple),
    )


def stepper(form, made):
    """Make one step of `lax.scan`, in one of the two forms."""

    def step(params, state, gradient):
        if form == "fused_adadelta":
            return made.apply(params, state, gradient)
        updates, state = made.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate, decay, mask", list(itertools.product(RATES, DECAYS, MASKS)))
def test_same_numbers(rate, decay, mask, dtype):
    arguments = {
        "learning_rate": RATES[rate],
        "rho": 0.95,
        "eps": 1e-5,
        "weight_decay": DECAYS[decay],
        "weight_decay_mask": MASKS[mask],
    }
    with floats(dtype):
        generator = np.random.default_rng(0)
        params = random_tree(generator, dtype)
        gradients = [random_tree(generator, dtype) for _ in range(300)]
        gradients = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
        makers = {
            "optax": optax.adadelta,
            "adadelta": adadelta.optax.adadelta,
            "fused_adadelta": adadelta.optax.fused_adadelta,
        }
        made = {form: make(**arguments) for form, make in makers.items()}
        steps = {form: stepper(form, it) for form, it in made.items()}

        def step_of_all(carry, gradient):
            return {form: step(*carry[form], gradient) for form, step in steps.items()}, None

        carry = {form: (params, it.init(params)) for form, it in made.items()}
        results, _ = jax.lax.scan(step_of_all, carry, gradients)
        theirs, host_state = results.pop("optax")
        for form, (ours, state) in results.items():
            pairs = {"params": (ours, theirs)}
            for slot in ("e_g", "e_x"):
                pairs[slot] = [optax.tree_utils.tree_get(it, slot) for it in (state, host_state)]
            for name, (mine, other) in pairs.items():
                assert jax.tree.structure(mine) == jax.tree.structure(other)
                for one, two in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
                    assert_close(one, two, TOLERANCE[dtype], f"{name} of {form}")
