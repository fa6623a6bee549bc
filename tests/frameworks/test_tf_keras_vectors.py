"""`adadelta.tf_keras.Adadelta` reproduces the 50-digit numbers of tests/vectors."""

import numpy as np
import pytest
from tf_keras_steps import MODES, Steps, optimizer_of, variables_of

import vectors

# The reasons are in tests/python/test_vectors.py.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
SCHEDULE_TOLERANCE = {"float64": 1e-7, "float32": 2e-4}
LACKING = {"gradient_accumulation_steps", "loss_scale_factor"}
CASES = [
    case
    for name in vectors.NAMES
    for case in vectors.load(name)
    if case.get("weight_decay_mode") != "unscaled"
    and not case["arguments"].pop("decay", 0)
    and not LACKING & set(case["arguments"])
]
# XLA takes seconds to compile each set of present gradients, so it runs single options only.
ALONE = {
    case["name"] for case in CASES if " with " not in case["name"] and "missing" not in case["name"]
}


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 70
    assert {"tf_keras defaults", "tf_keras with weight decay"} < {case["name"] for case in CASES}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in CASES for mode in MODES if mode != "xla" or case["name"] in ALONE],
    ids=lambda it: it if isinstance(it, str) else it["name"].replace(" ", "-"),
)
def test_numbers(case, mode, dtype):
    run = Steps(optimizer_of(case), variables_of(case, dtype), mode)
    expected = {state["call"]: state for state in case["expected"]}
    scheduled = isinstance(case["arguments"]["learning_rate"], dict)
    tolerance = (SCHEDULE_TOLERANCE if scheduled else TOLERANCE)[dtype]
    for call, gradients in enumerate(case["gradients"], start=1):
        run.call(gradients)
        iterations = int(run.optimizer.iterations.numpy())
        if run.optimizer.use_ema and iterations - run.optimizer.skipped == 1:
            # The vectors follow Keras 3, whose average starts at the weights after the first
            # update. In tf_keras it starts at those before it; then both move alike. If a variable
            # has no gradient, tf_keras keeps its average as it is, and Keras 3 moves it.
            for variable, average in zip(
                run.variables, run.state_variables("average"), strict=True
            ):
                average.assign(variable)
        elif run.optimizer.use_ema and any(gradient is None for gradient in gradients):
            momentum = run.optimizer.ema_momentum
            for variable, average, gradient in zip(
                run.variables, run.state_variables("average"), gradients, strict=True
            ):
                if gradient is None:
                    average.assign(momentum * average + (1 - momentum) * variable)
                    every = run.optimizer.ema_overwrite_frequency
                    if every and iterations % every == 0:
                        variable.assign(average)
        if call not in expected:
            continue
        state = expected[call]
        assert iterations == call
        assert run.optimizer.skipped == state["skipped"]
        for slot in ("variables", "square_avg", "acc_delta", "average"):
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
