"""Keras' own tests of Adadelta and of its optimizers pass with our class in its class' place."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).resolve().parent
THEIRS = Path(keras.__file__).parent / "src" / "optimizers"
FILES = {
    "adadelta_test.py": "",
    "optimizer_test.py": "",
    "optimizer_sparse_test.py": "adadelta",
}


@pytest.mark.parametrize("name", FILES)
def test_theirs_pass_with_ours(name):
    path = THEIRS / name
    if not path.exists():
        pytest.skip(f"this Keras comes without its {name}")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE), *filter(None, sys.path)]))
    arguments = ["-q", "-p", "in_place_of_keras_own", "-p", "no:cacheprovider", "-c", os.devnull]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "--rootdir", THEIRS, path, "-k", FILES[name]],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=600,
    )
    counted = dict(
        (word, int(number))
        for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", result.stdout)
    )
    sparse_on_torch = name == "optimizer_sparse_test.py" and keras.config.backend() == "torch"
    assert result.returncode == 0, result.stdout[-3000:]
    assert counted.get("skipped" if sparse_on_torch else "passed", 0) >= 2, result.stdout[-3000:]
