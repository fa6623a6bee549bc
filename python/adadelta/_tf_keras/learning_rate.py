"""The learning rate of tf_keras: a number, a schedule, or a function called at every step."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.optimizers.schedules import LearningRateSchedule

from adadelta._core import hyperparameters


def checked(value: Any) -> Any:
    """Return a learning rate as the optimizer keeps it, or raise.

    A number becomes a float, a function a `CallableRate`; a schedule stays as it is. As in
    tf_keras, a variable or tensor stands for the number that it holds now.
    """
    if hyperparameters.is_a(value, LearningRateSchedule):
        return value
    value = _read(value)
    if hyperparameters.is_a(value, type):
        raise TypeError(hyperparameters.refusal("learning_rate", "an instance, not a class", value))
    if callable(value):
        return CallableRate(value)
    return hyperparameters.check("learning_rate", value)


def _read(value: Any) -> Any:
    """Return the value of a tensor or variable as an array, and any other object unchanged."""
    try:
        return value.numpy() if isinstance(value, tf.Variable) or tf.is_tensor(value) else value
    except Exception:
        # A tensor of a graph has no value yet: the check reports it.
        return value


class CallableRate(LearningRateSchedule):
    """A function without arguments that is called for the rate at every step.

    A compiled step would keep what the function returned while it was traced.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def __call__(self, step: Any) -> Any:
        """Return the rate, also in a graph."""
        if tf.executing_eagerly():
            return tf.constant(self.answer(), tf.float64)
        # XLA can't call Python and says so with this name.
        name = "learning_rate_function_needs_jit_compile_False"
        return tf.ensure_shape(tf.py_function(self.answer, [], tf.float64, name=name), ())

    def answer(self) -> float:
        """Call the function and check what it returns."""
        return float(hyperparameters.FIXED_RATE("learning_rate()", _read(self.function())))

    def get_config(self) -> dict[str, Any]:
        """Return the function, serialized as tf_keras serializes functions."""
        return {"function": tf_keras.saving.serialize_keras_object(self.function)}
