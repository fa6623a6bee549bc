"""Locks that stay usable in a forked process."""

import contextlib
import os
import threading
from collections.abc import Iterator


class Lock:
    """A reentrant lock of which every process has its own.

    A fork copies a lock together with who holds it. Held by another thread, which the child does
    not have, it would stay held for ever. A fork by C, as R's `parallel` makes it, is not told to
    Python, so the process is asked for its number each time.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, threading.RLock] = {}

    def _own(self) -> threading.RLock:
        return self._by_process.setdefault(os.getpid(), threading.RLock())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock within a `with` statement."""
        with self._own():
            yield

    def keep_through_forks(self, seconds: float) -> None:
        """Let no other thread hold the lock while this process is forked by Python.

        Args:
            seconds: How long a fork waits for another thread at most.

        """
        if not hasattr(os, "register_at_fork"):
            return
        waiting = threading.local()

        def take() -> None:
            waiting.lock = self._own()
            waiting.holds = waiting.lock.acquire(timeout=seconds)

        def give_back() -> None:
            if waiting.holds:
                waiting.lock.release()

        os.register_at_fork(before=take, after_in_parent=give_back)
