"""Export and import the state of the Keras optimizer; check all of it before any change."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from adadelta._core.loss_scaling import unwrapped
from adadelta._keras import learning_rate as rates
from adadelta._keras import loss_scale, precision
from adadelta._keras.known import array_of
from adadelta._keras.state import State
from adadelta._state import exchange, matching
from adadelta._state.record import OptimizerState


class Parts(NamedTuple):
    """The parts of an optimizer that export, import and saving need.

    Attributes:
        step: The variable that counts calls, which exists from the start.
        rate: Its learning rate.
        set_rate: Sets another learning rate.
        built: Its state variables, or None before it is built.
        variables: Returns all of its variables, in Keras' order.
        accumulation_steps: Over how many calls gradients are accumulated, or None.
        rename_exclusions: Renames the variables without weight decay, from pairs of a variable's
            path and its path in the saved model.
        config_but_rate: Returns its arguments without the learning rate.
        wrapper: The `LossScaleOptimizer` around it, which has the dynamic loss scale, or None.

    """

    step: Any
    rate: rates.Rate
    set_rate: Callable[[Any], None]
    built: State | None
    variables: Callable[[], Sequence[Any]]
    accumulation_steps: int | None
    rename_exclusions: Callable[[list[tuple[str, str]]], None]
    config_but_rate: Callable[[], dict[str, Any]]
    wrapper: Any = None

    @property
    def state(self) -> State:
        """The state variables, up to date; an error before the optimizer is built."""
        if self.built is None:
            raise exchange.unbuilt()
        self.built.catch_up()
        return self.built

    def counters(self) -> dict[str, Any]:
        """Return the variables that count calls, and the loss scale, by name."""
        counters = self.state.counters()
        if self.wrapper is not None:
            if not self.wrapper.built:
                raise exchange.unbuilt()
            counters["loss_scale"] = self.wrapper.dynamic_scale
            counters["finite_calls"] = self.wrapper.step_counter
        return counters


def parts_of(optimizer: keras.optimizers.Optimizer) -> Parts:
    """Return the parts of an `adadelta.Adadelta`, alone or in a `LossScaleOptimizer`."""
    inner, wrapper = unwrapped(optimizer)
    parts: Parts = inner._parts()
    return parts._replace(wrapper=wrapper)


def export_state(optimizer: keras.optimizers.Optimizer) -> OptimizerState:
    """Return the optimizer's state with its arguments."""
    state = learned(parts_of(optimizer))
    state.hyperparameters = unwrapped(optimizer)[0].get_config()
    state.hyperparameters.pop("name")
    return state


def learned(parts: Parts, copy: bool = True) -> OptimizerState:
    """Return the optimizer's state without its arguments, some of which can't be serialized.

    Without `copy` the arrays may be the optimizer's own.
    """
    own = parts.state
    read = functools.partial(array_of, copy=copy)
    counters = {name: read(variable) for name, variable in parts.counters().items()}
    names: Iterable[str] = ()
    if own.window_has_gradient is not None:
        names = itertools.compress(own.names, array_of(own.window_has_gradient, False))
    return exchange.state_of(exchange.mapped(read, own.slots()), counters, window_gradients=names)


def import_state(optimizer: keras.optimizers.Optimizer, state: OptimizerState) -> dict[str, str]:
    """Import a state into the optimizer, or raise an error that lists everything that is wrong.

    Returns the state's name for each parameter of the optimizer.
    """
    return take(parts_of(optimizer), state)


def take(parts: Parts, state: OptimizerState) -> dict[str, str]:
    """See `import_state`."""
    own, counters = parts.state, parts.counters()
    slots = own.slots()
    problems: list[str] = []
    rate = _new_rate(parts, state.hyperparameters.get("learning_rate"), problems)
    names = exchange.fit(
        state,
        slots,
        {name: precision.dtype_of(variable) for name, variable in counters.items()},
        accumulation_steps=parts.accumulation_steps,
        problems=problems,
    )

    # From here on nothing can fail, and copies keep the state separate from the optimizer.
    values = exchange.values(state, names, slots, counters)
    if own.window_has_gradient is not None:
        has_gradient = [names.get(name) in state.window_gradients for name in own.names]
        values.append((own.window_has_gradient, has_gradient))
    for variable, value in values:
        variable.assign(np.array(value, precision.dtype_of(variable)))
    if rate is not None:
        _set_rate(parts, rate)
    return names


def import_rate(parts: Parts, saved: Any) -> None:
    """Set a saved learning rate, if the optimizer has a number too, or raise."""
    problems: list[str] = []
    rate = _new_rate(parts, saved, problems)
    matching.refuse(problems)
    if rate is not None:
        _set_rate(parts, rate)


def _set_rate(parts: Parts, number: float) -> None:
    parts.set_rate(number)
    parts.rate.was_set = False


def _new_rate(parts: Parts, saved: Any, problems: list[str]) -> float | None:
    """Return the saved rate if both rates are numbers and they differ, else None."""
    if not parts.rate.is_number:
        return None
    rate = exchange.checked_rate(saved, rates.checked, problems)
    return None if rate is None or parts.rate.has(rate) else rate


def start_of(own: State, hyperparameters: dict[str, Any]) -> OptimizerState:
    """Return the state of a built optimizer before its first call."""
    slots = own.slots()
    # Not from their values: while TensorFlow traces a step, new variables have none yet.
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
