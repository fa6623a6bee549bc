"""The step of `_core/step.py` on JAX arrays."""

import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from adadelta._core import rule
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.rule import Array, Number
from adadelta._core.step import Call, Options, Row

_THIS = sys.modules[__name__]
# How many fields of a row are arrays, between whose values a program can choose.
_ARRAYS = Row._fields.index("weight_decay")

sqrt, clip, where, zeros_like = jnp.sqrt, jnp.clip, jnp.where, jnp.zeros_like


def number(number: Number, like: Array) -> Number:
    """See `adadelta._core.step.Arrays`, as for all functions below but `step`."""
    # A Python float stays one: if it were rounded to float32 first, 1 - rho would be off by 2e-7.
    return jnp.asarray(number).astype(like.dtype) if hasattr(number, "dtype") else number


def to_state(value: Array, like: Array) -> Array:
    """See there; the state of a complex parameter may have a last axis of two."""
    value = jnp.asarray(value)
    if like.ndim > value.ndim:
        value = jnp.stack([value.real, value.imag], axis=-1)
    return value.astype(like.dtype)


def from_state(value: Array, like: Array) -> Array:
    """See there."""
    if value.ndim > like.ndim:
        value = jax.lax.complex(value[..., 0], value[..., 1])
    return value.astype(like.dtype)


def largest_gradient(epsilon: Number, like: Array) -> Number:
    """See there."""
    numbers = jnp.finfo(like.dtype)
    minimum = jnp.minimum if hasattr(epsilon, "dtype") else min
    return rule.largest_gradient(epsilon, float(numbers.tiny), float(numbers.max), minimum)


def step(
    rows: Sequence[Row], call: Call, options: Options, factors: Sequence[Factors | None]
) -> list[Row]:
    """Return rows with the same action after one call, by `_core/step.py`.

    If the action is known only when the compiled program runs, the program computes one branch:
    computing all branches and choosing one would read and write each array three times in a call
    that accumulates.

    Args:
        rows: The rows.
        call: The arguments of this call, such as the rate.
        options: The options of the optimizer.
        factors: For each row, the numbers by which its gradient is divided and then multiplied.

    """
    action = rows[0].action

    def stepped(action: int, given: Sequence[Row]) -> list[Row]:
        return [
            steps.step(row._replace(action=action), call, options, _THIS, its_factors)
            for row, its_factors in zip(given, factors, strict=True)
        ]

    if not isinstance(action, jax.core.Tracer):
        return stepped(int(action), rows)

    def branch(action: int) -> Callable[[list[tuple[Array, ...]]], list[tuple[Array, ...]]]:
        def run(arrays: list[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
            given = [
                Row(*its_arrays, *row[_ARRAYS:])
                for row, its_arrays in zip(rows, arrays, strict=True)
            ]
            return [row[:_ARRAYS] for row in stepped(action, given)]

        return run

    made = jax.lax.switch(
        jnp.asarray(action).astype(jnp.int32),
        [branch(action) for action in (steps.SKIP, steps.COLLECT, steps.UPDATE, steps.FOLLOW)],
        [row[:_ARRAYS] for row in rows],
    )
    return [Row(*its_arrays, *row[_ARRAYS:]) for row, its_arrays in zip(rows, made, strict=True)]
