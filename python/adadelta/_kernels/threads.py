"""Python's threads for a call of the fused step.

Unlike OpenMP's they can be made again after a fork.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from adadelta._kernels import compiled

_pool: ThreadPoolExecutor | None = None


class Threads(Protocol):
    """Who works on a call."""

    def run(self, kernel: int, call: int, control: int, most: int) -> None:
        """Let at most that many threads, the caller's among them, take pieces of a call.

        Args:
            kernel: The address of a function of `fused.py`.
            call: The address of what it is to do; see `layout.py`.
            control: The address of what its threads share.
            most: The number of pieces.

        """


class PythonThreads(NamedTuple):
    """Threads of a pool, and the caller's; several threads may call at once."""

    number: int

    def run(self, kernel: int, call: int, control: int, most: int) -> None:
        """See `Threads`."""
        work = functools.partial(_worker(kernel), call, control)
        helpers = min(self.number, most) - 1
        others = [_helpers().submit(work) for _ in range(helpers)]
        work()
        for other in others:
            # One that has not begun has nothing left to do.
            if not other.cancel():
                other.result()


def default() -> PythonThreads:
    """Return as many threads as there are processors, or as the environment allows."""
    asked = os.environ.get("NUMBA_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    most = available or os.cpu_count() or 1
    return PythonThreads(max(1, min(most, int(asked))) if asked.isdigit() else most)


@functools.cache
def _worker(kernel: int) -> Callable[[int, int], int]:
    return compiled.call(kernel, arguments=2)


def _helpers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), "adadelta")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    # A child has the pool but none of its threads.
    os.register_at_fork(after_in_child=_forget_pool)
