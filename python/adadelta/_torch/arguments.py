"""The values of a parameter group: their checks, and the rate that a step takes from them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from adadelta._core import hyperparameters
from adadelta._core.hyperparameters import ARGUMENTS
from adadelta._core.precision import shortest

_RATE: Any = ARGUMENTS["learning_rate"]
_DECAY: Any = ARGUMENTS["weight_decay"]

# What each value of a group must be, under torch's names.
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

# How torch begins its messages, by which users know and search them.
_TORCH_WORDS = {
    "lr": "learning rate",
    "rho": "rho value",
    "eps": "epsilon value",
    "weight_decay": "weight_decay value",
}


def checked(values: Mapping[str, Any], read_rate: bool = True) -> dict[str, Any]:
    """Return the values of a group as it keeps them, or raise with the reason.

    Args:
        values: At least the names in `NAMES`.
        read_rate: Whether a rate that is a tensor may be read, for which its device is waited.

    """
    result = {name: _checked(name, values[name], read_rate) for name in NAMES}
    for first, second in (("fused", "foreach"), ("fused", "differentiable")):
        if result[first] and result[second]:
            raise ValueError(f"`{first}` and `{second}` can't be True together")
    if result["foreach"] and result["differentiable"]:
        raise ValueError(
            "`foreach` and `differentiable` can't be True together: torch's operations on lists "
            "of tensors have no gradients"
        )
    return result


def check_again(group: Mapping[str, Any], known: dict[str, Any]) -> None:
    """Check the values of a group, unless they are those that were checked before.

    `known` notes them.
    """
    rate = group["lr"]
    read_rate = not group["capturable"]
    if isinstance(rate, torch.Tensor) and rate.numel() == 1 and read_rate and not rate.is_meta:
        rate = rate.detach().item()
    values: list[Any] = [rate, *(group[name] for name in NAMES[1:])]
    values += map(type, values[:])  # True would equal 1.0
    # What is no number may not be comparable, and NaN differs from itself.
    if isinstance(rate, torch.Tensor) or known.get("values") != values:
        checked(group, read_rate)
        known["values"] = values


def _checked(name: str, value: Any, read_rate: bool) -> Any:
    number = value
    if name == "lr" and isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element; received {tuple(value.shape)}")
        if not read_rate or value.is_meta:
            return value
        number = value.detach().reshape(()).item()
    try:
        number = _CHECKS[name](name, number)
    except ValueError as error:
        words = _TORCH_WORDS[name]
        raise ValueError(f"Invalid {words}: {hyperparameters.received(number)}; {error}") from None
    return value if isinstance(value, torch.Tensor) else number


def checked_rate(rate: Any) -> Any:
    """Return a rate as a group keeps it, or raise with the reason."""
    return _checked("lr", rate, read_rate=True)


def copy_of_rate(rate: Any, differentiable: bool) -> Any:
    """Return a rate of a group's own: schedulers change tensors in place.

    A copy that is differentiable passes gradients on to the tensor that was given.
    """
    if not isinstance(rate, torch.Tensor):
        return rate
    return rate.clone() if differentiable else rate.detach().clone()


def rate_of_step(rate: Any, as_tensor: bool) -> Any:
    """Return a group's rate as a number, or as a tensor without dimensions where asked for."""
    if not isinstance(rate, torch.Tensor):
        return float(rate)
    return rate.reshape(()) if as_tensor or rate.is_meta else float(rate.detach())


def rate_as_given(rate: Any) -> float:
    """Return a group's rate as people write it: 0.001 for float32's 0.0010000000474974513."""
    if isinstance(rate, torch.Tensor) and rate.dtype == torch.float32:
        return shortest(rate.detach().reshape(()).cpu().numpy()[()])
    return float(rate_of_step(rate, as_tensor=False))


def refuse_repeated(params: list[Any]) -> None:
    """Refuse a list in which a parameter stands twice; it may hold pairs with names."""
    places: dict[int, int] = {}
    for place, item in enumerate(params):
        param = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        first = places.setdefault(id(param), place)
        if first != place:
            raise ValueError(
                "`params` must not hold a parameter twice; received a parameter group with "
                f"duplicate parameters, in places {first} and {place}"
            )
