"""TensorFlow's tensors in the dtype and shape of the optimizer's state."""

from typing import Any

import tensorflow as tf

from adadelta._core.precision import is_complex, state_dtype


def dtype_of(array: Any) -> str:
    """The name of the dtype of a tensor or variable, also of one that Keras casts when read."""
    return str(tf.as_dtype(getattr(array, "true_dtype", array.dtype)).base_dtype.name)


def state_shape(variable: Any) -> tuple[int, ...]:
    """The shape of the optimizer's state for a parameter."""
    pair = (2,) if is_complex(dtype_of(variable)) else ()
    return (*variable.shape.as_list(), *pair)


def to_state(value: Any, dtype: str) -> Any:
    """Return the value of a parameter or gradient of `dtype` as its state has it."""
    if is_complex(dtype):
        value = tf.cast(value, dtype)
        value = tf.stack([tf.math.real(value), tf.math.imag(value)], axis=-1)
    return tf.cast(value, state_dtype(dtype))


def from_state(value: Any, dtype: str) -> Any:
    """Return a value of the state's dtype and shape as the parameter's: undoes `to_state`."""
    if is_complex(dtype):
        return tf.complex(value[..., 0], value[..., 1])
    return tf.cast(value, dtype)


def exact_rate(variable: Any, given: float | None, dtype: str) -> Any:
    """Return the rate in `dtype`: the number that was given, as long as its variable holds it.

    The variable is float32, like the host's, which changes a rate by up to 6e-8 of itself; a
    float64 parameter gets the number as it was given.
    """
    rate = tf.cast(variable, dtype)
    if given is None or dtype == dtype_of(variable):
        return rate
    held = float(tf.as_dtype(dtype_of(variable)).as_numpy_dtype(given))
    # Adding the difference gives the number exactly; a tensor chosen by tf.where has no layout
    # on a DTensor mesh.
    return rate + tf.cast(tf.equal(rate, held), dtype) * (given - held)
