"""The front ends of other frameworks, each tested beside its host; independent of KERAS_BACKEND."""

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

# Which tests go together. TensorFlow and torch's compiler (by way of Triton) end a process in
# which both are loaded, so tests/run.py gives each group a process of its own, by this variable.
GROUPS = {
    "torch": ["test_torch_*"],
    "tf_keras": ["test_tf_keras*", "test_tf1*", "test_tensorflow*"],
    "brainpy": ["test_brainpy*"],
    "optax": ["test_optax*"],
    "scipy": ["test_scipy*", "test_readme*", "test_guides*"],
    "all": ["test_hosts*"],
}
_CHOSEN = os.environ.get("ADADELTA_TEST_GROUP")
# The frameworks that are not in every environment; "all" asks each in a process of its own.
_MISSING = [name for name in ("torch", "tf_keras") if find_spec(name) is None]
collect_ignore_glob = [
    pattern
    for name, patterns in GROUPS.items()
    for pattern in patterns
    if (_CHOSEN and name != _CHOSEN) or name in _MISSING or (name == "all" and _MISSING)
]


def pytest_report_header():
    return f"not installed, and their tests left out: {', '.join(_MISSING) or 'none'}"
