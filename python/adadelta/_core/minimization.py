"""Minimize a function with Adadelta, one step at a time: where to go next, and when to stop.

The caller evaluates the function: SciPy's front end in Python, R in R. So errors in the function
stay in the caller's language, and no function is called from the other language.

`array` is any namespace with NumPy's names, as in `_core/clipping.py`.
"""

import math
from typing import Any

from adadelta._core import precision, rule

Array = Any

# From a few units away, the published method takes 1,900 steps in a quadratic bowl a hundred times
# as long as wide.
MAXITER = 10_000


class Minimization:
    """A run of Adadelta on one function, in float64.

    In turn, evaluate the function and its gradient at `x`, pass them to `tell`, and unless it
    returns a reason to stop, call `step`.

    Args:
        x: The starting point: a float64 array of one dimension, moved to the nearest bounds.
        array: The namespace of its kind of array.
        rho: As for the rule.
        epsilon: As for the rule.
        gtol: Stop when no element of the gradient is larger than this. Elements that lead across
            the bound on which x lies do not count.
        xtol: Stop when no element of x moves by more than `xtol * (xtol + abs(x))` any more.
        ftol: Stop when the value changes by no more than `ftol * (ftol + abs(value))` any more.
        f_target: Stop when the value is at most this.
        maxiter: Stop after this number of steps.
        lower: The lower bounds of x: a number, or an array like x.
        upper: The upper bounds.

    "Any more" means in `1 / (1 - rho)` successive steps, as many as the averages remember. Where
    the path turns, the value of a single step may be close to the last one by chance.

    Attributes:
        x: The point at which to evaluate the function next.
        steps: The number of steps so far.
        best: The value, x and gradient with the lowest value so far, or those where `gtol` was
            reached; None before the first call of `tell`.

    Example:
        >>> import numpy
        >>> from adadelta._core.minimization import Minimization
        >>> run = Minimization(numpy.array([3.0]), numpy, rho=0.95, epsilon=1e-6, gtol=1e-5)
        >>> while not (reason := run.tell((run.x[0] - 1) ** 2, 2 * (run.x - 1))):
        ...     run.step(learning_rate=1.0)
        >>> reason, round(float(run.x[0]), 3)
        ('gtol', 1.0)

    """

    def __init__(
        self,
        x: Array,
        array: Any,
        *,
        rho: float,
        epsilon: float,
        gtol: float = 0.0,
        xtol: float = 0.0,
        ftol: float = 0.0,
        f_target: float = -math.inf,
        maxiter: int = MAXITER,
        lower: Array = -math.inf,
        upper: Array = math.inf,
    ) -> None:
        self.x = array.clip(x, lower, upper)
        self.steps = 0
        self.best: tuple[float, Array, Array] | None = None
        self._array = array
        self._rho, self._epsilon = rho, epsilon
        self._gtol, self._xtol, self._ftol = gtol, xtol, ftol
        self._f_target, self._maxiter = f_target, maxiter
        self._lower, self._upper = lower, upper
        self._memory = math.ceil(1 / (1 - rho))
        self._value: float | None = None
        self._gradient: Array = None
        # Successive steps in which x or the value hardly changed.
        self._x_rests = self._f_rests = 0
        self._square_avg = self._acc_delta = array.zeros_like(x)
        self._largest = precision.largest_gradient(epsilon, "float64")

    @property
    def on_path(self) -> bool:
        """Whether the next point is on the path."""
        return True

    def tell(self, value: float, gradient: Array) -> str | None:
        """Record the value and the gradient at `x`; return why to stop, or None to continue.

        A reason is the name of an argument, or "value" or "gradient" if that is NaN or infinite,
        or "value_at_start" or "gradient_at_start" if it is so at the starting point.
        """
        array, last = self._array, self._value
        self._value, self._gradient = value, gradient
        if not math.isfinite(value):
            return "value" if self.steps else "value_at_start"
        if self.best is None or (value < self.best[0] and self._may_be_best(gradient)):
            self.best = (value, self.x, gradient)
        if not array.all(array.isfinite(gradient)):
            return "gradient" if self.steps else "gradient_at_start"
        if last is not None:
            is_close = abs(value - last) <= self._ftol * (self._ftol + abs(value))
            self._f_rests = self._f_rests + 1 if is_close else 0
        if array.all(array.abs(self._inward(self.x, gradient)) <= self._gtol) and self._may_end():
            self.best = (value, self.x, gradient)
            return "gtol"
        if value <= self._f_target:
            return "f_target"
        return self._rests() or ("maxiter" if self.steps >= self._maxiter else None)

    def step(self, learning_rate: float) -> None:
        """Make one step from `x`."""
        array, start = self._array, self.x
        gradient = self._turned(self._inward(start, self._gradient))
        gradient = rule.saturated(gradient, self._largest, array.clip)
        step, self._square_avg, self._acc_delta = rule.update(
            gradient, self._square_avg, self._acc_delta, self._rho, self._epsilon, array.sqrt
        )
        moved = start - learning_rate * self._turned_back(step)
        self.x = array.clip(moved, self._lower, self._upper)
        limit = self._xtol * (self._xtol + array.abs(start))
        is_at_rest = array.all(array.abs(self.x - start) <= limit)
        self._x_rests = self._x_rests + 1 if is_at_rest else 0
        self.steps += 1

    def _inward(self, x: Array, gradient: Array) -> Array:
        """Return the gradient with 0 for elements that lead across the bound on which `x` lies."""
        array = self._array
        is_outward = ((x <= self._lower) & (gradient > 0)) | ((x >= self._upper) & (gradient < 0))
        return array.where(is_outward, 0.0, gradient)

    def _may_be_best(self, gradient: Array) -> bool:
        """Whether a point with this gradient may be the best one."""
        return True

    def _may_end(self) -> bool:
        """Whether a gradient of 0 at `x` ends the run."""
        return True

    def _rests(self) -> str | None:
        """Return the reason to stop if the value or x hardly changes any more, else None."""
        if self._f_rests >= self._memory:
            return "ftol"
        return "xtol" if self._x_rests >= self._memory else None

    def _turned(self, gradient: Array) -> Array:
        """Return the gradient in the coordinates in which the steps are made."""
        return gradient

    def _turned_back(self, step: Array) -> Array:
        """Return a step of these coordinates in those of x."""
        return step
