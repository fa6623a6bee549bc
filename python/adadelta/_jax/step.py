"""The step of one parameter, on JAX arrays.

`update` writes the update out, as gradient transformations must; `apply` makes the new parameter,
which the kernel of `fused.py` can take over.

The numbers (`rate`, `rho`, ...) are Python floats, or scalar arrays where they come from a
compiled function.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from adadelta._core import rule

Array = Any
Step = Callable[..., tuple[Array, Array, Array]]


def _by_parts(function: Step) -> Step:
    """Make a function of real arrays work on the parts of complex ones."""

    @wraps(function)
    def on_any(
        gradient: Array, parameter: Array, square_avg: Array, acc_delta: Array, *rest: Any
    ) -> tuple[Array, Array, Array]:
        arrays = (gradient, parameter, square_avg, acc_delta)
        if not jnp.iscomplexobj(square_avg):
            return function(*arrays, *rest)
        parts = [
            function(*(None if array is None else part(array) for array in arrays), *rest)
            for part in (jnp.real, jnp.imag)
        ]
        real, imaginary, third = (jax.lax.complex(*pair) for pair in zip(*parts, strict=True))
        return real, imaginary, third

    return on_any


def _number(value: Any, dtype: Any) -> Any:
    # A Python float stays one: rounded to an array first, 1 - rho would be off by 2e-7.
    return jnp.asarray(value).astype(dtype) if hasattr(value, "dtype") else value


def largest_gradient(epsilon: Any, dtype: Any) -> Any:
    """Return `rule.largest_gradient` for averages of `dtype`."""
    information = jnp.finfo(dtype)
    minimum = jnp.minimum if hasattr(epsilon, "dtype") else min
    return rule.largest_gradient(epsilon, float(information.tiny), float(information.max), minimum)


def _saturated(gradient: Array, epsilon: Any) -> Array:
    return rule.saturated(gradient, largest_gradient(epsilon, gradient.dtype), jnp.clip)


@_by_parts
def update(
    gradient: Array,
    parameter: Array | None,
    square_avg: Array,
    acc_delta: Array,
    rate: Any,
    rho: Any,
    epsilon: Any,
    weight_decay: Any = None,
) -> tuple[Array, Array, Array]:
    """Return what is to be added to a parameter, and its new averages.

    Args:
        gradient: The gradient, of the parameter's shape.
        parameter: The parameter; only weight decay needs it.
        square_avg: The average of squared gradients.
        acc_delta: The average of squared steps.
        rate: The learning rate.
        rho: Decay rate of both averages.
        epsilon: Added inside both roots.
        weight_decay: `None`, or how much of the parameter is added to the gradient.

    Returns:
        The update and the averages, all in the dtype of the averages.

    """
    dtype = square_avg.dtype
    rate, rho, epsilon = (_number(value, dtype) for value in (rate, rho, epsilon))
    gradient = jnp.asarray(gradient).astype(dtype)
    if weight_decay is not None:
        gradient = gradient + _number(weight_decay, dtype) * jnp.asarray(parameter).astype(dtype)
    step, square_avg, acc_delta = rule.update(
        _saturated(gradient, epsilon), square_avg, acc_delta, rho, epsilon, jnp.sqrt
    )
    return -(rate * step), square_avg, acc_delta


@_by_parts
def apply(
    gradient: Array,
    parameter: Array,
    square_avg: Array,
    acc_delta: Array,
    rate: Any,
    rho: Any,
    epsilon: Any,
    weight_decay: Any,
    weight_decay_mode: str | None,
) -> tuple[Array, Array, Array]:
    """Return the new parameter, rounded once, and its new averages.

    Args:
        gradient: As for `update`.
        parameter: The parameter.
        square_avg: As for `update`.
        acc_delta: As for `update`.
        rate: As for `update`.
        rho: As for `update`.
        epsilon: As for `update`.
        weight_decay: `None` for none.
        weight_decay_mode: "coupled" or "unscaled", as in `hyperparameters.Convention`.

    """
    dtype = square_avg.dtype
    value = parameter.astype(dtype)
    is_unscaled = weight_decay is not None and weight_decay_mode == "unscaled"
    coupled = None if is_unscaled else weight_decay
    change, square_avg, acc_delta = update(
        gradient, value, square_avg, acc_delta, rate, rho, epsilon, coupled
    )
    if is_unscaled:
        value = value - _number(weight_decay, dtype) * value
    return (value + change).astype(parameter.dtype), square_avg, acc_delta


def counted(count: Array) -> Array:
    """Return a counter after one more step; it stays at the largest number."""
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count)
