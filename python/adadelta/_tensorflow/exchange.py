"""From TensorFlow's optimizers to `OptimizerState` and back: all is checked before any is taken.

An optimizer has `_counters()`, `_slots()` (the variables about each parameter, by its name and
by slot), `_read(variables)`, `_write(variables, values)`, `_rate_number()` and
`_set_rate_number(rate)`.
"""

from typing import Any

import numpy as np

from adadelta._state import matching
from adadelta._state.record import OptimizerState, StateMismatchError

_UNBUILT = "This optimizer is not built, so it has no state yet: call optimizer.build({}) first"


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, with its arguments."""
    state = learned(optimizer)
    state.hyperparameters = _unwrapped(optimizer)[0]._portable_config()
    return state


def learned(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, without its arguments: not all can be put into words."""
    optimizer, wrapper = _unwrapped(optimizer)
    refuse_unbuilt(optimizer)
    counters, slots = _counters_of(optimizer, wrapper), optimizer._slots()
    places = [(name, slot) for name, own in slots.items() for slot in own]
    values = optimizer._read([*counters.values(), *(slots[name][slot] for name, slot in places)])
    counted = dict(zip(counters, values, strict=False))
    parameters: dict[str, dict[str, np.ndarray]] = {name: {} for name in slots}
    for (name, slot), value in zip(places, values[len(counted) :], strict=True):
        parameters[name][slot] = np.array(value)
    step, skipped = int(counted["step"]), int(counted.get("skipped", 0))
    return OptimizerState(
        step=step,
        update=step - skipped,
        skipped=skipped,
        parameters=parameters,
        loss_scale=float(counted["loss_scale"]) if "loss_scale" in counted else None,
        finite_calls=int(counted["finite_calls"]) if "finite_calls" in counted else None,
    )


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    optimizer, wrapper = _unwrapped(optimizer)
    refuse_unbuilt(optimizer)
    counters, slots = _counters_of(optimizer, wrapper), optimizer._slots()
    names, problems = matching.fit(state, _as_numpy_describes(slots), numbered=True)
    problems += _problems_with_counters(state, counters)
    rate = _new_rate(optimizer, state.hyperparameters.get("learning_rate"), problems)
    matching.refuse(problems)

    # From here on nothing can be refused.
    variables = list(counters.values())
    values: list[Any] = [getattr(state, name) for name in counters]
    for name, own in slots.items():
        variables += own.values()
        values += [state.parameters[names[name]][slot] for slot in own]
    optimizer._write(variables, values)
    if rate is not None:
        optimizer._set_rate_number(rate)
    return names


class _Like:
    """The shape and dtype of a variable, as NumPy has them."""

    def __init__(self, variable: Any) -> None:
        self.shape = tuple(variable.shape.as_list())
        self.dtype = np.dtype(variable.dtype.base_dtype.as_numpy_dtype)


def zeros_like(variable: Any) -> np.ndarray:
    """Zeros of the shape and dtype of a variable."""
    like = _Like(variable)
    return np.zeros(like.shape, like.dtype)


def _as_numpy_describes(slots: dict[str, dict[str, Any]]) -> dict[str, dict[str, _Like]]:
    return {
        name: {slot: _Like(variable) for slot, variable in own.items()}
        for name, own in slots.items()
    }


def _counters_of(optimizer: Any, wrapper: Any) -> dict[str, Any]:
    counters = dict(optimizer._counters())
    if wrapper is not None and wrapper.dynamic:
        counters["loss_scale"] = wrapper._loss_scale.current_loss_scale
        counters["finite_calls"] = wrapper._loss_scale.counter
    return counters


def _problems_with_counters(state: OptimizerState, counters: dict[str, Any]) -> list[str]:
    problems = []
    if "skipped" not in counters and state.skipped:
        problems.append(
            f"it has {state.skipped} skipped calls, and without `skip_nonfinite` none is skipped"
        )
    if state.update + state.skipped != state.step:
        problems.append(
            f"it has {state.update} updates in {state.step} calls, {state.skipped} of them "
            "skipped, and this optimizer has no `gradient_accumulation_steps`"
        )
    if state.window:
        problems.append(
            f"it has a window of {state.window} calls open, for which there is no place"
        )
    complete = state.loss_scale is not None and state.finite_calls is not None
    if "loss_scale" in counters and not complete:
        problems.append("it has no dynamic loss scale, which this optimizer needs")
    elif "loss_scale" not in counters and state.loss_scale is not None:
        problems.append("it has a dynamic loss scale, for which this optimizer has no place")
    return problems


def _new_rate(optimizer: Any, saved: Any, problems: list[str]) -> float | None:
    """The rate to set: the saved one, when both are numbers and they differ."""
    current = optimizer._rate_number()
    if isinstance(saved, bool) or not isinstance(saved, (int, float, np.number)):
        return None
    if current is None:
        return None
    try:
        rate = optimizer._checked_rate(saved)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None
    return None if rate == current else rate


def _unwrapped(optimizer: Any) -> tuple[Any, Any]:
    """The optimizer and tf_keras' LossScaleOptimizer around it, if there is one."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return (optimizer, None) if inner is None else (inner, optimizer)


def refuse_unbuilt(optimizer: Any) -> None:
    if not optimizer.built:
        raise StateMismatchError(_UNBUILT.format(optimizer.build_argument))
