"""Keras' tensors in the dtype and shape of the optimizer's state."""

from typing import Any

import keras
from keras import ops

from adadelta._core.precision import is_complex, state_dtype


def dtype_of(array: Any) -> str:
    """The dtype of a variable or tensor, by Keras' name."""
    return keras.backend.standardize_dtype(array.dtype)


def tensor_of(variable: Any) -> Any:
    """Return the value of a Keras variable, or of the backend's own, as a tensor."""
    # On TensorFlow ops.convert_to_tensor() leaves a Keras variable as it is, whose operators are
    # Keras': `+` of an empty tensor of shape (0, 3) is an error of BiasAdd there.
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
    """Return a value of the state's dtype and shape as the parameter's: undoes `to_state`."""
    if is_complex(dtype):
        unit = ops.cast(1j, dtype)
        return ops.cast(value[..., 0], dtype) + unit * ops.cast(value[..., 1], dtype)
    return ops.cast(value, dtype)


def value_in_state(variable: Any) -> Any:
    """Return the value of a parameter in the dtype and shape of its state."""
    return to_state(tensor_of(variable), dtype_of(variable))
