"""From the Keras optimizer to `OptimizerState` and back: all is checked before any is taken."""

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from adadelta._keras import learning_rate as rates
from adadelta._keras import loss_scale, precision
from adadelta._keras.known import array_of
from adadelta._keras.state import State
from adadelta._state import exchange, matching
from adadelta._state.record import OptimizerState


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, with its arguments."""
    state = learned(optimizer)
    state.hyperparameters = exchange.unwrapped(optimizer)[0].get_config()
    state.hyperparameters.pop("name")
    return state


def learned(optimizer: Any, copy: bool = True) -> OptimizerState:
    """Return what the optimizer knows, without its arguments: not all can be put into words.

    Without `copy` the arrays may be the optimizer's own.
    """
    _, own, counted = _held(optimizer)
    read = functools.partial(array_of, copy=copy)
    counters = {name: read(variable) for name, variable in counted.items()}
    names: Iterable[str] = ()
    if own.window_has_gradient is not None:
        names = itertools.compress(own.names, array_of(own.window_has_gradient, False))
    return exchange.state_of(exchange.mapped(read, own.slots()), counters, window_gradients=names)


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    optimizer, own, counters = _held(optimizer)
    slots = own.slots()
    problems: list[str] = []
    rate = _new_rate(optimizer, state.hyperparameters.get("learning_rate"), problems)
    names = exchange.fit(
        state,
        slots,
        {name: precision.dtype_of(variable) for name, variable in counters.items()},
        accumulation_steps=optimizer.gradient_accumulation_steps,
        problems=problems,
    )

    # From here on nothing can be refused, and copies keep the state apart from the optimizer.
    values = exchange.values(state, names, slots, counters)
    if own.window_has_gradient is not None:
        has_gradient = [names.get(name) in state.window_gradients for name in own.names]
        values.append((own.window_has_gradient, has_gradient))
    for variable, value in values:
        variable.assign(np.array(value, precision.dtype_of(variable)))
    if rate is not None:
        _set_rate(optimizer, rate)
    return names


def import_rate(optimizer: Any, saved: Any) -> None:
    """Set a saved learning rate, if the optimizer has a number too, or raise."""
    problems: list[str] = []
    rate = _new_rate(optimizer, saved, problems)
    matching.refuse(problems)
    if rate is not None:
        _set_rate(optimizer, rate)


def _set_rate(optimizer: Any, number: float) -> None:
    optimizer.learning_rate = number
    rate_of(optimizer).was_set = False


def _new_rate(optimizer: Any, saved: Any, problems: list[str]) -> float | None:
    """The rate to set: the saved one, when both are numbers and they differ."""
    if not rate_of(optimizer).is_number:
        return None
    rate = exchange.checked_rate(saved, rates.checked, problems)
    return None if rate is None or rate_of(optimizer).has(rate) else rate


def start_of(own: State, hyperparameters: dict[str, Any]) -> OptimizerState:
    """What a built optimizer knows before its first call."""
    slots = own.slots()
    # Not by their values: while TensorFlow traces a step, new variables have none yet.
    arrays = exchange.mapped(
        lambda variable: np.zeros(tuple(variable.shape), precision.dtype_of(variable)), slots
    )
    for name, variable in zip(own.names, own.parameters, strict=True):
        if "average" in slots.get(name, ()):
            arrays[name]["average"] = array_of(precision.value_in_state(variable))
    counters: dict[str, float] = dict.fromkeys(own.counters(), 0)
    if "loss_scale" in counters:
        counters["loss_scale"] = loss_scale.FIRST
    return exchange.state_of(arrays, counters, hyperparameters)


def _held(optimizer: Any) -> tuple[Any, State, dict[str, Any]]:
    """The optimizer inside Keras' wrapper, its variables, and those that count.

    Where there is a wrapper, it has the dynamic loss scale.
    """
    optimizer, wrapper = exchange.unwrapped(optimizer)
    own = variables_of(optimizer)
    counters = own.counters()
    if wrapper is not None:
        exchange.refuse_unbuilt(wrapper)
        counters.update(loss_scale=wrapper.dynamic_scale, finite_calls=wrapper.step_counter)
    return optimizer, own, counters


def variables_of(optimizer: Any) -> State:
    """The variables of an optimizer, or an error when it is not built.

    What is outside of an optimizer gets its variables and its rate from here.
    """
    exchange.refuse_unbuilt(optimizer)
    own: State = optimizer._state
    return own


def step_of(optimizer: Any) -> Any:
    """The variable that counts the calls of an optimizer, built or not."""
    return optimizer._iterations


def rate_of(optimizer: Any) -> rates.Rate:
    """The learning rate of an optimizer."""
    rate: rates.Rate = optimizer._rate
    return rate
