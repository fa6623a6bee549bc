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

from adadelta._core import interrupts
from adadelta._core.lazy import caught_up
from adadelta._kernels import torch_memory
from adadelta._torch import arrays, pieces
from adadelta._torch.arrays import as_real, state_dtype

_is_sparse = operator.attrgetter("is_sparse")
_MOST_STEPS = torch.iinfo(torch.int32).max


class Lazy:
    """The parameters of an optimizer that have rows behind.

    Attributes:
        reasons: For parameters whose last gradient was sparse, why all rows were updated.

    """

    def __init__(self) -> None:
        self.reasons: dict[Tensor, str] = {}
        self._tables: dict[Tensor, Table] = {}

    def catch_up(self) -> None:
        """Let all rows of all parameters catch up."""
        for param in list(self._tables):
            self._close(param)

    def _close(self, param: Tensor) -> None:
        with interrupts.Deferred():
            self._tables.pop(param).catch_up()

    def split(
        self, columns: list[list[Tensor]], group: dict[str, Any], groups: Sequence[dict[str, Any]]
    ) -> tuple[list[list[Tensor]], "list[Touched]"]:
        """Separate the parameters of which only some rows need a step; the others catch up.

        Nothing that a user can see has changed afterwards.

        Args:
            columns: Parameters, their gradients, both averages and the counters of their steps.
            group: Their parameter group.
            groups: All groups of the optimizer.

        Returns:
            The columns of the others, and the touched rows.

        Raises:
            ValueError: A gradient has a row that its parameter lacks.

        """
        if not self._tables and not any(map(_is_sparse, columns[1])):
            return columns, []
        rest: list[list[Tensor]] = [[] for _ in columns]
        touched = []
        for row in zip(*columns, strict=True):
            param, gradient, *averages, count = row
            table = self._table(param, gradient, averages, group, groups)
            if table is not None:
                touched.append(Touched(table, param, gradient, count))
                continue
            for column, tensor in zip(rest, row, strict=True):
                column.append(tensor)
        return rest, touched

    def _table(
        self,
        param: Tensor,
        gradient: Tensor,
        averages: Sequence[Tensor],
        group: dict[str, Any],
        groups: Sequence[dict[str, Any]],
    ) -> "Table | None":
        """Return the table for a step of some rows of a parameter, or None for a dense step."""
        table = self._tables.get(param)
        reason = _reason_against(param, gradient, averages, group) if gradient.is_sparse else None
        is_lazy = gradient.is_sparse and reason is None
        if table is not None and not (is_lazy and table.fits(averages, gradient, group["rho"])):
            self._close(param)
            table = None
        if is_lazy and table is None:
            reason = _reason_against_sharing(param, averages, groups)
            if reason is None:
                table = Table(averages, gradient.sparse_dim(), group["rho"])
                self._tables[param] = table
        if reason is None:
            self.reasons.pop(param, None)
        else:
            self.reasons[param] = f"a sparse gradient updates all rows: {reason}"
        return table


class Table:
    """The averages of a parameter, of which some rows are behind.

    Args:
        averages: Both averages of the parameter, for which `_reason_against` has no reason.
        dims: How many of their dimensions number the rows.
        rho: The decay rate.

    """

    def __init__(self, averages: Sequence[Tensor], dims: int, rho: float) -> None:
        self._averages, self._dims, self.rho = averages, dims, rho
        self.sizes = averages[0].shape[:dims]
        self.averages = list(map(self.matrix, averages))
        # How many steps there were since the table was made, and after which of them each row was
        # updated last.
        self.steps = 0
        self.last = torch.zeros(
            self.sizes.numel(), dtype=torch.int32, device=averages[0].device
        )

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return a real view of the parameter or an average with a line for each row."""
        return as_real(tensor.detach()).view(self.sizes.numel(), -1)

    def fits(self, averages: Sequence[Tensor], gradient: Tensor, rho: float) -> bool:
        """Whether a step with these averages, this gradient and this rho can use this table."""
        return (
            all(map(operator.is_, averages, self._averages))
            and (gradient.sparse_dim(), rho) == (self._dims, self.rho)
            and self.steps < _MOST_STEPS
        )

    def rows_of(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows a gradient has, each once, and a matrix with a line for each."""
        if gradient._nnz():
            ends = torch.stack(gradient._indices().aminmax(dim=1)).T.tolist()
            for size, (lowest, highest) in zip(self.sizes, ends, strict=True):
                if lowest < 0 or highest >= size:
                    raise ValueError(
                        f"the rows of a sparse gradient must be from 0 to {size - 1}, as its "
                        f"parameter has them; received {lowest if lowest < 0 else highest}"
                    )
        gradient = gradient.coalesce()
        rows, *others = gradient.indices()
        for size, places in zip(self.sizes[1:], others, strict=True):
            rows = rows * size + places
        values = as_real(gradient.values().resolve_conj())
        return rows, values.reshape(len(rows), self.averages[0].shape[1])

    def catch_up(self) -> None:
        """Let all rows catch up."""
        if not self.steps:
            return
        missed = (self.steps - self.last)[:, None]
        size = pieces.ON_CPU if missed.is_cpu else pieces.ON_GPU
        with torch.no_grad():
            for average in self.averages:
                count = max(1, size // average.shape[1])
                for part, its_missed in zip(
                    average.split(count), missed.split(count), strict=True
                ):
                    part.copy_(caught_up(part, its_missed, self.rho, arrays))


class Touched:
    """Copies of the rows of a parameter that a step updates, as columns of matrices.

    Args:
        table: The table of the parameter.
        param: The parameter.
        gradient: Its gradient.
        count: The counter of its steps.

    Attributes:
        param: See the argument, as for `count`.
        columns: The rows of the parameter, of the gradient and of both averages.

    """

    def __init__(self, table: Table, param: Tensor, gradient: Tensor, count: Tensor) -> None:
        self.param, self.count, self._table = param, count, table
        self._rows, gradient = table.rows_of(gradient)
        self._wholes = [table.matrix(param), *table.averages]
        values, *averages = (whole.index_select(0, self._rows) for whole in self._wholes)
        missed = (table.steps - table.last.index_select(0, self._rows))[:, None]
        averages = [caught_up(average, missed, table.rho, arrays) for average in averages]
        self.columns = [values, gradient, *averages]

    def __len__(self) -> int:
        return len(self._rows)

    def put_back(self) -> None:
        """Write the rows, which a step has updated, where they came from."""
        value, _, *averages = self.columns
        for whole, part in zip(self._wholes, [value, *averages], strict=True):
            whole.index_copy_(0, self._rows, part)
        self._table.steps += 1
        self._table.last.index_fill_(0, self._rows, self._table.steps)


def _reason_against(
    param: Tensor, gradient: Tensor, averages: Sequence[Tensor], group: dict[str, Any]
) -> str | None:
    """Return why a step must update all rows of a parameter with a sparse gradient, or None."""
    if group["weight_decay"] != 0:
        return "weight decay changes each"
    for name in ("capturable", "differentiable"):
        if group[name]:
            return f"`{name}` is True"
    if not (gradient.sparse_dim() and param.numel()):
        return "there is only one, or none"
    if type(gradient) not in torch_memory.PLAIN or gradient.is_complex() != param.is_complex():
        return "the gradient is of another kind than the parameter"
    of_averages = state_dtype(param.dtype)
    kinds = [(param, "the parameter", param.dtype)]
    kinds += [(average, "an average", of_averages) for average in averages]
    for tensor, name, dtype in kinds:
        reason = torch_memory.reason_against(tensor, name, dtype, param.device.type)
        if reason is not None:
            return reason
    if any(
        (tensor.shape, tensor.device) != (param.shape, param.device)
        for tensor in (gradient, *averages)
    ):
        return "the gradient or an average does not fit the parameter"
    return None


def _reason_against_sharing(
    param: Tensor, averages: Sequence[Tensor], groups: Sequence[dict[str, Any]]
) -> str | None:
    """Return why rows may not fall behind because others write to their memory, or None."""
    if param.is_cpu and any(average.is_shared() for average in averages):
        return "other processes share its averages"
    params = [it for group in groups for it in group["params"]]
    sharing = torch_memory.Rows([params, [None] * len(params)]).sharing()
    if any(params[place] is param for place in sharing):
        return "the parameter shares memory with another"
    return None
