"""From the BrainPy optimizer to `OptimizerState` and back: all is checked before any is taken."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from adadelta._brainpy import rates
from adadelta._brainpy.host import brainpy
from adadelta._core import hyperparameters
from adadelta._jax import precision
from adadelta._state import matching
from adadelta._state.record import OptimizerState

bm = brainpy.math

# The same network made twice has Dense0.W and Dense3.W.
_NUMBERING = matching.Numbering(r"\.", r"(\d+)$", except_last=True)


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows."""
    step = int(optimizer.step.value)
    return OptimizerState(
        step=step,
        update=step,
        hyperparameters={
            "learning_rate": _describe(optimizer.lr),
            "rho": optimizer.rho,
            "epsilon": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
        },
        parameters={
            name: {slot: precision.to_record(bm.as_jax(it)) for slot, it in slots.items()}
            for name, slots in optimizer.averages().items()
        },
    )


def import_state(optimizer: Any, state: OptimizerState) -> None:
    """Put a state into the optimizer, or raise with everything that does not fit."""
    averages = optimizer.averages()
    likes = {
        name: {slot: precision.like_record(bm.as_jax(it)) for slot, it in slots.items()}
        for name, slots in averages.items()
    }
    names, problems = matching.fit(state, likes, numbered=True, numbering=_NUMBERING)
    largest = int(jnp.iinfo(optimizer.step.dtype).max)
    problems += matching.problems_with_counters(state, largest)
    rate = _values_for(optimizer.lr, state.hyperparameters.get("learning_rate"), problems)
    matching.refuse(problems)

    # From here on nothing can be refused.
    for name, slots in averages.items():
        for slot, variable in slots.items():
            saved = state.parameters[names[name]][slot]
            variable.value = precision.from_record(saved, bm.as_jax(variable))
    optimizer.step.value = jnp.asarray(state.step, optimizer.step.dtype)
    for variable, value in rate:
        variable.value = value


def _describe(scheduler: Any) -> Any:
    """The rate as a number, or which scheduler it is and what it knows."""
    if isinstance(scheduler, rates.Constant):
        rate = scheduler.lr
        return rate.number() if isinstance(rate, rates.Rate) else float(scheduler())
    variables = {
        name: np.asarray(bm.as_jax(it)).tolist()
        for name, it in vars(scheduler).items()
        if isinstance(it, bm.Variable)
    }
    return {"scheduler": type(scheduler).__name__, **variables}


def _values_for(scheduler: Any, saved: Any, problems: list[str]) -> list[tuple[Any, Any]]:
    """The scheduler's variables and what to set them to; a rate of another kind stays its own."""
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
