"""Decide which kernels can make the step on this machine, and for which dtypes."""

import functools
import importlib
import platform
import sys
from importlib.util import find_spec

from adadelta._kernels import cache

DESCRIPTIONS = {
    "cpu": "one pass over memory for all tensors, compiled by numba (NumPy, torch)",
    "xla": "the same inside JAX programs, called by XLA",
    "tensorflow": "the same on TensorFlow's variables, called by its XLA",
    "cuda": "one Triton kernel over all tensors (adadelta.torch on NVIDIA GPUs, fused=True)",
}

# For each kernel, the module of this folder that tries it, and the packages that it needs.
_TRIED_BY = {
    "cpu": ("cpu", "numba", "llvmlite"),
    "xla": ("xla", "jax", "numba", "llvmlite"),
    "tensorflow": ("xla_tensorflow", "tensorflow", "numba", "llvmlite"),
    "cuda": ("cuda", "torch", "triton"),
}

# The kernel for each Keras backend.
FOR_KERAS = {"jax": "xla", "torch": "cpu", "tensorflow": "tensorflow"}


def reason_against(kernel: str) -> str | None:
    """Return why a kernel can't be used on this machine, or None when it can.

    Args:
        kernel: One of `DESCRIPTIONS`.

    """
    return reason_against_dtype(kernel, "float32")


def reason_against_dtype(kernel: str, dtype: str) -> str | None:
    """Return why a kernel can't be used for a dtype on this machine, or None when it can.

    The code for each dtype is compiled on first use, which may fail for one dtype after it has
    worked for another.

    Args:
        kernel: One of `DESCRIPTIONS`.
        dtype: The dtype of the parameters and gradients, by name.

    """
    return _reason_against(kernel, dtype, is_tensorflow_loaded="tensorflow" in sys.modules)


@functools.cache
def _reason_against(kernel: str, dtype: str, is_tensorflow_loaded: bool) -> str | None:
    module, *packages = _TRIED_BY[kernel]
    try:
        absent = [package for package in packages if find_spec(package) is None]
        if absent:
            return f"{' and '.join(absent)} can't be imported"
        reason = _reason_against_processor() if "numba" in packages else None
        if reason is None and (kernel != "tensorflow" or is_tensorflow_loaded):
            # TensorFlow is not imported just to try its kernel: that takes seconds, and together
            # with torch and Triton it crashes the process (TensorFlow 2.21).
            tried = importlib.import_module(f"adadelta._kernels.{module}")
            reason = tried.reason_against_dtype(dtype)
    except Exception as error:
        # An installed package can't be loaded, or its version lacks functions that we use.
        reason = f"{type(error).__name__}: {error}"
    return reason


def _reason_against_processor() -> str | None:
    if platform.architecture()[0] != "64bit":
        return "the processor's addresses are not of 64 bits"
    from adadelta._kernels import compiled

    if not compiled.has_half_precision():
        return "the processor is too old: it can't convert float16 (F16C, since 2012)"
    return None


def kernels() -> dict[str, dict[str, str | bool | None]]:
    """Return what `kernel_info()` reports about this machine."""
    info: dict[str, dict[str, str | bool | None]] = {}
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
