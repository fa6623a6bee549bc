"""How JAX and TensorFlow call the handlers in `xla_handler.py` through their XLA."""

import ctypes
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adadelta._core import precision
from adadelta._core.rule import Array
from adadelta._core.step import Call, Options, Row, step
from adadelta._kernels import compiled, layout, numpy_arrays

# The columns that a handler returns, in order.
RETURNED = [column for column in range(layout.COLUMNS) if column != layout.GRADIENT]
# Arrays whose addresses are in compiled code: kept as long as the process lives.
_known: list[NDArray[np.int64]] = []
_REFUSAL = ctypes.create_string_buffer(
    b"adadelta's kernel got arrays that do not belong together: please report this, "
    b"and use fused=False until then"
)


def columns_of(rows: Sequence[Sequence[Array | None]]) -> int:
    """Return a bit for each column in which the rows have an array; they must all agree."""
    (columns,) = {
        sum(1 << column for column, array in enumerate(row) if array is not None) for row in rows
    }
    return columns


def flat(rows: Sequence[Sequence[Array | None]]) -> list[Array]:
    """Return the arrays of rows as operands of a handler."""
    return [array for row in rows for array in row if array is not None]


def split(arrays: Sequence[Array], columns: int) -> list[list[Array | None]]:
    """Return the operands of a handler as rows."""
    present = [column for column in range(layout.COLUMNS) if columns >> column & 1]
    rows = []
    for start in range(0, len(arrays), len(present)):
        row: list[Array | None] = [None] * layout.COLUMNS
        for column, array in zip(present, arrays[start:], strict=False):
            row[column] = array
        rows.append(row)
    return rows


def aliases_of_step(operands: int, columns: int) -> dict[int, int]:
    """Return which result takes the memory of each operand that the step overwrites.

    Args:
        operands: The number of operands: the settings, the row settings, and all rows' arrays.
        columns: The result of `columns_of`.

    """
    kept = [
        operand
        for row in split(range(2, operands), columns)
        for column in RETURNED
        if (operand := row[column]) is not None
    ]
    return {operand: result for result, operand in enumerate(kept)}


def for_norms(
    rows: Sequence[Sequence[Array | None]], together: bool, wide: bool
) -> tuple[list[list[Array | None]], int]:
    """Return rows with only the arrays that norms of gradients need, and their columns."""
    kept = (layout.GRADIENT, layout.WINDOW)
    reduced = [
        [array if column in kept else None for column, array in enumerate(row)] for row in rows
    ]
    more = (layout.TOGETHER if together else 0) | (layout.WIDE if wide else 0)
    return reduced, columns_of(reduced) | more


def scratch_of_norms(shapes: Sequence[Sequence[int]], columns: int) -> int:
    """Return how many int32 of scratch memory norms need, from the shapes of their operands."""
    rows = split(shapes, columns)
    elements = sum(math.prod(next(array for array in row if array is not None)) for row in rows)
    return layout.scratch_size(len(rows), layout.number_of_squares(len(rows), elements))


def trial() -> tuple[Row, Call, Options]:
    """Return a small step with which a framework tries the kernel."""
    x, g, v, u = (np.linspace(-1, 1, 5, dtype=np.float32) ** power for power in (1, 3, 2, 4))
    return Row(x, g, v, u, weight_decay=0.1), Call(rate=0.5), Options(rho=0.9, epsilon=1e-6)


def is_right(made: Row, row: Row, call: Call, options: Options) -> bool:
    """Whether a framework's results for the arrays of a trial are those of the step."""
    wanted = step(row, call, options, numpy_arrays)
    return all(
        np.allclose(np.asarray(array), exact, rtol=1e-6, atol=0)
        for array, exact in zip(made[:4], wanted[:4], strict=True)
    )


def handler(kind: str, dtype: str, version: tuple[int, int], wide: bool = False) -> tuple[str, int]:
    """Return the name and the address of a handler.

    Args:
        kind: "step" or "norms".
        dtype: The dtype of the parameters and gradients, by name.
        version: The version of XLA's interface.
        wide: Whether norms are float64 although the state is float32.

    """
    result = "float64" if wide else precision.state_dtype(dtype)
    function = kind if kind == "step" else f"norms_{result}"
    place, worker, task = compiled.addresses(
        ("xla_handler", function), ("fused", dtype), ("xla_handler", "task")
    )
    library = ctypes.CDLL(None)
    functions = [getattr(library, name) for name in ("malloc", "free", "sched_yield")]
    known = np.zeros(layout.KNOWN, np.int64)
    known[[layout.WORKER, layout.TASK]] = worker, task
    known[[layout.MALLOC, layout.FREE, layout.YIELD]] = [
        ctypes.cast(function, ctypes.c_void_p).value for function in functions
    ]
    known[layout.VERSION] = version[0] | version[1] << 32
    known[layout.DTYPE] = layout.XLA_DTYPES[dtype]
    known[layout.STATE_DTYPE] = layout.XLA_DTYPES[precision.state_dtype(dtype)]
    known[layout.REFUSAL] = ctypes.addressof(_REFUSAL)
    _known.append(known)
    name = f"adadelta_{kind}_{dtype}{'_wide' if wide else ''}"
    return name, compiled.bound(place, known.ctypes.data)
