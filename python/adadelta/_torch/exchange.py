"""Convert a torch optimizer's state to `OptimizerState` and back; all is checked before a change.

Parameters have the names from `model.named_parameters()`, if the optimizer was made with names,
else their positions over all groups, "0", "1", ... The state of complex parameters is real, with a
last axis of two.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from adadelta._core.hyperparameters import first_of
from adadelta._state import exchange
from adadelta._state.record import AVERAGES, OptimizerState, StateMismatchError
from adadelta._torch import arguments, loading, shards
from adadelta._torch.arrays import as_real, state_dtype

# The names of a group's values in `OptimizerState`, which all front ends share, and in torch.
_SHARED = {
    "learning_rate": "lr",
    "rho": "rho",
    "epsilon": "eps",
    "weight_decay": "weight_decay",
    "maximize": "maximize",
    "decoupled_weight_decay": "decoupled_weight_decay",
    "skip_nonfinite": "skip_nonfinite",
}


def export_state(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Return the state of the optimizer.

    `hyperparameters` holds the values of the first group and, if there are several groups, those
    of each under "groups". A parameter that has had no gradient yet has averages of 0, with which
    it will start. The state of DTensors is gathered, so all processes of their mesh must export
    together.
    """
    groups = [_values_of(group) for group in optimizer.param_groups]
    update = max((int(state["step"]) for state in optimizer.state.values() if state), default=0)
    arrays = {
        name: {slot: _array(optimizer, param, slot) for slot in AVERAGES}
        for name, param in _named(optimizer).items()
    }
    skipped = optimizer.skipped
    hyperparameters = {**groups[0], **({"groups": groups} if len(groups) > 1 else {})}
    counters = {"step": update + skipped, "skipped": skipped}
    return exchange.state_of(arrays, counters, hyperparameters)


def import_state(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Load a state into the optimizer, or raise an error that lists everything that does not fit.

    Every parameter's `step` becomes the state's `update`.
    """
    named = _named(optimizer)
    slots = {name: dict.fromkeys(AVERAGES, _like(param)) for name, param in named.items()}
    problems: list[str] = []
    rates = _new_rates(optimizer.param_groups, state.hyperparameters, problems)
    skips = any(group["skip_nonfinite"] for group in optimizer.param_groups)
    counters = dict.fromkeys(("step", "skipped") if skips else ("step",), "int64")
    names = exchange.fit(state, slots, counters, numbering=None, problems=problems)

    # All checks are done. Copies make sure that the state and the optimizer share no memory.
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].detach().fill_(rate)
        else:
            group["lr"] = rate
        if group["skip_nonfinite"]:
            group["skipped"] = torch.tensor(state.skipped, dtype=torch.int64)
    for group in optimizer.param_groups:
        for param in group["params"]:
            optimizer.state[param] = loading.new_state(param, group["capturable"])
    for name, param in named.items():
        own = optimizer.state[param]
        own["step"].fill_(state.update)
        for slot in AVERAGES:
            _fill(own[slot], state.parameters[names[name]][slot], param)


def _named(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names = loading.names_of(optimizer.param_groups)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise StateMismatchError(
            "The parameters of this optimizer must have names of their own; these occur more "
            f"than once: {first_of(repeated)}"
        )
    params = (param for group in optimizer.param_groups for param in group["params"])
    return dict(zip(names, params, strict=True))


def _like(param: torch.Tensor) -> Any:
    """Return an object with the shape and NumPy dtype of a parameter's averages."""
    value = as_real(torch.empty(0, dtype=state_dtype(param.dtype)))
    shape = (*param.shape, *value.shape[1:])
    return SimpleNamespace(shape=shape, dtype=value.numpy().dtype)


def _array(optimizer: torch.optim.Optimizer, param: torch.Tensor, slot: str) -> np.ndarray:
    state = optimizer.state.get(param)
    if not state:
        like = _like(param)
        return np.zeros(like.shape, like.dtype)
    value = shards.whole(state[slot].detach())
    value = value.to(device="cpu", dtype=state_dtype(param.dtype))
    return np.array(as_real(value).numpy())


def _fill(average: torch.Tensor, array: np.ndarray, param: torch.Tensor) -> None:
    value = torch.from_numpy(np.array(array))
    value = torch.view_as_complex(value) if average.is_complex() else value
    average.copy_(shards.like(value.to(param.device), param))


def _values_of(group: dict[str, Any]) -> dict[str, Any]:
    values = {shared: group[own] for shared, own in _SHARED.items()}
    return {**values, "learning_rate": arguments.rate_as_given(group["lr"])}


def _new_rates(groups: Any, saved: dict[str, Any], problems: list[str]) -> list[Any]:
    """Return the rate of each group: the saved ones, if they can be assigned to the groups."""
    own = [arguments.rate_of_step(group["lr"], as_tensor=False) for group in groups]
    each = saved.get("groups")
    if isinstance(each, list) and len(each) == len(groups):
        rates = [values.get("learning_rate") for values in each]
    elif each is None and len(set(own)) == 1:
        rates = [saved.get("learning_rate")] * len(groups)
    else:
        return own
    checked = [exchange.checked_rate(rate, arguments.checked_rate, problems) for rate in rates]
    return own if None in checked else checked
