"""What parameters and their gradients must be, and the messages about those that are not."""

from collections.abc import Callable, Sequence
from typing import Any

from adadelta._core import precision
from adadelta._core.hyperparameters import received, refusal


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


# The call that makes another optimizer of an `optimizer`, where the user's language is not Python.
renewing_call: str | None = None


def other_variables(front_end: str) -> str:
    """The message that an optimizer is asked to update variables that it was not built on.

    Args:
        front_end: The class to make another optimizer of.

    """
    call = renewing_call or f"{front_end}.from_config(optimizer.get_config())"
    return (
        "This optimizer belongs to other variables, and its state is about them: make a new "
        f"optimizer for these, for example with {call}"
    )


def no_weights_yet() -> ValueError:
    """The error about weights that are set before there are variables."""
    return ValueError(
        "You are calling `set_weights()` on an optimizer that has not yet been built. "
        "Call build(variables) first."
    )


def check_weights(
    weights: Sequence[Any],
    expected: Sequence[tuple[str, tuple[int, ...]]],
    shape_of: Callable[[Any], tuple[int, ...]],
    attribute: str,
) -> None:
    """Refuse arrays that do not fit the variables of an optimizer, in number or shape.

    Args:
        weights: What is to be set.
        expected: Name and shape of each variable.
        shape_of: Returns the shape of one of `weights`.
        attribute: What the optimizer calls its variables.

    """
    if len(weights) != len(expected):
        raise ValueError(
            f"`weights` must be a list of {len(expected)} arrays, one for each of `{attribute}`; "
            f"received {len(weights)}"
        )
    for weight, (name, shape) in zip(weights, expected, strict=True):
        if tuple(shape_of(weight)) != shape:
            raise ValueError(
                f"the weight for {name} must have shape {shape}; received {tuple(shape_of(weight))}"
            )


def excluded(var_list: Any, var_names: Any) -> tuple[list[Any], list[str]]:
    """Return what `exclude_from_weight_decay()` was given as lists, or raise.

    Args:
        var_list: Variables, of whichever framework.
        var_names: A string, which R passes for a vector of one, or several.

    """
    variables = _listed(var_list)
    if variables is None or not all(map(_is_variable, variables)):
        raise TypeError(refusal("var_list", "a list of variables, or None", var_list))
    words = _listed([var_names] if isinstance(var_names, str) else var_names)
    if words is None or not all(isinstance(word, str) and word for word in words):
        requirement = "a string or a list of strings, none of them empty, or None"
        raise TypeError(refusal("var_names", requirement, var_names))
    return variables, words


def _listed(value: Any) -> list[Any] | None:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else None


def _is_variable(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "name")
