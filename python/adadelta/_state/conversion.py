"""Rename the parameters of a state, and rearrange their elements where layouts differ."""

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from adadelta._core.hyperparameters import as_text, received, shortened, with_problems
from adadelta._core.messages import Message
from adadelta._state.matching import listed
from adadelta._state.record import OptimizerState, StateMismatchError

_Function = Callable[[np.ndarray], Any]


def convert(state: OptimizerState, mapping: Mapping[str, Any], keep_others: bool) -> OptimizerState:
    """Return the state with its new names, or raise an error that lists all problems."""
    steps = {name: _step(name, value) for name, value in mapping.items()}
    unknown = [_guessed(name, state) for name in steps if name not in state.parameters]
    problems = listed("unknown:", unknown)
    others = [name for name in state.parameters if name not in steps]
    if others and not keep_others:
        text = f"not in the mapping: {', '.join(others)}"
        problems.append(Message(text, "left_out", names=others))
    steps.update({name: (name, None) for name in others})
    news = Counter(steps[name][0] for name in state.parameters)
    twice = [name for name, times in news.items() if times > 1]
    problems += listed("what more than one would be called:", twice)

    parameters = {}
    for name, slots in state.parameters.items():
        new, function = steps[name]
        parameters[new] = {
            slot: _moved(f"{name} ({slot})", array, function, problems)
            for slot, array in slots.items()
        }
    if problems:
        text = with_problems("The state can't be converted", problems)
        raise StateMismatchError(Message(text, "not_converted", problems=problems), problems)
    rest = {field.name: getattr(state, field.name) for field in fields(state)}
    rest["parameters"] = parameters
    rest["window_gradients"] = tuple(steps[name][0] for name in state.window_gradients)
    return OptimizerState(**rest)


def _step(name: Any, value: Any) -> tuple[str, _Function | None]:
    new, function = value if type(value) is tuple and len(value) == 2 else (value, None)
    if as_text(name) is None or not as_text(new):
        raise TypeError(
            "`mapping` must have for the name of each parameter its new name, or a tuple of that "
            f"and a function; received {received(value, 30)} for {received(name, 30)}"
        )
    if function is not None and not callable(function):
        raise TypeError(
            f"what is done to {shortened(name)} must be a function; received {received(function)}"
        )
    return new, function


def _guessed(name: str, state: OptimizerState) -> str:
    near = difflib.get_close_matches(name, state.parameters, n=1)
    return f"{name} (did you mean {near[0]}?)" if near else name


def _moved(
    what: str, array: np.ndarray, function: _Function | None, problems: list[str]
) -> np.ndarray:
    """Return a copy of an array, rearranged by the function; add what is wrong to `problems`."""
    if function is None:
        return array.copy()
    try:
        moved = np.array(function(array.copy()))
    except Exception as error:
        problems.append(f"the function for {what} failed: {type(error).__name__}: {error}")
        return array
    if moved.size != array.size:
        problems.append(f"the function for {what} made {moved.shape} of {array.shape}")
    elif not np.can_cast(array.dtype, moved.dtype) or not np.can_cast(moved.dtype, "float64"):
        problems.append(f"the function for {what} made {moved.dtype} of {array.dtype}")
    # Averages of squares and of updates may only move together with their elements: a function
    # that scales weights would have to be a different one for each slot.
    elif not np.array_equal(np.sort(moved, axis=None), np.sort(array, axis=None), equal_nan=True):
        problems.append(f"the function for {what} changed numbers, and may only move them")
    return moved
