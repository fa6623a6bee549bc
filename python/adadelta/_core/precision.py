"""The dtype of the optimizer's state for parameters of each dtype, by the names of dtypes.

Half-precision parameters have float32 state: averages in float16 or bfloat16 stall or drift.
Complex parameters count as pairs of real ones, as in torch: their state is real, with a last axis
of two (real, imaginary).
"""

from typing import SupportsFloat

from adadelta._core import rule

_WIDER = {"float16": "float32", "bfloat16": "float32"}
_REAL = {"complex32": "float32", "complex64": "float32", "complex128": "float64"}
# For each dtype of the state, the distance between 1 and the number below it.
_SPACING = {"float32": 2.0**-24, "float64": 2.0**-53}


def state_dtype(dtype: str) -> str:
    """Return the dtype of the optimizer's state for parameters of `dtype`."""
    return _WIDER.get(dtype, _REAL.get(dtype, dtype))


def has_state(dtype: str) -> bool:
    """Whether parameters of `dtype` can be updated."""
    return state_dtype(dtype) in _SPACING


def is_complex(dtype: str) -> bool:
    """Whether parameters of `dtype` are complex, and so count as pairs of real ones."""
    return dtype in _REAL


def smallest_normal(dtype: str) -> float:
    """Return the smallest normal number: JAX and TensorFlow flush smaller ones to 0."""
    return {"float32": 2.0**-126, "float64": 2.0**-1022}[state_dtype(dtype)]


def largest_number(dtype: str) -> float:
    """Return the largest finite number of the state's dtype."""
    return {"float32": (2 - 2.0**-23) * 2.0**127, "float64": (2 - 2.0**-52) * 2.0**1023}[
        state_dtype(dtype)
    ]


def spacing_below_one(dtype: str) -> float:
    """Return the distance between 1 and the number below it, in the state's dtype."""
    return _SPACING[state_dtype(dtype)]


def largest_gradient(epsilon: float, dtype: str) -> float:
    """Return `rule.largest_gradient` for the state of parameters of `dtype`."""
    limits = smallest_normal(dtype), largest_number(dtype)
    return float(rule.largest_gradient(epsilon, *limits))


def shortest(number: SupportsFloat) -> float:
    """Return the shortest decimal that equals a NumPy scalar in its own dtype.

    In float32, 0.001 is 0.0010000000474974513.
    """
    return float(str(number))


def without_noise(number: float) -> float:
    """Return the decimal of at most six digits that a number equals up to float32 rounding.

    Callbacks compute with what they read from a float32 variable: a tenth of 0.01 is
    0.0009999999776482583 for them. Other numbers are returned as they are.
    """
    if float(f"{number:.9g}") == number:
        return number
    short = float(f"{number:.6g}")
    return short if abs(short - number) <= 2.0**-24 * abs(number) else number
