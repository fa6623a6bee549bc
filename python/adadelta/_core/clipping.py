"""Clipping by norm, written so that finite gradients always have a finite norm.

Squares of float32 overflow from 1.8e19 and vanish below 1e-23; squares of gradients divided by
the largest of them do neither. `array` is any namespace with NumPy's names: numpy, jax.numpy,
keras.ops.
"""

from collections.abc import Sequence
from typing import Any

Array = Any


def _scaled_norm(gradients: Sequence[Array], array: Any) -> tuple[Array, Array]:
    """Return `(scale, norm)`: the norm of all gradients together is their product."""
    filled = [gradient for gradient in gradients if 0 not in gradient.shape]
    if not filled:
        return 1.0, 0.0
    largest = array.max(array.stack([array.max(array.absolute(gradient)) for gradient in filled]))
    usable = array.logical_and(largest > 0, array.isfinite(largest))
    scale = array.where(usable, largest, array.ones_like(largest))
    squares = [array.sum(array.square(array.divide(gradient, scale))) for gradient in filled]
    return scale, array.sqrt(array.sum(array.stack(squares)))


def _limited(gradient: Array, scale: Array, norm: Array, limit: float, array: Any) -> Array:
    # Divided first, since limit / (scale * norm) leaves the range of float32 for huge gradients.
    # A norm that is NaN or infinite takes the second branch and shows in the result.
    smaller = array.multiply(array.divide(gradient, scale), limit / norm)
    return array.where(norm <= limit / scale, gradient, smaller)


def by_norm(gradient: Array, limit: float, array: Any) -> Array:
    """Scale a gradient down to the norm `limit` when its norm is larger."""
    scale, norm = _scaled_norm([gradient], array)
    if 0 in gradient.shape:
        return gradient
    return _limited(gradient, scale, norm, limit, array)


def by_global_norm(gradients: Sequence[Array], limit: float, array: Any) -> list[Array]:
    """Scale gradients down together to the norm `limit` when their common norm is larger.

    One gradient that is not finite makes all of them NaN, as in Keras.
    """
    scale, norm = _scaled_norm(gradients, array)
    norm = norm + (norm - norm)
    return [
        gradient if 0 in gradient.shape else _limited(gradient, scale, norm, limit, array)
        for gradient in gradients
    ]


def by_value(gradient: Array, limit: float, array: Any) -> Array:
    """Clip every element to the range from `-limit` to `limit`."""
    return array.clip(gradient, -limit, limit)
