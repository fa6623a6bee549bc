"""What all exchanges share: the state that an optimizer has, and whether another one fits it.

An exchange names its slots (by the name of each parameter, its variables) and its counters. It
assigns nothing before `fit()` has returned, so a state is loaded as a whole or not at all.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from adadelta._core.messages import Message
from adadelta._state import matching
from adadelta._state.matching import KERAS, Numbering, listed
from adadelta._state.record import AVERAGES, SLOTS, OptimizerState, StateMismatchError

_In = TypeVar("_In")
_Out = TypeVar("_Out")
Slots = Mapping[str, Mapping[str, _In]]


def unbuilt(argument: str = "model.trainable_variables") -> StateMismatchError:
    """Return the error about an optimizer without variables; `argument` is what to build it on."""
    text = (
        "This optimizer is not built, so it has no state yet: call "
        f"optimizer.build({argument}) first"
    )
    return StateMismatchError(Message(text, "unbuilt"))


def mapped(function: Callable[[_In], _Out], slots: Slots[_In]) -> dict[str, dict[str, _Out]]:
    """Return slots with the result of a function in place of each variable."""
    return {
        name: {slot: function(value) for slot, value in own.items()} for name, own in slots.items()
    }


def state_of(
    parameters: Slots[np.ndarray],
    counters: Mapping[str, Any],
    hyperparameters: Mapping[str, Any] | None = None,
    window_gradients: Iterable[str] = (),
) -> OptimizerState:
    """Return the state with these arrays and counters.

    Args:
        parameters: The arrays.
        counters: The counters and the loss scale, by their names in `OptimizerState`, at least
            `step`. Without `update`, every call that was not skipped counts as an update.
        hyperparameters: The arguments of the optimizer.
        window_gradients: As in `OptimizerState`.

    """
    known = {"update": counters["step"] - counters.get("skipped", 0), **counters}
    return OptimizerState(
        **known,
        parameters={name: dict(slots) for name, slots in parameters.items()},
        hyperparameters=dict(hyperparameters or {}),
        window_gradients=tuple(window_gradients),
    )


def values(
    state: OptimizerState,
    names: Mapping[str, str],
    slots: Slots[Any],
    counters: Mapping[str, Any],
) -> list[tuple[Any, Any]]:
    """Return each variable of an optimizer with the value that a state has for it.

    Args:
        state: The state.
        names: The state's name for each parameter, as `fit()` returns them.
        slots: The variables of each parameter.
        counters: The variables of counters, by their names in `OptimizerState`.

    """
    counted = [(variable, getattr(state, name)) for name, variable in counters.items()]
    return counted + [
        (variable, state.parameters[names[name]][slot])
        for name, own in slots.items()
        for slot, variable in own.items()
    ]


def checked_rate(saved: Any, check: Callable[[Any], _Out], problems: list[str]) -> _Out | None:
    """Check a saved learning rate and return it, or None if it is not a valid number."""
    if isinstance(saved, bool) or not isinstance(saved, int | float | np.number):
        return None
    try:
        return check(saved)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None


def fit(
    state: OptimizerState,
    slots: Slots[Any],
    counters: Mapping[str, Any],
    *,
    numbering: Numbering | None = KERAS,
    accumulation_steps: int | None = None,
    problems: Iterable[str] = (),
) -> dict[str, str]:
    """Match a state to an optimizer, or raise an error that lists everything that does not fit.

    Args:
        state: The state.
        slots: For each parameter, objects with the `shape` and `dtype` of each slot.
        counters: The dtype of each counter that the optimizer has.
        numbering: How the optimizer's framework numbers names, see `matching.paired()`.
        accumulation_steps: The optimizer's `gradient_accumulation_steps`.
        problems: Other things that do not fit.

    Returns:
        The state's name for each parameter of the optimizer.

    """

    def fits(saved: str, own: str) -> bool:
        arrays, likes = state.parameters[saved], slots[own]
        return not any(_misfit(arrays[slot], likes[slot]) for slot in arrays.keys() & likes.keys())

    found = _problems_with_slots(state, slots)
    names = matching.paired(state.parameters, slots, numbering, fits)
    found += _problems_with_arrays(state, slots, names)
    found += _problems_with_counters(state, counters, accumulation_steps)
    matching.refuse([*found, *problems])
    return names


def _no_place(what: str, argument: str | None = None) -> str:
    owner = f"an optimizer without `{argument}`" if argument else "this optimizer"
    return f"it has {what}, for which {owner} has no place"


def _wanted(slots: Slots[Any]) -> set[str]:
    return {slot for own in slots.values() for slot in own}


def _problems_with_slots(state: OptimizerState, slots: Slots[Any]) -> list[str]:
    problems, wanted = [], _wanted(slots)
    for slot, argument in SLOTS.items():
        if state.parameters and slot in wanted and slot not in state.slots:
            reason = f", which an optimizer with `{argument}` needs" if argument else ""
            problems.append(f"it has no {slot}{reason}")
        elif slots and slot in state.slots and slot not in wanted:
            problems.append(_no_place(slot, argument))
    return problems


def _misfit(array: np.ndarray, like: Any) -> tuple[str, Any, Any] | None:
    """Return what does not fit (the shape or dtype), how it is and how it should be, or None."""
    if array.shape != tuple(like.shape):
        return "shape", array.shape, tuple(like.shape)
    if not np.can_cast(array.dtype, like.dtype):
        return "dtype", array.dtype, like.dtype
    return None


def _problems_with_arrays(
    state: OptimizerState, slots: Slots[Any], names: Mapping[str, str]
) -> list[str]:
    missing = [name for name in slots if name not in names]
    found = set(names.values())
    extra = [name for name in state.parameters if name not in found]
    misfits: dict[str, list[str]] = {"shape": [], "dtype": []}
    negative = []
    both = [slot for slot in SLOTS if slot in _wanted(slots) and slot in state.slots]
    for name, saved_name in names.items():
        saved, own = state.parameters[saved_name], slots[name]
        for slot in both:
            where = f"{name} ({slot})"
            if (slot in saved) != (slot in own):
                (extra if slot in saved else missing).append(where)
            elif slot in saved:
                misfit = _misfit(saved[slot], own[slot])
                if misfit is not None:
                    kind, given, expected = misfit
                    misfits[kind].append(f"{where} {given} instead of {expected}")
                if slot in AVERAGES and np.any(saved[slot] < 0):
                    negative.append(where)
    return [
        *matching.unpaired(missing, extra),
        *(problem for kind in misfits for problem in listed(f"of another {kind}:", misfits[kind])),
        *listed("negative, as no average of squares is:", negative),
    ]


def _problems_with_counters(
    state: OptimizerState, counters: Mapping[str, Any], steps: int | None
) -> list[str]:
    problems = []
    if "skipped" not in counters and state.skipped:
        problems.append(_no_place(f"{state.skipped} skipped calls", "skip_nonfinite"))
    skipped = state.skipped if "skipped" in counters else 0
    if "update" not in counters and state.update != state.step - skipped:
        problems.append(
            f"it has {state.update} updates in {state.step} calls, and without "
            "`gradient_accumulation_steps` every call that is not skipped is an update"
        )
    if not steps and state.window:
        what = f"a window of {state.window} calls open"
        problems.append(_no_place(what, "gradient_accumulation_steps"))
    elif steps and state.window is None:
        problems.append("it has no window, which `gradient_accumulation_steps` needs")
    elif steps and state.window is not None and state.window >= steps:
        problems.append(
            f"its window of {state.window} calls is never full with "
            f"`gradient_accumulation_steps` = {steps}"
        )
    is_complete = state.loss_scale is not None and state.finite_calls is not None
    if "loss_scale" in counters and not is_complete:
        problems.append("it has no dynamic loss scale, which this optimizer needs")
    elif "loss_scale" not in counters and state.loss_scale is not None:
        problems.append(_no_place("a dynamic loss scale"))
    for name, dtype in counters.items():
        value = getattr(state, name)
        if isinstance(value, int) and value > np.iinfo(dtype).max:
            most = np.iinfo(dtype).max
            problems.append(f"`{name}` is {value}, and this optimizer counts up to {most}")
    return problems
