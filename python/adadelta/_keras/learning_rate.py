"""The learning rate: a number, a variable, a schedule, or a function called at every step.

A compiled step would keep what a function returned while it was traced. Here compiled steps call it
too: on JAX through `jax.experimental.io_callback`, on TensorFlow through `tf.py_function`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import hyperparameters
from adadelta._core.precision import shortest, without_noise
from adadelta._keras import precision
from adadelta._keras.known import array_of, is_traced, number_of


def is_schedule(value: Any) -> bool:
    """Whether `value` is a Keras learning rate schedule."""
    return hyperparameters.is_a(value, keras.optimizers.schedules.LearningRateSchedule)


def checked(value: Any) -> Any:
    """Return a learning rate as the optimizer keeps it, or raise.

    A number or tensor becomes a float, and a function a `CallableRate`. Variables and schedules
    stay as they are.
    """
    if hyperparameters.is_a(value, keras.Variable):
        dtype = keras.backend.standardize_dtype(value.dtype)
        if tuple(value.shape) != () or "float" not in dtype:
            requirement = "a scalar variable of a floating dtype"
            raise ValueError(hyperparameters.refusal("learning_rate", requirement, value))
        return value
    if is_schedule(value) or hyperparameters.is_a(value, CallableRate):
        return value
    if not hyperparameters.has(value, "assign") and not is_traced(value):
        # Tensors, such as `optimizer.learning_rate * 0.5`, become arrays, as on every backend.
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
        # No tensor, or one without a value, such as torch's meta tensors: the check reports it.
        return value


class NoAnswerError(Exception):
    """Raised by a function that has ended the training itself; its step changes nothing."""


class CallableRate:
    """A function that is called for the rate at every step, and whose result is checked.

    Args:
        function: A function without arguments, or of the number of calls so far if it has an
            attribute `takes_step` that is True.

    Attributes:
        failure: The error of a call during training on JAX, where it can't be raised.
        latest: The last rate, for readers that must not call the function; NaN before the first.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.takes_step = hyperparameters.attribute(function, "takes_step") is True
        self.failure: Exception | None = None
        self.latest = math.nan

    def __call__(self, step: Any) -> Any:
        """Return the rate at `step`: a float, or a tensor for a compiled step."""
        # Keras' trainer on JAX takes all values out of the variables, in eager training too.
        weights_are_away = getattr(step, "_value", step) is None
        step = ops.convert_to_tensor(step)
        if not is_traced(step):
            number = int(ops.convert_to_numpy(step))
            return self._answer_or_nan(number) if weights_are_away else self.answer(number)
        self.refuse_main_thread()
        is_jax = keras.config.backend() == "jax"
        return self._called_by_jax(step) if is_jax else self._called_by_tensorflow(step)

    def refuse_main_thread(self) -> None:
        """Raise if the function needs the main thread, where compiled training does not call it."""
        reason = getattr(self.function, "needs_main_thread", None)
        if reason:
            raise ValueError(f"`learning_rate` is {reason}")

    def raise_failure(self) -> None:
        """Raise the error that occurred in training, once."""
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
        """Return the rate, or NaN after an error, which would lose the weights if raised here.

        Training has taken the weights out of the variables. With NaN the step changes nothing, and
        the error is raised when training ends.
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


class Rate:
    """The learning rate of an optimizer, with the number that was given for it.

    A number is usually in a float32 variable, which adds digits that nobody gave. Callbacks set
    what they read from it.

    Attributes:
        value: A variable, a schedule or a `CallableRate`.
        given: The number that was given, if any.
        was_set: Whether the number was set after the optimizer was made.
        is_settled: Whether its dtype is final, as it is once the optimizer is built.
        is_in_a_graph: Whether a TensorFlow graph depends on the kind of rate.

    """

    def __init__(self, value: Any, given: float | None) -> None:
        self.value, self.given = value, given
        self.was_set = self.is_settled = self.is_in_a_graph = False

    @property
    def is_number(self) -> bool:
        """Whether it is a number, in a variable."""
        return isinstance(self.value, keras.Variable)

    @property
    def callable(self) -> CallableRate | None:
        """The rate if it is a function, else None."""
        return self.value if isinstance(self.value, CallableRate) else None

    def now(self, step: Any) -> Any:
        """Return the rate of a step: a variable, or what the schedule or function returns."""
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            self.is_in_a_graph = self.is_in_a_graph or not tf.executing_eagerly()
        return self.value if self.is_number else self.value(step)

    def assign(self, number: float) -> None:
        """Set the number."""
        is_exact = precision.dtype_of(self.value) == "float64"
        short = number if is_exact else without_noise(number)
        self.value.assign(short)
        # Before it is settled, the variable may still become a float64 one.
        self.given = short if self.is_settled else number

    def has(self, number: Any) -> bool:
        """Whether it is this number."""
        if not self.is_number:
            return False
        # The given number has more digits than its variable, which is all that files have.
        return bool(np.asarray(number, precision.dtype_of(self.value)) == self._array())

    def config(self) -> Any:
        """Return the rate's config, as plain Python values."""
        if is_schedule(self.value):
            return keras.optimizers.schedules.serialize(self.value)
        if self.callable is not None:
            return keras.saving.serialize_keras_object(self.callable.function)
        now = self._array()[()]
        if self.given is None or now != np.asarray(self.given, now.dtype):
            return shortest(now)
        return shortest(now) if self.was_set and self.is_settled else self.given

    def answer(self, step: Any) -> float:
        """Return the rate of the next step, after the number of calls in `step`."""
        if self.callable is not None:
            # Not as in a step, which would keep an error until the end of training.
            return self.callable.answer(number_of(step))
        if is_schedule(self.value):
            return float(ops.convert_to_numpy(self.value(step)))
        return float(self.config())

    def latest(self, step: int) -> float:
        """Return the rate of the last of `step` steps."""
        if self.callable is not None:
            # The function may count its calls, so don't call it.
            return self.callable.latest
        rate = self.value if self.is_number else self.value(np.int64(max(step - 1, 0)))
        return float(ops.convert_to_numpy(rate))

    def _array(self) -> np.ndarray:
        return np.asarray(array_of(self.value, copy=False), precision.dtype_of(self.value))

    def __str__(self) -> str:
        """Show the rate in one line."""
        if self.callable is not None:
            return hyperparameters.received(self.callable.function)
        if not is_schedule(self.value):
            return hyperparameters.received(self.config())
        kind = type(self.value).__name__
        arguments = ", ".join(
            f"{name}={hyperparameters.received(value)}"
            for name, value in self.value.get_config().items()
            if value is not None and value != kind
        )
        return f"{kind}({arguments})"
