"""The method for scipy.optimize.minimize: its steps, its results, and when it stops."""

import doctest
import math

import numpy as np
import pytest
from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning, minimize, rosen, rosen_der

import adadelta.scipy
from problems import read_problems

# With a constant rate Adadelta leaves this valley; with these it gets to 2e-7 in 8,000 steps.
FALLING = {"learning_rate": lambda step: 0.3 / (1 + step / 50), "epsilon": 0.01}
START = [-1.2, 1.0]


def bowl(x):
    return float(np.sum((x - 3) ** 2))


def slope(x):
    return 2 * (x - 3)


def run(fun=bowl, x0=(0.0, 1.0), jac=slope, callback=None, args=(), **options):
    return minimize(
        fun, x0, args, method=adadelta.scipy.adadelta, jac=jac, callback=callback, options=options
    )


def test_the_examples_run():
    assert doctest.testmod(adadelta.scipy).failed == 0


def test_the_path_is_that_of_the_paper():
    curvature = np.array([1.0, 10.0, 100.0])
    path = run(
        lambda x: float(np.sum(curvature * x**2)),
        [5.0, -3.0, 8.0],
        lambda x: 2 * curvature * x,
        **{"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-4, "maxiter": 300, "return_all": True},
        reduce=False,
    ).allvecs
    assert len(path) == 301
    x, v, u = [5.0, -3.0, 8.0], [0.0] * 3, [0.0] * 3
    for point in path:
        # Dividing two square roots rounds each of the 300 steps differently, by about 1e-16 of x.
        np.testing.assert_allclose(point, x, rtol=0, atol=1e-13)
        for i in range(3):
            gradient = 2 * curvature[i] * x[i]
            v[i] = 0.9 * v[i] + 0.1 * gradient**2
            step = math.sqrt(u[i] + 1e-4) / math.sqrt(v[i] + 1e-4) * gradient
            u[i] = 0.9 * u[i] + 0.1 * step**2
            x[i] -= 0.5 * step


def test_it_finds_the_minimum_and_says_how():
    result = run(reduce=False)
    assert isinstance(result, OptimizeResult)
    assert result.success is True and result.status == 0 and "gtol" in result.message
    np.testing.assert_allclose(result.x, [3, 3], atol=1e-5)
    assert np.max(np.abs(result.jac)) <= 1e-5
    assert result.fun == bowl(result.x) and isinstance(result.fun, float)
    assert result.nfev == result.njev == result.nit + 1
    assert result.x.dtype == np.float64


def test_it_goes_down_the_narrow_valley():
    result = run(rosen, START, rosen_der, maxiter=8000, reduce=False, **FALLING)
    assert result.fun < 1e-6
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-3)


@pytest.mark.parametrize("direct", [False, True])
def test_three_ways_to_the_gradient(direct):
    calls = []

    def both(x):
        calls.append(x)
        return bowl(x), slope(x)

    def solve(fun, jac):
        if direct:
            return adadelta.scipy.adadelta(fun, [0.0, 1.0], jac=jac, gtol=1e-6, maxiter=2000)
        return run(fun, jac=jac, gtol=1e-6, maxiter=2000)

    given = solve(bowl, slope)
    together = solve(both, True)
    assert len(calls) == together.nfev == together.njev == given.nfev
    np.testing.assert_array_equal(together.x, given.x)
    numerical = solve(bowl, None)
    np.testing.assert_allclose(numerical.x, given.x, atol=1e-5)
    # One evaluation at x, and two for each of its two elements.
    assert numerical.nfev == 5 * numerical.njev


def test_differences_are_relative_to_x_and_can_be_chosen():
    seen = []

    def fun(x):
        seen.append(float(x[0]))
        return (x[0] - 1) ** 2

    run(fun, [1000.0], None, maxiter=0, finite_diff_rel_step=1e-3)
    assert sorted(seen) == [999.0, 1000.0, 1001.0]


def test_further_arguments_reach_both_functions():
    def fun(x, target, weight):
        return weight * bowl(x - target + 3)

    def jac(x, target, weight):
        return weight * slope(x - target + 3)

    np.testing.assert_allclose(run(fun, jac=jac, args=(5.0, 2.0)).x, [5, 5], atol=1e-5)
    one = adadelta.scipy.adadelta(lambda x, target: bowl(x - target + 3), [0.0], 5.0)
    np.testing.assert_allclose(one.x, [5], atol=1e-5)


def test_when_it_stops():
    assert run(maxiter=7).nit == 7
    for options, status, word in [
        ({"maxiter": 7}, 1, "iterations"),
        ({"maxfev": 7}, 2, "function evaluations"),
        ({"gtol": 0.1}, 0, "gtol"),
        ({"gtol": 0, "ftol": 1e-6}, 0, "ftol"),
        ({"gtol": 0, "ftol": 0, "xtol": 1e-6}, 0, "xtol"),
        ({"f_target": 1.0}, 0, "f_target"),
    ]:
        result = run(reduce=False, **options)
        assert (result.status, result.success) == (status, status == 0)
        assert word in result.message, options
    assert run(maxfev=7).nfev == 7
    assert 0.1 > np.max(np.abs(run(gtol=0.1, reduce=False).jac)) > 0.05
    assert run(f_target=1.0).fun <= 1.0 < bowl(run(f_target=1.0, return_all=True).allvecs[-2])


def test_the_start_may_be_the_minimum():
    result = run(x0=[3.0, 3.0])
    assert result.success and result.nit == 0 and result.nfev == 1


def test_minimize_passes_its_tolerance():
    at = adadelta.scipy.adadelta
    published = {"reduce": False}
    loose = minimize(bowl, [0.0], method=at, jac=slope, tol=0.1, options=published)
    assert 0.05 < np.max(np.abs(loose.jac)) <= 0.1
    both = minimize(bowl, [0.0], method=at, jac=slope, tol=0.1, options={"gtol": 1e-3})
    assert np.max(np.abs(both.jac)) <= 1e-3


def test_callbacks_of_both_kinds():
    points, results = [], []

    def of_result(intermediate_result):
        results.append(intermediate_result)

    path = run(callback=points.append, maxiter=5, return_all=True).allvecs
    run(callback=of_result, maxiter=5)
    np.testing.assert_array_equal(points, path[1:])
    assert [it.fun for it in results] == [bowl(point) for point in points]
    np.testing.assert_array_equal([it.x for it in results], points)


def test_a_callback_ends_the_run():
    def stop(x):
        if bowl(x) < 1:
            raise StopIteration

    result = run(callback=stop)
    assert result.status == 99 and not result.success and "StopIteration" in result.message
    assert result.fun < 1


def test_the_rate_is_asked_for_each_step():
    steps = []

    def rate(step):
        steps.append(step)
        return 0.5

    result = run(learning_rate=rate, maxiter=5)
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(result.x, run(learning_rate=0.5, maxiter=5).x)


def test_what_swings_out_of_a_valley_returns_its_best_point():
    result = run(rosen, START, rosen_der, return_all=True, reduce=False)
    values = [rosen(x) for x in result.allvecs]
    assert not result.success
    # The run ends at a higher value than it had reached before.
    assert result.fun == min(values) < 0.5 * values[-1]
    np.testing.assert_array_equal(result.x, result.allvecs[int(np.argmin(values))])
    np.testing.assert_array_equal(result.jac, rosen_der(result.x))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["value", "gradient", "differences"])
def test_what_is_not_finite_ends_the_run(bad, where):
    def fun(x):
        return bad if where != "gradient" and x[0] > 2 else bowl(x)

    def jac(x):
        return np.array([bad, 0.0]) if where == "gradient" and x[0] > 2 else slope(x)

    result = run(fun, jac=None if where == "differences" else jac, reduce=False)
    assert result.status == 3 and not result.success and 0 < result.nit < 2000
    assert "learning_rate" in result.message
    if where == "gradient":
        assert 2 < result.x[0] < 2.1
    else:
        assert 1.9 < result.x[0] <= 2 and math.isfinite(result.fun)


def test_a_start_that_is_not_finite_is_returned():
    result = run(lambda x: math.nan)
    assert result.status == 3 and result.nit == 0 and math.isnan(result.fun)
    np.testing.assert_array_equal(result.x, [0, 1])
    assert "at the start" in result.message and "learning_rate" not in result.message
    result = run(bowl, jac=lambda x: np.array([math.inf, 0.0]))
    assert result.status == 3 and result.nit == 0
    assert result.message == "The gradient is NaN or infinite at the start; choose another `x0`."


def test_huge_gradients_neither_overflow_nor_stand_still():
    result = run(
        lambda x: 1e250 * float(x[0]), [0.0], lambda x: np.full(1, 1e250), maxiter=50, reduce=False
    )
    assert result.status == 1 and -100 < result.x[0] < -0.1


def test_the_users_arrays_stay_apart():
    start, gradient = np.array([0.0, 1.0]), np.empty(2)

    def fun(x):
        value = bowl(x)
        x[:] = 77
        return np.array([[value]])

    def jac(x):
        gradient[:] = slope(x)
        x[:] = 77
        return gradient

    # The last step goes far uphill, so the best gradient is not the last one.
    options = {
        "maxiter": 50,
        "reduce": False,
        "learning_rate": lambda step: 1.0 if step < 49 else 1e4,
    }
    result = run(fun, start, jac, **options)
    np.testing.assert_array_equal(result.x, run(**options).x)
    np.testing.assert_array_equal(result.jac, slope(result.x))
    np.testing.assert_array_equal(start, [0, 1])


@pytest.mark.parametrize(
    "x0", [2, 2.0, [2], np.float32(2), np.array([2], "int8")], ids=lambda x0: type(x0).__name__
)
def test_every_start_becomes_a_float64_vector(x0):
    result = run(x0=x0)
    assert result.x.shape == (1,) and result.x.dtype == np.float64
    np.testing.assert_allclose(result.x, 3, atol=1e-5)


def test_what_it_cannot_do_is_refused():
    at = adadelta.scipy.adadelta
    with pytest.raises(ValueError, match="`constraints` must be left out"):
        minimize(bowl, [0.0], method=at, constraints={"type": "eq", "fun": bowl})
    with pytest.warns(RuntimeWarning, match=r"Hessian information \(hess\)"):
        minimize(bowl, [0.0], method=at, hess=lambda x: np.eye(1), options={"maxiter": 1})
    with pytest.warns(OptimizeWarning, match="Unknown solver options: lr, nonsense"):
        run(lr=3, nonsense=1, maxiter=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rho": 1.0}, ValueError, "`rho` must be a number of at least 0 and less than 1; rec"),
        ({"epsilon": 0}, ValueError, "`epsilon` must be"),
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be"),
        (
            {"learning_rate": lambda step: "fast"},
            TypeError,
            r'`learning_rate\(step\)` .* received "fast"',
        ),
        ({"gtol": -1}, ValueError, "`gtol` must be a finite number of at least 0; received -1"),
        ({"xtol": "a"}, TypeError, "`xtol` must be"),
        ({"ftol": math.nan}, ValueError, "`ftol` must be"),
        ({"f_target": math.nan}, ValueError, "`f_target` must be a number, not NaN"),
        ({"maxiter": 2.5}, ValueError, "`maxiter` must be a whole number"),
        ({"maxfev": 0}, ValueError, "`maxfev` must be a whole number of at least 1, or None"),
        ({"finite_diff_rel_step": 0}, ValueError, "`finite_diff_rel_step` must be"),
        ({"x0": [[1.0, 2.0]]}, ValueError, "only have one dimension"),
        ({"x0": [1j]}, TypeError, "`x0` must be real numbers"),
        ({"fun": lambda x: x}, ValueError, "`fun` must return one number"),
        ({"fun": lambda x: "low"}, TypeError, '`fun` must return one number; received "low"'),
        ({"jac": lambda x: np.ones(3)}, ValueError, r"gradient .* shape of x, \(2,\); .* \(3,\)"),
        ({"jac": lambda x: 1j * x}, TypeError, "`jac` must return an array of numbers; received"),
        ({"jac": lambda x: ["1", "2"]}, TypeError, "`jac` must return an array of numbers"),
        ({"jac": lambda x: [1.0, None]}, TypeError, "`jac` must return an array of numbers"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_errors_of_the_function_arrive_as_they_are():
    def fun(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(fun)


def test_a_bad_jac_is_refused_when_called_directly():
    with pytest.raises(TypeError, match='`jac` must be a function, True, or None; received "3-'):
        adadelta.scipy.adadelta(bowl, [0.0], jac="3-point")


def test_disp_says_how_it_ended(capsys):
    run(disp=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Optimization terminated successfully")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "Current function value",
        "Iterations",
        "Function evaluations",
        "Gradient evaluations",
    ]
    with pytest.warns(OptimizeWarning, match="Maximum number of iterations"):
        run(disp=True, maxiter=1)
    assert "terminated successfully" not in capsys.readouterr().out
    run()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("problem", "jac"),
    [
        pytest.param(problem, jac, id=f"{problem.name}, {jac}")
        for problem in read_problems()
        for jac in ("exact", "differences")
        # Finite differences for 50 parameters would take as long as all other cases together.
        if jac == "exact" or len(problem.start) < 50
    ],
)
def test_it_ends_where_the_best_of_four_methods_does(problem, jac):
    result = run(problem.value, problem.start, problem.slope if jac == "exact" else None)
    # An optimum of 0 is compared as if it were 1e-6.
    is_there = result.fun - problem.best <= 1e-6 * (abs(problem.best) + 1e-6)
    assert result.success and is_there, result
    assert result.fun == problem.value(result.x)


def test_points_that_measure_are_not_of_the_path():
    seen, reported = [], []

    def fun(x):
        seen.append(x)
        return rosen(x)

    result = run(fun, START, rosen_der, reported.append, return_all=True)
    assert result.success and result.nfev == len(seen) > len(result.allvecs) == result.nit + 1
    np.testing.assert_array_equal(reported, result.allvecs[1:])


def test_a_saddle_is_no_end():
    # At the saddle the function falls only off the axes, which nothing but the curvature shows.
    def saddle(x):
        a, b = x[0] + x[1], x[0] - x[1]
        return a**2 - b**2 + b**4

    result = run(saddle, [1.0, 1.0], None)
    assert result.success and result.fun == pytest.approx(-0.25, abs=1e-8)


@pytest.mark.parametrize("jac", [slope, None])
@pytest.mark.parametrize("bounds", [[(None, 2), (4, None)], Bounds([-np.inf, 4], [2, np.inf])])
@pytest.mark.parametrize("reduce", [True, False])
def test_it_keeps_to_bounds(bounds, jac, reduce):
    points = []

    def fun(x):
        points.append(x)
        return bowl(x) + x[0] * x[1]

    def gradient(x):
        return slope(x) + x[::-1]

    result = minimize(
        fun,
        [9.0, 9.0],
        method=adadelta.scipy.adadelta,
        bounds=bounds,
        jac=jac and gradient,
        options={"reduce": reduce, "ftol": 1e-9},
    )
    seen = list(points)
    theirs = minimize(fun, [2.0, 9.0], method="L-BFGS-B", bounds=bounds)
    assert result.success, result.message
    np.testing.assert_allclose(result.x, theirs.x, atol=1e-4)
    assert all(x[0] <= 2 and x[1] >= 4 for x in seen)


def test_equal_bounds_keep_an_element():
    result = minimize(
        rosen, [0.0, 0.5], method=adadelta.scipy.adadelta, bounds=[(None, None), (0.5, 0.5)]
    )
    assert result.success and result.x[1] == 0.5
    assert result.x[0] == pytest.approx(0.70856, abs=1e-4)


def test_what_is_not_finite_on_the_way_is_stepped_back_from():
    def fun(x):
        return np.log(x[0]) * 2 + 3 / x[0] if x[0] > 0 else math.nan

    result = run(fun, [9.0], None)
    assert result.success and result.x[0] == pytest.approx(1.5, abs=1e-4)
    result = run(lambda x: math.nan if x[0] > 2 else bowl(x))
    assert result.status == 4 and "reduce=False" in result.message


def test_an_interrupt_holds_what_was_found():
    calls = []

    def fun(x):
        calls.append(x)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return rosen(x)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(fun, START, rosen_der)
    result = caught.value.result
    assert result.status == 98 and not result.success and result.nfev == 40
    assert result.fun == rosen(result.x) == min(rosen(x) for x in calls[:-1])


def test_many_parameters_are_not_measured():
    scale = np.linspace(1, 3, 1001)
    result = run(lambda x: float(scale @ x**2), np.ones(1001), lambda x: 2 * scale * x, gtol=1e-4)
    assert result.success and result.njev < 1001
