"""The values of a parameter group: their checks, and the learning rate of a step."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from adadelta._core import hyperparameters, parameters
from adadelta._core.hyperparameters import ARGUMENTS
from adadelta._core.precision import shortest
from adadelta._torch.arrays import state_dtype

_RATE: Any = ARGUMENTS["learning_rate"]
_DECAY: Any = ARGUMENTS["weight_decay"]

# The check of each value of a group, by torch's names.
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "lr": dataclasses.replace(
        _RATE, requirement="a finite number of at least 0, or a tensor of one element with such"
    ),
    "rho": ARGUMENTS["rho"],
    "eps": ARGUMENTS["epsilon"],
    "weight_decay": dataclasses.replace(
        _DECAY, requirement="a finite number of at least 0", optional=False
    ),
    "maximize": ARGUMENTS["maximize"],
    "capturable": hyperparameters.Flag(),
    "foreach": ARGUMENTS["fused"],
    "differentiable": hyperparameters.Flag(),
    "fused": ARGUMENTS["fused"],
    "decoupled_weight_decay": ARGUMENTS["decoupled_weight_decay"],
    "skip_nonfinite": ARGUMENTS["skip_nonfinite"],
}
NAMES = tuple(_CHECKS)

# The words of torch's own error messages, which users know and search for.
_TORCH_WORDS = {
    "lr": "learning rate",
    "rho": "rho value",
    "eps": "epsilon value",
    "weight_decay": "weight_decay value",
}


def checked(
    values: Mapping[str, Any], params: Iterable[Any] = (), read_rate: bool = True
) -> dict[str, Any]:
    """Return the values of a group as it keeps them, or raise an error with the reason.

    Args:
        values: The values by name, with at least the names in `NAMES`.
        params: The parameters of the group, or pairs of names and parameters.
        read_rate: Whether the value of a tensor rate may be read, which waits for its device.

    """
    missing = [name for name in NAMES if name not in values]
    if missing:
        raise ValueError(f"`{missing[0]}` must be in every group of parameters; it is missing")
    result = {name: _checked(name, values[name], read_rate) for name in NAMES}
    for first, second in (("fused", "foreach"), ("fused", "differentiable")):
        if result[first] and result[second]:
            raise ValueError(f"`{first}` and `{second}` can't be True together")
    if result["foreach"] and result["differentiable"]:
        raise NoGradientsError(
            "`foreach` and `differentiable` can't be True together: torch's operations on lists "
            "of tensors have no gradients"
        )
    tensors = [param for param in map(_tensor_of, params) if isinstance(param, torch.Tensor)]
    for dtype in {
        tensor.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()
    }:
        for name in ("rho", "eps"):
            number, its_state = {name: result[name]}, str(state_dtype(dtype))
            try:
                parameters.check_numbers(
                    its_state.removeprefix("torch."), number, f"parameters of {dtype}"
                )
            except ValueError as error:
                raise _in_torchs_words(name, result[name], error) from None
    rate = result["lr"]
    if (
        isinstance(rate, torch.Tensor)
        and rate.is_meta
        and not all(tensor.is_meta for tensor in tensors)
    ):
        raise ValueError(hyperparameters.refusal("lr", "a tensor with a value", rate))
    return result


def check_again(group: Mapping[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a group, unless they are the same as in the last check.

    Args:
        group: The group.
        known: Remembers the checked values between calls. "settled", which depends on them, is
            removed if they are new.

    Returns:
        The checked values as the group must keep them, or an empty dict if they are not new.

    """
    given = [*map(group.get, NAMES)]
    # Most steps have the very same values: this takes 1 us, and comparing them 3.
    if all(map(operator.is_, given, known.get("given", (known,)))):
        return {}
    rate, read_rate = group.get("lr"), group.get("capturable") is not True
    if hyperparameters.is_a(rate, torch.Tensor) and read_rate:
        rate = _number_of(rate)
    values = [rate, *given[1:]]
    # Types are compared, too, since True equals 1.0.
    types = [*map(type, values)]
    # Values of other types may not be comparable.
    if known.get("types") == types and _PLAIN.issuperset(types) and known["values"] == values:
        if rate is given[0]:
            known["given"] = given
        return {}
    numbers = [group.get(name) for name in ("rho", "eps")]
    is_plain = all(type(number) is float for number in numbers)
    # A rate without a value is allowed if the parameters have none, too.
    is_meta = hyperparameters.attribute(rate, "is_meta", False) is True
    is_known = is_plain and not is_meta and known.get("numbers") == numbers
    params = () if is_known else group["params"]
    result = checked(group, params, read_rate)
    known.pop("settled", None)
    known["numbers"] = [result[name] for name in ("rho", "eps")]
    known["values"] = [rate, *(result[name] for name in NAMES[1:])]
    if not isinstance(result["lr"], torch.Tensor):
        known["values"][0] = result["lr"]
    known["types"] = [*map(type, known["values"])]
    return result


# Types whose values Python can always compare.
_PLAIN = frozenset({float, int, bool, type(None)})


def _tensor_of(item: Any) -> Any:
    return item[1] if isinstance(item, tuple) and len(item) == 2 else item


def _number_of(rate: torch.Tensor) -> Any:
    """Return the number that a tensor of one element holds, or any other tensor as it is."""
    try:
        is_one = rate.numel() == 1 and not rate.is_meta
        return rate.detach().reshape(()).item() if is_one else rate
    except Exception:
        # It has no value to read, like an uninitialized parameter; the check will refuse it.
        return rate


def _checked(name: str, value: Any, read_rate: bool) -> Any:
    number = value
    is_tensor = name == "lr" and hyperparameters.is_a(value, torch.Tensor)
    if is_tensor:
        # An uninitialized parameter has no shape.
        shape = hyperparameters.attribute(value, "shape")
        if shape is None or shape.numel() != 1:
            shown = hyperparameters.received(value if shape is None else tuple(shape))
            raise ValueError(f"Tensor lr must be 1-element; received {shown}")
        if not read_rate or value.is_meta:
            return value
        number = _number_of(value)
    try:
        number = _CHECKS[name](name, number)
    except ValueError as error:
        raise _in_torchs_words(name, number, error) from None
    return value if is_tensor else number


def _in_torchs_words(name: str, value: Any, error: ValueError) -> ValueError:
    """Return the error about a number out of range, with the words of torch's own message first."""
    reason = str(error).partition("; received ")[0]
    shown = hyperparameters.received(value, 40)
    return ValueError(f"Invalid {_TORCH_WORDS[name]}: {shown}; {reason}")


def checked_rate(rate: Any) -> Any:
    """Return a rate as a group keeps it, or raise an error with the reason."""
    return _checked("lr", rate, read_rate=True)


def copy_of_rate(rate: Any, differentiable: bool) -> Any:
    """Return a copy of a rate for one group, since schedulers change tensors in place.

    A differentiable copy passes gradients on to the given tensor.
    """
    if not isinstance(rate, torch.Tensor):
        return rate
    return rate.clone() if differentiable else rate.detach().clone()


def rate_of_step(rate: Any, as_tensor: bool) -> Any:
    """Return a group's rate as a number, or with `as_tensor` as a tensor without dimensions."""
    if not isinstance(rate, torch.Tensor):
        return float(rate)
    return rate.reshape(()) if as_tensor or rate.is_meta else float(rate.detach())


def rate_as_given(rate: Any) -> float:
    """Return a group's rate as the user wrote it: 0.001 for float32's 0.0010000000474974513."""
    if isinstance(rate, torch.Tensor) and rate.dtype == torch.float32:
        return shortest(rate.detach().reshape(()).cpu().numpy()[()])
    return float(rate_of_step(rate, as_tensor=False))


def refuse_repeated(params: list[Any]) -> None:
    """Raise an error if a parameter occurs twice in a list, which may hold pairs with names."""
    places: dict[int, int] = {}
    for place, item in enumerate(params):
        first = places.setdefault(id(_tensor_of(item)), place)
        if first != place:
            raise ValueError(
                "`params` must not hold a parameter twice; received a parameter group with "
                f"duplicate parameters, in places {first} and {place}"
            )


class NoGradientsError(ValueError, AssertionError):
    """A ValueError, like all errors about values, that is also the AssertionError of torch."""
