"""The equations of Adadelta, written once.

They run on anything with arithmetic operators: Python and NumPy numbers, JAX, TensorFlow, torch
and Keras tensors. Everything else in this package prepares their input or stores their output.

Source: M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701, Algorithm 1.
"""

from collections.abc import Callable
from typing import Any

Array = Any
# A Python number, or a scalar array if it is only known when a compiled program runs.
Number = Any


def update(
    gradient: Array,
    square_avg: Array,
    acc_delta: Array,
    rho: float,
    epsilon: float,
    sqrt: Callable[[Array], Array],
    one_minus_rho: Number | None = None,
) -> tuple[Array, Array, Array]:
    """Return the step to subtract, before the learning rate, and the new accumulators.

    Args:
        gradient: The gradient g, of the shape and dtype of the accumulators.
        square_avg: The running average v of squared gradients; 0 at the start.
        acc_delta: The running average u of squared steps; 0 at the start.
        rho: Decay rate of both averages, at least 0 and less than 1.
        epsilon: Added inside both square roots, greater than 0.
        sqrt: The square root for this kind of array.
        one_minus_rho: `1 - rho`, for a `rho` that is already rounded: in float32, the subtraction
            would lose digits. None computes it from `rho`.

    Returns:
        `(step, square_avg, acc_delta)`: the parameter becomes `x - learning_rate * step`.

    Example:
        >>> import math
        >>> step, square_avg, acc_delta = update(1.0, 0.0, 0.0, 0.75, 0.25, math.sqrt)
        >>> square_avg, round(step, 4), round(acc_delta, 4)
        (0.25, 0.7071, 0.125)

    """
    rest = 1 - rho if one_minus_rho is None else one_minus_rho
    square_avg = rho * square_avg + rest * (gradient * gradient)
    step = effective_rate(square_avg, acc_delta, epsilon, sqrt) * gradient
    acc_delta = rho * acc_delta + rest * (step * step)
    return step, square_avg, acc_delta


def effective_rate(
    square_avg: Array, acc_delta: Array, epsilon: float, sqrt: Callable[[Array], Array]
) -> Array:
    """Return the factor of each gradient besides the learning rate: RMS[steps] / RMS[gradients].

    Args:
        square_avg: As for `update`.
        acc_delta: As for `update`.
        epsilon: As for `update`.
        sqrt: As for `update`.

    Source: Zeiler 2012, equation 14; section 4.3 calls it the effective learning rate.

    Example:
        >>> import math
        >>> effective_rate(0.75, 0.0, 0.25, math.sqrt)
        0.5

    """
    return sqrt((acc_delta + epsilon) / (square_avg + epsilon))


def saturated(
    gradient: Array, limit: Number, clip: Callable[[Array, Number, Number], Array]
) -> Array:
    """Limit a gradient to a magnitude, see `largest_gradient`; NaN and infinity become NaN.

    Example:
        >>> saturated(-7.0, 2.0, lambda value, low, high: min(max(value, low), high))
        -2.0

    """
    # The difference is 0 for every finite gradient.
    return clip(gradient, -limit, limit) + (gradient - gradient)


def largest_gradient(
    epsilon: Number,
    smallest: float,
    largest: float,
    minimum: Callable[[Number, Number], Number] = min,
) -> Number:
    """Return the largest magnitude of gradients with which nothing in `update` leaves the range.

    A gradient above the root of the largest number (1.8e19 in float32) would make `square_avg`
    infinite, and the parameter would never move again. One above the root of
    `epsilon / smallest` (2.9e15 in float32 with epsilon 1e-7) would make the quotient under the
    root 0. With this limit, `square_avg` saturates, the step keeps its bound
    `sqrt((acc_delta + epsilon) / (1 - rho))`, and both recover as the average decays.

    Args:
        epsilon: As for `update`.
        smallest: The smallest positive number of the dtype with full precision.
        largest: The largest number of the dtype.
        minimum: Returns the smaller of two numbers; given if `epsilon` is an array.

    """
    # The factor leaves room for rounding in the average.
    return minimum(largest, epsilon / smallest) ** 0.5 * (1 - 2.0**-10)
