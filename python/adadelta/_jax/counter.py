"""The counter of steps."""

from typing import Any

import jax.numpy as jnp

Array = Any


def next_of(count: Array) -> Array:
    """Return a counter after one more step; it stays at the largest number of its dtype."""
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count)
