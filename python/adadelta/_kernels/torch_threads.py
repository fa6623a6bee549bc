"""Torch's own threads for a call of the fused step on its tensors.

Torch's OpenMP threads wait for their next work by spinning for some milliseconds, and so occupy
the cores that other threads would need. Right after a backward pass, a step of 5.6 million
parameters takes 5.5 ms on Python threads and 3.7 on torch's, on two cores.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from adadelta._kernels import layout
from adadelta._kernels.threads import Control, PythonThreads, Threads, worker

# A flag of a process in /proc: it was forked and has called no `exec` since (Linux).
_PF_FORKNOEXEC = 0x40


class TorchThreads(NamedTuple):
    """The threads of the OpenMP library that torch uses, and the caller's."""

    number: int
    # GOMP_parallel(function, data, threads, flags): the function that GCC calls for a parallel
    # region. The OpenMP libraries of LLVM and Intel offer it, too.
    parallel: Callable[[int, int, int, int], None]
    # The address of omp_get_thread_num(), which is in the same library.
    number_at: int

    def run(self, kernel: int, control: Control) -> None:
        """See `Threads`."""
        number = min(self.number, int(control[layout.PIECES]))
        if number == 1:
            worker(kernel)(layout.address_of(control))
        else:
            control[layout.NUMBER_AT] = self.number_at
            self.parallel(kernel, layout.address_of(control), number, 0)


def threads() -> Threads:
    """Return torch's threads or else Python's, as many as `torch.set_num_threads()` has set."""
    return _threads(torch.get_num_threads(), os.getpid())


@functools.lru_cache
def _threads(count: int, process: int) -> Threads:
    parallel = None if _was_forked(process) else _parallel()
    return PythonThreads(count) if parallel is None else TorchThreads(count, *parallel)


def _was_forked(process: int) -> bool:
    """Whether OpenMP would wait forever for threads that only the parent process has.

    Python does not notice a fork in C, as by R's `parallel`.
    """
    try:
        flags = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[6]
    except OSError:
        # On other systems Python threads always work.
        return True
    return bool(int(flags) & _PF_FORKNOEXEC)


@functools.cache
def _parallel() -> tuple[Callable[[int, int, int, int], None], int] | None:
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        # The loader finds it in whichever OpenMP library torch is linked to.
        library = ctypes.CDLL(torch._C.__file__)
        function, number = library.GOMP_parallel, library.omp_get_thread_num
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    address = ctypes.cast(number, ctypes.c_void_p).value
    return None if address is None else (function, address)
