"""Locks that stay usable in a forked process."""

import contextlib
import os
import threading
from collections.abc import Iterator


class Lock:
    """A reentrant lock that is separate in every process.

    A fork copies a lock together with its holder. If another thread holds it, which the child does
    not have, the child's copy would never be released. Python does not notice a fork in C, as by
    R's `parallel`, so the lock is looked up by process id each time.
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
        """Make sure that no other thread holds the lock while Python forks this process.

        Args:
            seconds: How long a fork waits at most for another thread to release the lock.

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
