"""Reductions of many sharded JAX arrays with a single communication between devices.

XLA reduces each array over the devices separately: for a model of 100 variables on the processor,
100 norms need 100 communications. Here each device reduces its own shards of all arrays, and the
results are exchanged at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    SdyShardingRule,
    custom_partitioning,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from adadelta._core import clipping

Array = Any
# For each device and row, whether no earlier device has the same shard.
Owned = NDArray[np.bool_]

# The only axis of the mesh over which devices exchange their results.
_AXIS = "devices"


def together(
    whole: Callable[..., Array],
    found: Callable[..., Array],
    joined: Callable[[Array, Owned], Array],
    rows: Sequence[int | None],
) -> Callable[..., Array]:
    """Return a function that computes `whole` with one communication on several devices.

    Args:
        whole: The function, as it is on one device, inside `shard_map`, and under `vmap` and
            differentiation.
        found: Returns the result of one device for its shards: an array with an entry for each row.
        joined: Returns the result of `whole`, from the stacked results of all devices and booleans
            of shape `(devices, rows)`, which are False where an earlier device has the same shard.
        rows: The number of the row to which each array belongs, from 0 on. The arrays of a row have
            the same shape and sharding. None for an array that each device needs as a whole.

    """
    firsts = [rows.index(row) for row in range(1 + max(row for row in rows if row is not None))]

    def partition(_: Any, arrays: Sequence[Any], result: Any) -> Any:
        del result
        mesh = _mesh_of(arrays[0])
        parts = [_parts(arrays[first]) for first in firsts]
        owned = np.stack([_are_first(part, mesh.size) for part in parts], axis=1)
        everywhere = NamedSharding(mesh, PartitionSpec())
        shardings = tuple(
            everywhere if row is None or parts[row] is None else arrays[firsts[row]].sharding
            for row in rows
        )

        def exchange(*shards: Array) -> Array:
            return joined(jax.lax.all_gather(found(*shards), _AXIS), owned)

        return mesh, exchange, everywhere, shardings

    def partitioned(*arrays: Array) -> Array:
        # Inside `shard_map` an array is the shard of one device.
        if jax.sharding.get_abstract_mesh().manual_axes:
            return whole(*arrays)
        function = custom_partitioning(whole)
        function.def_partition(
            partition,
            # Needed by the older of JAX's two partitioners.
            infer_sharding_from_operands=lambda _, arrays, result: NamedSharding(
                _mesh_of(arrays[0]), PartitionSpec()
            ),
            sharding_rule=_rule(rows),
        )
        return function(*arrays)

    batched = jax.custom_batching.custom_vmap(partitioned)

    @batched.def_vmap
    def batch(_: int, are_batched: Sequence[bool], *arrays: Array) -> tuple[Array, bool]:
        axes = [0 if is_batched else None for is_batched in are_batched]
        return jax.vmap(whole, axes)(*arrays), True

    function = jax.custom_jvp(batched)
    function.defjvp(lambda primals, tangents: jax.jvp(whole, primals, tangents))

    def in_a_program(*arrays: Array) -> Array:
        # Outside of a compiled program all of this would be traced again in each step.
        is_traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
        return (function if is_traced else whole)(*arrays)

    return in_a_program


def norms(
    whole: Callable[..., Array],
    found: Callable[..., Array],
    rows: Sequence[int | None],
    of_all: bool,
) -> Callable[..., Array]:
    """Return a function that computes `whole`, which returns norms of gradients.

    Args:
        whole: As for `together`. It returns an array of shape `(norms, 2)`: norms as two factors.
        found: Returns the norm of each row of shards, as two factors.
        rows: As for `together`.
        of_all: Whether `whole` returns one norm of all rows together.

    """

    def joined(found: Array, owned: Owned) -> Array:
        divisors, norms = found[..., 0], jnp.where(owned, found[..., 1], 0)
        if of_all:
            divisors, norms = divisors.reshape(-1, 1), norms.reshape(-1, 1)
        return jnp.stack(clipping.joined(divisors, norms, jnp), axis=1)

    return together(whole, found, joined, rows)


def norm_of_each(gradients: Sequence[Array], of_all: bool) -> Array:
    """Return the norm of each gradient as two factors, of shape `(gradients, 2)`.

    Args:
        gradients: The gradients.
        of_all: Whether they are for one norm of all, in which the smallest may be negligible.

    """
    squares = jnp.stack([jnp.sum(jnp.square(gradient)) for gradient in gradients])

    def plain() -> Array:
        return jnp.stack([jnp.ones_like(squares), jnp.sqrt(squares)], axis=1)

    def careful() -> Array:
        largest = jnp.stack([jnp.max(jnp.abs(gradient), initial=0) for gradient in gradients])
        scales = clipping.scale_of(largest, jnp)
        divided = [gradient / scale for gradient, scale in zip(gradients, scales, strict=True)]
        sums = jnp.stack([jnp.sum(jnp.square(gradient)) for gradient in divided])
        return jnp.stack([scales, jnp.sqrt(sums)], axis=1)

    # One decision for all gradients: on a GPU each decision waits for the host.
    checked = jnp.sum(squares) if of_all else squares
    return jax.lax.cond(jnp.all(clipping.are_safe(checked, jnp)), plain, careful)


def _mesh_of(array: Any) -> Mesh:
    """Return a mesh with one axis of a program's devices, in the program's order."""
    sharding = array.sharding
    # Every sharding divides this shape evenly.
    shape = (sharding.num_devices,) * len(array.shape)
    return Mesh(np.array(list(sharding.devices_indices_map(shape))), (_AXIS,))


def _parts(array: Any) -> list[Any] | None:
    """Return each device's part of an array as indices, or None if parts differ in size."""
    try:
        return list(array.sharding.devices_indices_map(array.shape).values())
    except ValueError:
        # XLA pads the last part with arbitrary numbers.
        return None


def _are_first(parts: list[Any] | None, devices: int) -> Owned:
    """Return for each device whether no earlier device has the same part."""
    # Slices have no hash before Python 3.12.
    names = [""] * devices if parts is None else [str(part) for part in parts]
    return np.array([names.index(name) == place for place, name in enumerate(names)])


def _rule(rows: Sequence[int | None]) -> Callable[..., SdyShardingRule]:
    """Return a rule that propagates shardings only between the arrays of a row."""

    def rule(_: Any, arrays: Sequence[Any], results: Sequence[Any]) -> SdyShardingRule:
        def mapping(name: str, array: Any) -> ArrayMapping:
            return ArrayMapping(*(f"{name}_{axis}" for axis in range(len(array.shape))))

        names = [f"array{place}" if row is None else f"row{row}" for place, row in enumerate(rows)]
        return SdyShardingRule(
            tuple(map(mapping, names, arrays)),
            tuple(mapping(f"result{place}", result) for place, result in enumerate(results)),
        )

    return rule
