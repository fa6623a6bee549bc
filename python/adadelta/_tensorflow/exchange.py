"""From TensorFlow's optimizers to `OptimizerState` and back: all is checked before any is taken."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adadelta._state import exchange
from adadelta._state.record import OptimizerState


class Parts(NamedTuple):
    """What an optimizer consists of, for those who move its state.

    Attributes:
        counters: The variables that count, by their names in `OptimizerState`.
        slots: The variables about each parameter, by its name and by slot.
        read: Returns the values of variables: of all at once, since in a graph each call is a run
            of the session.
        write: Gives variables these values.
        rate: The number that is the learning rate, or None.
        check_rate: Returns a number that can be the learning rate, or raises.
        set_rate: Sets the learning rate.

    """

    counters: Mapping[str, Any]
    slots: exchange.Slots[Any]
    read: Callable[[Sequence[Any]], Sequence[Any]]
    write: Callable[[Sequence[Any], Sequence[Any]], None]
    rate: float | None
    check_rate: Callable[[Any], float]
    set_rate: Callable[[float], None]


def _parts_of(optimizer: Any) -> Parts:
    """Return the parts of an optimizer, alone or in a `LossScaleOptimizer`."""
    optimizer, wrapper = exchange.unwrapped(optimizer)
    parts: Parts = optimizer._parts()
    if wrapper is None or not wrapper.dynamic:
        return parts
    scale = wrapper._loss_scale
    of_wrapper = {"loss_scale": scale.current_loss_scale, "finite_calls": scale.counter}
    return parts._replace(counters={**parts.counters, **of_wrapper})


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, with its arguments."""
    state = learned(_parts_of(optimizer))
    state.hyperparameters = exchange.unwrapped(optimizer)[0]._portable_config()
    return state


def learned(parts: Parts) -> OptimizerState:
    """Return what an optimizer knows, without its arguments: not all can be put into words."""
    variables = [
        *parts.counters.values(),
        *(variable for own in parts.slots.values() for variable in own.values()),
    ]
    values = iter(parts.read(variables))
    counted = dict(zip(parts.counters, values, strict=False))
    return exchange.state_of(
        exchange.mapped(lambda _: np.array(next(values)), parts.slots), counted
    )


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

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

    # From here on nothing can be refused.
    values = exchange.values(state, names, parts.slots, parts.counters)
    parts.write([variable for variable, _ in values], [value for _, value in values])
    if rate is not None:
        parts.set_rate(rate)
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
