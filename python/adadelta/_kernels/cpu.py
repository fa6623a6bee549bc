"""Run the fused step on all tensors in the processor's memory at once.

It takes addresses, so the caller must keep the tensors alive meanwhile.
"""

import operator

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


class Work:
    """A call of the kernel on some tensors, prepared once and used many times.

    Its arrays are changed in each call, so only one thread at a time may use it.

    Args:
        dtype: The dtype of the parameters and gradients, by name.
        table: int64 of shape (tensors, layout.COLUMNS): addresses of contiguous arrays. The caller
            may change them between calls.
        sizes: int64: the number of elements of each tensor.

    """

    def __init__(self, dtype: str, table: Integers, sizes: Integers) -> None:
        # The kernel reads int64; the default integer of NumPy 1 on Windows is narrower.
        ends = sizes.cumsum(dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        self.table, self._sizes, self._ends = table, sizes, ends
        self._squares_of = layout.number_of_squares(len(sizes), total)
        self._pieces = -(-total // layout.PIECE)
        self._arrays: tuple[Array | None, ...] = (None, None, None)
        if self._pieces:
            # The entries are in the order given in `layout`.
            places = [layout.address_of(table), layout.address_of(ends)]
            self._call = np.array([0, len(table), *places, 0, 0, 0, 0], np.int64)
            self._scale = self._call[layout.SCALE :].view(np.float64)
            place = layout.address_of(self._call)
            zeros = [0] * layout.PIECES
            self._control = np.array([*zeros, self._pieces, total, place], np.int64)
            (self._kernel,) = compiled.addresses(("fused", dtype))

    def step(self, settings: Array, row_settings: Array, threads: Threads) -> None:
        """Make one step on all tensors, in place.

        Args:
            settings: The result of `layout.settings()`, in the dtype of the state.
            row_settings: The same dtype, of shape (tensors, layout.ROW_SETTINGS).
            threads: The threads that do the work.

        """
        self._run(layout.STEP, settings, row_settings, None, threads)

    def norms(
        self, settings: Array, together: bool, threads: Threads, wide: bool = False
    ) -> Factors:
        """Return the norm of each gradient, or of all together, as two factors.

        Args:
            settings: As for `step`. Gradients are divided by the loss scale and the number of steps
                in it.
            together: Whether to return one norm of all gradients, of shape (1,), instead of one for
                each.
            threads: As for `step`.
            wide: Whether to return float64 even if the state is float32.

        Returns:
            `(divisor, norm)`, in the dtype of the state: the norm is their product, and both are
            finite if the gradients are.

        """
        norm = np.sqrt(self._squares(settings, together, threads))
        divisor = np.ones_like(norm)
        for scale, outside in (
            (layout.SCALE_OF_LARGE, norm > layout.GREATEST_NORM),
            (layout.SCALE_OF_SMALL, norm < layout.LEAST_NORM),
        ):
            if settings.dtype == np.float64 and np.any(outside):
                again = np.sqrt(self._squares(settings, together, threads, scale))
                norm = np.where(outside, again, norm)
                divisor = np.where(outside, 1 / scale, divisor)
        dtype_of_norm = np.dtype("float64") if wide else settings.dtype
        if dtype_of_norm == np.float32:
            large = norm > layout.LARGEST_NORM
            divisor, norm = np.where(large, 2.0**64, divisor), np.where(large, norm / 2.0**64, norm)
        return divisor.astype(dtype_of_norm), norm.astype(dtype_of_norm)

    def _squares(
        self, settings: Array, together: bool, threads: Threads, scale: float = 1.0
    ) -> Array:
        squares = np.zeros(self._squares_of)
        self._run(layout.SQUARES, settings, settings, squares, threads, scale)
        # No two tensors start at the same index, so `reduceat` adds up the sums of each tensor.
        starts = (self._ends - self._sizes) // layout.PIECE + np.arange(len(self._sizes))
        of_each = np.add.reduceat(squares, starts) if len(starts) else squares
        return of_each.sum(keepdims=True) if together else of_each

    def _run(
        self, kind: int, settings: Array, row_settings: Array, squares: Array | None,
        threads: Threads, scale: float = 1.0,
    ) -> None:  # fmt: skip
        if not self._pieces:
            return
        call, control = self._call, self._control
        arrays = settings, row_settings, squares
        # Writing the same addresses again would take 2 us.
        if kind != call[layout.KIND] or any(map(operator.is_not, arrays, self._arrays)):
            call[layout.KIND] = kind
            call[layout.SETTINGS_AT : layout.SCALE] = [
                0 if array is None else layout.address_of(array) for array in arrays
            ]
            self._arrays = arrays
        self._scale[0] = scale
        control[: layout.PIECES] = 0
        threads.run(self._kernel, control)
