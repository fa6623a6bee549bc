"""Settings that every test shares: the backend, and how precisely tensors are computed."""

import contextlib
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from short_messages import messages_are_short  # noqa: F401, each test uses it


@contextlib.contextmanager
def floats(dtype):
    """Compute in `dtype`; JAX must be told to allow float64."""
    import keras

    before = keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if dtype == "float64" and keras.config.backend() == "jax":
            import jax

            allow = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
            stack.enter_context(allow(True))
        keras.config.set_floatx(dtype)
        stack.callback(keras.config.set_floatx, before)
        yield dtype


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Run a test in both precisions."""
    with floats(request.param):
        yield request.param
