"""The step of `_core/step.py` on JAX's arrays."""

import sys
from typing import Any

import jax
import jax.numpy as jnp

from adadelta._core import rule
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import Call, Options, Row

Array = Any

# The arrays of a row, from which a program may choose.
_ARRAYS = len(Row._fields) - 3

sqrt, clip, where, zeros_like = jnp.sqrt, jnp.clip, jnp.where, jnp.zeros_like


def number(number: Any, like: Array) -> Any:
    """See `adadelta._core.step.Arrays`, as for all of these."""
    # A Python float stays one: rounded to an array first, 1 - rho would be off by 2e-7.
    return jnp.asarray(number).astype(like.dtype) if hasattr(number, "dtype") else number


def to_state(value: Array, like: Array) -> Array:
    """See there; the state of a complex parameter may have a last axis of two."""
    if jnp.iscomplexobj(value) and not jnp.iscomplexobj(like):
        value = jnp.stack([value.real, value.imag], axis=-1)
    return jnp.asarray(value).astype(like.dtype)


def from_state(value: Array, like: Array) -> Array:
    """See there."""
    if jnp.iscomplexobj(like) and not jnp.iscomplexobj(value):
        value = jax.lax.complex(value[..., 0], value[..., 1])
    return value.astype(like.dtype)


def largest_gradient(epsilon: Any, like: Array) -> Any:
    """See there."""
    numbers = jnp.finfo(like.dtype)
    minimum = jnp.minimum if hasattr(epsilon, "dtype") else min
    return rule.largest_gradient(epsilon, float(numbers.tiny), float(numbers.max), minimum)


def step(row: Row, call: Call, options: Options, factors: Factors | None = None) -> Row:
    """Return what a call makes of a row, also where its action is known when a program runs.

    There only one of the branches is computed: choosing between the results of all would read and
    write each array three times in a call that collects.
    """
    this = sys.modules[__name__]
    if not isinstance(row.action, jax.core.Tracer):
        return steps.step(row._replace(action=int(row.action)), call, options, this, factors)

    def branch(action: int) -> Any:
        def run(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
            with_arrays = Row(*arrays, *row[_ARRAYS:])._replace(action=action)
            return steps.step(with_arrays, call, options, this, factors)[:_ARRAYS]

        return run

    branches = [branch(action) for action in (steps.SKIP, steps.COLLECT, steps.UPDATE)]
    action = jnp.asarray(row.action).astype(jnp.int32)
    return Row(*jax.lax.switch(action, branches, row[:_ARRAYS]), *row[_ARRAYS:])
