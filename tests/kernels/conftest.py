"""The kernels are compared with the rule; they need no Keras."""

import sys
from pathlib import Path

# tests/python/vectors.py reads the shared vectors.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
