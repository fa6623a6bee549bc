"""Keras' own tests of Adadelta and of its optimizers pass with our class in place of Keras'."""

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).resolve().parent
THEIRS = Path(keras.__file__).parent / "src" / "optimizers"
# Without optimizer_sparse_test.py, which expects a step to call `assign_sub()` of Keras' optimizer,
# where ours passes the variables to an engine. test_sparse.py tests sparse gradients.
FILES = ("adadelta_test.py", "optimizer_test.py")


def test_theirs_pass_with_ours():
    present = [THEIRS / name for name in FILES if (THEIRS / name).exists()]
    if not present:
        pytest.skip("this Keras comes without its tests")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE), *filter(None, sys.path)]))
    arguments = ["-v", "-p", "in_place_of_keras_own", "-p", "no:cacheprovider", "-c", os.devnull]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "--rootdir", THEIRS, *present],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    counted = collections.Counter(re.findall(r"(\w+\.py)::\S+ ([A-Z]+)", result.stdout))
    for path in present:
        assert counted[path.name, "PASSED"] >= 2, result.stdout[-3000:]
