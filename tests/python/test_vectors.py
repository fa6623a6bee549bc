"""`adadelta.Adadelta` gives the 50-digit numbers of tests/vectors, eagerly and compiled."""

import numpy as np
import pytest
from conftest import floats

import driver
import vectors

# float64: 1e-15 per operation, over 200 steps and through the cancellation of clipping.
# float32: the hyperparameters alone are rounded by 6e-8, which 200 steps multiply. The worst case,
# gradients over 12 orders of magnitude, was measured at 3e-5.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
# Keras computes its schedules in float32 on TensorFlow.
SCHEDULE_TOLERANCE = {"float64": 1e-7, "float32": 2e-4}

CASES = [
    case
    for name in vectors.NAMES
    for case in vectors.load(name)
    if case.get("weight_decay_mode") != "unscaled" and not case["arguments"].pop("decay", 0)
]


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 100


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("mode", driver.MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_numbers(case, mode, dtype):
    check_numbers(case, mode, dtype, fused=True)


# By `fused`, which chooses what computes the step: the rule (False), or TensorFlow's operation for
# small variables (None).
WITHOUT_KERNEL = {False: driver.MODES[-1]}
if driver.BACKEND == "tensorflow":
    WITHOUT_KERNEL[None] = "function"


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(("fused", "mode"), WITHOUT_KERNEL.items(), ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_numbers_without_a_kernel(case, fused, mode):
    with floats("float64"):
        check_numbers(case, mode, "float64", fused)


def check_numbers(case, mode, dtype, fused):
    optimizer = driver.adadelta_of(case, fused=fused)
    run = driver.Driver(optimizer, driver.variables_of(case), mode)
    expected = {state["call"]: state for state in case["expected"]}
    scheduled = isinstance(case["arguments"]["learning_rate"], dict)
    tolerance = (SCHEDULE_TOLERANCE if scheduled else TOLERANCE)[dtype]
    for call, gradients in enumerate(case["gradients"], start=1):
        run.call(gradients)
        if call not in expected:
            continue
        state = expected[call]
        assert int(run.optimizer._iterations.numpy()) == call
        assert int(driver.numpy(run.optimizer.iterations)) == state["update"]
        assert run.optimizer.skipped == state["skipped"]
        for slot in vectors.TENSORS:
            if state[slot] is None:
                continue
            for ours, exact in zip(run.state(slot), state[slot], strict=True):
                scale = np.max(np.abs(exact), initial=1e-30)
                np.testing.assert_allclose(
                    ours / scale,
                    exact / scale,
                    rtol=tolerance,
                    atol=tolerance,
                    err_msg=f"{slot} after call {call}",
                )
