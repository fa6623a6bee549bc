"""The test vectors are right, and they notice mistakes.

A float64 step that was written independently of the generator must agree with every case, and
each of the mistakes it can make on purpose must fail at least one.
"""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import vectors
from stepper import FAULTS, Stepper

# A float64 step rounds about 15 times, each time by 1.1e-16 of the value. The errors of 200 steps
# add up, and weigh more where x cancels to almost zero: the largest measured relative deviation
# is 1.6e-13. The limit leaves room for other orders of summation; the smallest effect of any fault
# is above 0.01.
TOLERANCE = 1e-11

CASES = [(name, case) for name in vectors.NAMES for case in vectors.load(name)]
COUNTERS = {"call": "step", "update": "update", "skipped": "skipped"}


def deviation(actual, expected):
    """Return the largest relative deviation of any element; infinite for NaN or a missed zero."""
    if actual is None or expected is None:
        return 0.0 if actual is expected else np.inf
    off = 0.0
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        wrong = a != e  # true for NaN
        relative = np.abs(a - e)[wrong] / np.abs(e)[wrong]
        off = max(off, np.max(np.where(np.isnan(relative), np.inf, relative), initial=0.0))
    return off


def states(case, fault=None):
    """Yield the stepper at each state that the case checks, with the expected values."""
    stepper = Stepper(case["arguments"], case.get("weight_decay_mode"), case["variables"], fault)
    due = {state["call"]: state for state in case["expected"]}
    for number, gradients in enumerate(case["gradients"], 1):
        stepper.call(gradients)
        if number in due:
            yield stepper, due[number]


def largest_deviation(case, fault=None):
    """Return the largest deviation over all states; infinite if a counter is wrong."""
    worst = 0.0
    with np.errstate(all="ignore"):  # some faults divide by zero
        for stepper, state in states(case, fault):
            if any(getattr(stepper, ours) != state[key] for key, ours in COUNTERS.items()):
                return np.inf
            for key in vectors.TENSORS:
                worst = max(worst, deviation(getattr(stepper, key), state[key]))
            if worst > TOLERANCE:
                break
    return worst


def _identity(value):
    return value if isinstance(value, str) else value["name"].replace(" ", "_")


@pytest.mark.parametrize(("name", "case"), CASES, ids=_identity)
def test_a_float64_step_agrees(name, case):
    assert largest_deviation(case) <= TOLERANCE


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault):
    failing = [case["name"] for _, case in CASES if largest_deviation(case, fault) > TOLERANCE]
    assert len(failing) >= 1, f"no case notices the fault {fault!r}: {FAULTS[fault]}"


def test_the_generator_makes_these_files():
    pytest.importorskip("mpmath")
    script = vectors.FOLDER / "generate.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", vectors.NAMES)
def test_a_file_is_strict_json_with_exact_numbers(name):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    def number(text):
        assert repr(float(text)) == text
        return float(text)

    def once(pairs):
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys)
        return dict(pairs)

    text = (vectors.FOLDER / f"{name}.json").read_text(encoding="ascii")
    content = json.loads(text, parse_constant=refuse, parse_float=number, object_pairs_hook=once)
    assert re.fullmatch(r"[A-Z0-9].*\.", content["about"])
    names = [case["name"] for case in content["cases"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", vectors.NAMES)
def test_inputs_are_exact_in_float32(name):
    for case in vectors.load(name):
        inputs = [variable["initial"] for variable in case["variables"]]
        inputs += [g for call in case["gradients"] for g in call if g is not None]
        for value in inputs:
            assert np.array_equal(value.astype(np.float32), value, equal_nan=True), case["name"]


def test_every_case_spells_out_the_rule():
    for _, case in CASES:
        assert {"learning_rate", "rho", "epsilon"} <= set(case["arguments"]), case["name"]
        decays = bool(case["arguments"].get("weight_decay"))
        assert decays == ("weight_decay_mode" in case), case["name"]
        assert case["convention"] in vectors.defaults(), case["name"]
