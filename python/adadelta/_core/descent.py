"""Adadelta for functions without noise, which measures the curvature to know when to stop.

The published method uses gradients only. It can't tell that it has reached a minimum, oscillates
in narrow valleys, and stalls on plateaus. `Descent` adds three rules:

1. A period ends after 20 steps (2 n with more than 10 parameters), or with the tenth step in a row
   that finds no lower value. Then it returns to the best point. If that is a new one, it measures
   the curvature there: the Hessian, from 2 n gradients close by.
2. It ends when the possible gain by that curvature, half of the product of the gradient and the
   Newton step, is at most `ftol`, and no point beside it is lower.
3. Otherwise it continues from there with a Newton step, in coordinates in which the curvature has
   magnitude 1 in every direction. After a period without a gain the learning rate is halved; after
   a gain it is doubled, up to the given one.

These coordinates use the magnitude of negative curvatures too, as the saddle-free Newton method
does: Dauphin et al., arXiv:1406.2572.

On the 30 problems of `tests/problems/` it ends within a relative 1e-6 of the best of four other
methods. So did a prototype, with 12,000 gradients in all. With periods of 50 steps it took 22,800,
and without the Newton step it missed 8 problems. Going back and halving the rate, without
measuring the curvature, was fooled by Wood's function and others.
"""

import math
from typing import Any

from adadelta._core.minimization import Array, Minimization

# The Hessian of more parameters takes more memory and time than most functions are worth.
LARGEST = 1000

_PERIOD = 20
_PATIENCE = 10
# The rate halved twenty times in a row.
_SMALLEST_RATE = 2.0**-20
# The relative steps of central differences: DIFFERENCE for values, and _DIFFERENCE, the fourth root
# of float64's precision, for gradients. An element of x closer to 0 than CLOSE_TO_0 counts as that
# large. With the third root for values, 6.1e-6, Meyer's function seemed to end 5e-4 too high.
DIFFERENCE = 2.0**-20
CLOSE_TO_0 = 2.0**-7
_DIFFERENCE = 2.0**-13
# Curvatures below this share of the largest are rounding errors and are raised to this.
_FLATTEST = 1e-12
# A point beside the best one counts as lower only by more than this relative rounding error.
_ROUNDING = 2.0**-48


class Descent(Minimization):
    """A minimization of a function without noise, which ends where it can't get lower.

    It is used like `Minimization` and has the same arguments. Some of its points only measure the
    curvature; `on_path` is False for them.

    `tell` has two more reasons. "gain", which replaces "ftol", means that by the measured curvature
    no more than `ftol * (ftol + abs(value))` can be gained. "rate" means that no step finds a lower
    value, though more could be gained. After the start, a value or gradient that is not finite ends
    the period and not the run.

    Example:
        >>> import numpy
        >>> from adadelta._core.descent import Descent
        >>> run = Descent(numpy.array([3.0]), numpy, rho=0.95, epsilon=1e-6, ftol=1e-8)
        >>> while not (reason := run.tell((run.x[0] - 1) ** 4, 4 * (run.x - 1) ** 3)):
        ...     run.step(learning_rate=1.0)
        >>> reason, bool(run.best[0] < 1e-8)
        ('gain', True)

    """

    def __init__(self, x: Array, array: Any, **arguments: Any) -> None:
        super().__init__(x, array, **arguments)
        # The directions of the coordinates, as columns; None for the coordinates of x.
        self._directions: Array = None
        self._can_measure = len(x) <= LARGEST
        self._rate = 1.0
        self._period = max(_PERIOD, 2 * len(x))
        # The curvature that is being measured or was measured last.
        self._curvature: _Curvature | None = None
        # The steps of this period, how many since the best one, and the value at its start.
        self._made = self._in_vain = 0
        self._begun_with = math.inf

    @property
    def on_path(self) -> bool:
        """Whether the next point is on the path."""
        return not (self._curvature and self._curvature.ahead)

    def tell(self, value: float, gradient: Array) -> str | None:
        """Record the value and the gradient at `x`; return why to stop, or None to continue."""
        if not self.on_path:
            return self._tell_beside(value, gradient)
        last = self.best
        reason = super().tell(value, gradient)
        is_off = reason in ("value", "gradient")
        if reason is not None and not is_off:
            return reason
        best = self._best()
        if last is None:
            self._begun_with = value
        self._in_vain = 0 if best is not last else self._in_vain + 1
        return self._end_period(is_off) if is_off or self._is_over() else None

    def step(self, learning_rate: float) -> None:
        """Move `x` by a step from the last or the best point, or to a point beside the latter."""
        if self._curvature and self._curvature.ahead:
            self.x = self._curvature.ahead[0][1]
        else:
            super().step(learning_rate * self._rate)
            self._made += 1

    def _best(self) -> tuple[float, Array, Array]:
        assert self.best is not None
        return self.best

    def _limit(self) -> float:
        """Return the largest gain that is too small to continue for."""
        return self._ftol * (self._ftol + abs(self._best()[0]))

    def _gain(self, x: Array, gradient: Array) -> float:
        """Return what can be gained, by the measured curvature."""
        turned = self._turned(self._inward(x, gradient))
        return float(self._array.sum(turned * turned)) / 2

    def _is_over(self) -> bool:
        """Whether the period is over."""
        if self._made >= self._period or self._in_vain >= _PATIENCE:
            return True
        has_arrived = self._directions is not None and not self._in_vain
        return has_arrived and self._gain(self.x, self._gradient) <= self._limit()

    def _end_period(self, is_off: bool) -> str | None:
        best = self._best()
        if self._begun_with - best[0] > self._limit():
            self._rate = min(1.0, 2 * self._rate)
        elif is_off or self._directions is not None or not self._can_measure:
            self._rate /= 2
        if self.steps >= self._maxiter:
            return "maxiter"
        if self._rate < _SMALLEST_RATE:
            return "rate"
        is_measured = self._curvature is not None and self._curvature.center is best
        if is_measured or not self._can_measure:
            self._begin_period()
        else:
            self._curvature = _Curvature(best, self._array, self._lower, self._upper)
            if not self._curvature.ahead:
                return "gain"
        return None

    def _begin_period(self) -> None:
        """Begin a period at the best point."""
        self._begun_with, self.x, self._gradient = self._best()
        self._made = self._in_vain = self._f_rests = self._x_rests = 0
        turned = self._turned(self._inward(self.x, self._gradient))
        # With equal averages, the first step is as long as the gradient: where the curvature is 1,
        # it is the Newton step. In the coordinates of x, the published method starts over.
        has_turned = self._directions is not None
        self._square_avg = self._acc_delta = turned * turned * has_turned

    def _tell_beside(self, value: float, gradient: Array) -> str | None:
        curvature, best, limit = self._curvature, self._best(), self._limit()
        assert curvature is not None
        rounding = _ROUNDING * abs(best[0])
        if curvature.tell(value, gradient) and value < best[0] - rounding:
            self.best = (value, self.x, gradient)
        if curvature.ahead:
            return None
        center, x, gradient = curvature.center
        if not curvature.has_looked_down:
            directions = curvature.directions(self._inward(x, gradient) != gradient)
            if directions is not None:
                self._directions = directions
                is_low = center - self._best()[0] <= limit
                if is_low and self._gain(x, gradient) <= limit:
                    return None if curvature.look_down() else "gain"
        elif center - value <= rounding:
            return "gain"
        self._begin_period()
        return None

    def _may_be_best(self, gradient: Array) -> bool:
        # The next period begins there.
        return bool(self._array.all(self._array.isfinite(gradient)))

    def _may_end(self) -> bool:
        # On a plateau far above the best point the gradient is 0 too.
        return self.x is self._best()[1]

    def _rests(self) -> str | None:
        return "xtol" if super()._rests() == "xtol" else None

    def _turned(self, gradient: Array) -> Array:
        return gradient if self._directions is None else self._directions.T @ gradient

    def _turned_back(self, step: Array) -> Array:
        return step if self._directions is None else self._directions @ step


class _Curvature:
    """The Hessian at a point, from gradients at points beside it.

    Attributes:
        center: The value, x and gradient at the point.
        ahead: The points still to be evaluated, each after the index of the element of x in which
            it differs.
        has_looked_down: Whether the last point was one in the direction of the lowest curvature.

    """

    def __init__(
        self, center: tuple[float, Array, Array], array: Any, lower: Array, upper: Array
    ) -> None:
        self.center = center
        self.has_looked_down = False
        _, x, gradient = center
        self._array, self._bounds = array, (lower, upper)
        self._distances = _DIFFERENCE * array.maximum(array.abs(x), CLOSE_TO_0)
        self._axes = self._distances * array.eye(len(x))
        self.ahead: list[tuple[int, Array]] = []
        for i, axis in enumerate(self._axes):
            points = (self._within(x - axis), self._within(x + axis))
            self.ahead += [(i, point) for point in points if point[i] != x[i]]
        can_move = {i for i, _ in self.ahead}
        self._is_fixed = [i not in can_move for i in range(len(x))]
        # For each element of x, its values and the gradients there.
        self._seen = [[(x[i], gradient)] for i in range(len(x))]
        self._lowest = 0.0
        self._downward: Array = None

    def tell(self, value: float, gradient: Array) -> bool:
        """Record what was found at the first point ahead; return whether that is finite."""
        i, point = self.ahead.pop(0)
        is_finite = math.isfinite(value) and bool(self._array.all(self._array.isfinite(gradient)))
        if is_finite:
            self._seen[i].append((point[i], gradient))
        return is_finite

    def directions(self, is_at_bound: Array) -> Array | None:
        """Return directions in which the curvature has magnitude 1, as columns.

        The result is None if the curvature could not be measured. An element of x that the gradient
        leads across a bound has a direction of its own, as in Bertsekas' projected Newton method,
        doi:10.1137/0320018.
        """
        array, rows = self._array, []
        for seen, axis, is_fixed in zip(self._seen, self._axes, self._is_fixed, strict=True):
            (low, before), (high, after) = min(seen, key=_place), max(seen, key=_place)
            if high > low:
                rows.append((after - before) / (high - low))
            elif is_fixed:
                rows.append(0.0 * axis)
            else:
                return None
        hessian = array.stack(rows)
        hessian = (hessian + hessian.T) / 2
        is_coupled = ~(is_at_bound[:, None] | is_at_bound) | array.eye(len(rows), dtype=bool)
        hessian = array.where(is_coupled, hessian, 0.0)
        # Each element of x is scaled to curvature 1, for the precision of what follows.
        diagonal = array.abs(array.diag(hessian))
        units = 1 / array.sqrt(array.where(diagonal > 0, diagonal, 1.0))
        curvatures, vectors = array.linalg.eigh(hessian * units * units[:, None])
        vectors = units[:, None] * vectors
        self._lowest, self._downward = float(curvatures[0]), vectors[:, 0]
        sizes = array.abs(curvatures)
        largest = array.max(sizes)
        if not 0 < largest < math.inf:
            return vectors
        return vectors / array.sqrt(array.maximum(sizes, _FLATTEST * largest))

    def look_down(self) -> bool:
        """Add a point in the direction of the lowest curvature if that is negative."""
        _, x, gradient = self.center
        self.has_looked_down = True
        if self._lowest < 0:
            array, way = self._array, self._downward
            way = way / array.max(array.abs(way) / self._distances)
            point = self._within(x - way if array.sum(way * gradient) > 0 else x + way)
            self.ahead.append((0, point))
        return bool(self.ahead)

    def _within(self, x: Array) -> Array:
        return self._array.clip(x, *self._bounds)


def _place(seen: tuple[float, Array]) -> float:
    return seen[0]
