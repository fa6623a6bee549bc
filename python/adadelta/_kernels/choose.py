"""Which kernel can make the step: on this machine, and for the tensors at hand."""

import functools
import platform
import sys
from importlib.util import find_spec
from typing import Any

from adadelta._kernels import cache

DESCRIPTIONS = {
    "cpu": "one pass over memory for all tensors, compiled by numba (NumPy, torch)",
    "xla": "the same inside JAX programs, called by XLA",
    "tensorflow": "the same on TensorFlow's variables, called by its XLA",
    "cuda": "one Triton kernel over all tensors (adadelta.torch on NVIDIA GPUs, fused=True)",
}

# The kernel that serves each backend of Keras.
FOR_KERAS = {"jax": "xla", "torch": "cpu", "tensorflow": "tensorflow"}


def reason_against(kernel: str) -> str | None:
    """Return why a kernel can't serve on this machine, or None when it can.

    Args:
        kernel: One of `DESCRIPTIONS`.

    """
    return reason_against_dtype(kernel, "float32")


def reason_against_dtype(kernel: str, dtype: str) -> str | None:
    """Return why a kernel can't serve tensors of a dtype on this machine, or None when it can.

    The code for each dtype is compiled when it is first asked for, which may fail where the one
    before did not.

    Args:
        kernel: One of `DESCRIPTIONS`.
        dtype: The dtype of the parameters and gradients, by name.

    """
    return _reason_against(kernel, dtype, is_tensorflow_loaded="tensorflow" in sys.modules)


@functools.cache
def _reason_against(kernel: str, dtype: str, is_tensorflow_loaded: bool) -> str | None:
    against = {
        "cpu": _against_cpu,
        "xla": _against_xla,
        "tensorflow": _against_tensorflow,
        "cuda": _against_cuda,
    }[kernel]
    try:
        return against(dtype)
    except Exception as error:
        # A package that is installed can't be loaded, or has other parts than the one we know.
        return f"{type(error).__name__}: {error}"


def _missing(*packages: str) -> str | None:
    absent = [package for package in packages if find_spec(package) is None]
    return f"{' and '.join(absent)} can't be imported" if absent else None


def _against_processor() -> str | None:
    missing = _missing("numba", "llvmlite")
    if missing:
        return missing
    if platform.architecture()[0] != "64bit":
        return "the processor's addresses are not of 64 bits"
    from adadelta._kernels import compiled

    if not compiled.has_half_precision():
        return "the processor is too old: it can't convert float16 (F16C, since 2012)"
    return None


def _against_cpu(dtype: str) -> str | None:
    reason = _against_processor()
    if reason:
        return reason
    from adadelta._kernels import cpu

    return cpu.reason_against(dtype)


def _against_xla(dtype: str) -> str | None:
    reason = _missing("jax") or _against_processor()
    if reason:
        return reason
    from adadelta._kernels import xla

    return xla.reason_against() or xla.reason_against_dtype(dtype)


def _against_tensorflow(dtype: str) -> str | None:
    reason = _missing("tensorflow") or _against_processor()
    if reason or "tensorflow" not in sys.modules:
        # Not tried then: to import TensorFlow takes seconds, and beside torch and Triton it ends
        # the process (TensorFlow 2.21).
        return reason
    from adadelta._kernels import xla_tensorflow

    return xla_tensorflow.reason_against() or xla_tensorflow.reason_against_dtype(dtype)


def _against_cuda(dtype: str) -> str | None:
    missing = _missing("torch", "triton")
    if missing:
        return missing
    from adadelta._kernels import cuda

    return cuda.reason_against()


def kernels() -> dict[str, dict[str, Any]]:
    """Return what `kernel_info()` says of this machine."""
    info = {}
    for kernel, description in DESCRIPTIONS.items():
        reason = reason_against(kernel)
        is_kept = reason is None and kernel in FOR_KERAS.values()
        folder, why_none = cache.status() if is_kept else (None, None)
        info[kernel] = {
            "serves": reason is None,
            "reason": reason,
            "for": description,
            "cache": folder,
            "cache_reason": why_none,
        }
    return info
