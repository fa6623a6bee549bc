"""The front ends of other frameworks, each tested against its host, whatever KERAS_BACKEND is."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# For vectors.py, which reads the shared vectors, and kernel_tools.py.
for folder in ("python", "kernels", "problems"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / folder))

from short_messages import messages_are_short  # noqa: E402, F401, each test uses it

# The test files of each group. A process that loads both TensorFlow and torch's compiler (which
# brings Triton) crashes, so tests/run.py names one group per process in this variable.
GROUPS = {
    "torch": ["test_torch_*"],
    "tf_keras": ["test_tf_keras*", "test_tf1*", "test_tensorflow*"],
    "brainpy": ["test_brainpy*"],
    "optax": ["test_optax*"],
    "scipy": ["test_scipy*", "test_readme*", "test_guides*"],
    "all": ["test_hosts*"],
}
_CHOSEN = os.environ.get("ADADELTA_TEST_GROUP")
# Frameworks that some environments lack; with "all", a separate process tries to import each.
_MISSING = [name for name in ("torch", "tf_keras") if find_spec(name) is None]
collect_ignore_glob = [
    pattern
    for name, patterns in GROUPS.items()
    for pattern in patterns
    if (_CHOSEN and name != _CHOSEN) or name in _MISSING or (name == "all" and _MISSING)
]


def pytest_report_header():
    return f"not installed, and their tests left out: {', '.join(_MISSING) or 'none'}"
