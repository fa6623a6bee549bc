"""What parameters and their gradients must be, and the messages about those that are not."""

from typing import Any

from adadelta._core import precision
from adadelta._core.hyperparameters import received


def check(name: str, dtype: str, epsilon: float) -> None:
    """Refuse a parameter of a dtype that can't be updated, or not with this `epsilon`."""
    if not ("float" in dtype or "complex" in dtype):
        raise ValueError(f"the variable {name} must be of a floating dtype; received {dtype}")
    smallest = precision.smallest_normal(dtype)
    if epsilon < smallest:
        raise ValueError(
            f"`epsilon` must be at least {smallest:.3g} for the variable {name} of dtype {dtype}; "
            f"received {epsilon}"
        )


def repeated(name: str) -> ValueError:
    """The error about a parameter that is listed twice."""
    return ValueError(f"the variable {name} is given more than once")


def no_numbers(name: str, gradient: Any) -> TypeError:
    """The error about a gradient that is no tensor of numbers."""
    return TypeError(
        f"the gradient for {name} must be a tensor of numbers; received {received(gradient)}"
    )


def other_shape(name: str, expected: tuple[int, ...], shape: Any) -> ValueError:
    """The error about a gradient that has not the shape of its parameter."""
    return ValueError(f"the gradient for {name} must have shape {expected}; received {shape}")
