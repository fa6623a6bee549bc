"""One R inside this Python, with the R package attached."""

import atexit
import os
import shutil
import sys

# These are read when R starts: Keras' backend, the Python that reticulate uses, and how much memory
# R uses before it collects garbage. rpy2 releases Python's lock while R runs, and in reticulate
# before 1.41 the collection of a Python object does not take it again, which sometimes ended the
# process. With this much memory, R collects garbage only when `from_r` says so.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["RETICULATE_PYTHON"] = sys.executable
os.environ.update(R_NSIZE="8000000", R_VSIZE="512M")

import pytest

_status = []


def pytest_sessionfinish(session, exitstatus):
    _status.append(int(exitstatus))


@atexit.register
def _leave():
    # Registered first, so it runs last. The remaining steps would tear Python down while
    # reticulate's own thread still gives it work, which crashed one run of three.
    if "rpy2.robjects" in sys.modules and _status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status[-1])


@pytest.fixture(scope="session")
def r():
    """Evaluate R code through rpy2."""
    robjects = pytest.importorskip("rpy2.robjects")
    from rpy2.rinterface_lib import embedded

    # Ending R runs its finalizers, again without Python's lock.
    atexit.unregister(embedded.endr)
    atexit.register(shutil.rmtree, robjects.r("tempdir()")[0], ignore_errors=True)
    if not robjects.r('(requireNamespace("adadelta", quietly = TRUE))')[0]:
        pytest.fail("the R package adadelta is not installed")
    robjects.r("library(adadelta)")
    return robjects.r


@pytest.fixture(scope="session")
def _evaluate(r):
    # Calls R through reticulate, which keeps Python's lock.
    r("""local({
      main <- reticulate::import_main()
      main$evaluate <- function(code) {
        value <- eval(parse(text = code), globalenv())
        gc()
        value
      }
    })""")
    return vars(sys.modules["__main__"]).pop("evaluate")


@pytest.fixture
def from_r(_evaluate):
    """Evaluate R code that returns a Python object, and return that object."""
    return _evaluate
