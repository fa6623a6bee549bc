"""The step by the kernel, for contiguous tensors in the processor's memory.

The kernel takes addresses, so the tensors behind them are checked in each step (`torch_memory`).
"""

import functools
import operator
from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adadelta._core import precision
from adadelta._core.clipping import Factors
from adadelta._core.step import UPDATE, Call, Options, Row, columns_of
from adadelta._kernels import choose, layout, torch_memory
from adadelta._torch.arrays import arrays_of, as_real, real_state_dtype

_LASTING = (layout.PARAMETER, layout.SQUARE_AVG, layout.ACC_DELTA, layout.AVERAGE, layout.WINDOW)
_DECAY, _CONSTRAINT = map(Row._fields.index, ("weight_decay", "constraint"))
_STATE = ("square_avg", "acc_delta", "average", "window")
# The dtype that the kernel uses for parameters: a complex number is a pair of real ones.
_TAKEN_AS = {getattr(torch, name): name for name in layout.DTYPES}
_TAKEN_AS |= {torch.complex32: "float16", torch.complex64: "float32", torch.complex128: "float64"}


def reason_against_dtype(dtype: torch.dtype) -> str | None:
    """Return why the kernel can't take parameters of a dtype on this machine, or None."""
    taken_as = _TAKEN_AS.get(dtype)
    return (
        choose.reason_against("cpu")
        or choose.reason_against_dtype("cpu", taken_as or "float32")
        or (f"the parameter is {dtype}" if taken_as is None else None)
    )


def reason_against(row: Row) -> str | None:
    """Return why the kernel can't take a row, or None when it can; its gradient may be None."""
    param, gradient, *state = arrays_of(row)
    dtype = param.dtype
    reason = reason_against_dtype(dtype)
    if reason is None:
        reason = torch_memory.reason_against(param, "the parameter", dtype)
    if reason is None and gradient is not None:
        reason = torch_memory.reason_against(gradient, "the gradient", dtype)
    real = real_state_dtype(dtype)
    for tensor in state:
        if reason is None and tensor is not None:
            expected = real.to_complex() if tensor.dtype.is_complex else real
            reason = torch_memory.reason_against(tensor, "an average", expected)
    return reason


def as_needed(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient as the kernel needs it if that loses no precision, else as it is."""
    if type(gradient) not in torch_memory.PLAIN or gradient.layout != torch.strided:
        return gradient
    if gradient.dtype != parameter.dtype and parameter.dtype.itemsize < 4:
        # For half-precision parameters the kernel would round a float32 gradient to half precision.
        return gradient
    return gradient.to(parameter.dtype).resolve_conj().resolve_neg().contiguous()


def with_contiguous_state(row: Row) -> Row:
    """Return a row with contiguous copies of its state where that is not contiguous."""
    if not row.parameter.is_contiguous():
        return row
    state = {
        name: array.contiguous()
        for name, array in row._asdict().items()
        if name in _STATE
        and type(array) in torch_memory.PLAIN
        and array.layout is torch.strided
        and not array.is_contiguous()
    }
    return row._replace(**state) if state else row


class Members:
    """Rows of one dtype, which one call of the kernel updates.

    Args:
        dtype: The dtype of the parameters for the kernel.
        places: The indices of the rows in the step; a slice for all rows, which is faster to index
            with.
        table: See `cpu.Work`.
        sizes: See there.

    """

    def __init__(
        self, dtype: str, places: np.ndarray | slice, table: np.ndarray, sizes: np.ndarray
    ) -> None:
        self.dtype, self.state = dtype, precision.state_dtype(dtype)
        self.places, self._table, self._sizes = places, table, sizes
        self._kept: dict[bool, Any] = {}

    def take(self, gradients: Sequence[int], with_sums: bool) -> Any:
        """Return a `cpu.Work` that only the caller has, until it gives it to `keep`.

        Args:
            gradients: The addresses of the gradients of all rows of the step, or of none.
            with_sums: Whether the sums of accumulated gradients are a part of it.

        """
        work, known = self._kept.pop(with_sums, (None, []))
        if work is None:
            work = _machine()[0].Work(self.dtype, self._table.copy(), self._sizes)
            if not with_sums:
                work.table[:, layout.WINDOW] = 0
        if gradients != known:
            every = isinstance(self.places, slice)
            its = gradients if every else np.array(gradients, np.int64)[self.places]
            work.table[:, layout.GRADIENT] = its
        return work

    def keep(self, work: Any, gradients: Sequence[int], with_sums: bool) -> None:
        """Keep prepared work for the next step."""
        self._kept[with_sums] = work, gradients


class Rows:
    """Rows that the kernel can take, with their addresses and a fast check for the next step."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Note rows that `reason_against` accepts, and that share no memory."""
        columns = columns_of(rows)
        missing = [[tensor is None for tensor in column] for column in columns[: layout.COLUMNS]]
        self.constrained = [row.constraint is not None for row in rows]
        self.are_constrained = any(self.constrained)
        self.has_gradients = not any(missing[layout.GRADIENT])
        # If all rows have arrays in the same columns, the next step can check them all at once.
        self.can_repeat = all(
            len(set(missing[column])) == 1 for column in (*_LASTING, layout.GRADIENT)
        )
        self._absent = [column for column in (*_LASTING, layout.GRADIENT) if all(missing[column])]
        if not self.are_constrained:
            self._absent.append(_CONSTRAINT)
        self._present = [column for column in _LASTING if column not in self._absent]
        gradients = columns[layout.GRADIENT] if self.has_gradients else ()
        self._noted = torch_memory.Noted(_lasting(columns), gradients)
        self.members = _members(rows)
        self._row_settings: tuple[list[float], list[np.ndarray]] = ([], [])
        self._settings: tuple[Any, list[np.ndarray]] = (None, [])

    def first_step(self, columns: Sequence[Sequence[Any]], action: int) -> "Step":
        """Return the step of the rows that were noted just now, which need no check."""
        gradients = columns[layout.GRADIENT]
        addresses = [it.data_ptr() for it in gradients] if self.has_gradients else []
        return Step(self, action, columns[_DECAY], gradients, addresses, _lasting(columns))

    def step(self, columns: Sequence[Sequence[Any]], action: int) -> "Step | None":
        """Return the kernel's step for these columns, checked by comparison with the noted rows.

        The result is None if the columns hold other rows or gradients of another kind.
        """
        size = len(self.constrained)
        if not self.can_repeat or len(columns[0]) != size:
            return None
        # Counting None in a column of 200 takes 1 us, a loop over them 5.
        for column in self._absent:
            if columns[column].count(None) != size:
                return None
        if self.are_constrained and (
            list(map(operator.is_not, columns[_CONSTRAINT], repeat(None))) != self.constrained
        ):
            return None
        lasting: list[Tensor] = []
        for column in self._present:
            lasting += columns[column]
        gradients = columns[layout.GRADIENT]
        addresses = self._noted.addresses(lasting, gradients if self.has_gradients else ())
        if addresses is None:
            return None
        return Step(self, action, columns[_DECAY], gradients, addresses, lasting)

    def settings(self, action: int, call: Call, options: Options) -> list[np.ndarray]:
        """Return `layout.settings` for each of `members`, cached while they stay the same."""
        known, settings = self._settings
        if known != (action, call, options):
            settings = [_settings(options, call, action, its.state) for its in self.members]
            self._settings = (action, call, options), settings
        return settings

    def row_settings(self, weight_decays: Sequence[float]) -> list[np.ndarray]:
        """Return `layout.row_settings` of each of `members`, cached while weight decays stay."""
        known, settings = self._row_settings
        if known != weight_decays:
            decays: Any = np.array(weight_decays, np.float64)
            settings = [
                layout.row_settings(decays[members.places], members.state)
                for members in self.members
            ]
            self._row_settings = list(weight_decays), settings
        return settings


def _lasting(columns: Sequence[Sequence[Any]]) -> list[Tensor]:
    return [tensor for column in _LASTING for tensor in columns[column] if tensor is not None]


def _members(rows: Sequence[Row]) -> list[Members]:
    by_dtype: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_dtype.setdefault(_TAKEN_AS[row.parameter.dtype], []).append(place)
    found = []
    for dtype, places in by_dtype.items():
        table = np.array([_addresses(rows[place]) for place in places], np.int64)
        sizes = np.array([as_real(rows[place].parameter).numel() for place in places], np.int64)
        chosen = slice(None) if len(places) == len(rows) else np.array(places)
        found.append(Members(dtype, chosen, table, sizes))
    return found


def _addresses(row: Row) -> list[int]:
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in arrays_of(row)]
    if row.constraint is not None:
        # The moving average is that of the constrained value, so the kernel must not update it.
        addresses[layout.AVERAGE] = 0
    return addresses


class Step(NamedTuple):
    """One step of the kernel on rows with the same action: accumulate, or update."""

    rows: Rows
    action: int
    weight_decays: Sequence[float]
    # Kept alive until the step is done.
    gradients: Sequence[Tensor | None]
    # The addresses of the gradients; none if not all rows have one.
    addresses: list[int]
    # The tensors that it may write.
    lasting: list[Tensor]


class Group(NamedTuple):
    """A call of the kernel (see `cpu.Work`), as a `Group` of `adadelta._core.engine`."""

    members: Members
    gradients: list[int]
    settings: np.ndarray
    row_settings: np.ndarray
    with_sums: bool = True

    @property
    def dtype(self) -> str:
        """See there, as for the methods below."""
        return self.members.state

    def norms(self, together: bool, wide: bool) -> Factors:
        """See there."""
        work = self.members.take(self.gradients, self.with_sums)
        norms: Factors = work.norms(self.settings, together, _machine()[1].threads(), wide)
        self.members.keep(work, self.gradients, self.with_sums)
        return norms

    def step(self, factors: Factors | None) -> None:
        """See there. The caller must call `tell_autograd` afterwards."""
        own = self.row_settings
        if factors is not None:
            own = own.copy()
            own[:, layout.CLIP_DIVISOR], own[:, layout.CLIP_FACTOR] = factors
        work = self.members.take(self.gradients, self.with_sums)
        work.step(self.settings, own, _machine()[1].threads())
        self.members.keep(work, self.gradients, self.with_sums)


@functools.cache
def _machine() -> Any:
    """Import the modules that need numba's compiler, only when they are used."""
    from adadelta._kernels import cpu, torch_threads

    return cpu, torch_threads


def groups(step: Step, call: Call, options: Options) -> list[Group]:
    """Return the calls of the kernel that make a step.

    Args:
        step: The step.
        call: The arguments of this call, as Python numbers.
        options: The options of the optimizer.

    """
    rows = step.rows
    settings = rows.settings(step.action, call, options)
    row_settings = rows.row_settings(step.weight_decays)
    return [
        Group(members, step.addresses, its_settings, own)
        for members, its_settings, own in zip(rows.members, settings, row_settings, strict=True)
    ]


@functools.lru_cache(maxsize=64)
def _settings(options: Options, call: Call, action: int, state: str) -> np.ndarray:
    limit = precision.largest_gradient(options.epsilon, state)
    return np.array(layout.settings(options, call, action, limit), state)


def tell_autograd(step: Step) -> None:
    """Make autograd refuse a backward pass that needs the values from before an update."""
    if step.action == UPDATE:
        torch.autograd.graph.increment_version(step.lasting)


def are_finite(step: Step, loss_scale: float | None) -> bool:
    """Whether all gradients of a step are finite; a loss scale must be at least 1."""
    call, options = Call(0.0, loss_scale), Options(0.0, 1.0)
    # The norm is finite if all elements are, and takes one pass at memory speed.
    for members in step.rows.members:
        settings = _settings(options, call, UPDATE, members.state)
        group = Group(members, step.addresses, settings, settings, with_sums=False)
        _, norm = group.norms(together=True, wide=False)
        if not np.isfinite(norm).all():
            return False
    return True
