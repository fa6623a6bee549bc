"""Run the fused step on all tensors in the processor's memory at once.

The functions take addresses, so the caller must keep the arrays alive until they return.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from adadelta._core.clipping import Factors
from adadelta._kernels import compiled, layout
from adadelta._kernels.threads import Threads

Array = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]


def reason_against_dtype(dtype: str) -> str | None:
    """Return None, or raise an error that says why a dtype's kernel can't run on this machine."""
    compiled.addresses(("fused", dtype))
    return None


def step(
    dtype: str,
    table: Integers,
    sizes: Integers,
    settings: Array,
    row_settings: Array,
    threads: Threads,
) -> None:
    """Make one step on all tensors in the table, in place.

    Args:
        dtype: The dtype of the parameters and gradients, by name.
        table: int64 of shape (tensors, layout.COLUMNS): addresses of contiguous arrays.
        sizes: int64: the number of elements of each tensor.
        settings: The result of `layout.settings()`, in the dtype of the state.
        row_settings: The same dtype, of shape (tensors, layout.ROW_SETTINGS).
        threads: The threads that do the work.

    """
    _run(dtype, layout.STEP, table, sizes, settings, row_settings, None, threads)


def norms(
    dtype: str,
    table: Integers,
    sizes: Integers,
    settings: Array,
    together: bool,
    threads: Threads,
    wide: bool = False,
) -> Factors:
    """Return the norm of each gradient, or of all together, as two factors in the state's dtype.

    Args:
        dtype: As for `step`, like all arguments up to `settings`.
        table: See there.
        sizes: See there.
        settings: See there. Gradients are divided by the loss scale and the number of steps in it.
        together: Whether to return one norm of all gradients, of shape (1,), instead of one for
            each.
        threads: See there.
        wide: Whether to return float64 even if the state is float32.

    Returns:
        `(divisor, norm)`: the norm is their product, and both are finite if the gradients are.

    """
    norm = np.sqrt(_squares(dtype, table, sizes, settings, together, threads))
    divisor = np.ones_like(norm)
    for scale, outside in (
        (layout.SCALE_OF_LARGE, norm > layout.GREATEST_NORM),
        (layout.SCALE_OF_SMALL, norm < layout.LEAST_NORM),
    ):
        if settings.dtype == np.float64 and np.any(outside):
            again = np.sqrt(_squares(dtype, table, sizes, settings, together, threads, scale))
            norm = np.where(outside, again, norm)
            divisor = np.where(outside, 1 / scale, divisor)
    dtype_of_norm = np.dtype("float64") if wide else settings.dtype
    if dtype_of_norm == np.float32:
        large = norm > layout.LARGEST_NORM
        divisor, norm = np.where(large, 2.0**64, divisor), np.where(large, norm / 2.0**64, norm)
    return divisor.astype(dtype_of_norm), norm.astype(dtype_of_norm)


def _squares(
    dtype: str, table: Integers, sizes: Integers, settings: Array, together: bool, threads: Threads,
    scale: float = 1.0,
) -> Array:  # fmt: skip
    ends = _ends(sizes)
    total = int(ends[-1]) if len(ends) else 0
    squares = np.zeros(layout.number_of_squares(len(sizes), total))
    _run(dtype, layout.SQUARES, table, sizes, settings, settings, squares, threads, scale)
    # No two tensors start at the same index, so `reduceat` adds up the sums of each tensor.
    starts = (ends - sizes) // layout.PIECE + np.arange(len(sizes))
    of_each = np.add.reduceat(squares, starts) if len(sizes) else squares
    return of_each.sum(keepdims=True) if together else of_each


def _ends(sizes: Integers) -> Integers:
    # The kernel reads int64; the default integer of NumPy 1 on Windows is narrower.
    return sizes.cumsum(dtype=np.int64)


def _run(
    dtype: str, kind: int, table: Integers, sizes: Integers, settings: Array, row_settings: Array,
    squares: Array | None, threads: Threads, scale: float = 1.0,
) -> None:  # fmt: skip
    ends = _ends(sizes)
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        return
    pieces = -(-total // layout.PIECE)
    arrays = (table, ends, settings, row_settings, squares)
    addresses = [0 if array is None else layout.address_of(array) for array in arrays]
    # The entries are in the order given in `layout`.
    (bits,) = struct.unpack("=q", struct.pack("=d", scale))
    call = np.array([kind, len(table), *addresses, bits], np.int64)
    control = np.array([0, 0, pieces, total, layout.address_of(call)], np.int64)
    (kernel,) = compiled.addresses(("fused", dtype))
    threads.run(kernel, control)
