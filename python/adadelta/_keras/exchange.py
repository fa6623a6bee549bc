"""From the Keras optimizer to `OptimizerState` and back: all is checked before any is taken."""

from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core.messages import Message
from adadelta._keras import learning_rate as rates
from adadelta._keras import loss_scale, precision
from adadelta._keras.state import parameter_names
from adadelta._state import matching
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
    step = number_of(optimizer._iterations)
    state = OptimizerState(
        step=step,
        update=step if optimizer._update_counter is None else number_of(optimizer._update_counter),
        skipped=optimizer.skipped,
        parameters={
            name: {slot: array_of(variable, copy) for slot, variable in slots.items()}
            for name, slots in slots_of(optimizer).items()
        },
    )
    if optimizer._window is not None:
        state.window = number_of(optimizer._window)
        has_gradient = array_of(optimizer._window_has_gradient)
        names = parameter_names(optimizer._trainable_variables)
        state.window_gradients = tuple(
            sorted(name for name, has in zip(names, has_gradient, strict=True) if has)
        )
    scale, calls = _scale_of(optimizer, wrapper)
    if scale is not None:
        state.loss_scale, state.finite_calls = float(array_of(scale)), number_of(calls)
    return state


def import_state(optimizer: Any, state: OptimizerState) -> dict[str, str]:
    """Put a state into the optimizer, or raise with everything that does not fit.

    Returns the state's name for each parameter of the optimizer.
    """
    optimizer, wrapper = unwrapped(optimizer)
    refuse_unbuilt(optimizer)
    slots = slots_of(optimizer)
    names, problems = matching.fit(state, slots, numbered=True)
    scale, calls = _scale_of(optimizer, wrapper)
    problems += _problems_with_counters(optimizer, state, scale is not None)
    counters = {
        "step": (optimizer._iterations, state.step),
        "update": (optimizer._update_counter, state.update),
        "skipped": (optimizer._skipped_counter, state.skipped),
        "window": (optimizer._window, state.window),
        "finite_calls": (calls, state.finite_calls),
    }
    for name, (variable, value) in counters.items():
        largest = None if variable is None else np.iinfo(precision.dtype_of(variable)).max
        if largest is not None and value is not None and value > largest:
            problems.append(f"`{name}` is {value}, and this optimizer counts up to {largest}")
    rate = _new_rate(optimizer, state.hyperparameters.get("learning_rate"), problems)
    matching.refuse(problems)

    # From here on nothing can be refused, and copies keep the state apart from the optimizer.
    values: list[tuple[Any, Any]] = [pair for pair in counters.values() if pair[0] is not None]
    if scale is not None:
        values.append((scale, state.loss_scale))
    if optimizer._window is not None:
        saved = [names.get(name) for name in parameter_names(optimizer._trainable_variables)]
        has_gradient = np.asarray([name in state.window_gradients for name in saved], "int32")
        values.append((optimizer._window_has_gradient, has_gradient))
    for name, own in slots.items():
        values += [(own[slot], state.parameters[names[name]][slot]) for slot in own]
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
    averages = dict(
        zip(
            parameter_names(optimizer._trainable_variables),
            optimizer._trainable_variables,
            strict=True,
        )
    )
    parameters: dict[str, dict[str, np.ndarray]] = {}
    for name, slots in slots_of(optimizer).items():
        # Not by their values: while TensorFlow traces a step, new variables have none yet.
        parameters[name] = {
            slot: np.zeros(tuple(variable.shape), precision.dtype_of(variable))
            for slot, variable in slots.items()
        }
        if "average" in slots:
            parameters[name]["average"] = array_of(precision.value_in_state(averages[name]))
    state = OptimizerState(hyperparameters=hyperparameters, parameters=parameters)
    if optimizer._window is not None:
        state.window = 0
    if optimizer._loss_scale is not None:
        state.loss_scale, state.finite_calls = loss_scale.FIRST, 0
    return state


def _problems_with_counters(optimizer: Any, state: OptimizerState, has_scale: bool) -> list[str]:
    problems = []
    if optimizer._update_counter is None and state.update != state.step:
        problems.append(
            f"it has {state.update} updates in {state.step} calls, and without "
            "`gradient_accumulation_steps` and `skip_nonfinite` every call is an update"
        )
    if optimizer._skipped_counter is None and state.skipped:
        problems.append(
            f"it has {state.skipped} skipped calls, and without `skip_nonfinite` none is skipped"
        )
    steps = optimizer.gradient_accumulation_steps
    if not steps and state.window:
        problems.append(
            f"it has a window of {state.window} calls open, for which an optimizer without "
            "`gradient_accumulation_steps` has no place"
        )
    elif steps and state.window is None:
        problems.append("it has no window, which `gradient_accumulation_steps` needs")
    elif steps and state.window is not None and state.window >= steps:
        problems.append(
            f"its open window has {state.window} calls, and with "
            f"`gradient_accumulation_steps` = {steps} it would never be full"
        )
    complete = state.loss_scale is not None and state.finite_calls is not None
    if has_scale and not complete:
        problems.append("it has no dynamic loss scale, which this optimizer needs")
    elif not has_scale and state.loss_scale is not None:
        problems.append("it has a dynamic loss scale, for which this optimizer has no place")
    return problems


def _new_rate(optimizer: Any, saved: Any, problems: list[str]) -> float | None:
    """The rate to set: the saved one, when both are numbers and they differ."""
    current = optimizer._learning_rate
    if isinstance(saved, bool) or not isinstance(saved, (int, float, np.number)):
        return None
    if not isinstance(current, keras.Variable):
        return None
    try:
        rate = rates.checked(saved)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None
    return None if has_rate(optimizer, rate) else rate


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


def _scale_of(optimizer: Any, wrapper: Any) -> tuple[Any, Any]:
    """The variables of the dynamic loss scale: our own, or those of Keras' wrapper."""
    if wrapper is not None:
        if not wrapper.built:
            raise StateMismatchError(_UNBUILT)
        return wrapper.dynamic_scale, wrapper.step_counter
    return optimizer._loss_scale, optimizer._finite_calls


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
