"""Properties of the rule that hold for every input, in float64."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adadelta._core import rule

finite = st.floats(-1e100, 1e100, allow_subnormal=False)
averages = st.floats(0, 1e100, allow_subnormal=False)
rhos = st.floats(0, 0.9999)
epsilons = st.floats(1e-12, 1.0)


def update(gradient, square_avg, acc_delta, rho, epsilon):
    return rule.update(gradient, square_avg, acc_delta, rho, epsilon, np.sqrt)


@given(averages, averages, rhos, epsilons)
def test_a_gradient_of_zero_moves_nothing_and_lets_the_averages_decay(v, u, rho, epsilon):
    assert update(0.0, v, u, rho, epsilon) == (0.0, rho * v, rho * u)


@given(finite, averages, averages, rhos, epsilons)
def test_the_opposite_gradient_makes_the_opposite_step(g, v, u, rho, epsilon):
    step, square_avg, acc_delta = update(g, v, u, rho, epsilon)
    assert update(-g, v, u, rho, epsilon) == (-step, square_avg, acc_delta)


@given(arrays(np.float64, (3, 12), elements=st.floats(0, 1e50)), st.integers(0, 12), rhos, epsilons)
def test_a_tensor_in_two_parts_gives_the_same_as_whole(gvu, at, rho, epsilon):
    whole = update(*gvu, rho, epsilon)
    parts = zip(update(*gvu[:, :at], rho, epsilon), update(*gvu[:, at:], rho, epsilon), strict=True)
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, np.concatenate(two))


@given(finite, averages, averages, rhos, epsilons)
def test_a_step_is_never_longer_than_its_bound(g, v, u, rho, epsilon):
    step, _, _ = update(g, v, u, rho, epsilon)
    # This follows from square_avg >= (1 - rho) g^2. The last factor allows for rounding.
    assert abs(step) <= math.sqrt((u + epsilon) / (1 - rho)) * (1 + 1e-12)


@given(averages, averages, rhos, epsilons)
def test_averages_stay_averages(v, u, rho, epsilon):
    step, square_avg, acc_delta = update(2.0, v, u, rho, epsilon)
    assert min(v, 4.0) * (1 - 1e-12) <= square_avg <= max(v, 4.0) * (1 + 1e-12)
    assert min(u, step**2) * (1 - 1e-12) <= acc_delta <= max(u, step**2) * (1 + 1e-12)


@given(st.floats(1e130, 1.7e308), rhos, epsilons)
def test_limited_gradients_neither_overflow_nor_stand_still(g, rho, epsilon):
    numbers = np.finfo("float64")
    limited = min(g, rule.largest_gradient(epsilon, float(numbers.tiny), float(numbers.max)))
    v = u = 0.0
    for _ in range(50):
        step, v, u = update(limited, v, u, rho, epsilon)
        assert 0 < step < math.inf and v <= numbers.max and math.isfinite(u)


def test_it_runs_on_plain_python_numbers():
    step, v, u = rule.update(1.0, 0.0, 0.0, 0.75, 0.25, math.sqrt)
    assert v == 0.25 and math.isclose(step, math.sqrt(0.5)) and math.isclose(u, 0.125)
