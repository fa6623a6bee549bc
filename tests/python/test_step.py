"""The step of `_core/step.py` itself, on NumPy arrays, gives the numbers of all shared vectors."""

import numpy as np
import pytest

import vectors
from adadelta._core import clipping, step
from adadelta._core.step import COLLECT, FOLLOW, SKIP, UPDATE, Call, Options, Row
from adadelta._kernels import numpy_arrays

# The tolerance of test_vectors_bite.py.
TOLERANCE = 1e-11

# The vectors' "variables" are the `parameter` of a row.
FIELDS = ("parameter", *vectors.TENSORS[1:])
CASES = [case for name in vectors.NAMES for case in vectors.load(name)]


def non_negative(parameter):
    return np.maximum(parameter, 0.0)


def if_known(predicate, if_true, if_false):
    return if_true() if predicate else if_false()


class Reference:
    """An optimizer with only what `_core/step.py` leaves out: a loop over rows, and counters."""

    def __init__(self, case):
        get = self.get = case["arguments"].get
        self.steps = get("gradient_accumulation_steps")
        self.options = Options(
            get("rho"),
            get("epsilon"),
            maximize=get("maximize", False),
            clipnorm=get("clipnorm"),
            clipvalue=get("clipvalue"),
            global_clipnorm=get("global_clipnorm"),
            decay_mode=case.get("weight_decay_mode", "decoupled"),
            ema_momentum=get("ema_momentum", 0.0),
        )
        self.rows = [self._row(variable) for variable in case["variables"]]
        # Whether each variable had a gradient since the last update.
        self.are_due = [False] * len(self.rows)
        self.calls = self.updates = self.skipped = 0

    def _row(self, variable):
        zeros = np.zeros(variable["shape"])
        return Row(
            variable["initial"],
            None,
            zeros,
            zeros,
            average=zeros if self.get("use_ema") else None,
            window=zeros if self.steps else None,
            weight_decay=self.get("weight_decay") or 0.0,
            constraint=non_negative if variable["constraint"] else None,
        )

    def apply(self, gradients):
        rate = self._rate()
        self.calls += 1
        came = [gradient for gradient in gradients if gradient is not None]
        if self.get("skip_nonfinite") and not all(np.isfinite(it).all() for it in came):
            self.skipped += 1
            return
        self.are_due = [
            is_due or gradient is not None
            for is_due, gradient in zip(self.are_due, gradients, strict=True)
        ]
        is_update = (self.calls - self.skipped) % (self.steps or 1) == 0
        # The moving average also follows variables that had no gradient and did not move.
        actions = {True: UPDATE, False: FOLLOW} if is_update else {True: COLLECT, False: SKIP}
        rows = [
            row._replace(gradient=gradient, action=actions[is_due])
            for row, gradient, is_due in zip(self.rows, gradients, self.are_due, strict=True)
        ]
        every = self.get("ema_overwrite_frequency")
        call = Call(
            rate,
            self.get("loss_scale_factor"),
            self.steps,
            average_starts=self.updates == 0,
            average_overwrites=bool(every) and (self.updates + 1) % every == 0,
        )
        self.rows = [
            step.step(row, call, self.options, numpy_arrays, factors)
            for row, factors in zip(rows, self._factors(rows, call), strict=True)
        ]
        if is_update:
            self.updates += 1
            self.are_due = [False] * len(rows)

    def _factors(self, rows, call):
        limit = self.options.norm_limit
        if limit is None:
            return [None] * len(rows)
        # A row that is not updated counts as a gradient of 0.
        gradients = [
            step.mean(row, call, numpy_arrays) if row.action == UPDATE else np.zeros(1)
            for row in rows
        ]
        norms = [clipping.scaled_norm([gradient], np, if_known) for gradient in gradients]
        together = self.options.global_clipnorm is not None
        return clipping.factors_of_groups(norms, ["float64"] * len(rows), limit, np, together)

    def _rate(self):
        rate = self.get("learning_rate")
        if isinstance(rate, dict):
            power = self.calls / rate["decay_steps"]
            return rate["initial_learning_rate"] * rate["decay_rate"] ** power
        return rate / (1.0 + (self.get("decay") or 0.0) * self.calls)


def assert_is(reference, expected):
    counters = (reference.calls, reference.updates, reference.skipped)
    assert counters == (expected["call"], expected["update"], expected["skipped"])
    for name, field in zip(vectors.TENSORS, FIELDS, strict=True):
        # Before the first update there is no average.
        if expected[name] is not None:
            arrays = [getattr(row, field) for row in reference.rows]
            for array, exact in zip(arrays, expected[name], strict=True):
                np.testing.assert_allclose(array, exact, rtol=TOLERANCE, atol=0, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "_"))
def test_the_step_has_the_numbers_of_the_vectors(case):
    reference = Reference(case)
    due = {expected["call"]: expected for expected in case["expected"]}
    for number, gradients in enumerate(case["gradients"], 1):
        # Beyond the range of float64 a number becomes infinite, as in the vectors.
        with np.errstate(all="ignore"):
            reference.apply(gradients)
        if number in due:
            assert_is(reference, due[number])
    assert due
