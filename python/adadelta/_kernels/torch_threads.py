"""Torch's own threads for a call of the fused step on its tensors.

Torch's OpenMP threads wait for their next work by spinning, for some milliseconds, and so hold
the processors that threads of ours would need. Right after a backward pass a step of 5.6 million
parameters took 5.5 ms on Python's threads and takes 3.7 on torch's, on two cores.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from adadelta._kernels import compiled
from adadelta._kernels.threads import PythonThreads, Threads

_is_child_of_fork = False


class TorchThreads(NamedTuple):
    """The threads of the OpenMP that torch itself runs on, and the caller's."""

    number: int
    # GOMP_parallel(function, data, threads, flags): what GCC compiles a parallel region to, and
    # what the OpenMP of LLVM and of Intel offer beside their own.
    parallel: Callable[[int, int, int, int], None]

    def run(self, kernel: int, call: int, control: int, most: int) -> None:
        """See `Threads`."""
        arguments = np.array([call, control], np.int64)
        function = _of_one_argument(kernel)
        self.parallel(function, arguments.ctypes.data, min(self.number, most), 0)


def threads() -> Threads:
    """Return torch's threads, as many as `torch.set_num_threads()` has set, or as many others."""
    count = torch.get_num_threads()
    # In a child of a fork OpenMP waits for ever for threads that only its parent has.
    parallel = None if _is_child_of_fork else _parallel()
    return PythonThreads(count) if parallel is None else TorchThreads(count, parallel)


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


@functools.cache
def _of_one_argument(kernel: int) -> int:
    return compiled.of_one_argument(kernel)


def _note_fork() -> None:
    global _is_child_of_fork
    _is_child_of_fork = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
