"""Sparse gradients: a step computes only the rows that have a gradient.

The averages of the other rows fall behind, and catch up (`_core/lazy.py`) before anything else uses
them. Which rows are behind is not part of the state: before it is read, saved or replaced, all rows
catch up, and then it is the state of as many dense steps.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adadelta._core import interrupts, lazy, parameters
from adadelta._core.step import Row
from adadelta._kernels import torch_memory
from adadelta._torch import arrays, pieces
from adadelta._torch.arrays import as_real, real_state_dtype

_MOST_STEPS = torch.iinfo(torch.int32).max


class Lazy:
    """The parameters of an optimizer that have rows behind."""

    def __init__(self) -> None:
        self._tables: dict[Tensor, Table] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def __reduce__(self) -> Any:
        # A copy is for other tensors.
        return Lazy, ()

    def catch_up(self) -> None:
        """Let all rows of all parameters catch up."""
        for param in list(self._tables):
            self._close(param)

    def touched(
        self, rows: Sequence[Row], rho: float, against: str | None
    ) -> "tuple[dict[int, Touched], dict[int, lazy.AllRows]]":
        """Return what a step of only some rows of a parameter updates; all others catch up.

        Nothing that a user can see has changed afterwards.

        Args:
            rows: The parameters with their gradients and averages.
            rho: The decay rate of the averages.
            against: Why a step must update all rows of each, or None.

        Returns:
            For the place of each parameter that is updated in part, the touched rows; and for that
            of each other one with a sparse gradient, the reason.

        Raises:
            ValueError: A gradient has a row that its parameter lacks.

        """
        found, reasons = {}, {}
        sharing: set[int] | None = None
        for place, row in enumerate(rows):
            param, gradient = row.parameter, row.gradient
            is_lazy = getattr(gradient, "is_sparse", False)
            if is_lazy:
                if sharing is None:
                    params = [row.parameter for row in rows]
                    sharing = torch_memory.Rows([params, [None] * len(params)]).sharing()
                reason = against or lazy.reason_against(row) or _reason_against(row)
                if reason is None and place in sharing:
                    reason = "the parameter shares memory with another"
                if reason is not None:
                    reasons[place] = lazy.AllRows(reason)
                    is_lazy = False
            table = self._tables.get(param) if self._tables else None
            if table is not None and not (is_lazy and table.fits(row, rho)):
                self._close(param)
                table = None
            if is_lazy:
                if table is None:
                    table = self._tables[param] = Table(row, rho)
                found[place] = Touched(table, row)
        return found, reasons

    def _close(self, param: Tensor) -> None:
        with interrupts.Deferred():
            self._tables.pop(param).catch_up()


class Table:
    """The averages of a parameter, of which some rows are behind.

    Args:
        row: The parameter with its averages, for which nothing is against it.
        rho: The decay rate.

    Attributes:
        averages: Views of the averages: see `matrix`.
        rho: See the argument.
        steps: The number of steps since the table was made.
        last: The number of the step after which each row was updated last.

    """

    def __init__(self, row: Row, rho: float) -> None:
        self.rho, self.steps = rho, 0
        gradient: Any = row.gradient
        self._averages, self._dims = (row.square_avg, row.acc_delta), gradient.sparse_dim()
        self._sizes = row.parameter.shape[: self._dims]
        self._addresses = [average.data_ptr() for average in self._averages]
        self.averages = list(map(self.matrix, self._averages))
        # A tensor made in torch's inference mode can't be changed outside of it.
        with torch.inference_mode(False):
            self.last = torch.zeros(
                self._sizes.numel(), dtype=torch.int32, device=row.parameter.device
            )

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return a real view of the parameter or an average with a line for each row."""
        return as_real(tensor.detach()).view(self._sizes.numel(), -1)

    def fits(self, row: Row, rho: float) -> bool:
        """Whether this table can make a step."""
        gradient: Any = row.gradient
        averages = row.square_avg, row.acc_delta
        same = map(operator.is_, averages, self._averages)
        # They may have got other memory through `.data`.
        now = gradient.sparse_dim(), rho, [average.data_ptr() for average in averages]
        noted = self._dims, self.rho, self._addresses
        return all(same) and now == noted and self.steps < _MOST_STEPS

    def rows_of(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows a gradient has, each once, and a matrix with a line for each."""
        check_rows(gradient)
        gradient = gradient.coalesce()
        rows, *others = gradient.indices()
        for size, places in zip(self._sizes[1:], others, strict=True):
            rows = rows * size + places
        values = as_real(gradient.values().resolve_conj())
        return rows, values.reshape(len(rows), self.averages[0].shape[1])

    def catch_up(self) -> None:
        """Let all rows catch up."""
        missed = (self.steps - self.last)[:, None]
        size = pieces.ON_CPU if missed.is_cpu else pieces.ON_GPU
        with torch.no_grad():
            for average in self.averages:
                count = max(1, size // average.shape[1])
                for part, its_missed in zip(average.split(count), missed.split(count), strict=True):
                    part.copy_(lazy.caught_up(part, its_missed, self.rho, arrays))


class Touched:
    """The rows of a parameter that a step updates, as matrices of their own.

    Args:
        table: The table of the parameter.
        row: The parameter with its sparse gradient.

    Attributes:
        row: What the step updates: a matrix in place of each array. `take` gives the parameter its
            values, since another parameter's step may change them until then.

    """

    def __init__(self, table: Table, row: Row) -> None:
        self._table, self._param = table, table.matrix(row.parameter)
        given: Any = row.gradient
        self._rows, gradient = table.rows_of(given)
        missed = (table.steps - table.last.index_select(0, self._rows))[:, None]
        averages = [
            lazy.caught_up(average.index_select(0, self._rows), missed, table.rho, arrays)
            for average in table.averages
        ]
        values = self._param.new_empty(gradient.shape)
        self.row = row._replace(
            parameter=values, gradient=gradient, square_avg=averages[0], acc_delta=averages[1]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def take(self) -> None:
        """Read the rows of the parameter."""
        torch.index_select(self._param, 0, self._rows, out=self.row.parameter)

    def put_back(self) -> None:
        """Write the updated rows into the parameter and the averages."""
        wholes = [self._param, *self._table.averages]
        parts = [self.row.parameter, self.row.square_avg, self.row.acc_delta]
        for whole, part in zip(wholes, parts, strict=True):
            # For 1,024 of a million rows, index_copy_() takes 290 us and this 55.
            whole.index_put_((self._rows,), part)
        self._table.steps += 1
        self._table.last.index_fill_(0, self._rows, self._table.steps)


def check_rows(gradient: Tensor) -> None:
    """Raise an error if a sparse gradient has a row that a tensor of its shape lacks."""
    if not gradient._nnz() or gradient.is_meta:
        return
    lowest, highest = gradient._indices().aminmax(dim=1)
    for size, low, high in zip(gradient.shape, lowest.tolist(), highest.tolist(), strict=False):
        if low < 0 or high >= size:
            raise parameters.other_row("a parameter", size, low if low < 0 else high)


def _reason_against(row: Row) -> str | None:
    """Return why the rows of these tensors can't be updated on their own, or None."""
    param: Tensor = row.parameter
    gradient: Any = row.gradient
    dtype, real = param.dtype, real_state_dtype(param.dtype)
    for average in (row.square_avg, row.acc_delta):
        expected = real.to_complex() if average.is_complex() else real
        reason = torch_memory.reason_against(average, "an average", expected, param.device.type)
        if reason is not None:
            return reason
        if average.is_cpu and average.is_shared():
            return "other processes share its averages"
        pair = (*param.shape, *([2] if dtype.is_complex and not average.is_complex() else []))
        if average.shape != pair or average.device != param.device:
            return "an average does not fit the parameter"
    reason = torch_memory.reason_against(param, "the parameter", dtype, param.device.type)
    if reason is not None:
        return reason
    if (gradient.shape, gradient.device) != (param.shape, param.device) or (
        gradient.is_complex() != dtype.is_complex or type(gradient) not in torch_memory.PLAIN
    ):
        return "the gradient is of another kind than the parameter"
    return None if gradient.sparse_dim() and param.numel() else "it has no rows"
