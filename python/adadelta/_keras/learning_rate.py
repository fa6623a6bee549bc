"""The learning rate: a number, a variable, a schedule, or a function asked at every step."""

from typing import Any

import keras

from adadelta._core import hyperparameters


def is_schedule(value: Any) -> bool:
    """Whether `value` is a Keras learning-rate schedule."""
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def is_function(value: Any) -> bool:
    """Whether `value` is asked for the rate: a callable that is not a schedule or a variable."""
    return callable(value) and not is_schedule(value) and not isinstance(value, keras.Variable)


def checked(value: Any) -> Any:
    """Return a learning rate as the optimizer keeps it, or raise."""
    if is_schedule(value) or is_function(value):
        return value
    if isinstance(value, keras.Variable):
        if tuple(value.shape) != () or "float" not in keras.backend.standardize_dtype(value.dtype):
            raise ValueError(
                hyperparameters.refusal(
                    "learning_rate", "a scalar variable of a floating dtype", value
                )
            )
        return value
    return hyperparameters.check("learning_rate", value)


def answer(function: Any) -> Any:
    """Ask a function for the rate and check what it returns."""
    value = function()
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        if tuple(value.shape) != ():
            raise ValueError(
                hyperparameters.refusal("learning_rate()", "a single number", value)
            )
        return value
    return hyperparameters.ARGUMENTS["learning_rate"]("learning_rate()", value)
