"""The step by the kernel, for tensors in the processor's memory that lie as it needs them.

The kernel takes addresses, so what they stand for is looked at before. Of a thousand small
tensors each microsecond counts: where parameters and averages are the same tensors at the same
places as in the step before, only the gradients are looked at again.
"""

import operator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adadelta._core import precision, rule
from adadelta._kernels import choose, cuda, layout
from adadelta._kernels.settings import Settings

_address = torch.Tensor.data_ptr
_dtype = operator.attrgetter("dtype")
_layout = operator.attrgetter("layout")

_STATE_DTYPES = {
    getattr(torch, name): getattr(torch, precision.state_dtype(name)) for name in layout.DTYPES
}
_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in _STATE_DTYPES}
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class Call(NamedTuple):
    """Parameters of one dtype, their averages, and where they and their gradients lie."""

    dtype: torch.dtype
    params: tuple[Tensor, ...]
    square_avgs: tuple[Tensor, ...]
    acc_deltas: tuple[Tensor, ...]
    # Of the three, as lists, which are compared faster than arrays are made.
    addresses: list[list[int]]
    sizes: list[int]
    table: np.ndarray
    row_sizes: np.ndarray
    decays: tuple[float, ...]
    # They must live until the step is done.
    grads: tuple[Tensor, ...]


def largest_gradient(epsilon: float, dtype: torch.dtype) -> float:
    """Return `rule.largest_gradient` for averages of `dtype`."""
    numbers = torch.finfo(dtype)
    return rule.largest_gradient(epsilon, numbers.tiny, numbers.max)


def reason_against(row: Any) -> str | None:
    """Why the kernel can't serve a row, or None when it can."""
    param, grad, square_avg, acc_delta = row[:4]
    name = _NAMES.get(param.dtype, "float32")
    against = choose.reason_against("cpu") or choose.reason_against_dtype("cpu", name)
    if against is not None:
        return against
    if type(param) not in (torch.Tensor, torch.nn.Parameter):
        return f"the parameter is a {type(param).__name__}"
    dtype = param.dtype
    if dtype not in _STATE_DTYPES:
        return f"the parameter is {dtype}"
    if grad.dtype != dtype:
        return f"the gradient is {grad.dtype} and the parameter {dtype}"
    for tensor in (param, grad, square_avg, acc_delta):
        if not tensor.is_cpu:
            return f"a tensor is on {tensor.device}"
        if tensor.layout != torch.strided or not tensor.is_contiguous() or tensor.is_neg():
            return "a tensor is not dense and contiguous"
    for average in (square_avg, acc_delta):
        if average.dtype != _STATE_DTYPES[dtype]:
            return f"an average is {average.dtype} and not {_STATE_DTYPES[dtype]}"
    return None


def prepared(rows: list[Any], known: dict[str, Any] | None) -> tuple[list[Call], list[Any]]:
    """Return the calls for the rows that the kernel can serve, and the other rows.

    Args:
        rows: The rows of a step, whose shapes agree.
        known: What this function noted about the last step of the same group; it is changed.

    """
    served: dict[torch.dtype, list[Any]] = {}
    rest = []
    for row in rows:
        if reason_against(row) is None:
            served.setdefault(row[0].dtype, []).append(row)
        else:
            rest.append(row)
    calls = [_call(dtype, group) for dtype, group in served.items()]
    if known is not None:
        # Without the gradients, which would be kept in memory.
        alone = len(calls) == 1 and not rest
        known["call"] = calls[0]._replace(grads=()) if alone else None
    return calls, rest


def _call(dtype: torch.dtype, rows: list[Any]) -> Call:
    params, grads, square_avgs, acc_deltas, _, decays = zip(*rows, strict=True)
    lasting = params, square_avgs, acc_deltas
    addresses = [list(map(_address, column)) for column in lasting]
    sizes = list(map(torch.Tensor.numel, params))
    table = np.zeros((len(rows), layout.COLUMNS), np.int64)
    places = layout.PARAMETER, layout.SQUARE_AVG, layout.ACC_DELTA, layout.GRADIENT
    for place, its_addresses in zip(places, (*addresses, list(map(_address, grads))), strict=True):
        table[:, place] = its_addresses
    row_sizes = np.array(sizes, np.int64)
    return Call(dtype, *lasting, addresses, sizes, table, row_sizes, decays, grads)


def repeated(rows: list[Any], known: dict[str, Any] | None) -> Call | None:
    """Return the call for rows that are those of the last step, with other gradients, if so."""
    last = known.get("call") if known else None
    if last is None or len(last.params) != len(rows):
        return None
    params, grads, square_avgs, acc_deltas, _, decays = zip(*rows, strict=True)
    lasting = params, square_avgs, acc_deltas
    for column, its_last, addresses in zip(lasting, last[1:4], last.addresses, strict=True):
        if not all(map(operator.is_, column, its_last)):
            return None
        if list(map(_address, column)) != addresses:
            return None
    if any(list(map(torch.Tensor.numel, it)) != last.sizes for it in (params, grads)):
        return None
    if set(map(_dtype, params)) != {last.dtype} or set(map(_dtype, grads)) != {last.dtype}:
        return None
    if set(map(_layout, grads)) != {torch.strided}:
        return None
    if not all(all(map(torch.Tensor.is_contiguous, it)) for it in (params, grads)):
        return None
    if any(map(torch.Tensor.is_neg, grads)):
        return None
    last.table[:, layout.GRADIENT] = list(map(_address, grads))
    return last._replace(grads=grads, decays=decays)


def run_on_gpu(rows: list[Any], settings: Any) -> None:
    """Do the step of rows that the Triton kernel can serve, in place."""
    by_state: dict[torch.dtype, list[Any]] = {}
    for row in rows:
        by_state.setdefault(row[2].dtype, []).append(row)
    for dtype, group in by_state.items():
        numbers = Settings(
            rate=settings.rate,
            rho=settings.rho,
            epsilon=settings.epsilon,
            maximize=settings.maximize,
            decay_mode=settings.decay_mode,
            largest=largest_gradient(settings.epsilon, dtype),
        )
        cuda.step(group, numbers)


def run(call: Call, settings: Any) -> None:
    """Do the step of a call, in place."""
    from adadelta._kernels import cpu, torch_threads

    dtype = _STATE_DTYPES[call.dtype]
    numbers = layout.settings(
        settings.rate,
        settings.rho,
        settings.epsilon,
        largest_gradient(settings.epsilon, dtype),
        maximize=settings.maximize,
        decay_mode=layout.DECOUPLED if settings.decay_mode == "decoupled" else layout.COUPLED,
    )
    row_settings = np.ones((len(call.table), layout.ROW_SETTINGS), _NUMPY[dtype])
    row_settings[:, layout.WEIGHT_DECAY] = call.decays
    cpu.step(
        str(call.dtype).removeprefix("torch."),
        call.table,
        call.row_sizes,
        np.array(numbers, _NUMPY[dtype]),
        row_settings,
        torch_threads.threads(),
    )
    # Autograd must know of it, to refuse a backward pass that needs the old values.
    torch.autograd.graph.increment_version([*call.params, *call.square_avgs, *call.acc_deltas])
