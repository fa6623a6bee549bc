"""The step on torch tensors on an NVIDIA GPU, as one Triton kernel over all of them.

A step is bound by memory. Operator by operator it moves every intermediate result; the kernel
reads and writes what it must, once, and one launch serves all tensors of a dtype and device. It
finds them through a table of their addresses and sizes. Each program takes a chunk of `BLOCK`
elements of one tensor, so a thousand small tensors cost about as much as one large one.

The kernel is a transcription of `_core/rule.py`: tests hold it to the rule, and before it serves
it is tried against the rule on the machine's own GPU.

A CUDA graph can't capture it: a replay would go to the addresses of the capture. A step under
capture is refused, so that the rule takes it.
"""

import array
import functools
from collections.abc import Sequence
from typing import Any

from adadelta._core import rule
from adadelta._kernels.settings import Settings

Tensor = Any
Row = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, float]

# 8 elements to a thread: two 16-byte loads of each float32 tensor, and registers for three
# programs on a multiprocessor of compute capability 9.0 (80 of them, by ptxas). Not yet timed.
BLOCK = 2048
WARPS = 8

# A row of the table: five addresses, the size, and the number of chunks in the rows before.
_COLUMNS = 7


def can_serve(*tensors: Tensor | None) -> bool:
    """Whether the kernel can step these tensors; see `reason_against`."""
    return reason_against(*tensors) is None


def reason_against(*tensors: Tensor | None) -> str | None:
    """Why the kernel can't serve these tensors, or any on this machine; None if it can.

    Args:
        tensors: A parameter, its gradient, square_avg, acc_delta and, optionally, average; or
            nothing, to ask about the machine alone.

    """
    return (_reason_against_row(*tensors) if tensors else None) or _reason_against_machine()


def _reason_against_row(
    parameter: Tensor, gradient: Tensor, *state: Tensor | None, device_type: str = "cuda"
) -> str | None:
    import torch

    from adadelta._kernels import torch_memory

    # Asked for each parameter in each step: 7 us, beside 3 us in `step`.
    dtype, device, shape = parameter.dtype, parameter.device, parameter.shape
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if dtype not in (torch.float16, torch.bfloat16, state_dtype):
        return f"the parameter is {dtype}"
    if gradient.dtype not in (dtype, state_dtype):
        return f"the parameter is {dtype}, its gradient {gradient.dtype}"
    if device.type != device_type:
        return f"the parameter is on {device}"
    averages = [tensor for tensor in state if tensor is not None]
    for tensor in averages:
        if tensor.dtype != state_dtype:
            return f"an average is {tensor.dtype}, not {state_dtype}"
    for tensor in (parameter, gradient, *averages):
        # Subclasses may be spread over devices, or have no memory at all.
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return f"a tensor is a {type(tensor).__name__}"
        if tensor.layout is not torch.strided:
            return f"a tensor is sparse ({tensor.layout})"
        if tensor.device != device:
            return f"a tensor is on {tensor.device}, the parameter on {device}"
        if tensor.shape != shape:
            return f"a tensor has shape {tuple(tensor.shape)}, not {tuple(shape)}"
        if not tensor.is_contiguous():
            return "a tensor is not contiguous"
        if tensor.is_neg() or not torch_memory.has_memory(tensor):
            return "a tensor has no memory of its own"
    if device_type == "cuda" and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph is being captured"
    return None


@functools.cache
def _reason_against_machine() -> str | None:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    return _failure_on(torch.device("cuda"))


def _failure_on(device: Any) -> str | None:
    """What goes wrong when the kernel is tried: no Triton, no C compiler, too old a GPU..."""
    import torch

    def between(low: float, high: float) -> Tensor:
        return torch.linspace(low, high, 2 * BLOCK + 1, dtype=torch.float32, device=device)

    value, gradient = between(-1, 1), between(-2, 2)
    square_avg, acc_delta = between(0, 1), between(1, 0)
    settings = Settings(rate=0.5, rho=0.9, epsilon=0.1)
    try:
        change, *averages = rule.update(
            gradient, square_avg, acc_delta, settings.rho, settings.epsilon, torch.sqrt
        )
        expected = value - settings.rate * change, *averages
        step([(value, gradient, square_avg, acc_delta, None, 0.0)], settings)
        # The operations are the same; the room is for other roundings of a root or quotient.
        close = functools.partial(torch.allclose, rtol=1e-5, atol=1e-6)
        if not all(map(close, (value, square_avg, acc_delta), expected)):
            return "its results differ from the rule's on this machine"
    except Exception as error:
        return f"it does not run on this machine: {type(error).__name__}: {error}"
    return None


def step(rows: Sequence[Row], settings: Settings) -> None:
    """Step all parameters in place, without waiting for the GPU.

    Args:
        rows: For each parameter `(parameter, gradient, square_avg, acc_delta, average,
            weight_decay)`: tensors that `can_serve`, the average None where none is kept. No
            parameter comes twice. The averages of all are of one dtype, for which
            `settings.largest` is meant.
        settings: The numbers and options of this step.

    """
    import torch

    groups: dict[Any, list[Row]] = {}
    for row in rows:
        parameter, gradient, _, _, average, _ = row
        if parameter.numel():
            has_average = settings.ema_mode is not None and average is not None
            key = parameter.device, parameter.dtype, gradient.dtype, has_average
            groups.setdefault(key, []).append(row)
    for (_, _, _, has_average), group in groups.items():
        with torch.cuda.device_of(group[0][0]):
            _launch(group, settings, has_average)
        # Autograd must hear of it, to refuse a backward pass that needs the old values.
        for row in group:
            torch.autograd.graph.increment_version(row[0])


def _launch(rows: list[Row], settings: Settings, has_average: bool) -> None:
    import torch

    from adadelta._kernels import triton_step

    parameter, gradient, square_avg = rows[0][:3]
    device = parameter.device
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0

    table = array.array("q")
    bits = chunks = 0
    for row in rows:
        size = row[0].numel()
        tensors: Sequence[Tensor] = row[:5] if has_average else row[:4]
        addresses = [tensor.data_ptr() for tensor in tensors]
        bits |= functools.reduce(int.__or__, addresses)
        table.extend((*addresses, *[0] * (5 - len(addresses)), size, chunks))
        chunks += -(-size // BLOCK)

    # These three need not be known to the host: the kernel reads them where they are.
    given = [settings.rate, settings.unscale, settings.factor]
    on_device = [torch.is_tensor(number) and number.device == device for number in given]
    numbers = array.array("d" if square_avg.dtype == torch.float64 else "f")
    for number, is_there in zip(given, on_device, strict=True):
        numbers.append(1.0 if number is None or is_there else float(number))
    numbers.extend((settings.rho, 1 - settings.rho, settings.epsilon, settings.largest))
    numbers.extend((settings.ema_momentum, 1 - settings.ema_momentum))
    first_decay = len(numbers)
    numbers.extend(row[5] or 0.0 for row in rows)
    its_numbers = _on_device(numbers.tobytes(), square_avg.dtype, device, stream)
    pointers = [
        number if number is None or is_there else its_numbers[position:]
        for position, (number, is_there) in enumerate(zip(given, on_device, strict=True))
    ]

    triton_step.step[(chunks,)](
        _row_of_chunk(table[5::_COLUMNS].tobytes(), device, stream),
        _on_device(table.tobytes(), torch.int64, device, stream),
        its_numbers,
        *pointers,
        COLUMNS=_COLUMNS,
        FIRST_DECAY=first_decay,
        BLOCK=BLOCK,
        PARAMETER=triton_step.dtype_of(parameter),
        GRADIENT=triton_step.dtype_of(gradient),
        STATE=triton_step.dtype_of(square_avg),
        ALIGNED=bits % 16 == 0,
        MAXIMIZE=settings.maximize,
        DECAY=settings.decay_mode if any(row[5] for row in rows) else None,
        AVERAGE=settings.ema_mode if has_average else None,
        num_warps=WARPS,
        # A fused multiply-add rounds once where the rule rounds twice.
        enable_fp_fusion=False,
    )


# Both keep what they made for the same contents: parameters and averages stay where they are, and
# torch's allocator often gives gradients the addresses of the step before. The stream belongs to
# the key: on another one the copy might not be there yet, or its memory be given away too early.


@functools.lru_cache(maxsize=32)
def _on_device(content: bytes, dtype: Any, device: Any, stream: int) -> Tensor:
    import torch

    return _sent(torch.frombuffer(bytearray(content), dtype=dtype), device)


@functools.lru_cache(maxsize=8)
def _row_of_chunk(sizes: bytes, device: Any, stream: int) -> Tensor:
    import torch

    chunks = (torch.frombuffer(bytearray(sizes), dtype=torch.int64) + BLOCK - 1) // BLOCK
    rows = torch.arange(len(chunks), dtype=torch.int32)
    return _sent(rows.repeat_interleave(chunks), device)


def _sent(host: Tensor, device: Any) -> Tensor:
    # From pinned memory the copy waits for nothing; torch keeps that memory until it is done.
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)
