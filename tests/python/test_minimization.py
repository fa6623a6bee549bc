"""The loop that SciPy's front end and R share: when it stops, and what it remembers."""

import math

import numpy as np
import pytest

from adadelta._core.descent import LARGEST, Descent
from adadelta._core.minimization import Minimization


def follow(values, gradients=None, **options):
    """Pass these values to a run; return the reasons that it gave, and the run."""
    run = Minimization(np.zeros(2), np, **{"rho": 0.75, "epsilon": 1e-6, **options})
    reasons = []
    for i, value in enumerate(values):
        gradient = np.ones(2) if gradients is None else np.asarray(gradients[i], float)
        reasons.append(run.tell(value, gradient))
        run.step(1.0)
    return reasons, run


def test_a_value_that_repeats_by_chance_is_no_end():
    # With rho 0.75 the averages remember 4 steps.
    reasons, _ = follow([5, 5, 5, 5, 4, 4, 4, 4, 4])
    assert reasons == [None] * 8 + ["ftol"]


def test_the_tolerance_of_the_value_is_relative_and_absolute():
    def ends(values, ftol):
        return follow(values, ftol=ftol)[0][-1] == "ftol"

    large = [1000, 1000.9, 1000, 1000.9, 1000]
    assert ends(large, 1e-3) and not ends(large, 8e-4)
    small = [0, 9e-7, 0, 9e-7, 0]
    assert ends(small, 1e-3) and not ends(small, 8e-4)


def test_x_is_at_rest_only_after_as_many_steps():
    reasons, run = follow(range(6, 0, -1), [[1, 1]] + [[1e-300, 0]] * 5, xtol=1e-9)
    assert reasons == [None] * 5 + ["xtol"]
    assert run.steps == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_reason(bad):
    reasons, run = follow([5, 4, bad])
    assert reasons == [None, None, "value"] and run.best[0] == 4
    reasons, run = follow([5, 4, 6], [[1, 1], [1, 1], [1, bad]])
    assert reasons == [None, None, "gradient"] and run.best[0] == 4
    assert follow([bad])[0] == ["value_at_start"]
    assert follow([5], [[1, bad]])[0] == ["gradient_at_start"]


def test_the_best_is_the_lowest_or_where_the_gradient_vanished():
    reasons, run = follow([5, 3, 4])
    assert run.best[0] == 3 and reasons == [None] * 3
    reasons, run = follow([5, 3, 4], [[1, 1], [1, 1], [1e-6, -1e-6]], gtol=1e-5)
    assert reasons[-1] == "gtol" and run.best[0] == 4
    np.testing.assert_array_equal(run.best[2], [1e-6, -1e-6])


def test_every_element_of_the_gradient_counts():
    assert follow([1], [[0, -1]], gtol=0.5)[0] == [None]
    assert follow([1], [[0, -0.5]], gtol=0.5)[0] == ["gtol"]


def test_targets_and_limits():
    assert follow([3, 2, 1], f_target=2)[0][1] == "f_target"
    assert follow([3, 2, 1], maxiter=1)[0][1] == "maxiter"
    assert follow([3], maxiter=0)[0] == ["maxiter"]
    # Success comes before failure.
    assert follow([3, 2], [[1, 1], [0, 0]], maxiter=1)[0][1] == "gtol"


def descend(value, slope, start, **options):
    """Run `Descent` on a function; return why it stopped, the run, and all points."""
    run = Descent(
        np.array(start, float), np, **{"rho": 0.95, "epsilon": 1e-6, "ftol": 1e-8, **options}
    )
    points = []
    while True:
        points.append((run.on_path, run.x))
        if reason := run.tell(value(run.x), slope(run.x)):
            return reason, run, points
        run.step(1.0)


def test_it_ends_where_nothing_can_be_gained():
    scale = np.array([1.0, 1e6])
    reason, run, points = descend(lambda x: scale @ x**2, lambda x: 2 * scale * x, [5, -3])
    assert reason == "gain" and run.best[0] < 1e-16
    # Twice the curvature of two parameters, from four points, and one period of 20 steps.
    assert [is_step for is_step, _ in points].count(False) <= 12 and run.steps < 45


def test_it_leaves_a_saddle_on_which_it_has_no_gradient():
    # The value falls between the axes, where neither the gradient nor a point on an axis shows it.
    def value(x):
        return (x[0] + x[1]) ** 2 - (x[0] - x[1]) ** 2 + (x[0] - x[1]) ** 4

    def slope(x):
        across = -2 * (x[0] - x[1]) + 4 * (x[0] - x[1]) ** 3
        return 2 * (x[0] + x[1]) + np.array([across, -across])

    reason, run, _ = descend(value, slope, [1, 1])
    assert reason == "gain" and run.best[0] == pytest.approx(-0.25, abs=1e-8)


def test_it_looks_along_the_lowest_curvature_before_it_ends():
    # Next to this saddle the curvature promises little gain, and all points on the axes are
    # higher. The value falls between the axes.
    reason, run, _ = descend(
        lambda x: x @ x - 3 * x[0] * x[1] + np.sum(x**4),
        lambda x: 2 * x - 3 * x[::-1] + 4 * x**3,
        [1e-30, 1e-30],
    )
    assert reason == "gain" and run.best[0] == pytest.approx(-0.125, abs=1e-8)


def test_it_goes_along_a_bent_valley():
    def slope(x):
        return np.array(
            [-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)]
        )

    reason, run, _ = descend(
        lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, slope, [-1.2, 1]
    )
    # 250 steps; in the coordinates of x alone it takes thousands.
    assert reason == "gain" and run.best[0] < 1e-12 and run.steps < 400


def test_it_steps_back_from_what_is_not_finite():
    def value(x):
        return 2 * math.log(x[0]) + 3 / x[0] if x[0] > 0 else math.nan

    reason, run, _ = descend(value, lambda x: 2 / x - 3 / x**2, [9])
    assert reason == "gain" and run.best[1] == pytest.approx(1.5, abs=1e-4)


def test_it_says_when_no_step_finds_a_lower_value():
    reason, run, _ = descend(lambda x: abs(x[0] - 1 / 3), lambda x: np.sign(x - 1 / 3), [5])
    assert reason == "rate" and run.best[0] < 0.01
    # Gradients that are unrelated to the values.
    reason, run, _ = descend(lambda x: x[0] ** 2, lambda x: -1 - x**2, [5])
    assert reason == "rate" and run.best[0] <= 25


def test_measuring_keeps_to_bounds():
    reason, run, points = descend(
        lambda x: (x[0] - 3) ** 2 + (x[1] - x[0]) ** 2,
        lambda x: np.array([2 * (x[0] - 3) - 2 * (x[1] - x[0]), 2 * (x[1] - x[0])]),
        [9, 9],
        lower=np.array([-1.0, 0.0]),
        upper=np.array([2.0, 9.0]),
    )
    assert reason == "gain"
    np.testing.assert_allclose(run.best[1], [2, 2], atol=1e-4)
    assert all(-1 <= x[0] <= 2 and 0 <= x[1] <= 9 for _, x in points)


def test_many_parameters_are_not_measured():
    start = np.ones(LARGEST + 1)
    reason, _, points = descend(lambda x: 1.0, lambda x: x, start)
    assert reason == "rate" and all(is_step for is_step, _ in points)
