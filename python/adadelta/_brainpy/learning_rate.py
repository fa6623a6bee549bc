"""The learning rate: a number, a variable, a scheduler, or a function, each as a scheduler.

BrainPy's schedulers keep their initial rate as a Python number, which compiled training never reads
again. Here it is in a variable, so `set_value()` reaches compiled training.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from adadelta._brainpy.host import brainpy
from adadelta._core import hyperparameters
from adadelta._jax import precision

bm = brainpy.math
Array = Any

_check = hyperparameters.ARGUMENTS["learning_rate"]


def checked(lr: Any) -> Any:
    """Return a rate in the form that `scheduler_of` accepts, or raise. Nothing changes."""
    if hyperparameters.is_a(lr, brainpy.optim.Scheduler):
        if not hyperparameters.is_a(lr.lr, bm.Variable):
            _check("lr", lr.lr)
        return lr
    if hyperparameters.is_a(lr, bm.Variable):
        is_float = jnp.issubdtype(lr.dtype, jnp.floating)
        if lr.size != 1 or not is_float or not 0 <= float(bm.as_jax(lr).reshape(())) < jnp.inf:
            requirement = "a variable of one finite number of at least 0"
            raise ValueError(hyperparameters.refusal("lr", requirement, bm.as_jax(lr)))
        return lr
    if hyperparameters.is_a(lr, type):
        raise TypeError(hyperparameters.refusal("lr", "an instance, not a class", lr))
    return lr if callable(lr) else _check("lr", _plain(lr))


def scheduler_of(lr: Any) -> Any:
    """Return a checked rate as a scheduler."""
    if not isinstance(lr, brainpy.optim.Scheduler):
        return Function(lr) if callable(lr) else Constant(lr)
    if not isinstance(lr.lr, bm.Variable):
        lr.lr = Rate(lr.lr)
    return lr


def value_of(scheduler: Any) -> Array:
    """Return the rate of this step, checked if its value is known already."""
    rate = scheduler()
    rate = bm.as_jax(rate) if isinstance(rate, bm.Array) else rate
    return rate if precision.is_traced(rate) else _check("lr()", rate)


def _plain(value: Any) -> Any:
    return bm.as_jax(value) if hyperparameters.is_a(value, bm.Array) else value


class Rate(brainpy.math.Variable):
    """A number that can be set, after a check, while compiled functions use it."""

    def __init__(self, value: float) -> None:
        self.given = _check("lr", value)
        super().__init__(jnp.asarray(self.given, jax.dtypes.canonicalize_dtype(jnp.float64)))

    @property
    def value(self) -> Array:
        """The number."""
        return bm.Variable.value.fget(self)

    @value.setter
    def value(self, value: Any) -> None:
        if not precision.is_traced(value):
            self.given = _check("lr", _plain(value))
            value = jnp.asarray(self.given, self.dtype)
        bm.Variable.value.fset(self, value)

    def number(self) -> float:
        """Return the number as it was given, unless compiled code has changed it since."""
        now = self.value
        return self.given if now == jnp.asarray(self.given, now.dtype) else float(now)


class Constant(brainpy.optim.Constant):
    """The same rate at every step, until another is set.

    Args:
        lr: The rate: a number, or a variable of one element.

    """

    def __init__(self, lr: Any) -> None:
        super().__init__(0.0)
        self.lr = lr if isinstance(lr, bm.Variable) else Rate(lr)

    def __call__(self, i: Any = None) -> Array:
        """Return the rate."""
        return jnp.reshape(bm.as_jax(self.lr), ())

    def set_value(self, learning_rate: Any) -> None:
        """Set another rate, for compiled functions too."""
        number = _check("lr", _plain(learning_rate))
        if isinstance(self.lr, Rate):
            self.lr.value = number
        else:
            self.lr.value = jnp.full(self.lr.shape, number, self.lr.dtype)

    def __repr__(self) -> str:
        rate = self()
        shown = "traced" if precision.is_traced(rate) else f"{float(rate):g}"
        return f"{type(self).__name__}(lr={shown})"


class Function(brainpy.optim.CallBasedScheduler):
    """A function as the rate.

    Args:
        function: A function without arguments, which is called at every step, by compiled functions
            too; or a function of the number of steps so far, in `jax.numpy`, like optax' schedules.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(0.0)
        self.function = function
        self.takes_step = _takes_argument(function)

    def __call__(self, i: Any = None) -> Array:
        """Return the rate of this step."""
        step = self.last_call.value + 1 if i is None else i
        if self.takes_step:
            return _plain(self.function(step))
        if not precision.is_traced(step):
            return self._answer()
        dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
        return io_callback(
            lambda: np.asarray(self._answer(), dtype), jax.ShapeDtypeStruct((), dtype)
        )

    def _answer(self) -> float:
        answer = _plain(self.function())
        return float(_check("lr()", _without_axis(answer)))

    def set_value(self, learning_rate: Any) -> None:
        """Raise an error: the function determines the rate."""
        raise ValueError(
            "`lr` is a function, which says what the rate is; change what it returns; received "
            f"{hyperparameters.received(learning_rate)}"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.function!r})"


def _without_axis(value: Any) -> Any:
    """Return the element of an array of one, and anything else as it is."""
    try:
        return np.asarray(value).reshape(()) if value.shape == (1,) else value
    except Exception:
        return value


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )
