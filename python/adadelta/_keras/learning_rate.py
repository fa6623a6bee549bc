"""The learning rate: a number, a variable, a schedule, or a function called at every step.

A compiled step would keep what a function returned while it was traced. Here compiled steps
call it too: on JAX through `jax.experimental.io_callback`, on TensorFlow through `tf.py_function`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import hyperparameters


def is_schedule(value: Any) -> bool:
    """Whether `value` is a Keras learning-rate schedule."""
    return hyperparameters.is_a(value, keras.optimizers.schedules.LearningRateSchedule)


def checked(value: Any) -> Any:
    """Return a learning rate as the optimizer keeps it, or raise.

    A number comes back as float, a tensor too, a function as `CallableRate`, variables and
    schedules as they are.
    """
    if hyperparameters.is_a(value, keras.Variable):
        dtype = keras.backend.standardize_dtype(value.dtype)
        if tuple(value.shape) != () or "float" not in dtype:
            requirement = "a scalar variable of a floating dtype"
            raise ValueError(hyperparameters.refusal("learning_rate", requirement, value))
        return value
    if is_schedule(value) or hyperparameters.is_a(value, CallableRate):
        return value
    if not hyperparameters.has(value, "assign") and _compiler_of(value) is None:
        # What `optimizer.learning_rate * 0.5` is; NumPy's are read the same on every backend.
        value = _read(value)
    if hyperparameters.is_a(value, type):
        raise TypeError(hyperparameters.refusal("learning_rate", "an instance, not a class", value))
    return CallableRate(value) if callable(value) else hyperparameters.check("learning_rate", value)


def _read(value: Any) -> Any:
    """Return the value of a tensor or variable as an array, and any other object unchanged."""
    try:
        is_tensor = isinstance(value, keras.Variable) or ops.is_tensor(value)
        return np.asarray(ops.convert_to_numpy(value)) if is_tensor else value
    except Exception:
        # It has no value, such as torch's meta tensors, or is none: the check says so.
        return value


class NoAnswerError(Exception):
    """Raised by a function that has ended the training itself: its step changes nothing."""


class CallableRate:
    """A function that is called for the rate at every step, and its answer checked.

    Args:
        function: A function of no argument, or of the step when `takes_step`.
        takes_step: Whether it is called with the number of calls so far.

    Attributes:
        failure: What went wrong in a call while training on JAX, where it can't be raised.
        latest: The last answer, for readers that must not call it again; NaN before the first.

    """

    def __init__(self, function: Callable[..., Any], takes_step: bool = False) -> None:
        self.function = function
        self.takes_step = takes_step
        self.failure: Exception | None = None
        self.latest = math.nan

    def __call__(self, step: Any) -> Any:
        """Return the rate at `step`: a float, or the tensor that a compiled step will have."""
        # Keras' trainer on JAX takes all values out of the variables while it trains, eagerly too.
        weights_are_away = getattr(step, "_value", step) is None
        step = ops.convert_to_tensor(step)
        compiler = _compiler_of(step)
        if compiler is None:
            number = int(ops.convert_to_numpy(step))
            return self._answer_or_nan(number) if weights_are_away else self.answer(number)
        self.refuse_main_thread()
        return self._called_by_jax(step) if compiler == "jax" else self._called_by_tensorflow(step)

    def refuse_main_thread(self) -> None:
        """Raise when the function may only be called where compiled training does not call it."""
        reason = getattr(self.function, "needs_main_thread", None)
        if reason:
            raise ValueError(f"`learning_rate` is {reason}")

    def raise_failure(self) -> None:
        """Raise what went wrong in training, once."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def answer(self, step: int) -> float:
        """Call the function and check what it returns."""
        try:
            value = _read(self.function(step) if self.takes_step else self.function())
        except NoAnswerError:
            self.latest = math.nan
            return self.latest
        name = "learning_rate(step)" if self.takes_step else "learning_rate()"
        self.latest = float(hyperparameters.FIXED_RATE(name, value))
        return self.latest

    def _answer_or_nan(self, step: int) -> float:
        """Answer where an error would cost the user the weights, which training has taken away.

        NaN makes the step change nothing, and the error comes when training ends.
        """
        try:
            return self.answer(step)
        except Exception as error:
            self.failure = self.failure or error
            return math.nan

    def _called_by_jax(self, step: Any) -> Any:
        import jax

        dtype = jax.dtypes.canonicalize_dtype("float64")

        def answer(step: Any) -> np.ndarray:
            return np.asarray(self._answer_or_nan(int(step)), dtype)

        return jax.experimental.io_callback(answer, jax.ShapeDtypeStruct((), dtype), step)

    def _called_by_tensorflow(self, step: Any) -> Any:
        import tensorflow as tf

        # XLA can't call Python and says so with this name.
        name = "learning_rate_function_needs_jit_compile_False"
        rate = tf.py_function(lambda step: self.answer(int(step)), [step], tf.float64, name=name)
        return tf.ensure_shape(rate, ())


def _compiler_of(step: Any) -> str | None:
    """Which backend is tracing a step, if any."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return backend if hyperparameters.is_a(step, jax.core.Tracer) else None
    if backend == "tensorflow":
        import tensorflow as tf

        # A variable converts to a tensor that does not look symbolic.
        return None if tf.executing_eagerly() else backend
    return None


@keras.saving.register_keras_serializable(package="adadelta")
class FunctionSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule from a function of the step, called at every step.

    Args:
        function: Called with the number of calls so far, an int from 0, at every step; returns a
            finite number of at least 0.

    Example:
        >>> schedule = FunctionSchedule(lambda step: 1 / (1 + step))
        >>> [round(schedule(step), 2) for step in range(3)]
        [1.0, 0.5, 0.33]

    """

    def __init__(self, function: Callable[[int], float]) -> None:
        self.callable_rate = CallableRate(function, takes_step=True)

    def __call__(self, step: Any) -> Any:
        """Return the rate at `step`."""
        return self.callable_rate(step)

    def get_config(self) -> dict[str, Any]:
        """Return the function, serialized as Keras serializes functions."""
        return {"function": keras.saving.serialize_keras_object(self.callable_rate.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FunctionSchedule":
        """Make a schedule from what `get_config()` returned."""
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def callable_rate_of(rate: Any) -> CallableRate | None:
    """Return the callable rate of a rate that comes from a function, alone or in a schedule."""
    if isinstance(rate, FunctionSchedule):
        return rate.callable_rate
    return rate if isinstance(rate, CallableRate) else None
