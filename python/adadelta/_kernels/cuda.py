"""The step on torch tensors on an NVIDIA GPU, as one Triton kernel over all of them.

The step is bound by memory bandwidth. Separate operators write and read every intermediate result;
the kernel reads and writes each tensor once, and one launch updates all tensors of a dtype and
device. It finds them through a table of their addresses and sizes. Each program updates a chunk of
`BLOCK` elements of one tensor, so a thousand small tensors cost about as much as one large one.

The kernel is a transcription of `advance` in `_core/step.py`, for the options of torch's
optimizers. Tests compare the two, and before its first use it is tried on the machine's own GPU.

A CUDA graph can't capture it: a replay would use the addresses of the capture. Under capture the
kernel refuses the step, so that torch's operators make it.
"""

import array
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from adadelta._core import precision, rule
from adadelta._core.rule import Number
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import torch_memory

# 8 elements per thread: two 16-byte loads of each float32 tensor, and registers for three programs
# on a multiprocessor of compute capability 9.0 (80 registers, by ptxas). Not yet timed.
BLOCK = 2048
WARPS = 8

# A row of the table: four addresses, the size, and the number of chunks in all earlier rows.
_COLUMNS = 6
# How many numbers stand before the weight decays of the rows: see `_numbers`.
_FIRST_DECAY = 5


def reason_against_dtype(dtype: str) -> str | None:
    """Return why the kernel can't run on this machine, for any dtype, or None if it can."""
    return _reason_against_machine()


def reason_against(row: Row) -> str | None:
    """Return why the kernel can't take a row whose shapes and devices fit, or None if it can."""
    return _reason_against_row(row) or _reason_against_machine()


def reason_against_options(call: Call, options: Options) -> str | None:
    """Return why the kernel does not support a step with these options, or None if it does."""
    # The momentum matters only to rows with a moving average.
    known = "maximize", "decay_mode", "ema_momentum"
    if call.loss_scale is None and options.are_only(*known):
        return None
    return "the kernel for GPUs knows `maximize` and weight decay, but no other option"


def _reason_against_row(row: Row, device_type: str = "cuda") -> str | None:
    parameter, gradient, *averages = row[:4]
    if gradient is None or row.average is not None or row.window is not None:
        return "the kernel for GPUs takes a gradient, and keeps no moving average and no window"
    dtype = parameter.dtype
    state = torch.float64 if dtype == torch.float64 else torch.float32
    if dtype not in (torch.float16, torch.bfloat16, state):
        return f"the parameter is {dtype}"
    tensors = [(parameter, "the parameter", dtype)]
    tensors.append((gradient, "the gradient", state if gradient.dtype == state else dtype))
    tensors += [(average, "an average", state) for average in averages]
    for tensor, name, its_dtype in tensors:
        reason = torch_memory.reason_against(tensor, name, its_dtype, device_type)
        if reason is not None:
            return reason
        if tensor.device != parameter.device:
            return f"{name} is on {tensor.device}, the parameter on {parameter.device}"
    if device_type == "cuda" and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph is being captured"
    return None


@functools.cache
def _reason_against_machine() -> str | None:
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    return _failure_on(torch.device("cuda"))


def _failure_on(device: torch.device) -> str | None:
    """Try the kernel and return why it fails: no Triton, no C compiler, too old a GPU, ..."""

    def between(low: float, high: float) -> Tensor:
        return torch.linspace(low, high, 2 * BLOCK + 1, dtype=torch.float32, device=device)

    value, gradient = between(-1, 1), between(-2, 2)
    square_avg, acc_delta = between(0, 1), between(1, 0)
    call, options = Call(0.5), Options(0.9, 0.1)
    try:
        change, *averages = rule.update(
            gradient, square_avg, acc_delta, options.rho, options.epsilon, torch.sqrt
        )
        expected = value - call.rate * change, *averages
        step([Row(value, gradient, square_avg, acc_delta)], call, options)
        # The operations are the same; the tolerance allows for the rounding of roots and quotients.
        close = functools.partial(torch.allclose, rtol=1e-5, atol=1e-6)
        if not all(map(close, (value, square_avg, acc_delta), expected)):
            return "its results differ from the rule's on this machine"
    except Exception as error:
        return f"it does not run on this machine: {type(error).__name__}: {error}"
    return None


def step(rows: Sequence[Row], call: Call, options: Options) -> None:
    """Update all parameters in place, without waiting for the GPU.

    Args:
        rows: Rows that `reason_against` does not refuse. No parameter occurs twice.
        call: Only its rate is used: a number or a tensor of one element. The host does not wait for
            the value of a tensor on the parameters' device.
        options: The options of the optimizer. All numbers are rounded to the dtype of the averages
            before they are used, as operators on tensors do.

    """
    groups: dict[object, list[Row]] = {}
    for row in rows:
        if row.parameter.numel():
            gradient: Tensor = row.gradient
            key = row.parameter.device, row.parameter.dtype, gradient.dtype
            groups.setdefault(key, []).append(row)
    for group in groups.values():
        with torch.cuda.device_of(group[0].parameter):
            _launch(group, call.rate, options)
        # So that autograd refuses a backward pass that needs the old values.
        for row in group:
            torch.autograd.graph.increment_version(row.parameter)


def _launch(rows: list[Row], rate: Number, options: Options) -> None:
    from adadelta._kernels import triton_step

    first: Sequence[Tensor] = rows[0][:3]
    parameter, gradient, square_avg = first
    device = parameter.device
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0

    table = array.array("q")
    bits = chunks = 0
    for row in rows:
        size = row.parameter.numel()
        tensors: Sequence[Tensor] = row[:4]
        addresses = [tensor.data_ptr() for tensor in tensors]
        bits |= functools.reduce(int.__or__, addresses)
        table.extend((*addresses, size, chunks))
        chunks += -(-size // BLOCK)

    # A rate on the device is read by the kernel itself, so the host need not wait for it.
    is_there = torch.is_tensor(rate) and rate.device == device
    host_rate = 1.0 if is_there else float(rate)
    numbers = _on_device(_numbers(rows, host_rate, options), square_avg.dtype, device, stream)

    triton_step.step[(chunks,)](
        _row_of_chunk(table[4::_COLUMNS].tobytes(), device, stream),
        _on_device(table.tobytes(), torch.int64, device, stream),
        numbers,
        rate if is_there else numbers,
        COLUMNS=_COLUMNS,
        FIRST_DECAY=_FIRST_DECAY,
        BLOCK=BLOCK,
        PARAMETER=triton_step.dtype_of(parameter.dtype),
        GRADIENT=triton_step.dtype_of(gradient.dtype),
        STATE=triton_step.dtype_of(square_avg.dtype),
        ALIGNED=bits % 16 == 0,
        MAXIMIZE=options.maximize,
        DECAY=options.decay_mode if any(row.weight_decay for row in rows) else None,
        num_warps=WARPS,
        # A fused multiply-add would round once where the rule rounds twice.
        enable_fp_fusion=False,
    )


def _numbers(rows: list[Row], rate: float, options: Options) -> bytes:
    is_double = rows[0].square_avg.dtype == torch.float64
    limit = precision.largest_gradient(options.epsilon, "float64" if is_double else "float32")
    numbers = array.array("d" if is_double else "f")
    numbers.extend((rate, options.rho, 1 - options.rho, options.epsilon, limit))
    numbers.extend(row.weight_decay for row in rows)
    return numbers.tobytes()


# Both functions cache their results by content: parameters and averages keep their addresses, and
# torch's allocator often gives gradients those of the step before. The stream is part of the key:
# on another stream the copy might not have arrived, or its memory might be reused too early.


@functools.lru_cache(maxsize=32)
def _on_device(content: bytes, dtype: torch.dtype, device: torch.device, stream: int) -> Tensor:
    return _sent(torch.frombuffer(bytearray(content), dtype=dtype), device)


@functools.lru_cache(maxsize=8)
def _row_of_chunk(sizes: bytes, device: torch.device, stream: int) -> Tensor:
    chunks = (torch.frombuffer(bytearray(sizes), dtype=torch.int64) + BLOCK - 1) // BLOCK
    rows = torch.arange(len(chunks), dtype=torch.int32)
    return _sent(rows.repeat_interleave(chunks), device)


def _sent(host: Tensor, device: torch.device) -> Tensor:
    # A copy from pinned memory does not block; torch keeps that memory until the copy is done.
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)
