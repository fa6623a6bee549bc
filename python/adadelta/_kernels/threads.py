"""Python threads for a call of the fused step.

Unlike OpenMP threads, they can be started again after a fork.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adadelta._core import interrupts
from adadelta._kernels import compiled, layout

Control = NDArray[np.int64]

_pool: ThreadPoolExecutor | None = None


class Threads(Protocol):
    """The threads that work on a call."""

    def run(self, kernel: int, control: Control) -> None:
        """Let threads, including the caller's, take the pieces of a call until all are done.

        Args:
            kernel: The address of a function of `fused.py`.
            control: The data that its threads share; see `layout.py`.

        """


class PythonThreads(NamedTuple):
    """The threads of a pool and the caller's; several threads may call `run` at once."""

    number: int

    def run(self, kernel: int, control: Control) -> None:
        """See `Threads`."""
        function = worker(kernel)

        def work() -> None:
            function(layout.address_of(control))

        others: list[Future[None]] = []
        with interrupts.Deferred():
            try:
                # If no thread can be started, as at a limit of processes, the caller works alone.
                with contextlib.suppress(RuntimeError):
                    for _ in range(min(self.number, int(control[layout.PIECES])) - 1):
                        others.append(_helpers().submit(work))
            finally:
                _finish(work, control, others)


def _finish(work: Callable[[], None], control: Control, others: list[Future[None]]) -> None:
    """Take the remaining pieces, and wait for the threads that have taken the others.

    No thread may write any more when this returns, even if an exception interrupts the wait.
    """
    failure = None
    done = False
    while not done:
        try:
            work()
            while control[layout.DONE] < control[layout.PIECES]:
                time.sleep(0)
            # A thread that has not started yet has nothing left to do.
            while not all(other.cancel() or other.done() for other in others):
                time.sleep(0)
            done = True
        except BaseException as error:
            failure = error
    if failure is not None:
        raise failure


@functools.cache
def worker(kernel: int) -> Callable[[int], int]:
    """Return a function of `fused.py` as a Python callable that releases the GIL."""
    return compiled.call(kernel, arguments=1)


def _helpers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), "adadelta")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    # A forked child has the pool, but none of its threads.
    os.register_at_fork(after_in_child=_forget_pool)
