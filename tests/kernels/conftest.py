"""The kernels, each held to the rule; they need no Keras."""

import sys
from pathlib import Path

# The shared vectors are read by tests/python/vectors.py.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
