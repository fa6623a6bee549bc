"""tf_keras on a DTensor mesh: the numbers are those of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adadelta

HERE = Path(__file__).resolve().parent
PACKAGE = Path(adadelta.__file__).resolve().parent.parent


def distances(how):
    result = subprocess.run(
        [sys.executable, HERE / "tensorflow_mesh.py", how],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["compiled", "eagerly"])
def test_the_numbers_are_those_of_one_device(how):
    off = distances(how)
    assert len(off) == 8
    # 6 steps of a weight of about 1 in float32, of which each rounds by 6e-8.
    wrong = {name: it for name, it in off.items() if not isinstance(it, float) or it > 2e-6}
    assert not wrong
