"""On a DTensor mesh and under a distribution strategy, the numbers are those of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adadelta

HERE = Path(__file__).resolve().parent
PACKAGE = Path(adadelta.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def distances():
    result = subprocess.run(
        [sys.executable, HERE / "tf_keras_many_devices.py"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


# The options of tf_keras_many_devices.py.
@pytest.mark.parametrize("compiled", ["compiled", "eagerly"])
@pytest.mark.parametrize("place", ["on_a_mesh", "under_a_strategy"])
@pytest.mark.parametrize(
    "options",
    [
        "plain",
        "clipnorm",
        "global_clipnorm",
        "clipvalue",
        "weight_decay",
        "average",
        "skip_nonfinite",
        "maximize",
    ],
)
def test_the_numbers_are_those_of_one_device(distances, options, place, compiled):
    distance = distances.pop(f"{options} {place} {compiled}")
    # 6 steps of a weight of about 1 in float32, of which each rounds by 6e-8.
    assert isinstance(distance, float) and distance < 2e-6, distance
