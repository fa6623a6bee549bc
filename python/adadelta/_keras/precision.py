"""In which dtype and shape the optimizer keeps what it knows about a parameter.

Half-precision parameters have float32 state: averages in float16 or bfloat16 stand still or
drift. Complex parameters are pairs of real ones, as in torch: their state is real, with a last
axis of two (real, imaginary).
"""

from typing import Any

import keras
from keras import ops

_WIDER = {"float16": "float32", "bfloat16": "float32"}
_REAL = {"complex64": "float32", "complex128": "float64"}


def dtype_of(array: Any) -> str:
    """The dtype of a variable or tensor, by Keras' name."""
    return keras.backend.standardize_dtype(array.dtype)


def state_dtype(dtype: str) -> str:
    """The dtype of the optimizer's state for parameters of `dtype`."""
    return _WIDER.get(dtype, _REAL.get(dtype, dtype))


def as_dtype(number: Any, dtype: str) -> Any:
    """Return a number or scalar tensor in `dtype`, a Python float without rounding it first."""
    # ops.cast of a float goes through float32 on TensorFlow.
    number = number if ops.is_tensor(number) else ops.convert_to_tensor(number, dtype)
    return ops.cast(number, dtype)


def is_complex(dtype: str) -> bool:
    """Whether parameters of `dtype` are pairs of real ones."""
    return dtype in _REAL


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


def smallest_normal(dtype: str) -> float:
    """The smallest number that every backend keeps: JAX and TensorFlow flush smaller ones to 0."""
    return {"float32": 2.0**-126, "float64": 2.0**-1022}[state_dtype(dtype)]


def largest_number(dtype: str) -> float:
    """The largest finite number of the state's dtype."""
    return {"float32": (2 - 2.0**-23) * 2.0**127, "float64": (2 - 2.0**-52) * 2.0**1023}[
        state_dtype(dtype)
    ]
