"""Delay interrupts until a step is complete.

Python runs signal handlers in its main thread, between any two instructions. A KeyboardInterrupt,
or an exception from a handler of SIGTERM or SIGALRM, would end a step with some parameters updated
and others not.
"""

import ctypes
import functools
import importlib
import signal
import threading
from types import FrameType
from typing import Any

# The signals by which users and job schedulers interrupt programs.
_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
)
# The functions of `signal` convert each argument to an enumeration and take 41 us in each step.
# These take 2.7 us.
try:
    _beneath = importlib.import_module("_signal")
except ImportError:
    _beneath = signal
_set_handler, _handler_of = _beneath.signal, _beneath.getsignal
_ATTEMPTS = 10


class Deferred:
    """A context manager that defers signal handlers to its end.

    Handlers that were not set from Python stay as they are. In threads other than the main one,
    there is nothing to defer.
    """

    __slots__ = ("_noted", "_replaced")

    def __enter__(self) -> None:
        """Record signals from now on, instead of running their handlers."""
        self._noted: dict[int, tuple[Any, bool, FrameType | None]] = {}
        self._replaced: list[tuple[int, Any, int | None]] = []
        if threading.get_ident() != threading.main_thread().ident:
            return
        try:
            for number in _SIGNALS:
                handler = _handler_of(number)
                if callable(handler):
                    self._replaced.append((number, handler, _entry_of(number)))
                    _set_handler(number, self._note)
                    _pythons_entry(number)
        except BaseException as error:
            self._restore()
            if not isinstance(error, ValueError):
                raise
            # In a subinterpreter no handler can be set, and none is run.

    def __exit__(self, *_: object) -> None:
        """Run the handlers of the signals that arrived in the meantime."""
        failure = self._restore()
        for number, (handler, is_foreign, frame) in self._noted.items():
            try:
                if is_foreign:
                    signal.raise_signal(number)
                else:
                    handler(number, frame)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _note(self, number: int, frame: FrameType | None) -> None:
        for its_number, handler, entry in self._replaced:
            if its_number == number:
                self._noted.setdefault(number, (handler, entry != _pythons_entry(number), frame))

    def _restore(self) -> BaseException | None:
        """Restore the former handlers; return an exception that one of them raised meanwhile."""
        failure = None
        attempts = _ATTEMPTS * len(self._replaced)
        while self._replaced and attempts:
            attempts -= 1
            number, handler, entry = self._replaced[-1]
            try:
                _set_handler(number, handler)
                if entry != _pythons_entry(number):
                    # Another program's handler, such as R's, calls Python's.
                    ctypes.pythonapi.PyOS_setsig(number, ctypes.c_void_p(entry))
                self._replaced.pop()
            except BaseException as error:
                failure = failure or error
        return failure


def _entry_of(number: int) -> int | None:
    """Return the address of the function that the system calls for a signal."""
    entry: int | None = _getsig()(number)
    return entry


@functools.cache
def _getsig() -> Any:
    function = ctypes.pythonapi.PyOS_getsig
    function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_int,)
    return function


@functools.cache
def _pythons_entry(number: int) -> int | None:
    """Return the address of Python's own function; first called while Python has set a handler."""
    return _entry_of(number)
