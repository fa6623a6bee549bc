"""Export and import the state of the BrainPy optimizer; check all of it before any change."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from adadelta._brainpy import learning_rate as rates
from adadelta._brainpy.host import brainpy
from adadelta._core import hyperparameters
from adadelta._jax import precision
from adadelta._state import exchange, matching
from adadelta._state.record import OptimizerState

bm = brainpy.math

# The same network, created twice, has Dense0.W and Dense3.W.
_NUMBERING = matching.Numbering(r"\.", r"(\d+)$", except_last=True)


def export_state(optimizer: brainpy.optim.Optimizer) -> OptimizerState:
    """Return the optimizer's state."""
    arrays = exchange.mapped(bm.as_jax, optimizer.averages())
    given = {
        "learning_rate": _describe(optimizer.lr),
        "rho": optimizer.rho,
        "epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
    }
    parameters = exchange.mapped(precision.to_record, arrays)
    return exchange.state_of(parameters, {"step": optimizer.step.value}, given)


def import_state(optimizer: brainpy.optim.Optimizer, state: OptimizerState) -> None:
    """Import a state into the optimizer, or raise an error that lists everything that is wrong."""
    averages = optimizer.averages()
    problems: list[str] = []
    rate = _values_for(optimizer.lr, state.hyperparameters.get("learning_rate"), problems)
    names = exchange.fit(
        state,
        exchange.mapped(precision.like_record, exchange.mapped(bm.as_jax, averages)),
        {"step": optimizer.step.dtype},
        numbering=_NUMBERING,
        problems=problems,
    )

    # From here on nothing can fail.
    for variable, value in exchange.values(state, names, averages, {"step": optimizer.step}):
        variable.value = precision.from_record(value, bm.as_jax(variable))
    for variable, value in rate:
        variable.value = value


def of_state_dict(saved: Mapping[str, Any], names_in_order: Iterable[str]) -> OptimizerState:
    """Return the state in the result of BrainPy's `state_dict()` for an optimizer of this class.

    BrainPy keeps the variables of each object by the object's name and theirs. It numbers objects
    as they are created, so a new optimizer and its scheduler have other names.
    """
    nodes = {name: _without_name(name, values) for name, values in _by_object(saved).items()}
    ours = [name for name, values in nodes.items() if _are_averages(values)]
    schedulers = [name for name in nodes if name not in ours and "last_epoch" in nodes[name]]
    others = [name for name in nodes if name not in (*ours, *schedulers)]
    problems = matching.listed("not in this optimizer:", others)
    if len(ours) != 1 or len(schedulers) > 1:
        problems.append(
            "it must have the variables of one adadelta.brainpy.Adadelta and of its scheduler, "
            f"and has {len(ours)} and {len(schedulers)}"
        )
    matching.refuse(problems)
    averages = nodes[ours[0]]
    step = int(averages.pop("step"))
    parameters: dict[str, dict[str, np.ndarray]] = {}
    for key, value in averages.items():
        name, _, ending = key.rpartition("_")
        parameters.setdefault(name, {})[_ENDINGS[ending]] = precision.to_record(value)
    # BrainPy's dicts need not have the order in which the variables were registered.
    order = {name: place for place, name in enumerate(names_in_order)}
    names = sorted(parameters, key=lambda name: order.get(name, len(order)))
    state = exchange.state_of({name: parameters[name] for name in names}, {"step": step})
    for name in schedulers:
        scheduler = re.sub(r"\d+$", "", name)
        values = {key: value.tolist() for key, value in nodes[name].items()}
        is_number = scheduler == "Constant" and "lr" in values and nodes[name]["lr"].size == 1
        state.hyperparameters["learning_rate"] = (
            float(nodes[name]["lr"].reshape(()))
            if is_number
            else {"scheduler": scheduler, **values}
        )
    return state


_ENDINGS = {"cache": "square_avg", "delta": "acc_delta"}


def _by_object(saved: Any) -> dict[str, Mapping[str, Any]]:
    """Return the variables by the names of their objects, from either of BrainPy's formats."""
    if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
        raise TypeError(
            hyperparameters.refusal("state_dict", "a dict that state_dict() returned", saved)
        )
    nodes: dict[str, Any] = {}
    for name, value in saved.items():
        if isinstance(value, Mapping):
            nodes[name] = value
        else:
            # Format v1: the variables of all objects in one dict.
            nodes.setdefault(name.partition(".")[0], {})[name] = value
    return nodes


def _without_name(name: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        str(key).removeprefix(f"{name}."): np.asarray(
            value.value if isinstance(value, bm.Array) else value
        )
        for key, value in values.items()
    }


def _are_averages(values: Mapping[str, np.ndarray]) -> bool:
    step = values.get("step")
    return (
        step is not None
        and step.shape == ()
        and np.issubdtype(step.dtype, np.integer)
        and all(key == "step" or key.rpartition("_")[2] in _ENDINGS for key in values)
    )


def _describe(scheduler: Any) -> Any:
    """Return the rate as a number, or the scheduler's class and its variables."""
    if isinstance(scheduler, rates.Constant):
        rate = scheduler.lr
        return rate.number() if isinstance(rate, rates.Rate) else float(scheduler())
    variables = {
        name: np.asarray(bm.as_jax(variable)).tolist()
        for name, variable in vars(scheduler).items()
        if isinstance(variable, bm.Variable)
    }
    return {"scheduler": type(scheduler).__name__, **variables}


def _values_for(scheduler: Any, saved: Any, problems: list[str]) -> list[tuple[Any, Any]]:
    """Return the scheduler's variables with new values; none for a saved rate of another kind."""
    if isinstance(scheduler, rates.Constant):
        if not isinstance(saved, (int, float)) or isinstance(saved, bool):
            return []
        values = {"lr": saved}
    elif isinstance(saved, dict) and saved.get("scheduler") == type(scheduler).__name__:
        values = saved
    else:
        return []
    result = []
    for name, variable in vars(scheduler).items():
        if not isinstance(variable, bm.Variable) or name not in values:
            continue
        try:
            if name == "lr":
                hyperparameters.FIXED_RATE(name, values[name])
            value = jnp.broadcast_to(jnp.asarray(values[name], variable.dtype), variable.shape)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
        else:
            result.append((variable, values[name] if isinstance(variable, rates.Rate) else value))
    return result
