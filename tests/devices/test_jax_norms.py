"""Decisions that depend on all gradients, whose shards are distributed in many ways."""

import jax
import keras
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import adadelta

SPECS = {
    (16, 8): PartitionSpec("a", "b"),
    (8,): PartitionSpec("b"),
    (4, 8, 2): PartitionSpec(None, ("a", "b")),
    (6,): PartitionSpec(),
    (0, 8): PartitionSpec(),
}
SIZES = {
    "usual": (1, 2, 0.5, 3, 1),
    "huge": (1e30, 1e37, 1, 1e35, 1),
    "tiny": (1e-30, 1e-35, 1e-32, 0, 1),
    "huge and tiny": (1e-30, 1e30, 0, 1, 1),
    "one element not finite": (1, 1, 1, 1, 1),
}
OPTIONS = {
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipnorm": {"clipnorm": 0.5},
    "skip_nonfinite": {"skip_nonfinite": True},
    "all": {"global_clipnorm": 0.5, "skip_nonfinite": True, "loss_scale_factor": 4.0},
}


def gradients_of(name):
    generator = np.random.default_rng(5)
    # Different shards, so that no device can answer for another.
    gradients = [
        np.float32(generator.normal(size=shape) * 10.0 ** generator.integers(0, 2, shape) * size)
        for shape, size in zip(SPECS, SIZES[name], strict=True)
    ]
    if name == "one element not finite":
        gradients[1][-1] = np.nan
    return gradients


def step_of(**options):
    """Return a compiled step, and the values of variables and state."""
    variables = [keras.Variable(np.ones(shape)) for shape in SPECS]
    optimizer = adadelta.Adadelta(1.0, epsilon=1e-4, **options)
    optimizer.build(variables)

    def step(values, state, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    values, state = [it.value for it in variables], [it.value for it in optimizer.variables]
    return jax.jit(step), values, state


def spread(arrays):
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    return [
        jax.device_put(it, NamedSharding(mesh, SPECS.get(it.shape, PartitionSpec())))
        for it in arrays
    ]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("fused", [None, pytest.param(False, marks=pytest.mark.slow)])
def test_norms_and_skips_are_those_of_one_device(options, fused):
    step, *given = step_of(fused=fused, **OPTIONS[options])
    for name in SIZES:
        gradients = gradients_of(name)
        wanted = step(*given, gradients)
        made = step(*map(spread, given), spread(gradients))
        for ours, exact in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
            # Sums of squares in a different order, divided by a different number.
            np.testing.assert_allclose(ours, exact, rtol=2e-6, atol=1e-12)


def test_shards_of_different_size_count_once():
    # Six elements on four devices: XLA pads the last shard.
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    uneven = NamedSharding(mesh, PartitionSpec("a"))
    variable = keras.Variable(np.zeros(6))
    optimizer = adadelta.Adadelta(1.0, epsilon=1e-4, global_clipnorm=0.5)
    optimizer.build([variable])

    def step(values, state, gradient):
        gradient = jax.lax.with_sharding_constraint(gradient * 2, uneven)
        return optimizer.stateless_apply(state, [gradient], values)

    given = (
        [variable.value],
        [it.value for it in optimizer.variables],
        np.arange(6, dtype="float32"),
    )
    whole = NamedSharding(mesh, PartitionSpec())
    made = jax.jit(step)(*jax.device_put(given, whole))
    wanted = optimizer.stateless_apply(given[1], [given[2] * 2], given[0])
    for ours, exact in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=2e-6)
