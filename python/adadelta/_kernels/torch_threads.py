"""Torch's own threads for a call of the fused step on its tensors.

Torch's OpenMP threads wait for their next work by spinning, for some milliseconds, and so hold
the processors that threads of ours would need. Right after a backward pass a step of 5.6 million
parameters took 5.5 ms on Python's threads and takes 3.7 on torch's, on two cores.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from adadelta._kernels import layout
from adadelta._kernels.threads import Control, PythonThreads, Threads

# In the flags of a process in /proc: it was forked, and runs the same program since (Linux).
_PF_FORKNOEXEC = 0x40


class TorchThreads(NamedTuple):
    """The threads of the OpenMP that torch itself runs on, and the caller's."""

    number: int
    # GOMP_parallel(function, data, threads, flags): what GCC compiles a parallel region to, and
    # what the OpenMP of LLVM and of Intel offer beside their own.
    parallel: Callable[[int, int, int, int], None]

    def run(self, kernel: int, control: Control) -> None:
        """See `Threads`."""
        number = min(self.number, int(control[layout.PIECES]))
        self.parallel(kernel, layout.address_of(control), number, 0)


def threads() -> Threads:
    """Return torch's threads, as many as `torch.set_num_threads()` has set, or as many others."""
    count = torch.get_num_threads()
    parallel = None if _was_forked(os.getpid()) else _parallel()
    return PythonThreads(count) if parallel is None else TorchThreads(count, parallel)


@functools.cache
def _was_forked(process: int) -> bool:
    """Whether OpenMP would wait for ever for threads that only the parent of the process has.

    A fork by C, as R's `parallel` makes, is not told to Python.
    """
    try:
        flags = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[6]
    except OSError:
        # On another system Python's threads serve in any case.
        return True
    return bool(int(flags) & _PF_FORKNOEXEC)


@functools.cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        # Found in whichever library torch is linked to.
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function
