"""The functions that `_core/step.py` needs for NumPy arrays."""

import numpy as np

from adadelta._core import precision
from adadelta._core.rule import Array, Number

sqrt, clip, where, zeros_like = np.sqrt, np.clip, np.where, np.zeros_like


def number(number: Number, like: Array) -> Number:
    """See `adadelta._core.step.Arrays`, as for all functions below."""
    # NumPy 1 computes with a scalar that is wider than an array in the array's dtype.
    return number if isinstance(number, int | float) else np.asarray(number, like.dtype)[()]


def to_state(value: Array, like: Array) -> Array:
    """See there."""
    return value.astype(like.dtype)


from_state = to_state


def largest_gradient(epsilon: Number, like: Array) -> Number:
    """See there."""
    # In the array's dtype: NumPy 1 would compute with a 0-d array and a Python float in float64.
    return like.dtype.type(precision.largest_gradient(float(epsilon), like.dtype.name))
