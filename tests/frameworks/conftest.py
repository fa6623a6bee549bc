"""The front ends of other frameworks, each tested beside its host; independent of KERAS_BACKEND."""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The shared vectors are read by tests/python/vectors.py.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
