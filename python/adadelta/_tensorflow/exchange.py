"""Convert TensorFlow optimizers' state to `OptimizerState` and back, checked before any change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adadelta._core.loss_scaling import unwrapped
from adadelta._state import exchange
from adadelta._state.record import OptimizerState


class Parts(NamedTuple):
    """The parts of an optimizer that are needed to export and import its state.

    Attributes:
        counters: The variables that count, by their names in `OptimizerState`.
        slots: The state variables, by the name of the parameter and by slot.
        read: Returns the values of all given variables at once, since in a graph each call is a
            run of the session.
        write: Assigns values to variables.
        rate: The learning rate if it is a number, or None.
        check_rate: Returns a valid learning rate, or raises an error.
        set_rate: Sets the learning rate.

    """

    counters: Mapping[str, Any]
    slots: exchange.Slots[Any]
    read: Callable[[Sequence[Any]], Sequence[Any]]
    write: Callable[[Sequence[Any], Sequence[Any]], None]
    rate: float | None
    check_rate: Callable[[Any], float]
    set_rate: Callable[[float], None]


def _parts_of(optimizer: object) -> Parts:
    """Return the parts of an optimizer, alone or in a `LossScaleOptimizer`."""
    inner, wrapper = unwrapped(optimizer)
    parts: Parts = inner._parts()
    if wrapper is None or not wrapper.dynamic:
        return parts
    scale = wrapper._loss_scale
    of_wrapper = {"loss_scale": scale.current_loss_scale, "finite_calls": scale.counter}
    return parts._replace(counters={**parts.counters, **of_wrapper})


def export_state(optimizer: object) -> OptimizerState:
    """Return the state of the optimizer, with its arguments."""
    state = learned(_parts_of(optimizer))
    state.hyperparameters = unwrapped(optimizer)[0]._portable_config()
    return state


def learned(parts: Parts) -> OptimizerState:
    """Return the state of an optimizer without its arguments, not all of which can be exported."""
    variables = [
        *parts.counters.values(),
        *(variable for own in parts.slots.values() for variable in own.values()),
    ]
    values = iter(parts.read(variables))
    counted = dict(zip(parts.counters, values, strict=False))
    return exchange.state_of(
        exchange.mapped(lambda _: np.array(next(values)), parts.slots), counted
    )


def import_state(optimizer: object, state: OptimizerState) -> dict[str, str]:
    """Load a state into the optimizer, or raise an error that lists everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    return take(_parts_of(optimizer), state)


def take(parts: Parts, state: OptimizerState) -> dict[str, str]:
    """See `import_state`."""
    problems: list[str] = []
    rate = None
    if parts.rate is not None:
        saved = state.hyperparameters.get("learning_rate")
        rate = exchange.checked_rate(saved, parts.check_rate, problems)
    dtypes = {name: _Like(variable).dtype for name, variable in parts.counters.items()}
    likes = exchange.mapped(_Like, parts.slots)
    names = exchange.fit(state, likes, dtypes, problems=problems)

    # All checks are done.
    values = exchange.values(state, names, parts.slots, parts.counters)
    parts.write([variable for variable, _ in values], [value for _, value in values])
    if rate is not None:
        parts.set_rate(rate)
    return names


class _Like:
    """The shape and dtype of a variable, as NumPy's types."""

    def __init__(self, variable: Any) -> None:
        self.shape = tuple(variable.shape.as_list())
        self.dtype = np.dtype(variable.dtype.base_dtype.as_numpy_dtype)


def zeros_like(variable: Any) -> np.ndarray:
    """Return zeros with the shape and dtype of a variable."""
    like = _Like(variable)
    return np.zeros(like.shape, like.dtype)
