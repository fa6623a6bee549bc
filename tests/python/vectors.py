"""Load the shared test vectors of tests/vectors as NumPy arrays (for the format, see generate.py).

for case in load("options"):
    case["variables"][i]["initial"]     float64 array in the variable's shape
    case["gradients"][call][i]          the same, or None where there is no gradient
    case["expected"][j]["square_avg"]   list of arrays; "average" and "window" may be None
"""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
NAMES = ("trajectories", "options", "pairs", "conventions")
# The values that a state holds for each variable.
TENSORS = ("variables", "square_avg", "acc_delta", "average", "window")


def load(name):
    """Return the cases of one file."""
    return [_case(case) for case in _read(name)["cases"]]


def defaults():
    """Return the default arguments of each convention, and its "weight_decay_mode"."""
    return _read("conventions")["defaults"]


def _read(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))


def _case(case):
    shapes = [variable["shape"] for variable in case["variables"]]

    def arrays(lists):
        return [_array(values, shape) for values, shape in zip(lists, shapes, strict=True)]

    for variable in case["variables"]:
        variable["initial"] = _array(variable["initial"], variable["shape"])
    case["gradients"] = [arrays(call) for call in case["gradients"]]
    for state in case["expected"]:
        for key in TENSORS:
            state[key] = None if state[key] is None else arrays(state[key])
    return case


def _array(values, shape):
    # float() also reads the "NaN", "Inf" and "-Inf" that occur in gradients.
    if values is None:
        return None
    return np.array([float(value) for value in values], dtype=np.float64).reshape(shape)
