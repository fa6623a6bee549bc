"""The front ends of other frameworks, each tested beside its host; independent of KERAS_BACKEND."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The shared vectors are read by tests/python/vectors.py.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

# The tests that need a framework which is not in every environment. In the one that has them all,
# test_hosts.py fails when one is missing.
_NEEDS = {
    "torch": ["test_torch_*", "test_hosts*"],
    "tf_keras": ["test_tf_keras*", "test_tf1*", "test_tensorflow*", "test_hosts*"],
}
_MISSING = [framework for framework in _NEEDS if find_spec(framework) is None]
collect_ignore_glob = [pattern for framework in _MISSING for pattern in _NEEDS[framework]]


def pytest_report_header():
    return f"not installed, and their tests left out: {', '.join(_MISSING) or 'none'}"
