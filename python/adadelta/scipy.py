"""Adadelta as a method of `scipy.optimize.minimize`."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adadelta._core.packages import needed_by

with needed_by("adadelta.scipy", extra="scipy"):
    from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning, approx_fprime

from adadelta._core import hyperparameters
from adadelta._core.minimization import MAXITER, Minimization

__all__ = ["adadelta"]

_PAPER = hyperparameters.CONVENTIONS["paper"]

# The status and the message for each reason to stop.
_ENDS = {
    "gtol": (
        0,
        "Optimization terminated successfully: no element of the gradient is larger than `gtol`.",
    ),
    "xtol": (0, "Optimization terminated successfully: x no longer moves by more than `xtol`."),
    "ftol": (
        0,
        "Optimization terminated successfully: the value no longer changes by more than `ftol`.",
    ),
    "f_target": (0, "Optimization terminated successfully: the value is at most `f_target`."),
    "maxiter": (1, "Maximum number of iterations has been exceeded."),
    "maxfev": (2, "Maximum number of function evaluations has been exceeded."),
    "value": (3, "The function returned NaN or infinity; a smaller `learning_rate` may help."),
    "gradient": (3, "The gradient is NaN or infinite; a smaller `learning_rate` may help."),
    "value_at_start": (3, "The function is NaN or infinite at the start; choose another `x0`."),
    "gradient_at_start": (3, "The gradient is NaN or infinite at the start; choose another `x0`."),
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
    ftol: float = 0.0,
    f_target: float = -math.inf,
    maxiter: int = MAXITER,
    maxfev: int | None = None,
    finite_diff_rel_step: float | None = None,
    disp: bool = False,
    return_all: bool = False,
    tol: float | None = None,
    **unknown_options: Any,
) -> OptimizeResult:
    """Minimize a function with Adadelta (Zeiler 2012): a `method` of `scipy.optimize.minimize`.

    Adadelta looks at gradients only, never at whether the value falls. Its steps begin at about
    `learning_rate * sqrt(epsilon / (1 - rho))` and lengthen as they agree. With a constant rate it
    can swing ever wider in a narrow valley; a rate that falls settles there. What is returned is
    the best point that it saw; of a noisy function that may be the luckiest.

    Args:
        fun: The function, `fun(x, *args)`, which returns a number; with `jac=True` it returns the
            number and the gradient.
        x0: Where to start: a number or an array of one dimension, used in float64.
        args: What else to call `fun` and `jac` with.
        jac: The gradient, `jac(x, *args)`, an array of the shape of x; or True when `fun` returns
            it; or None for forward differences, by `scipy.optimize.approx_fprime`.
        hess: Not used; SciPy's warning when it is given.
        hessp: Likewise.
        bounds: Refused, unless all are infinite.
        constraints: Refused.
        callback: Called after every step as `callback(x)`, or, when its only parameter has this
            name, as `callback(intermediate_result=...)` with an `OptimizeResult` with the x of
            that step and the `fun` there. `StopIteration` raised in it ends the run.
        learning_rate: A finite number of at least 0, or a function that returns such a number for
            the number of steps so far.
        rho: Decay rate of both averages, at least 0 and less than 1.
        epsilon: Added inside both square roots, greater than 0.
        gtol: Success when no element of the gradient is larger; None for `tol`, or else 1e-5.
        xtol: Success when in `1 / (1 - rho)` successive steps no element of x moved by more than
            `xtol * (xtol + abs(x))`.
        ftol: Success when in as many successive steps the value changed by no more than
            `ftol * (ftol + abs(value))`.
        f_target: Success when the value is at most this.
        maxiter: The largest number of steps.
        maxfev: The largest number of calls of `fun`, or None. Those for one gradient are made
            together.
        finite_diff_rel_step: For `jac=None` the length of a difference is this times the larger
            of 1 and `abs(x)`; None for the root of float64's precision, 1.5e-8.
        disp: Print how it ended.
        return_all: Return the x of every step in `allvecs`.
        tol: `gtol` where that is None: what `minimize(tol=...)` passes.
        **unknown_options: Options that do not exist: SciPy's `OptimizeWarning`.

    Returns:
        An `OptimizeResult` with `x`, `fun` and `jac` at the point with the lowest value, or where
        `gtol` was reached; `nit`, `nfev` and `njev`; `success`, `message` and `status`: 0 for
        success, 1 for `maxiter`, 2 for `maxfev`, 3 for a value or gradient that is not finite,
        99 for `StopIteration`.

    Raises:
        TypeError: An option is of the wrong kind, `x0` is complex, or the function returned
            something other than a number.
        ValueError: An option is out of range, there are bounds or constraints, `x0` has more than
            one dimension, or the gradient has another shape than x.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701; the defaults
        are those of its section 4.1.
        https://docs.scipy.org/doc/scipy/reference/generated/scipy.optimize.minimize.html

    Example:
        >>> from scipy.optimize import minimize, rosen, rosen_der
        >>> import adadelta.scipy
        >>> options = {"learning_rate": lambda step: 0.3 / (1 + step / 50), "epsilon": 0.01}
        >>> result = minimize(
        ...     rosen, [-1.2, 1.0], jac=rosen_der, method=adadelta.scipy.adadelta,
        ...     options={**options, "gtol": 0.1},
        ... )
        >>> result.success, result.x.round(1)
        (True, array([1., 1.]))

    """
    _refuse_limits(bounds, constraints)
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
    if gtol is None:
        gtol = 1e-5 if tol is None else hyperparameters.MINIMIZATION["gtol"]("tol", tol)
    numbers = {"rho": rho, "epsilon": epsilon, "gtol": gtol, "xtol": xtol, "ftol": ftol}
    numbers.update({"f_target": f_target, "maxiter": maxiter})
    disp, return_all = _truth("disp", disp), _truth("return_all", return_all)
    run = Minimization(
        _start(x0), np, **{name: _checked(name, value) for name, value in numbers.items()}
    )
    maxfev = _checked("maxfev", maxfev)
    rate = _rate(learning_rate)
    args = args if isinstance(args, tuple) else (args,)
    function = _Function(fun, args, jac, _checked("finite_diff_rel_step", finite_diff_rel_step))
    report = _reporter(callback)

    path = []
    while True:
        value, gradient = function(run.x)
        path.append(run.x)
        reason = run.tell(value, gradient)
        if run.steps:
            try:
                report(run.x, value)
            except StopIteration:
                reason = reason or "callback"
        if reason is None and maxfev is not None and function.nfev >= maxfev:
            reason = "maxfev"
        if reason is not None:
            break
        run.step(rate(run.steps))

    status, message = _ENDS[reason]
    value, x, gradient = run.best or (value, run.x, gradient)
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
    if disp:
        _show(result)
    return result


class _Function:
    """The user's function and its gradient, counted, with copies of x that may be changed."""

    def __init__(
        self, fun: Callable[..., Any], args: tuple[Any, ...], jac: Any, relative_step: float | None
    ) -> None:
        if not (callable(jac) or jac is None or hyperparameters.is_a(jac, bool)):
            raise TypeError(hyperparameters.refusal("jac", "a function, True, or None", jac))
        self.fun, self.args, self.jac = fun, args, jac
        self.relative_step = relative_step or float(np.finfo(float).eps) ** 0.5
        self.nfev = self.njev = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and the gradient; where the value is not finite, no gradient."""
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
        step = self.relative_step * np.maximum(1.0, np.abs(x))

        def near(point: np.ndarray) -> float:
            # It also asks for the value at x itself, which is known.
            return value if np.array_equal(point, x) else self.value(point)

        return value, approx_fprime(x, near, step)

    def value(self, x: np.ndarray) -> float:
        self.nfev += 1
        return _number(self.fun(x.copy(), *self.args))


def _start(x0: Any) -> np.ndarray:
    try:
        x = np.atleast_1d(np.asarray(x0))
        is_real = x.dtype.kind in "fiu" and not np.ma.is_masked(x0)
    except Exception:
        # It can't be made an array.
        is_real = False
    if not is_real:
        raise TypeError(hyperparameters.refusal("x0", "real numbers", x0))
    if x.ndim != 1:
        raise ValueError("'x0' must only have one dimension.")
    return x.astype(np.float64)


def _refuse_limits(bounds: Any, constraints: Any) -> None:
    """Refuse what x may not leave, unless it can't: bounds that are all infinite bound nothing."""
    try:
        has_bounds = bounds is not None and not _bounds_nothing(bounds)
    except Exception:
        has_bounds = True
    try:
        has_constraints = bool(np.size(constraints))
    except Exception:
        has_constraints = True
    if has_bounds or has_constraints:
        what = "`bounds`" if has_bounds else "`constraints`"
        raise ValueError(
            f"{what} must be left out: Adadelta has no way to keep to them; use a method that "
            'has, such as "L-BFGS-B" for bounds and "SLSQP" for constraints'
        )


def _bounds_nothing(bounds: Any) -> bool:
    if isinstance(bounds, Bounds):
        low, high = bounds.lb, bounds.ub
    else:
        # Pairs for each element of x, where None is infinity.
        pairs = [(low, high) for low, high in bounds]
        low = [-np.inf if bound is None else bound for bound, _ in pairs]
        high = [np.inf if bound is None else bound for _, bound in pairs]
    return bool(np.all(np.equal(low, -np.inf)) and np.all(np.equal(high, np.inf)))


def _truth(name: str, value: Any) -> bool:
    # SciPy's own methods take numbers too, as how much to print.
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
        gradient = np.array(value, dtype=np.float64)
    except Exception:
        shown = hyperparameters.received(value)
        raise TypeError(f"`jac` must return an array of numbers; received {shown}") from None
    if gradient.size != x.size or gradient.ndim > 1:
        raise ValueError(
            f"the gradient must have the shape of x, {x.shape}; received {gradient.shape}"
        )
    return gradient.reshape(x.shape)


def _reporter(callback: Any) -> Callable[[np.ndarray, float], Any]:
    """What to call after every step, by SciPy's rule for the two kinds of callbacks."""
    if callback is None:
        return lambda x, value: None
    try:
        names = set(inspect.signature(callback).parameters)
    except ValueError:
        # Some functions written in C do not say.
        names = set()
    if names == {"intermediate_result"}:
        return lambda x, value: callback(intermediate_result=OptimizeResult(x=x.copy(), fun=value))
    return lambda x, value: callback(x.copy())


def _show(result: OptimizeResult) -> None:
    # As SciPy's own methods: success is printed, all else is a warning.
    if result.success:
        print(result.message)
    else:
        warnings.warn(result.message, OptimizeWarning, stacklevel=4)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit}")
    print(f"         Function evaluations: {result.nfev}")
    print(f"         Gradient evaluations: {result.njev}")
