"""Clipping by norm, written so that finite gradients always have a finite norm.

In float32, squares of numbers above 1.8e19 overflow, and those of numbers below 1e-23 vanish.
Dividing the gradients by the largest of them first avoids both. That takes one more pass over the
gradients, so it is done only if the plain sum of squares shows the need.

`array` is any namespace with NumPy's names: numpy, jax.numpy, keras.ops. `choose(predicate,
if_true, if_false)` calls one of two functions and returns its result.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Array = Any
# The divisor of a gradient, and the multiplier that is applied next.
Factors = tuple[Any, Any]
Choose = Callable[[Array, Callable[[], Factors], Callable[[], Factors]], Factors]

# A sum between these has lost no square that matters: the squares that vanish, below 1e-38 in
# float32, are less than 1e-8 of the sum for up to 1e5 elements.
_SAFE_SQUARES = (1e-25, 1e38)


def _sum_of_squares(gradients: Sequence[Array], array: Any) -> Array:
    return array.sum(array.stack([array.sum(array.square(gradient)) for gradient in gradients]))


def scaled_norm(gradients: Sequence[Array], array: Any, choose: Choose) -> tuple[Array, Array]:
    """Return `(scale, norm)`, whose product is the norm of all gradients together."""
    squares = _sum_of_squares(gradients, array)
    one = array.ones_like(squares)

    def plain() -> tuple[Array, Array]:
        return one, array.sqrt(squares)

    def careful() -> tuple[Array, Array]:
        magnitudes = [array.max(array.absolute(gradient)) for gradient in gradients]
        scale = scale_of(array.max(array.stack(magnitudes)), array)
        divided = [array.divide(gradient, scale) for gradient in gradients]
        return scale, array.sqrt(_sum_of_squares(divided, array))

    return choose(are_safe(squares, array), plain, careful)


def are_safe(squares: Array, array: Any) -> Array:
    """Whether sums of squares show that no square has left the range of its dtype."""
    return array.logical_and(squares > _SAFE_SQUARES[0], squares < _SAFE_SQUARES[1])


def scale_of(largest: Array, array: Any) -> Array:
    """Return the number to divide gradients by before they are squared.

    Args:
        largest: The largest magnitude of their elements, for each sum of squares.
        array: The array namespace.

    """
    usable = array.logical_and(largest > 0, array.isfinite(largest))
    # Compilers may multiply by the reciprocal, as XLA does (JAX 0.10). It must be a normal number,
    # and the reciprocals of the largest and the smallest numbers of a dtype are not.
    scale = array.where(largest > 1, largest * 2.0**-20, largest * 2.0**24)
    return array.where(usable, scale, array.ones_like(largest))


def factors(
    divisor: Array, norm: Array, limit: float, array: Any, together: bool = False
) -> tuple[Array, Array]:
    """Return the divisor and then the multiplier that clip gradients by norm.

    There are two, since `limit / norm` leaves the range of float32 for huge gradients.

    Args:
        divisor: The norm is the product of `divisor` and `norm`.
        norm: If it is NaN or infinite, the result shows it.
        limit: The norm to clip to.
        array: The array namespace.
        together: Whether several gradients share this norm. If so, one gradient that is not finite
            makes all of them NaN, as in Keras.

    """
    norm = norm + (norm - norm) if together else norm
    one = array.ones_like(norm)
    is_small = norm <= limit / divisor
    factor = limit / norm
    # A very small factor may itself leave the range. So the divisor takes all of the norm but 2^20,
    # which leaves room for the norm of 2^40 elements. TensorFlow's graphs would move a constant
    # out of a product of three, and the product of the other two would leave the range.
    is_weak = factor < 2.0**-64
    divisor = array.multiply(divisor, array.where(is_weak, norm * 2.0**-20, one))
    factor = array.where(is_weak, limit * 2.0**-20 * one, factor)
    return array.where(is_small, one, divisor), array.where(is_small, one, factor)


def combined(norms: Sequence[tuple[Array, Array]], array: Any) -> tuple[Array, Array]:
    """Return the norm of all gradients together from the norms of parts, each as two factors.

    Args:
        norms: `(divisor, norm)` of each part, all of one dtype.
        array: The array namespace.

    """
    if len(norms) == 1:
        return norms[0]
    divisors, found = (array.stack(column) for column in zip(*norms, strict=True))
    return joined(divisors, found, array)


def joined(divisors: Array, found: Array, array: Any) -> tuple[Array, Array]:
    """Return the norms of all parts together, each as two factors.

    Args:
        divisors: The first factors, with the parts along the first axis.
        found: The second factors, likewise.
        array: The array namespace.

    """
    # The divisor of a part whose norm is 0 says nothing about the size of the others.
    divisor = array.max(array.where(found > 0, divisors, array.zeros_like(divisors)), axis=0)
    divisor = array.where(divisor > 0, divisor, array.ones_like(divisor))
    shares = array.multiply(found, array.divide(divisors, divisor))
    # A norm's square may leave the range of its dtype; that of its share of the largest can't.
    largest = array.max(shares, axis=0)
    usable = array.logical_and(largest > 0, array.isfinite(largest))
    scale = array.where(usable, largest, array.ones_like(largest))
    squares = array.sum(array.square(array.divide(shares, scale)), axis=0)
    return divisor, array.multiply(scale, array.sqrt(squares))


def is_wide(dtypes: Iterable[str]) -> bool:
    """Whether the norm of all gradients is float64: it is if the state of any of them is."""
    return any(dtype == "float64" for dtype in dtypes)


def factors_of_groups(
    norms: Sequence[tuple[Array, Array]],
    dtypes: Sequence[str],
    limit: float,
    array: Any,
    together: bool,
) -> list[Factors]:
    """Return the divisor and then the multiplier for each group of gradients.

    Args:
        norms: `(divisor, norm)` of each group, with one norm for each gradient or one for all. They
            are float64 for all groups if `together` and `is_wide` are true.
        dtypes: The name of the state's dtype in each group.
        limit: The norm to clip to.
        array: The array namespace.
        together: Whether to clip the norm of all gradients of all groups.

    """
    norms = [combined(norms, array)] * len(norms) if together and norms else norms
    wide = together and is_wide(dtypes)
    found = []
    for norm, dtype in zip(norms, dtypes, strict=True):
        divisor, factor = factors(*norm, limit, array, together)
        is_narrow = wide and dtype != "float64"
        found.append(narrowed(divisor, factor, array) if is_narrow else (divisor, factor))
    return found


def narrowed(divisor: Array, factor: Array, array: Any) -> tuple[Array, Array]:
    """Return the float64 results of `factors` as two numbers that float32 can hold.

    The common norm of float64 gradients may be far outside float32's range.
    """
    factor = array.divide(factor, divisor)
    one = array.ones_like(factor)
    # Below the smallest normal number of float32, the factor alone would lose digits.
    is_small = factor < 2.0**-126
    divisor = array.where(is_small, 2.0**126 * one, one)
    return divisor, array.multiply(factor, divisor)
