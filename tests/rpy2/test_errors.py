"""Errors keep their text on the way from Python through R to Python."""

import sys
import threading

import numpy as np
import pytest

import adadelta


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "optimizer_adadelta(rho = c(0.1, 0.2))",
            "`rho` must be a number of at least 0 and less than 1; received c(0.1, 0.2)",
        ),
        ("optimizer_adadelta(use_ema = NA)", "`use_ema` must be TRUE or FALSE; received NA"),
        (
            'optimizer_adadelta(use_ema = "None")',
            '`use_ema` must be TRUE or FALSE; received "None"',
        ),
        ("optimizer_adadelta(lr = 1)", "(did you mean `learning_rate`?)"),
    ],
)
def test_errors_cross(r, code, message):
    from rpy2.rinterface_lib.embedded import RRuntimeError

    with pytest.raises(RRuntimeError) as error:
        r(code)
    assert message in str(error.value)
    assert "Traceback" not in str(error.value)


def test_the_class_of_the_condition_is_seen_from_r(r):
    classes = r("class(tryCatch(optimizer_adadelta(rho = 2), error = identity))")
    assert list(classes) == ["adadelta_error_argument", "adadelta_error", "error", "condition"]


def test_what_an_r_function_returns_is_checked(from_r):
    optimizer = from_r("optimizer_adadelta(function() c(1, 2))")
    with pytest.raises((TypeError, ValueError), match=r"learning_rate.*received c\(1, 2\)"):
        float(np.asarray(optimizer.learning_rate))


def test_an_r_function_is_not_called_from_another_thread(from_r):
    rate = from_r("adadelta:::as_python_rate(function() 0.5)")
    assert rate() == 0.5
    caught = []

    def ask():
        try:
            rate()
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert "R can call on its own thread only" in caught[0]


def test_r_values_without_a_counterpart_are_refused_as_values(from_r):
    value = from_r("adadelta:::as_python(NA)")
    assert type(value) is sys.modules["adadelta.r"].Value
    with pytest.raises(TypeError, match=r"received NA$"):
        adadelta.Adadelta(rho=value)
