"""One step on lists of tensors.

`planned` sorts and checks them and changes nothing; `run` does the work. Between the two, the
groups that come later are checked as well, so that a step is done as a whole or not at all.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adadelta._core import rule
from adadelta._kernels import cuda, pieces, torch_memory
from adadelta._torch import fused as kernel

# parameter, gradient, square_avg, acc_delta, moving average (which torch's optimizers have none
# of), weight decay
Row = tuple[Tensor, Tensor, Tensor, Tensor, None, float]


class Settings(NamedTuple):
    """What a step is told beside its tensors.

    `rate` is a number or a tensor without dimensions. `decay_mode` is "coupled" (the decay is
    added to the gradient), "decoupled" (it is subtracted, times the rate) or None. `proceed` is
    None, or a tensor that says whether the step takes place, for steps that can't be asked.
    """

    rate: Any
    rho: float
    epsilon: float
    maximize: bool = False
    decay_mode: str | None = None
    proceed: Tensor | None = None


class Plan(NamedTuple):
    """A step that can be done: its rows by how they are done, and how each parameter counts."""

    calls: list[kernel.Call]
    on_gpu: list[Row]
    together: list[list[Row]]
    one_by_one: list[Row]
    steps: list[Tensor]
    settings: Settings
    differentiable: bool


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the averages of parameters of `dtype`: in less than float32 they drift."""
    if dtype.is_complex:
        return torch.complex64 if dtype == torch.complex32 else dtype
    return torch.float32 if dtype.itemsize < 4 else dtype


def planned(
    rows: list[Row],
    steps: list[Tensor],
    settings: Settings,
    *,
    foreach: bool | None = None,
    fused: bool | None = None,
    differentiable: bool = False,
    known: dict[str, Any] | None = None,
) -> Plan:
    """Sort the rows of a step by how they are updated, or raise when one does not fit.

    `known` is what the kernel's part notes from step to step of the same group.
    """
    compiling = torch.compiler.is_compiling()
    asked = isinstance(settings.rate, float) and settings.proceed is None
    # As in torch, `foreach = False` alone asks for one tensor at a time.
    chosen = fused or (fused is None and foreach is not False)
    may_fuse = rows and chosen and asked and not (differentiable or compiling)
    if may_fuse:
        again = kernel.repeated(rows, known)
        if again is not None:
            return Plan([again], [], [], [], steps, settings, differentiable)
    together: dict[Any, list[Row]] = {}
    one_by_one: list[Row] = []
    for row in rows:
        _check(row, compiling)
    watched = not compiling and torch_memory.is_watched()
    shared: set[int] = set()
    if rows and not compiling:
        places = torch_memory.Rows(list(zip(*rows, strict=True))[:4])
        if places.too_short():
            raise ValueError(
                "the storage of a parameter, a gradient or an average ends before the tensor does; "
                "it must hold all of its elements in a step"
            )
        shared = places.sharing()
    calls: list[kernel.Call] = []
    rest = list(range(len(rows)))
    if may_fuse and not watched:
        calls, rest = kernel.prepared(rows, shared, known)
    on_gpu: list[Row] = []
    if may_fuse and fused and not watched:
        # Only where it is asked for: the Triton kernel is proved in Triton's interpreter, and has
        # not been timed on a GPU yet.
        served = [it for it in rest if it not in shared and cuda.can_serve(*rows[it][:4])]
        on_gpu = [rows[it] for it in served]
        rest = [it for it in rest if it not in served]
    if fused and rest:
        row = rows[rest[0]]
        of = cuda.reason_against(*row[:4]) if row[0].is_cuda else None
        reason = of or kernel.reason_against(row)
        if reason is None and watched:
            reason = "a mode of torch's sees each operation"
        elif reason is None and rest[0] in shared:
            reason = "a tensor shares memory with another"
        raise RuntimeError(
            "`fused=True` needs a kernel, and there is none for these tensors: "
            f"{reason or 'the rate is a tensor on its device'}; `fused=None` takes what there is"
        )
    for place in rest:
        row = rows[place]
        param, grad, dtype = row[0], row[1], row[0].dtype
        if dtype.is_complex or grad.layout != torch.strided:
            row = _real_and_dense(row)
        apart = place in shared or type(param) not in torch_memory.PLAIN
        if differentiable or compiling or apart:
            one_by_one.append(row)
        else:
            key = len(together) if foreach is False else (param.device, dtype)
            together.setdefault(key, []).append(row)
    groups = list(together.values())
    return Plan(calls, on_gpu, groups, one_by_one, steps, settings, differentiable)


def _check(row: Row, compiling: bool) -> None:
    param, grad, square_avg, acc_delta, _, _ = row
    shape, dtype, device = param.shape, param.dtype, param.device
    if not compiling and not (
        grad.shape == shape == square_avg.shape == acc_delta.shape
        and square_avg.device == acc_delta.device == device
    ):
        raise ValueError(_what_does_not_fit(row))
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"parameters must be floating point or complex; received {dtype}")


def _what_does_not_fit(row: Row) -> str:
    param, grad, *averages = row[:4]
    for average in averages:
        if average.device != param.device:
            return (
                f"a parameter is on {param.device} and its state on {average.device}; move "
                "parameters before the optimizer's first step, or load its state again"
            )
    shapes = [tuple(it.shape) for it in averages]
    return (
        f"a parameter of shape {tuple(param.shape)} has a gradient of shape {tuple(grad.shape)} "
        f"and averages of shapes {shapes[0]} and {shapes[1]}"
    )


def _real_and_dense(row: Row) -> Row:
    param, grad, square_avg, acc_delta, average, decay = row
    if grad.layout != torch.strided:
        # Rows that occur twice are summed.
        grad = grad.to_dense()
    if param.is_complex():
        tensors = param, grad.resolve_conj(), square_avg, acc_delta
        param, grad, square_avg, acc_delta = (torch.view_as_real(it) for it in tensors)
    return param, grad, square_avg, acc_delta, average, decay


def run(plan: Plan) -> None:
    """Do a planned step."""
    _count(plan.steps, plan.settings.proceed)
    for call in plan.calls:
        kernel.run(call, plan.settings)
    kernel.run_on_gpu(plan.on_gpu, plan.settings)
    for rows in plan.together:
        update(rows, plan.settings)
    for param, grad, square_avg, acc_delta, _, decay in plan.one_by_one:
        old = param, square_avg, acc_delta
        if plan.differentiable:
            # Gradients are taken with the old values, which are overwritten.
            param, square_avg, acc_delta = (it.clone() for it in old)
        new = _following(grad, param, square_avg, acc_delta, plan.settings, decay)
        for tensor, value in zip(old, new, strict=True):
            tensor.copy_(value)


def update(rows: list[Row], settings: Settings) -> None:
    """Update rows of one dtype, device and weight decay, in place."""
    params, grads, square_avgs, acc_deltas, _, decays = zip(*rows, strict=True)
    function = functools.partial(_following, settings=settings, decay=decays[0])
    pieces.update(function, grads, params, square_avgs, acc_deltas)


def all_finite(grads: Sequence[Tensor]) -> Tensor | None:
    """Whether no gradient has a NaN or an infinity, as a tensor; None when there is nothing."""
    alike: dict[Any, list[Tensor]] = {}
    for grad in grads:
        values = grad.coalesce() if grad.layout == torch.sparse_coo else grad
        values = values if values.layout == torch.strided else values.values()
        values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
        if values.numel() and not values.is_meta:
            alike.setdefault((values.device, values.dtype), []).append(values)
    # The largest magnitude is finite when all are, and NaN when one is.
    found = [
        torch.stack(torch._foreach_norm(values, torch.inf)).isfinite().all()
        for values in alike.values()
    ]
    return torch.stack([it.to(found[0].device) for it in found]).all() if found else None


def _following(
    gradient: Tensor,
    value: Tensor,
    square_avg: Tensor,
    acc_delta: Tensor,
    settings: Settings,
    decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What becomes of a parameter and its averages."""
    rate, rho, epsilon, maximize, decay_mode, proceed = settings
    dtype = state_dtype(value.dtype)
    old = value, square_avg, acc_delta
    gradient, value = gradient.to(dtype), value.to(dtype)
    if maximize:
        gradient = -gradient
    value, square_avg, acc_delta = rule.step(
        value,
        gradient,
        square_avg.to(dtype),
        acc_delta.to(dtype),
        rate=rate,
        rho=rho,
        epsilon=epsilon,
        limit=kernel.largest_gradient(epsilon, dtype),
        weight_decay=decay,
        weight_decay_mode=decay_mode,
        sqrt=torch.sqrt,
        clip=torch.clamp,
    )
    new = value.to(old[0].dtype), square_avg, acc_delta
    if proceed is None:
        return new
    proceed = proceed.to(value.device)
    return tuple(torch.where(proceed, it, was) for it, was in zip(new, old, strict=True))


def _count(steps: list[Tensor], proceed: Tensor | None) -> None:
    if not steps:
        return
    if proceed is not None:
        torch._foreach_add_(steps, [proceed.to(it.device, it.dtype) for it in steps])
    elif not torch.compiler.is_compiling() and steps[0].is_cpu:
        # A number would become a tensor once for each of them: 2.7 us a parameter instead of 0.4.
        torch._foreach_add_(steps, torch.ones(()), alpha=1.0)
    else:
        torch._foreach_add_(steps, 1)
