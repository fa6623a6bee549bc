"""From TensorFlow's optimizers to `OptimizerState` and back: all is checked before any is taken.

An optimizer has `_counters()`, `_slots()` (the variables about each parameter, by its name and
by slot), `_read(variables)`, `_write(variables, values)`, `_rate_number()` and
`_set_rate_number(rate)`.
"""

from typing import Any

import numpy as np

from adadelta._state import exchange
from adadelta._state.record import OptimizerState


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, with its arguments."""
    state = learned(optimizer)
    state.hyperparameters = exchange.unwrapped(optimizer)[0]._portable_config()
    return state


def learned(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, without its arguments: not all can be put into words."""
    optimizer, wrapper = exchange.unwrapped(optimizer)
    exchange.refuse_unbuilt(optimizer)
    counters, slots = _counters_of(optimizer, wrapper), optimizer._slots()
    # All at once: in a graph each call is a run of the session.
    variables = [
        *counters.values(),
        *(variable for own in slots.values() for variable in own.values()),
    ]
    values = iter(optimizer._read(variables))
    counted = dict(zip(counters, values, strict=False))
    return exchange.state_of(exchange.mapped(lambda _: np.array(next(values)), slots), counted)


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    optimizer, wrapper = exchange.unwrapped(optimizer)
    exchange.refuse_unbuilt(optimizer)
    counters, slots = _counters_of(optimizer, wrapper), optimizer._slots()
    problems: list[str] = []
    rate = None
    if optimizer._rate_number() is not None:
        saved = state.hyperparameters.get("learning_rate")
        rate = exchange.checked_rate(saved, optimizer._checked_rate, problems)
    dtypes = {name: _Like(variable).dtype for name, variable in counters.items()}
    likes = exchange.mapped(_Like, slots)
    names = exchange.fit(state, likes, dtypes, problems=problems)

    # From here on nothing can be refused.
    values = exchange.values(state, names, slots, counters)
    optimizer._write([variable for variable, _ in values], [value for _, value in values])
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


def _counters_of(optimizer: Any, wrapper: Any) -> dict[str, Any]:
    counters = dict(optimizer._counters())
    if wrapper is not None and wrapper.dynamic:
        counters["loss_scale"] = wrapper._loss_scale.current_loss_scale
        counters["finite_calls"] = wrapper._loss_scale.counter
    return counters
