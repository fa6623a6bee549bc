"""What is decided for all gradients, whose shards lie on devices in many ways."""

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
NOT_A_NUMBER = float("nan")
SIZES = {
    "usual": (1, 2, 0.5, 3, 1),
    "huge": (1e30, 1e37, 1, 1e35, 1),
    "tiny": (1e-30, 1e-35, 1e-32, 0, 1),
    "huge and tiny": (1e-30, 1e30, 0, 1, 1),
    "one of them not finite": (1, NOT_A_NUMBER, 1, 1, 1),
}
OPTIONS = {
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipnorm": {"clipnorm": 0.5},
    "skip_nonfinite": {"skip_nonfinite": True},
    "all": {
        "global_clipnorm": 0.5, "skip_nonfinite": True, "loss_scale_factor": 4.0,
        "gradient_accumulation_steps": 1,
    },
}  # fmt: skip


def gradients_of(sizes):
    generator = np.random.default_rng(5)
    # Shards that differ, so that no device can answer for another.
    return [
        (generator.normal(size=shape) * 10.0 ** generator.integers(0, 2, shape) * size)
        for shape, size in zip(SPECS, sizes, strict=True)
    ]


def step_of(sizes, dtype="float32", **options):
    """A step as a function, and what it is called with."""
    variables = [keras.Variable(np.ones(shape), dtype=dtype) for shape in SPECS]
    optimizer = adadelta.Adadelta(1.0, epsilon=1e-4, **options)
    optimizer.build(variables)
    state = [it.value for it in optimizer.variables]
    gradients = [jax.numpy.asarray(it, dtype) for it in gradients_of(sizes)]

    def step(values, state, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    return step, ([it.value for it in variables], state, gradients)


def spread(arrays):
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    return jax.tree.map(
        lambda it: jax.device_put(
            it, NamedSharding(mesh, SPECS.get(it.shape, PartitionSpec()))
        ),
        arrays,
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("fused", [None, False])
def test_norms_and_skips_are_those_of_one_device(options, fused):
    for sizes in SIZES.values():
        step, given = step_of(sizes, fused=fused, **OPTIONS[options])
        wanted = jax.tree.leaves(jax.jit(step)(*given))
        made = jax.tree.leaves(jax.jit(step)(*spread(given)))
        for ours, exact in zip(made, wanted, strict=True):
            # Sums of squares in another order, divided by another number.
            np.testing.assert_allclose(ours, exact, rtol=2e-6, atol=1e-12)
