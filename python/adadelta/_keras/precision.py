"""Keras' tensors in the dtype and shape of the optimizer's state."""

from typing import Any

import keras
from keras import ops

from adadelta._core.precision import is_complex, state_dtype


def dtype_of(array: Any) -> str:
    """Return the dtype of a variable or tensor, by Keras' name."""
    return keras.backend.standardize_dtype(array.dtype)


def tensor_of(variable: Any) -> Any:
    """Return the value of a Keras variable, or of the backend's own, as a tensor."""
    # On TensorFlow ops.convert_to_tensor() returns a Keras variable as it is. Its operators are
    # Keras', where `+` of an empty tensor of shape (0, 3) fails in BiasAdd.
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.config.backend() != "tensorflow":
        return value
    import tensorflow as tf

    return tf.convert_to_tensor(value)


def to_state(value: Any, dtype: str) -> Any:
    """Return the value of a parameter or gradient in the dtype and shape of its state."""
    if is_complex(dtype):
        pair = ops.stack([ops.real(value), ops.imag(value)], axis=-1)
        return ops.cast(pair, state_dtype(dtype))
    return ops.cast(value, state_dtype(dtype))


def from_state(value: Any, dtype: str) -> Any:
    """Return a value in the parameter's dtype and shape: the inverse of `to_state`."""
    if is_complex(dtype):
        unit = ops.cast(1j, dtype)
        return ops.cast(value[..., 0], dtype) + unit * ops.cast(value[..., 1], dtype)
    return ops.cast(value, dtype)


def value_in_state(variable: Any) -> Any:
    """Return the value of a parameter in the dtype and shape of its state."""
    return to_state(tensor_of(variable), dtype_of(variable))
