"""The summary and the `repr()` of an optimizer. These functions do not change the optimizer."""

import math
import re
from collections.abc import Iterator
from typing import Any

from adadelta._core import hyperparameters
from adadelta._keras.known import array_of
from adadelta._keras.learning_rate import Rate
from adadelta._keras.state import State
from adadelta._state import summary


def summary_of(state: State | None, rate: Rate, epsilon: float) -> summary.Summary:
    """Return the summary of an optimizer, whose state is None before it is built."""
    # First, since it raises the error when compiled training holds the state.
    progress = progress_of(state)
    if state is None:
        return summary.Summary([], None, progress)
    return summary.summarize(_averages(state), rate.answer(state.step), epsilon, progress)


def progress_of(state: State | None) -> str:
    """Return a text on the variables and the number of updates of an optimizer."""
    if state is None:
        return "not yet built"
    calls, updates = state.progress()
    return summary.progress(
        variables=len(state.parameters),
        numbers=sum(math.prod(variable.shape) for variable in state.parameters),
        calls=calls,
        updates=updates,
    )


def representation(kind: str, settings: dict[str, Any], state: State | None) -> str:
    """Return `repr()` of an optimizer: settings that are not the defaults, and its progress."""
    shown = []
    for name, value in settings.items():
        text = str(value) if isinstance(value, Rate) else hyperparameters.received(value)
        # A name that Keras generated is not a setting.
        is_made_up = name == "name" and re.fullmatch(r"adadelta(_\d+)?", value)
        is_default = text == hyperparameters.received(hyperparameters.DEFAULTS.get(name))
        if not is_made_up and not is_default:
            shown.append(f"{name}={text}")
    if shown:
        text = f"{kind} {', '.join(shown)}, the rest at its defaults"
    else:
        text = f"{kind}, all settings at their defaults"
    return f"<{text}; {progress_of(state)}>"


def _averages(state: State) -> Iterator[summary.Averages]:
    state.catch_up()
    columns = state.names, state.parameters, state.square_avg, state.acc_delta
    for name, variable, *averages in zip(*columns, strict=True):
        arrays = (
            None if average is None else array_of(average, copy=False) for average in averages
        )
        yield summary.Averages(name, tuple(variable.shape), *arrays)
