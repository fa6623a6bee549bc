"""An interrupted step has updated either all variables or none."""

import numpy as np
import pytest

pytest.importorskip("brainpy")
from interrupting import after, at_every_line, interruptible  # noqa: F401

from brainpy_tools import Ours, bm, brainpy, variable


class Constant(brainpy.optim.CallBasedScheduler):
    """A scheduler that counts calls."""

    def __call__(self, i=None):
        return self.lr


def test_all_variables_and_counters_are_of_the_same_step():
    variables = {name: variable([1.0]) for name in ("first", "second", "third")}
    rate = Constant(1.0)
    optimizer = Ours(rate, variables, rho=0.0, epsilon=1.0)
    gradients = {name: bm.ones(1) for name in variables}
    counts = []

    def check():
        calls = int(optimizer.step.value)
        counts.append(calls)
        weight, acc_delta = after(calls)
        for name, averages in optimizer.averages().items():
            np.testing.assert_allclose(variables[name].value, weight, atol=0.1)
            np.testing.assert_array_equal(averages["square_avg"].value, calls > 0)
            np.testing.assert_allclose(averages["acc_delta"].value, acc_delta, rtol=1e-5)
        assert int(rate.last_call.value) == calls - 1

    assert at_every_line(lambda: optimizer.update(gradients), check, stride=5) > 10
    assert len(set(counts)) > 3
