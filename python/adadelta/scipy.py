"""Adadelta as a method of `scipy.optimize.minimize`."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adadelta._core.packages import needed_by

with needed_by("adadelta.scipy", extra="scipy"):
    from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning

from adadelta._core import hyperparameters
from adadelta._core.descent import CLOSE_TO_0, DIFFERENCE, Descent
from adadelta._core.minimization import MAXITER, Minimization

__all__ = ["adadelta"]

_PAPER = hyperparameters.CONVENTIONS["paper"]

# The status and the message for each reason to stop. `ended()` begins the messages of status 0 with
# words of success.
_ENDS = {
    "gtol": (0, "no element of the gradient is larger than `gtol`."),
    "xtol": (0, "x no longer moves by more than `xtol`."),
    "ftol": (0, "the value no longer changes by more than `ftol`."),
    "gain": (0, "by the measured curvature no more than `ftol` can be gained."),
    "f_target": (0, "the value is at most `f_target`."),
    "maxiter": (1, "Maximum number of iterations has been exceeded."),
    "maxfev": (2, "Maximum number of function evaluations has been exceeded."),
    "value": (3, "The function returned NaN or infinity; a smaller `learning_rate` may help."),
    "gradient": (3, "The gradient is NaN or infinite; a smaller `learning_rate` may help."),
    "value_at_start": (3, "The function is NaN or infinite at the start; choose another `x0`."),
    "gradient_at_start": (3, "The gradient is NaN or infinite at the start; choose another `x0`."),
    "rate": (
        4,
        "No step finds a lower value, but the gradient is not 0; try `jac`, parameters of like "
        "size, or another `x0`; `reduce=False` if the function is noisy.",
    ),
    "interrupt": (98, "It was interrupted."),
    "callback": (99, "`callback` raised `StopIteration`."),
}


def adadelta(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    jac: Callable[..., Any] | bool | None = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    *,
    learning_rate: float | Callable[[int], float] = _PAPER.learning_rate,
    rho: float = _PAPER.rho,
    epsilon: float | None = _PAPER.epsilon,
    gtol: float | None = None,
    xtol: float = 0.0,
    ftol: float | None = None,
    f_target: float = -math.inf,
    maxiter: int = MAXITER,
    reduce: bool = True,
    maxfev: int | None = None,
    finite_diff_rel_step: float | None = None,
    disp: bool = False,
    return_all: bool = False,
    tol: float | None = None,
    **unknown_options: Any,
) -> OptimizeResult:
    """Minimize a function with Adadelta (Zeiler 2012): a `method` of `scipy.optimize.minimize`.

    By default it is for functions without noise. After 20 steps (or twice the number of parameters,
    if that is more), or ten in a row that find no lower value, it returns to the best point and
    measures the curvature there, from two gradients for each parameter. It ends when by that
    curvature no more than `ftol` can be gained. Otherwise it continues from there in coordinates in
    which the curvature has the same magnitude in all directions, with half the learning rate if
    nothing was gained. With more than 1,000 parameters it only halves the rate, and ends when no
    element of the gradient is larger than `gtol`.

    With `reduce=False` it is the published method, for functions with noise and for trying out what
    happens in training. It uses gradients only and does not check whether the value falls. Its
    steps begin at about `learning_rate * sqrt(epsilon / (1 - rho))` and grow while they agree. With
    a constant learning rate it can oscillate ever wider in a narrow valley; a falling one settles
    there. The result is the best point seen, which for a noisy function may only be the luckiest.

    Args:
        fun: The function, `fun(x, *args)`, which returns a number; with `jac=True` it returns the
            number and the gradient.
        x0: The starting point: a number or an array of one dimension, used in float64.
        args: Further arguments for `fun` and `jac`.
        jac: The gradient, `jac(x, *args)`, an array of the shape of x; or True when `fun` returns
            it; or None for central differences, within the bounds.
        hess: Not used; if it is given, SciPy's warning says so.
        hessp: Likewise.
        bounds: A `scipy.optimize.Bounds`, or a pair of the lowest and the highest value for each
            element of x, where None is no bound. Steps end at a bound that they would cross, and
            the function is never called outside.
        constraints: Not supported; they raise an error.
        callback: Called after every step as `callback(x)`, or, if its only parameter has this
            name, as `callback(intermediate_result=...)` with an `OptimizeResult` that has the `x`
            and `fun` of that step. `StopIteration` raised in it ends the run.
        learning_rate: A finite number of at least 0, or a function of the number of steps so far
            that returns such a number.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        epsilon: Added inside both square roots, greater than 0.
        gtol: Success if no element of the gradient is larger, except for those that lead across a
            bound. None means `tol`; without a `tol` it means 0, or 1e-5 with `reduce=False`.
        xtol: Success if in `1 / (1 - rho)` successive steps no element of x moved by more than
            `xtol * (xtol + abs(x))`.
        ftol: Success if no more than `ftol * (ftol + abs(value))` can be gained; with
            `reduce=False`, if in as many successive steps the value changed by no more than that.
            None means 1.5e-8, or 0 with `reduce=False`.
        f_target: Success if the value is at most this.
        maxiter: The largest number of steps. Points that measure the curvature do not count.
        reduce: False for the published method.
        maxfev: The largest number of calls of `fun`, or None. The calls for one gradient are not
            interrupted.
        finite_diff_rel_step: For `jac=None`, differences extend on both sides by this times the
            larger of 1/128 and `abs(x)`. None means 9.5e-7.
        disp: Print how it ended.
        return_all: Return the x of every step in `allvecs`.
        tol: Used as `gtol` if that is None; `minimize(tol=...)` passes it.
        **unknown_options: Options that do not exist give SciPy's `OptimizeWarning`.

    Returns:
        An `OptimizeResult` with `x`, `fun` and `jac` at the point with the lowest value, or where
        `gtol` was reached; `nit`, `nfev` and `njev`; `success`, `message` and `status`: 0 for
        success, 1 for `maxiter`, 2 for `maxfev`, 3 for a value or gradient that is not finite (at
        the start, or with `reduce=False`), 4 when no step finds a lower value though the gradient
        is not 0, 99 for `StopIteration`. Points that only measure the curvature are in `nfev` and
        `njev`, but neither in `nit` nor in `allvecs`, and the callback is not called there.

    Raises:
        TypeError: An option is of the wrong type, `x0` is complex, or the function returned
            something other than a number.
        ValueError: An option is out of range, there are constraints, a bound is NaN or above the
            other one, `x0` has more than one dimension, or the gradient has another shape than x.
        KeyboardInterrupt: The run was interrupted. The attribute `result` of the exception has what
            was found so far, an `OptimizeResult` with the status 98.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701; the defaults
        are those of its section 4.1.
        https://docs.scipy.org/doc/scipy/reference/generated/scipy.optimize.minimize.html

    Example:
        >>> from scipy.optimize import minimize, rosen, rosen_der
        >>> import adadelta.scipy
        >>> method = adadelta.scipy.adadelta
        >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method)
        >>> result.success, result.x.round(6)
        (True, array([1., 1.]))

    """
    _refuse_constraints(constraints)
    for name, function, optional in (("fun", fun, False), ("callback", callback, True)):
        if not (callable(function) or (optional and function is None)):
            requirement = "a function, or None" if optional else "a function"
            raise TypeError(hyperparameters.refusal(name, requirement, function))
    for name, given in (("hess", hess), ("hessp", hessp)):
        if given is not None:
            warnings.warn(
                f"Method adadelta does not use Hessian information ({name}).",
                RuntimeWarning,
                stacklevel=3,
            )
    if unknown_options:
        names = ", ".join(unknown_options)
        warnings.warn(f"Unknown solver options: {names}", OptimizeWarning, stacklevel=3)
    disp, return_all, reduce = (
        _truth(name, value)
        for name, value in {"disp": disp, "return_all": return_all, "reduce": reduce}.items()
    )
    if gtol is None:
        default = 0.0 if reduce else 1e-5
        gtol = default if tol is None else hyperparameters.MINIMIZATION["gtol"]("tol", tol)
    if ftol is None:
        ftol = float(np.finfo(float).eps) ** 0.5 if reduce else 0.0
    numbers = {"rho": rho, "epsilon": epsilon, "gtol": gtol, "xtol": xtol, "ftol": ftol}
    numbers.update({"f_target": f_target, "maxiter": maxiter})
    start = _start(x0)
    lower, upper = _limits(bounds, start)
    run = (Descent if reduce else Minimization)(
        start,
        np,
        lower=lower,
        upper=upper,
        **{name: _checked(name, value) for name, value in numbers.items()},
    )
    maxfev = _checked("maxfev", maxfev)
    rate = _rate(learning_rate)
    args = args if isinstance(args, tuple) else (args,)
    relative_step = _checked("finite_diff_rel_step", finite_diff_rel_step)
    function = _Function(fun, args, jac, relative_step, (lower, upper))
    path: list[np.ndarray] = []

    def ended(reason: str) -> OptimizeResult:
        status, message = _ENDS[reason]
        if status == 0:
            message = f"Optimization terminated successfully: {message}"
        value, x, gradient = run.best or (math.nan, run.x, np.full_like(run.x, math.nan))
        result = OptimizeResult(
            x=x,
            fun=value,
            jac=gradient,
            nit=run.steps,
            nfev=function.nfev,
            njev=function.njev,
            status=status,
            success=status == 0,
            message=message,
        )
        if return_all:
            result.allvecs = path
        return result

    try:
        reason = _minimize(run, function, rate, _reporter(callback), maxfev, path)
    except KeyboardInterrupt as interrupt:
        interrupt.result = ended("interrupt")  # type: ignore[attr-defined]
        interrupt.add_note("What was found so far is in the attribute `result` of this exception.")
        raise
    result = ended(reason)
    if disp:
        _show(result)
    return result


def _minimize(
    run: Minimization,
    function: "_Function",
    rate: Callable[[int], float],
    report: Callable[[np.ndarray, float], Any],
    maxfev: int | None,
    path: list[np.ndarray],
) -> str:
    """Run until there is a reason to stop, and return that."""
    while True:
        value, gradient = function(run.x)
        is_step = run.on_path
        if is_step:
            path.append(run.x)
        x = run.x
        reason = run.tell(value, gradient)
        if is_step and run.steps:
            try:
                report(x, value)
            except StopIteration:
                reason = reason or "callback"
        if reason is None and maxfev is not None and function.nfev >= maxfev:
            reason = "maxfev"
        if reason is not None:
            return reason
        # Points that measure the curvature are no steps, and need no rate.
        run.step(rate(run.steps) if run.on_path else 0.0)


class _Function:
    """The user's function and gradient: counts their calls, and passes copies of x to them."""

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        jac: Any,
        relative_step: float | None,
        bounds: tuple[np.ndarray, np.ndarray],
    ) -> None:
        if not (callable(jac) or jac is None or hyperparameters.is_a(jac, bool)):
            raise TypeError(hyperparameters.refusal("jac", "a function, True, or None", jac))
        self.fun, self.args, self.jac = fun, args, jac
        self.relative_step = relative_step or DIFFERENCE
        self.bounds = bounds
        self.nfev = self.njev = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and the gradient, which may be NaN if the value is not finite."""
        if self.jac is True:
            self.nfev += 1
            self.njev += 1
            both = self.fun(x.copy(), *self.args)
            if not (hyperparameters.is_a(both, tuple | list) and len(both) == 2):
                requirement = "False or None, unless `fun` returns the value and the gradient"
                raise TypeError(hyperparameters.refusal("jac", requirement, True))
            return _number(both[0]), _gradient(both[1], x)
        value = self.value(x)
        if not math.isfinite(value):
            return value, np.full_like(x, np.nan)
        self.njev += 1
        if callable(self.jac):
            return value, _gradient(self.jac(x.copy(), *self.args), x)
        return value, self.differences(x)

    def differences(self, x: np.ndarray) -> np.ndarray:
        """Return the gradient from central differences, which are cut off at bounds."""
        slopes = np.zeros_like(x)
        for i, step in enumerate(self.relative_step * np.maximum(CLOSE_TO_0, np.abs(x))):
            change = step * (np.arange(len(x)) == i)
            behind, ahead = np.clip(x - change, *self.bounds), np.clip(x + change, *self.bounds)
            # An element between equal bounds can't change.
            if ahead[i] > behind[i]:
                difference = self.value(ahead) - self.value(behind)
                slopes[i] = difference / (ahead[i] - behind[i])
        return slopes

    def value(self, x: np.ndarray) -> float:
        self.nfev += 1
        return _number(self.fun(x.copy(), *self.args))


def _start(x0: Any) -> np.ndarray:
    try:
        x = np.atleast_1d(np.asarray(x0))
        is_real = x.dtype.kind in "fiu" and not np.ma.is_masked(x0)
    except Exception:
        # It can't be converted to an array.
        is_real = False
    if not is_real:
        raise TypeError(hyperparameters.refusal("x0", "real numbers", x0))
    if x.ndim != 1:
        raise ValueError("'x0' must only have one dimension.")
    return x.astype(np.float64)


def _refuse_constraints(constraints: Any) -> None:
    try:
        has_constraints = bool(np.size(constraints))
    except Exception:
        has_constraints = True
    if has_constraints:
        raise ValueError(
            "`constraints` must be left out: Adadelta has no way to keep to them; use a method "
            'that has, such as "SLSQP"'
        )


def _limits(bounds: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper bounds of x."""
    try:
        if bounds is None:
            return np.full_like(x, -np.inf), np.full_like(x, np.inf)
        low: Any
        high: Any
        if isinstance(bounds, Bounds):
            low, high = bounds.lb, bounds.ub
        else:
            # Pairs for each element of x, where None is infinity.
            pairs = [(low, high) for low, high in bounds]
            low = [-np.inf if bound is None else bound for bound, _ in pairs]
            high = [np.inf if bound is None else bound for _, bound in pairs]
        lower, upper = (
            np.broadcast_to(np.asarray(bound, np.float64), x.shape) for bound in (low, high)
        )
    except Exception:
        requirement = "a `Bounds`, or a pair of numbers or None for each element of x"
        raise ValueError(hyperparameters.refusal("bounds", requirement, bounds)) from None
    if not np.all(lower <= upper):
        requirement = "pairs of which the second is not lower, and neither is NaN"
        raise ValueError(hyperparameters.refusal("bounds", requirement, bounds))
    return lower, upper


def _truth(name: str, value: Any) -> bool:
    # SciPy's own methods accept numbers too, which say how much to print.
    number = hyperparameters.as_number(value)
    if number is None:
        return bool(hyperparameters.Flag()(name, value))
    return number != 0


def _checked(name: str, value: Any) -> Any:
    return hyperparameters.MINIMIZATION[name](name, value)


def _rate(learning_rate: Any) -> Callable[[int], float]:
    if callable(learning_rate):
        return lambda step: hyperparameters.FIXED_RATE("learning_rate(step)", learning_rate(step))
    rate = hyperparameters.check("learning_rate", learning_rate)
    return lambda step: rate


def _number(value: Any) -> float:
    try:
        array = np.asarray(value)
    except Exception:
        raise TypeError(_no_number(value)) from None
    if array.size != 1:
        raise ValueError(_no_number(value))
    number = hyperparameters.as_number(array.reshape(()))
    if number is None:
        raise TypeError(_no_number(value))
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _no_number(value: Any) -> str:
    return f"`fun` must return one number; received {hyperparameters.received(value)}"


def _gradient(value: Any, x: np.ndarray) -> np.ndarray:
    try:
        given = np.asarray(value)
        # NumPy would drop imaginary parts, read texts as numbers, and make None NaN.
        if given.dtype.kind not in "biufO" or any(element is None for element in given.flat):
            raise TypeError
        gradient = np.array(given, dtype=np.float64)
    except Exception:
        shown = hyperparameters.received(value)
        raise TypeError(f"`jac` must return an array of numbers; received {shown}") from None
    if gradient.size != x.size or gradient.ndim > 1:
        raise ValueError(
            f"the gradient must have the shape of x, {x.shape}; received {gradient.shape}"
        )
    return gradient.reshape(x.shape)


def _reporter(callback: Any) -> Callable[[np.ndarray, float], Any]:
    """Return what to call after every step, by SciPy's rule for the two kinds of callbacks."""
    if callback is None:
        return lambda x, value: None
    try:
        names = set(inspect.signature(callback).parameters)
    except ValueError:
        # Some functions written in C have no signature.
        names = set()
    if names == {"intermediate_result"}:
        return lambda x, value: callback(intermediate_result=OptimizeResult(x=x.copy(), fun=value))
    return lambda x, value: callback(x.copy())


def _show(result: OptimizeResult) -> None:
    # As in SciPy's own methods, success is printed, and anything else is a warning.
    if result.success:
        print(result.message)
    else:
        warnings.warn(result.message, OptimizeWarning, stacklevel=4)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit}")
    print(f"         Function evaluations: {result.nfev}")
    print(f"         Gradient evaluations: {result.njev}")
