"""The step by the kernel, for tensors in the processor's memory that lie as it needs them.

The kernel takes addresses, so what they stand for is looked at in each step (`torch_memory`).
"""

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
_STATE = ("square_avg", "acc_delta", "average", "window")
# As what the kernel takes parameters: a complex number is a pair of real ones.
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
    """Return a gradient as the kernel takes it where that costs no digits, else as it is."""
    if type(gradient) not in torch_memory.PLAIN or gradient.layout != torch.strided:
        return gradient
    if gradient.dtype != parameter.dtype and parameter.dtype.itemsize < 4:
        # For half-precision parameters the kernel would round a float32 gradient to half precision.
        return gradient
    return gradient.to(parameter.dtype).resolve_conj().resolve_neg().contiguous()


def with_contiguous_state(row: Row) -> Row:
    """Return a row with copies of its state where that does not lie as the kernel needs it."""
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


class Group(NamedTuple):
    """Rows of one dtype, which one call of the kernel takes."""

    # As the kernel sees the parameters, and of their state.
    dtype: str
    state: str
    places: np.ndarray
    table: np.ndarray
    sizes: np.ndarray


class Rows:
    """Rows that the kernel takes, where they lie, and how it shows that they still lie there."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Look at rows against which there is no reason, and that share no memory."""
        columns = columns_of(rows)
        self.missing = [
            [tensor is None for tensor in column] for column in columns[: layout.COLUMNS]
        ]
        self.constrained = [row.constraint is not None for row in rows]
        self.are_constrained = any(self.constrained)
        gradients = columns[layout.GRADIENT]
        self.has_gradients = not any(self.missing[layout.GRADIENT])
        # Where all rows have the same arrays, the next step is told by a look at all at once.
        self.can_repeat = all(
            len(set(self.missing[column])) == 1 for column in (*_LASTING, layout.GRADIENT)
        )
        lasting = [
            tensor for column in _LASTING for tensor in columns[column] if tensor is not None
        ]
        self.noted = torch_memory.Noted(lasting, gradients if self.has_gradients else ())
        self.groups = _groups(rows)

    def hold(self, columns: Sequence[Sequence[Any]]) -> bool:
        """Whether these columns of rows are the same, with gradients like those before."""
        size = len(self.constrained)
        if not self.can_repeat or len(columns[0]) != size:
            return False
        lasting: list[Tensor] = []
        # To count None in a column of nothing else takes 1 us for 200 rows, a look at each 5.
        for column in (*_LASTING, layout.GRADIENT):
            if self.missing[column][0]:
                if columns[column].count(None) != size:
                    return False
            elif column != layout.GRADIENT:
                lasting += columns[column]
        if not self.are_constrained:
            if columns[-1].count(None) != size:
                return False
        elif list(map(operator.is_not, columns[-1], repeat(None))) != self.constrained:
            return False
        gradients = columns[layout.GRADIENT] if self.has_gradients else ()
        return self.noted.still_holds(lasting, gradients)


def _groups(rows: Sequence[Row]) -> list[Group]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(_TAKEN_AS[row.parameter.dtype], []).append(place)
    groups = []
    for dtype, members in places.items():
        table = np.array([_addresses(rows[place]) for place in members], np.int64)
        sizes = [as_real(rows[place].parameter).numel() for place in members]
        groups.append(
            Group(
                dtype,
                precision.state_dtype(dtype),
                np.array(members),
                table,
                np.array(sizes, np.int64),
            )
        )
    return groups


def _addresses(row: Row) -> list[int]:
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in arrays_of(row)]
    if row.constraint is not None:
        # An average is of the constrained value, so the kernel leaves it alone then.
        addresses[layout.AVERAGE] = 0
    return addresses


class Step(NamedTuple):
    """What the kernel is to do to rows: all of them are collected, or all are updated."""

    rows: Rows
    action: int
    weight_decays: Sequence[float]
    # They must live until the step is done.
    gradients: Sequence[Tensor | None]


class TableCall(NamedTuple):
    """A call of the kernel, but for its threads: see `cpu.step`."""

    dtype: str
    table: np.ndarray
    sizes: np.ndarray
    settings: np.ndarray
    row_settings: np.ndarray


def calls(step: Step, call: Call, options: Options) -> list[TableCall]:
    """Return a call of the kernel for each group.

    Args:
        step: The step.
        call: What the call is told, in Python's numbers.
        options: What the optimizer is told.

    """
    decays = np.array(step.weight_decays, np.float64)
    gradients = np.array(step.rows.noted.gradient_addresses, np.int64)
    made = []
    for group in step.rows.groups:
        table = group.table.copy()
        if step.rows.has_gradients:
            table[:, layout.GRADIENT] = gradients[group.places]
        limit = precision.largest_gradient(options.epsilon, group.state)
        numbers = np.array(layout.settings(options, call, step.action, limit), group.state)
        own = layout.row_settings(decays[group.places], group.state)
        made.append(TableCall(group.dtype, table, group.sizes, numbers, own))
    return made


def norms(
    calls: Sequence[TableCall], together: bool, wide: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each call the norm of each gradient, or the one of all, as two factors."""
    from adadelta._kernels import cpu, torch_threads

    threads = torch_threads.threads()
    return [
        cpu.norms(call.dtype, call.table, call.sizes, call.settings, together, threads, wide)
        for call in calls
    ]


def clip(calls: Sequence[TableCall], factors: Sequence[Factors]) -> None:
    """Write into each call by what the gradients are divided and multiplied."""
    for call, (divisor, factor) in zip(calls, factors, strict=True):
        call.row_settings[:, layout.CLIP_DIVISOR] = divisor
        call.row_settings[:, layout.CLIP_FACTOR] = factor


def run(step: Step, calls: Sequence[TableCall]) -> None:
    """Do a step, in place."""
    from adadelta._kernels import cpu, torch_threads

    threads = torch_threads.threads()
    for call in calls:
        cpu.step(*call, threads)
    if step.action == UPDATE:
        # Autograd must know of it, to refuse a backward pass that needs the old values.
        torch.autograd.graph.increment_version(step.rows.noted.lasting)


def are_finite(rows: Rows, loss_scale: float | None) -> bool:
    """Whether all gradients are finite, divided by a loss scale of at least 1."""
    step = Step(rows, UPDATE, [0.0] * len(rows.constrained), ())
    its_calls = calls(step, Call(0.0, loss_scale), Options(0.0, 1.0))
    for call in its_calls:
        call.table[:, layout.WINDOW] = 0
    # The norm is finite when all are, and takes one pass at the speed of memory.
    return all(bool(np.isfinite(norm).all()) for _, norm in norms(its_calls, True, False))
