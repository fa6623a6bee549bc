"""Each front end on several devices or in several processes, compared with one device."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# The test files of each group: each framework runs in a separate process, which tests/run.py
# starts and names in this variable.
GROUPS = {
    "jax": ["test_jax_*"],
    "torch": ["test_torch_*"],
    "tensorflow": ["test_tensorflow_*"],
}
_CHOSEN = os.environ.get("ADADELTA_TEST_GROUP")
# Frameworks that some environments lack.
_MISSING = [name for name in GROUPS if find_spec(name) is None]
collect_ignore_glob = [
    pattern
    for name, patterns in GROUPS.items()
    for pattern in patterns
    if (_CHOSEN and name != _CHOSEN) or name in _MISSING
]

os.environ["KERAS_BACKEND"] = _CHOSEN or "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Eight virtual devices on the processor, for JAX and for all processes that a test starts.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
).strip()
# For driver.py, vectors.py and other modules that the tests share.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out of the suite devices-fast")


def pytest_report_header():
    return f"not installed, and their tests left out: {', '.join(_MISSING) or 'none'}"
