"""Checks of parameters and their gradients, and the messages about bad ones."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from adadelta._core import precision
from adadelta._core.hyperparameters import first_of, received, refusal, shortened

# The arguments that a step uses in the dtype of the state. Learning rate and weight decay are not
# among them: one that becomes 0 in that dtype makes the same step.
NUMBERS = ("rho", "epsilon", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")


def numbers_of(optimizer: object) -> dict[str, Any]:
    """Return the numbers that `check` needs from an optimizer, whose attributes they are."""
    return {name: getattr(optimizer, name, None) for name in NUMBERS}


def check(name: str, dtype: str, numbers: Mapping[str, Any]) -> None:
    """Refuse a parameter whose dtype can't be updated, or not with these numbers.

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

    In that dtype they would be 0, infinite or less exact, and so make the step 0 or NaN.

    Args:
        dtype: The dtype of a parameter.
        numbers: Checked values by the name of their argument. A value that is no number is
            accepted, and so is infinity, which means no limit.
        whose: What has this dtype, for the message.

    """
    smallest, largest = precision.smallest_normal(dtype), precision.largest_number(dtype)
    for argument, value in numbers.items():
        if not isinstance(value, float) or value == math.inf:
            continue
        requirement = None
        if argument == "rho":
            # From half of the distance between 1 and the number below it, rho is rounded up to 1.
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
    """Refuse parameters if one is listed twice.

    Args:
        variables: The parameters.
        key: Returns a value that identifies a parameter.
        name: Returns a parameter's name.

    """
    seen = set()
    for variable in variables:
        if key(variable) in seen:
            raise ValueError(f"the variable {name(variable)} is given more than once")
        seen.add(key(variable))


def no_numbers(name: str, gradient: Any) -> TypeError:
    """Return the error about a gradient that is no tensor of numbers."""
    return TypeError(
        f"the gradient for {name} must be a tensor of numbers; received {received(gradient)}"
    )


def other_shape(
    name: str, expected: tuple[int, ...], shape: Any, what: str = "gradient"
) -> ValueError:
    """Return the error about a gradient or weight of the wrong shape for a parameter."""
    return ValueError(f"the {what} for {name} must have shape {expected}; received {shape}")


def other_row(name: str, count: int, row: Any) -> ValueError:
    """Return the error about a sparse gradient with a row that its parameter lacks."""
    return ValueError(
        f"the rows of the gradient for {name} must be from 0 to {count - 1}; received {row}"
    )


# The call that makes a new optimizer from an `optimizer`, if the user's language is not Python.
renewing_call: str | None = None


def other_variables(front_end: str) -> str:
    """Return the message about updating variables that the optimizer was not built on.

    Args:
        front_end: The class to make a new optimizer of.

    """
    call = renewing_call or f"{front_end}.from_config(optimizer.get_config())"
    return (
        "This optimizer belongs to other variables; make a new one for these, for example with "
        f"{call}"
    )


def without_gradients(names: Sequence[str]) -> str:
    """Return the warning that some variables have no gradient, in Keras' words."""
    return (
        f"Gradients do not exist for variables {first_of(names)} when minimizing the loss. If "
        "using `model.compile()`, did you forget to provide a `loss` argument?"
    )


def not_averaged(names: Sequence[str], front_end: str) -> str:
    """Return the warning that training ends with variables the optimizer was not built on."""
    return (
        f"There is no moving average of {first_of(names)}, so the weights stay as they are. After "
        f"changing `trainable`, compile the model with a new {front_end}"
    )


def no_weights_yet() -> ValueError:
    """Return the error about setting weights before there are variables."""
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
        shapes: The shapes of the given arrays.
        expected: Name and shape of each variable.
        attribute: The optimizer's name for its variables.

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
