"""A pytest plugin that saves the measured coverage when the tests are done.

Coverage saves it when a process ends, but pytest-xdist kills a worker that takes more than ten
seconds to end, as one with JAX or TensorFlow does.
"""

import coverage


def pytest_sessionfinish():
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.save()
