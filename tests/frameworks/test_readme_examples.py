"""The examples of README.md for other frameworks run, each in a separate process."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from test_readme import blocks, needs_another_framework

EXAMPLES = {
    re.search(r"import adadelta\.(\w+)", code)[1]: code
    for code in blocks("python")
    if needs_another_framework(code)
}
HOSTS = {"tf1": "tensorflow", "optax": "jax"}


def test_every_front_end_has_an_example():
    assert set(EXAMPLES) == {"torch", "tf_keras", "tf1", "brainpy", "optax", "scipy"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name):
    host = HOSTS.get(name, name)
    if importlib.util.find_spec(host) is None:
        pytest.skip(f"{host} is not in this environment")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", EXAMPLES[name]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
