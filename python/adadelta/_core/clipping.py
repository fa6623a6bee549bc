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
    squares = _sum_of_squares(gradients, array)
    one = array.ones_like(squares)

    def plain() -> tuple[Array, Array]:
        return one, array.sqrt(squares)

    def careful() -> tuple[Array, Array]:
        magnitudes = [array.max(array.absolute(gradient)) for gradient in gradients]
        largest = array.max(array.stack(magnitudes))
        usable = array.logical_and(largest > 0, array.isfinite(largest))
        scale = array.where(usable, largest, one)
        divided = [array.divide(gradient, scale) for gradient in gradients]
        return scale, array.sqrt(_sum_of_squares(divided, array))

    is_safe = array.logical_and(squares > _SAFE_SQUARES[0], squares < _SAFE_SQUARES[1])
    return choose(is_safe, plain, careful)


def factors(
    divisor: Array, norm: Array, limit: float, array: Any, together: bool = False
) -> tuple[Array, Array]:
    """Return by what to divide and then to multiply gradients, to clip them by norm.

    Two factors, since `limit / norm` leaves the range of float32 for huge gradients.

    Args:
        divisor: A norm is the product of `divisor` and `norm`.
        norm: One that is NaN or infinite shows in the result.
        limit: The norm to clip to.
        array: A namespace.
        together: Whether it is one norm for several gradients: then one gradient that is not
            finite makes all of them NaN, as in Keras.

    """
    norm = norm + (norm - norm) if together else norm
    one = array.ones_like(norm)
    is_small = norm <= limit / divisor
    return array.where(is_small, one, divisor), array.where(is_small, one, limit / norm)


def combined(norms: Sequence[tuple[Array, Array]], array: Any) -> tuple[Array, Array]:
    """Return the norm of all gradients together from those of parts, each as two factors.

    In the widest dtype of them, so that none loses digits.
    """
    if len(norms) == 1:
        return norms[0]
    divisor = array.max(array.stack([its_divisor for its_divisor, _ in norms]), axis=0)
    shares = [
        array.multiply(norm, array.divide(its_divisor, divisor)) for its_divisor, norm in norms
    ]
    return divisor, array.sqrt(array.sum(array.square(array.stack(shares)), axis=0))


def _limited(gradient: Array, divisor: Array, factor: Array, array: Any) -> Array:
    return array.multiply(array.divide(gradient, divisor), factor)


def by_norm(gradient: Array, limit: float, array: Any, choose: Choose) -> Array:
    """Scale a gradient down to the norm `limit` when its norm is larger."""
    if 0 in gradient.shape:
        return gradient
    scaled = _scaled_norm([gradient], array, choose)
    return _limited(gradient, *factors(*scaled, limit, array), array)


def by_global_norm(
    gradients: Sequence[Array], limit: float, array: Any, choose: Choose
) -> list[Array]:
    """Scale gradients down together to the norm `limit` when their common norm is larger.

    One gradient that is not finite makes all of them NaN, as in Keras.
    """
    filled = [gradient for gradient in gradients if 0 not in gradient.shape]
    if not filled:
        return list(gradients)
    scaled = _scaled_norm(filled, array, choose)
    divisor, factor = factors(*scaled, limit, array, together=True)
    return [
        gradient if 0 in gradient.shape else _limited(gradient, divisor, factor, array)
        for gradient in gradients
    ]


def by_value(gradient: Array, limit: float, array: Any) -> Array:
    """Clip every element to the range from `-limit` to `limit`."""
    return array.clip(gradient, -limit, limit)
