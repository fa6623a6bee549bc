"""From the Keras optimizer to `OptimizerState` and back: all is checked before any is taken."""

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core.messages import Message
from adadelta._keras import learning_rate as rates
from adadelta._keras import loss_scale, precision
from adadelta._keras.state import parameter_names
from adadelta._state import exchange, matching
from adadelta._state.record import SLOTS, OptimizerState, StateMismatchError


def export_state(optimizer: Any) -> OptimizerState:
    """Return what the optimizer knows, with its arguments."""
    state = learned(optimizer)
    state.hyperparameters = unwrapped(optimizer)[0].get_config()
    state.hyperparameters.pop("name")
    return state


def learned(optimizer: Any, copy: bool = True) -> OptimizerState:
    """Return what the optimizer knows, without its arguments: not all can be put into words.

    Without `copy` the arrays may be the optimizer's own.
    """
    optimizer, wrapper = unwrapped(optimizer)
    refuse_unbuilt(optimizer)
    read = functools.partial(array_of, copy=copy)
    counters = {name: read(it) for name, it in _counters_of(optimizer, wrapper).items()}
    names: Iterable[str] = ()
    if optimizer._window is not None:
        has_gradient = array_of(optimizer._window_has_gradient, False)
        names = itertools.compress(parameter_names(optimizer._trainable_variables), has_gradient)
    arrays = exchange.mapped(read, slots_of(optimizer))
    return exchange.state_of(arrays, counters, window_gradients=names)


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    optimizer, wrapper = unwrapped(optimizer)
    refuse_unbuilt(optimizer)
    slots, counters = slots_of(optimizer), _counters_of(optimizer, wrapper)
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
    if optimizer._window is not None:
        saved = [names.get(name) for name in parameter_names(optimizer._trainable_variables)]
        has_gradient = [name in state.window_gradients for name in saved]
        values.append((optimizer._window_has_gradient, has_gradient))
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


def _set_rate(optimizer: Any, rate: float) -> None:
    optimizer.learning_rate = rate
    optimizer._rate_was_set = False


def slots_of(optimizer: Any) -> dict[str, dict[str, Any]]:
    """The variables about each parameter: by its name, then by slot."""
    named = optimizer._named_state()
    slots: dict[str, dict[str, Any]] = {}
    for name in parameter_names(optimizer._trainable_variables):
        for slot in SLOTS:
            variable = named.get(f"{name.replace('/', '|')}|{slot}")
            if variable is not None:
                slots.setdefault(name, {})[slot] = variable
    return slots


def start_of(optimizer: Any, hyperparameters: dict[str, Any]) -> OptimizerState:
    """What a built optimizer knows before its first call."""
    slots = slots_of(optimizer)
    # Not by their values: while TensorFlow traces a step, new variables have none yet.
    arrays = exchange.mapped(lambda it: np.zeros(tuple(it.shape), precision.dtype_of(it)), slots)
    variables = optimizer._trainable_variables
    for name, variable in zip(parameter_names(variables), variables, strict=True):
        if "average" in slots.get(name, ()):
            arrays[name]["average"] = array_of(precision.value_in_state(variable))
    counters: dict[str, float] = dict.fromkeys(_counters_of(optimizer, None), 0)
    if "loss_scale" in counters:
        counters["loss_scale"] = loss_scale.FIRST
    return exchange.state_of(arrays, counters, hyperparameters)


def _new_rate(optimizer: Any, saved: Any, problems: list[str]) -> float | None:
    """The rate to set: the saved one, when both are numbers and they differ."""
    if not isinstance(optimizer._learning_rate, keras.Variable):
        return None
    rate = exchange.checked_rate(saved, rates.checked, problems)
    return None if rate is None or has_rate(optimizer, rate) else rate


def has_rate(optimizer: Any, rate: Any) -> bool:
    """Whether the optimizer's rate is this number."""
    current = optimizer._learning_rate
    if not isinstance(current, keras.Variable):
        return False
    # The one that was given has more digits than its variable, which is all that files may have.
    return bool(np.asarray(rate, precision.dtype_of(current)) == array_of(current, False))


def unwrapped(optimizer: Any) -> tuple[Any, Any]:
    """The optimizer and Keras' wrapper around it, if there is one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer, optimizer
    return optimizer, None


def _counters_of(optimizer: Any, wrapper: Any) -> dict[str, Any]:
    """The variables that count and the loss scale: our own, or those of Keras' wrapper."""
    counters = {
        "step": optimizer._iterations,
        "update": optimizer._update_counter,
        "skipped": optimizer._skipped_counter,
        "window": optimizer._window,
        "loss_scale": optimizer._loss_scale,
        "finite_calls": optimizer._finite_calls,
    }
    if wrapper is not None:
        refuse_unbuilt(wrapper)
        counters.update(loss_scale=wrapper.dynamic_scale, finite_calls=wrapper.step_counter)
    return {name: variable for name, variable in counters.items() if variable is not None}


_UNBUILT = Message(
    "This optimizer is not built, so it has no state yet: call "
    "optimizer.build(model.trainable_variables) first",
    "unbuilt",
)


def refuse_unbuilt(optimizer: Any) -> None:
    if not optimizer.built:
        raise StateMismatchError(_UNBUILT)


def array_of(variable: Any, copy: bool = True) -> np.ndarray:
    if getattr(variable, "_value", variable) is None:
        raise RuntimeError(
            "the state is inside compiled training: in a callback, reach the optimizer by "
            "self.model.optimizer, which brings it back"
        )
    array = np.asarray(ops.convert_to_numpy(variable))
    # Most versions of Keras copy already.
    is_copy = array.flags.owndata and array.flags.writeable
    return np.array(array) if copy and not is_copy else array


def number_of(variable: Any) -> int:
    return int(array_of(variable, False))
