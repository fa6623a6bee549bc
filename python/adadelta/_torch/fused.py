"""The step by the kernel, for tensors in the processor's memory that lie as it needs them.

The kernel takes addresses, so what they stand for is looked at in each step (`torch_memory`).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adadelta._core import precision, rule
from adadelta._kernels import choose, cuda, layout, torch_memory
from adadelta._kernels.settings import Settings

_STATE_DTYPES = {
    getattr(torch, name): getattr(torch, precision.state_dtype(name)) for name in layout.DTYPES
}
_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in _STATE_DTYPES}
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class Call(NamedTuple):
    """Parameters of one dtype, their averages, and where they and their gradients lie."""

    dtype: torch.dtype
    noted: torch_memory.Noted
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
    dtype = param.dtype
    if dtype not in _STATE_DTYPES:
        return f"the parameter is {dtype}"
    state_dtype = _STATE_DTYPES[dtype]
    return (
        torch_memory.reason_against(param, "the parameter", dtype)
        or torch_memory.reason_against(grad, "the gradient", dtype)
        or torch_memory.reason_against(square_avg, "an average", state_dtype)
        or torch_memory.reason_against(acc_delta, "an average", state_dtype)
    )


def prepared(
    rows: list[Any], shared: set[int], known: dict[str, Any] | None
) -> tuple[list[Call], list[int]]:
    """Return the calls for the rows that the kernel can serve, and the places of the other rows.

    Args:
        rows: The rows of a step, whose shapes agree.
        shared: The places of rows that share memory, which can't be served.
        known: What this function noted about the last step of the same group; it is changed.

    """
    served: dict[torch.dtype, list[Any]] = {}
    rest = []
    for place, row in enumerate(rows):
        if place not in shared and reason_against(row) is None:
            served.setdefault(row[0].dtype, []).append(row)
        else:
            rest.append(place)
    calls = [_call(dtype, group) for dtype, group in served.items()]
    if known is not None:
        # Without the gradients, which would be kept in memory.
        alone = len(calls) == 1 and not rest
        known["call"] = calls[0]._replace(grads=()) if alone else None
    return calls, rest


def _call(dtype: torch.dtype, rows: list[Any]) -> Call:
    params, grads, square_avgs, acc_deltas, _, decays = zip(*rows, strict=True)
    noted = torch_memory.Noted([*params, *square_avgs, *acc_deltas], grads)
    table = np.zeros((len(rows), layout.COLUMNS), np.int64)
    lasting = np.reshape(noted.addresses, (3, len(rows)))
    table[:, [layout.PARAMETER, layout.SQUARE_AVG, layout.ACC_DELTA]] = lasting.T
    table[:, layout.GRADIENT] = noted.gradient_addresses
    row_sizes = np.array(list(map(torch.Tensor.numel, params)), np.int64)
    return Call(dtype, noted, table, row_sizes, decays, grads)


def repeated(rows: list[Any], known: dict[str, Any] | None) -> Call | None:
    """Return the call for rows that are those of the last step, with other gradients, if so."""
    last = known.get("call") if known else None
    if last is None or len(rows) != len(last.decays):
        return None
    params, grads, square_avgs, acc_deltas, _, decays = zip(*rows, strict=True)
    if not last.noted.still_holds([*params, *square_avgs, *acc_deltas], grads):
        return None
    last.table[:, layout.GRADIENT] = last.noted.gradient_addresses
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
    torch.autograd.graph.increment_version(call.noted.lasting)
