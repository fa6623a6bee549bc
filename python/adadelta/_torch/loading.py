"""Load a `state_dict`: match its parameters, and check everything before anything is changed."""

from collections.abc import Iterator
from typing import Any

import torch

from adadelta._core.hyperparameters import as_number, received
from adadelta._state import matching
from adadelta._state.record import AVERAGES
from adadelta._torch import arguments, shards
from adadelta._torch.arrays import state_dtype

# Options that a checkpoint of torch.optim.Adadelta may lack; older ones lack more of them.
OPTIONS = ("foreach", "maximize", "differentiable", "capturable", "fused")
OWN_OPTIONS = ("decoupled_weight_decay", "skip_nonfinite")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _is_count(value: Any) -> bool:
    # Older versions of torch count with a Python number.
    return value.numel() == 1 if _is_tensor(value) else as_number(value) is not None


# The check of each part of a parameter's state, and the requirement in words.
_KINDS = {
    **dict.fromkeys(AVERAGES, (_is_tensor, "a tensor")),
    "step": (_is_count, "a number or a tensor of one element"),
}


def fit(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict with its parameters in this optimizer's order, or raise an error.

    Options that a checkpoint lacks keep their values in this optimizer. Neither the optimizer nor
    the given state dict is changed.
    """
    saved = [dict(group) for group in state_dict["param_groups"]]
    own = optimizer.param_groups
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, own)]
    if sizes[0] != sizes[1]:
        return state_dict  # torch's own check refuses it in its own words
    problems: list[str] = []
    for group, current in zip(saved, own, strict=True):
        missing = [name for name in ("lr", "rho", "eps", "weight_decay") if name not in group]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            problems.append(f"it has no {names}, so it is not of an Adadelta")
            continue
        for name in (*OPTIONS, *OWN_OPTIONS):
            group.setdefault(name, current[name])
        try:
            group.update(arguments.checked(group, current["params"]))
        except (TypeError, ValueError) as error:
            problems.append(str(error))
            continue
        if group["skip_nonfinite"]:
            group.setdefault("skipped", torch.zeros((), dtype=torch.int64))
    _match_names(saved, own, problems)
    for name, (param, key) in zip(names_of(own), _pairs(saved, own), strict=True):
        state = state_dict["state"].get(key)
        if not state:
            continue
        missing = [slot for slot in (*AVERAGES, "step") if slot not in state]
        if missing:
            problems.append(f"parameter {name} has no {', '.join(missing)}")
        for slot in AVERAGES:
            value = state.get(slot)
            if isinstance(value, torch.Tensor) and value.shape != param.shape:
                problems.append(
                    f"the {slot} of parameter {name} must have shape {tuple(param.shape)}; "
                    f"received {tuple(value.shape)}"
                )
            elif reason := shards.reason_against(value, param):
                problems.append(f"parameter {name}: {reason}")
        problems += [
            f"the {slot} of parameter {name} must be {kind}; received {received(state[slot])}"
            for slot, (fits, kind) in _KINDS.items()
            if slot in state and not fits(state[slot])
        ]
    matching.refuse(problems)
    return {**state_dict, "param_groups": saved}


def take(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Copy the loaded tensors, in the dtype of the optimizer's averages.

    torch casts averages to the parameter's dtype, and shares tensors with the state dict if they
    need no cast, so that two optimizers would change the same state.
    """
    saved = state_dict["param_groups"]
    with torch.no_grad():
        for param, key in _pairs(saved, optimizer.param_groups):
            state = optimizer.state.get(param)
            if not state:
                continue
            for name, value in state_dict["state"][key].items():
                if not isinstance(value, torch.Tensor):
                    continue
                if name in AVERAGES:
                    dtype = state_dtype(param.dtype)
                    value = value.to(device=param.device, dtype=dtype, copy=True)
                    state[name] = shards.like(value, param)
                elif state[name] is value:
                    state[name] = value.clone()


def _pairs(saved: Any, own: Any) -> Iterator[tuple[Any, Any]]:
    for group, current in zip(saved, own, strict=True):
        yield from zip(current["params"], group["params"], strict=True)


def _match_names(saved: Any, own: Any, problems: list[str]) -> None:
    """Reorder the saved parameters to match the optimizer's, if both have names."""
    if not all("param_names" in group for group in (*saved, *own)):
        return
    keys: dict[str, Any] = {}
    for group in saved:
        keys.update(zip(group["param_names"], group["params"], strict=True))
    names = [name for group in own for name in group["param_names"]]
    if len(set(names)) != len(names) or len(keys) != len(names):
        return  # names that are not unique can't be matched
    missing = [name for name in names if name not in keys]
    extra = [name for name in keys if name not in set(names)]
    if missing or extra:
        problems += matching.unpaired(missing, extra)
        problems.append('to load by position, take "param_names" out of the saved groups')
        return
    for group, current in zip(saved, own, strict=True):
        group["param_names"] = list(current["param_names"])
        group["params"] = [keys[name] for name in current["param_names"]]


def names_of(groups: Any) -> list[str]:
    """Return the name of each parameter, or its position, "0", "1", ..., if it has none."""
    names: list[str] = []
    for group in groups:
        start = len(names)
        places = [str(start + index) for index in range(len(group["params"]))]
        names += group.get("param_names", places)
    return names


def new_state(param: torch.Tensor, capturable: bool) -> dict[str, torch.Tensor]:
    """Return the state of a parameter before its first step."""
    dtype = state_dtype(param.dtype)
    return {
        "step": new_step(param, capturable),
        "square_avg": torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format),
        "acc_delta": torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format),
    }


def new_step(param: torch.Tensor, capturable: bool) -> torch.Tensor:
    """Return the counter of a parameter's steps, at 0."""
    # As in torch: on the host unless the optimizer is capturable, and in float32 by default.
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.zeros((), dtype=dtype, device=param.device if capturable else None)
