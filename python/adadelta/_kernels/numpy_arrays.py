"""What `_core/step.py` needs of NumPy's arrays."""

import numpy as np

from adadelta._core import precision
from adadelta._core.rule import Array, Number

sqrt, clip, where, zeros_like = np.sqrt, np.clip, np.where, np.zeros_like


def number(number: Number, like: Array) -> Number:
    """See `adadelta._core.step.Arrays`, as for all of these."""
    # NumPy 1 computes with a scalar that is wider than an array in the array's dtype.
    return number if isinstance(number, int | float) else np.asarray(number, like.dtype)[()]


def to_state(value: Array, like: Array) -> Array:
    """See there."""
    return value.astype(like.dtype)


from_state = to_state


def largest_gradient(epsilon: Number, like: Array) -> Number:
    """See there."""
    # Of the dtype, since NumPy 1 computes with an array of no axis and a Python number in float64.
    return like.dtype.type(precision.largest_gradient(float(epsilon), like.dtype.name))
