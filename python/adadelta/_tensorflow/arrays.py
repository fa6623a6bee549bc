"""The functions that `_core/step.py` and `_core/clipping.py` need for TensorFlow's tensors."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from adadelta._core import precision
from adadelta._core.precision import is_complex

Array = Any

absolute, sqrt, square, divide, multiply = tf.abs, tf.sqrt, tf.square, tf.divide, tf.multiply
max, sum, stack = tf.reduce_max, tf.reduce_sum, tf.stack
isfinite, logical_and = tf.math.is_finite, tf.logical_and
ones_like, zeros_like = tf.ones_like, tf.zeros_like
where, clip = tf.where, tf.clip_by_value


def choose(predicate: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Return the result of one of two functions; only the chosen one runs."""
    if isinstance(predicate, bool) or tf.executing_eagerly():
        return (if_true if bool(predicate) else if_false)()
    return tf.cond(predicate, if_true, if_false)


def number(number: Any, like: Array) -> Any:
    """See `adadelta._core.step.Arrays`, as for the three functions below."""
    # A Python float stays one: if it were rounded to float32 first, 1 - rho would be off by 2e-7.
    return number if isinstance(number, int | float) else tf.cast(number, like.dtype)


def to_state(value: Array, like: Array) -> Array:
    """See there; the state of a complex parameter has a last axis of two."""
    return in_state(value, like.dtype)


def from_state(value: Array, like: Array) -> Array:
    """See there."""
    if like.dtype.is_complex and not value.dtype.is_complex:
        return tf.complex(value[..., 0], value[..., 1])
    return tf.cast(value, like.dtype)


def largest_gradient(epsilon: Any, like: Array) -> float:
    """See there."""
    return precision.largest_gradient(float(epsilon), like.dtype.name)


def in_state(value: Array, dtype: Any) -> Array:
    """Return a parameter or gradient in the dtype of its state, in pairs if it is complex."""
    if value.dtype.is_complex and not tf.as_dtype(dtype).is_complex:
        value = tf.stack([tf.math.real(value), tf.math.imag(value)], axis=-1)
    return tf.cast(value, dtype)


def dtype_of(array: Any) -> str:
    """Return the name of a tensor's or variable's dtype, even if Keras casts it when it is read."""
    return str(tf.as_dtype(getattr(array, "true_dtype", array.dtype)).base_dtype.name)


def state_shape(variable: Any) -> tuple[int, ...]:
    """Return the shape of the optimizer's state for a parameter."""
    pair = (2,) if is_complex(dtype_of(variable)) else ()
    return (*variable.shape.as_list(), *pair)


def exact_rate(variable: Any, given: float | None) -> Any:
    """Return the rate in float64: the exact number given, while its variable still holds that.

    The variable is float32, as in the framework's own optimizers, which changes a rate by up to
    6e-8 of itself; a float64 parameter gets the number as it was given.
    """
    rate = tf.cast(variable, tf.float64)
    if given is None:
        return rate
    held = float(tf.as_dtype(dtype_of(variable)).as_numpy_dtype(given))
    # Adding the difference gives the number exactly; a tensor chosen by tf.where has no layout
    # on a DTensor mesh.
    return rate + tf.cast(tf.equal(rate, held), tf.float64) * (given - held)


def _where_scalar(predicate: Any, if_true: Any, if_false: Any) -> Any:
    return choose(predicate, lambda: if_true, lambda: if_false)


# The same functions for scalar conditions, where choosing reads no array. And on a DTensor mesh
# tf.where crashes the process when it broadcasts a scalar to a DTensor (TensorFlow 2.21).
ON_SCALARS = SimpleNamespace(**{**globals(), "where": _where_scalar})
