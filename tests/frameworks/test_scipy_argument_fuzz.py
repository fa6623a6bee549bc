"""The SciPy front end accepts or cleanly refuses random options."""

import math

import numpy as np
import pytest
from scipy.optimize import Bounds, minimize

import adadelta.scipy
from argument_sets import FLOAT32, RHO, Argument, Candidate, Way, failures, whole

TOLERANCE = Argument((0.0, 1e-5), lambda it: 0 <= it < math.inf and it < 2**1024)
SWITCH = Argument((True, False), lambda it: True, flag=True)
OPTIONS = {
    "learning_rate": Argument((1.0, 0.1), lambda it: 0 <= it <= FLOAT32, functions=False),
    "rho": RHO,
    "epsilon": Argument((1e-6,), lambda it: 2.0**-1022 <= it < math.inf and it < 2**1024),
    "xtol": TOLERANCE,
    "ftol": Argument((None, 0.1), TOLERANCE.accepts, optional=True),
    "gtol": Argument((None, 0.1), TOLERANCE.accepts, optional=True),
    "f_target": Argument((-math.inf, 0.0), lambda it: it == it and abs(it) != 10**400),
    "maxiter": Argument((0, 3), lambda it: whole(0, math.inf, it)),
    "maxfev": Argument((None, 2), lambda it: whole(1, math.inf, it), optional=True),
    "finite_diff_rel_step": Argument(
        (None, 1e-8), lambda it: 2.0**-52 <= it < math.inf and it < 2**1024, optional=True
    ),
    "disp": SWITCH,
    "reduce": SWITCH,
    "return_all": SWITCH,
}


def bowl(x):
    return float(np.sum(np.square(x)))


@np.errstate(all="ignore")
def minimized(values):
    options = {"maxiter": 2, **values}
    minimize(bowl, [1.0, 2.0], method=adadelta.scipy.adadelta, options=options)
    return {}


def started(values):
    adadelta.scipy.adadelta(bowl, maxiter=0, **values)
    return {}


def by_keyword(values):
    adadelta.scipy.adadelta(bowl, [1.0], maxiter=0, **values)
    return {}


@pytest.mark.filterwarnings("ignore")
def test_scipy():
    lists = (
        "list",
        "empty list",
        "tuple",
        "array of one",
        "array of none",
        "array of two",
        "range",
        "bytearray",
    )
    start = Argument((1.0, -3.0), lambda it: True, flag=True, also=lists)
    function = Argument((None,), optional=True, functions=True, also=("class",))
    arrays = [
        Candidate("array of objects", lambda: np.array([object()])),
        Candidate("array of times", lambda: np.array([1, 2], "m8[s]")),
    ]
    ways = [
        Way("options", OPTIONS, minimized),
        Way("callback", {"callback": function}, by_keyword),
        Way("tol", {"tol": OPTIONS["gtol"]}, by_keyword),
        Way("x0", {"x0": start}, started, may_refuse=lambda given: True),
    ]
    assert not failures("scipy", ways, arrays)


@pytest.mark.parametrize(
    "bounds",
    [
        [(None, None), (None, None)],
        [(-np.inf, None), (None, np.inf)],
        Bounds([-np.inf, -np.inf], [np.inf, np.inf]),
        Bounds(),
    ],
)
def test_bounds_that_bound_nothing_are_taken(bounds):
    result = minimize(bowl, [1.0, 2.0], method=adadelta.scipy.adadelta, bounds=bounds)
    assert result.success


@pytest.mark.parametrize(
    "bounds",
    [[(0, 1)] * 3, [(2, 1)] * 2, [(0, math.nan)] * 2, Bounds([0, 0, 0], 1), 3, "bounds", [1, 2]],
)
def test_other_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="`bounds` must be"):
        adadelta.scipy.adadelta(bowl, [1.0, 2.0], bounds=bounds)


@pytest.mark.parametrize("x0", [np.ma.masked, object(), [1j], ["a"], [[1], [1, 2]], None])
def test_a_start_that_is_no_array_of_numbers_is_refused(x0):
    with pytest.raises(TypeError, match="`x0` must be real numbers"):
        adadelta.scipy.adadelta(bowl, x0)


def test_functions_of_the_wrong_kind_are_refused():
    for values in ({"jac": "exact"}, {"jac": True}, {"jac": 1}, {"jac": lambda x: "a"}):
        with pytest.raises(TypeError, match="`jac` must"):
            adadelta.scipy.adadelta(bowl, [1.0], **values)
    with pytest.raises(TypeError, match="`fun` must be a function"):
        adadelta.scipy.adadelta(3, [1.0])
    for value in (object(), "a", 1j, None):
        with pytest.raises(TypeError, match="`fun` must return one number"):
            adadelta.scipy.adadelta(lambda x, value=value: value, [1.0])


def test_numbers_that_float64_cant_hold_are_refused():
    with pytest.raises(ValueError, match=r"`epsilon` must be at least 2\.23e-308"):
        adadelta.scipy.adadelta(bowl, [1.0], epsilon=1e-310)
    with pytest.raises(ValueError, match=r"`finite_diff_rel_step` must be at least 2\.22e-16"):
        adadelta.scipy.adadelta(bowl, [1.0], finite_diff_rel_step=1e-20)
