"""What parameters and their gradients must be, and the messages about those that are not."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from adadelta._core import precision
from adadelta._core.hyperparameters import (
    as_text,
    first_of,
    has,
    is_a,
    received,
    refusal,
    shortened,
)

# The arguments that a step has in the dtype of the state. A learning rate or weight decay that is
# 0 there makes the same step as one that is not.
NUMBERS = ("rho", "epsilon", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")


def numbers_of(optimizer: Any) -> dict[str, Any]:
    """Return the numbers that `check` needs, from an optimizer with its arguments as attributes."""
    return {name: getattr(optimizer, name, None) for name in NUMBERS}


def check(name: str, dtype: str, numbers: Mapping[str, Any]) -> None:
    """Refuse a parameter of a dtype that can't be updated, or not with these numbers.

    Args:
        name: The parameter's name.
        dtype: Its dtype.
        numbers: As for `check_numbers`.

    """
    if not precision.has_state(dtype):
        raise ValueError(
            f"the variable {shortened(name)} must be of a floating dtype; received {dtype}"
        )
    check_numbers(dtype, numbers, f"the variable {shortened(name, 60)} of dtype {dtype}")


def check_numbers(dtype: str, numbers: Mapping[str, Any], whose: str) -> None:
    """Refuse numbers that the dtype of the optimizer's state can't hold.

    There they would be 0, infinite or less exact, and the step that they are part of 0 or NaN.

    Args:
        dtype: The dtype of a parameter.
        numbers: Checked values by the name of their argument. What is no number, and the infinity
            that means none, will do.
        whose: What the message says the dtype is of.

    """
    smallest, largest = precision.smallest_normal(dtype), precision.largest_number(dtype)
    for argument, value in numbers.items():
        if not isinstance(value, float) or value == math.inf:
            continue
        requirement = None
        if argument == "rho":
            # Half of the distance between 1 and the number before it: from there it is rounded up.
            if 1 - value <= precision.spacing_below_one(dtype) / 2:
                requirement = "less than 1 when rounded"
        elif value < smallest:
            requirement = f"at least {smallest:.3g}"
        elif value > largest:
            requirement = f"at most {largest:.3g}"
        if requirement:
            raise ValueError(refusal(argument, f"{requirement} for {whose}", value))


def refuse_repeated(
    variables: Iterable[Any], key: Callable[[Any], Any], name: Callable[[Any], str]
) -> None:
    """Refuse parameters of which one is listed twice.

    Args:
        variables: The parameters.
        key: Returns what is the same for the same parameter only.
        name: Returns a parameter's name.

    """
    seen = set()
    for variable in variables:
        if key(variable) in seen:
            raise ValueError(f"the variable {name(variable)} is given more than once")
        seen.add(key(variable))


def no_numbers(name: str, gradient: Any) -> TypeError:
    """The error about a gradient that is no tensor of numbers."""
    return TypeError(
        f"the gradient for {name} must be a tensor of numbers; received {received(gradient)}"
    )


def other_shape(
    name: str, expected: tuple[int, ...], shape: Any, what: str = "gradient"
) -> ValueError:
    """The error about what does not have the shape that it has for this parameter."""
    return ValueError(f"the {what} for {name} must have shape {expected}; received {shape}")


# The call that makes another optimizer of an `optimizer`, where the user's language is not Python.
renewing_call: str | None = None


def other_variables(front_end: str) -> str:
    """The message that an optimizer is asked to update variables that it was not built on.

    Args:
        front_end: The class to make another optimizer of.

    """
    call = renewing_call or f"{front_end}.from_config(optimizer.get_config())"
    return (
        "This optimizer belongs to other variables; make a new one for these, for example with "
        f"{call}"
    )


def not_averaged(names: Sequence[str], front_end: str) -> str:
    """The warning that training ends with variables that the optimizer was not built on."""
    return (
        f"There is no moving average of {first_of(names)}, so the weights stay as they are. After "
        f"changing `trainable`, compile the model with a new {front_end}"
    )


def no_weights_yet() -> ValueError:
    """The error about weights that are set before there are variables."""
    return ValueError(
        "You are calling `set_weights()` on an optimizer that has not yet been built. "
        "Call build(variables) first."
    )


def check_weights(
    shapes: Iterable[tuple[int, ...]],
    expected: Sequence[tuple[str, tuple[int, ...]]],
    attribute: str,
) -> None:
    """Refuse arrays that do not fit the variables of an optimizer, in number or shape.

    Args:
        shapes: The shapes of what is to be set.
        expected: Name and shape of each variable.
        attribute: What the optimizer calls its variables.

    """
    shapes = list(shapes)
    if len(shapes) != len(expected):
        raise ValueError(
            f"`weights` must be a list of {len(expected)} arrays, one for each of `{attribute}`; "
            f"received {len(shapes)}"
        )
    for given, (name, shape) in zip(shapes, expected, strict=True):
        if given != shape:
            raise other_shape(name, shape, given, "weight")


def excluded(var_list: Any, var_names: Any) -> tuple[list[Any], list[str]]:
    """Return what `exclude_from_weight_decay()` was given as lists, or raise.

    Args:
        var_list: Variables, of whichever framework.
        var_names: A string, which R passes for a vector of one, or several.

    """
    variables = _listed(var_list)
    if variables is None or not all(map(_is_variable, variables)):
        raise TypeError(refusal("var_list", ("a list of variables", None), var_list))
    listed = _listed([var_names] if as_text(var_names) is not None else var_names)
    words = None if listed is None else [as_text(word) for word in listed]
    if words is None or not all(words):
        requirement = ("a string or a list of strings, none of them empty", None)
        raise TypeError(refusal("var_names", requirement, var_names))
    return variables, [word for word in words if word]


def too_late_to_exclude() -> ValueError:
    """`exclude_from_weight_decay()` was called on an optimizer that is built."""
    return ValueError(
        "`exclude_from_weight_decay()` can only be called before the optimizer is built; after "
        "that, only with the same arguments again, which changes nothing"
    )


def _listed(value: Any) -> list[Any] | None:
    if value is None:
        return []
    return list(value) if is_a(value, list | tuple | set | frozenset) else None


def _is_variable(value: Any) -> bool:
    return has(value, "shape") and has(value, "name")
