"""Clipping by norm, written so that finite gradients always have a finite norm.

Squares of float32 overflow from 1.8e19 and vanish below 1e-23; squares of gradients divided by
the largest of them do neither. That takes one more pass over the gradients, so it is done only
where the plain sum of squares shows the need.

`array` is any namespace with NumPy's names: numpy, jax.numpy, keras.ops. `choose(predicate,
if_true, if_false)` calls one of two functions and returns what it returns.
"""

from collections.abc import Callable, Sequence
from typing import Any

Array = Any
Choose = Callable[[Any, Callable[[], Any], Callable[[], Any]], Any]

# Between these no square that matters is lost: the squares that vanish, below 1e-38 in float32,
# are less than 1e-8 of the sum for as many as 1e5 elements.
_SAFE_SQUARES = (1e-25, 1e38)


def _sum_of_squares(gradients: Sequence[Array], array: Any) -> Array:
    return array.sum(array.stack([array.sum(array.square(gradient)) for gradient in gradients]))


def _scaled_norm(gradients: Sequence[Array], array: Any, choose: Choose) -> tuple[Array, Array]:
    """Return `(scale, norm)`: the norm of all gradients together is their product."""
    filled = [gradient for gradient in gradients if 0 not in gradient.shape]
    if not filled:
        return 1.0, 0.0
    squares = _sum_of_squares(filled, array)
    one = array.ones_like(squares)

    def plain() -> tuple[Array, Array]:
        return one, array.sqrt(squares)

    def careful() -> tuple[Array, Array]:
        magnitudes = [array.max(array.absolute(gradient)) for gradient in filled]
        largest = array.max(array.stack(magnitudes))
        usable = array.logical_and(largest > 0, array.isfinite(largest))
        scale = array.where(usable, largest, one)
        divided = [array.divide(gradient, scale) for gradient in filled]
        return scale, array.sqrt(_sum_of_squares(divided, array))

    is_safe = array.logical_and(squares > _SAFE_SQUARES[0], squares < _SAFE_SQUARES[1])
    return choose(is_safe, plain, careful)


def _limited(gradient: Array, scale: Array, norm: Array, limit: float, array: Any) -> Array:
    # Divided first, since limit / (scale * norm) leaves the range of float32 for huge gradients.
    # A norm that is NaN or infinite takes the second branch and shows in the result.
    smaller = array.multiply(array.divide(gradient, scale), limit / norm)
    return array.where(norm <= limit / scale, gradient, smaller)


def by_norm(gradient: Array, limit: float, array: Any, choose: Choose) -> Array:
    """Scale a gradient down to the norm `limit` when its norm is larger."""
    if 0 in gradient.shape:
        return gradient
    return _limited(gradient, *_scaled_norm([gradient], array, choose), limit, array)


def by_global_norm(
    gradients: Sequence[Array], limit: float, array: Any, choose: Choose
) -> list[Array]:
    """Scale gradients down together to the norm `limit` when their common norm is larger.

    One gradient that is not finite makes all of them NaN, as in Keras.
    """
    scale, norm = _scaled_norm(gradients, array, choose)
    norm = norm + (norm - norm)
    return [
        gradient if 0 in gradient.shape else _limited(gradient, scale, norm, limit, array)
        for gradient in gradients
    ]


def by_value(gradient: Array, limit: float, array: Any) -> Array:
    """Clip every element to the range from `-limit` to `limit`."""
    return array.clip(gradient, -limit, limit)
