"""The step, as one Triton kernel over all tensors of a table.

It is a transcription of `advance` in `_core/step.py`, for the options of torch's optimizers: the
same operations in the same order, each rounded to nearest. `cuda.py` prepares its arguments and
launches it, and is the only module that imports this one, and with it Triton.
"""

# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"
# Triton interprets annotations itself; arguments in capitals are compile-time constants.

import triton
import triton.language as tl


@triton.jit
def _quotient(numerator, denominator):
    # Triton's plain `/` and `sqrt` round to nearest in float64 only, which has no `_rn` functions.
    if numerator.dtype == tl.float64:
        return numerator / denominator
    else:
        return tl.math.div_rn(numerator, denominator)


@triton.jit
def _root_of_quotient(numerator, denominator):
    quotient = _quotient(numerator, denominator)
    if quotient.dtype == tl.float64:
        return tl.sqrt(quotient)
    else:
        return tl.math.sqrt_rn(quotient)


@triton.jit
def _pointers(address, offsets, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    # Triton uses 16-byte loads only with this hint, and only if it is on the pointer.
    pointer = address.to(tl.pointer_type(DTYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer + offsets


@triton.jit
def _step_of_chunk(
    table,
    numbers,
    rate,
    decay,
    offsets,
    mask,
    PARAMETER: tl.constexpr,
    GRADIENT: tl.constexpr,
    STATE: tl.constexpr,
    ALIGNED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAY: tl.constexpr,
):
    parameters = _pointers(tl.load(table), offsets, PARAMETER, ALIGNED)
    gradients = _pointers(tl.load(table + 1), offsets, GRADIENT, ALIGNED)
    square_avgs = _pointers(tl.load(table + 2), offsets, STATE, ALIGNED)
    acc_deltas = _pointers(tl.load(table + 3), offsets, STATE, ALIGNED)
    rho, one_minus_rho = tl.load(numbers + 1), tl.load(numbers + 2)
    epsilon, largest = tl.load(numbers + 3), tl.load(numbers + 4)
    rate = tl.load(rate).to(STATE)

    gradient = tl.load(gradients, mask).to(STATE)
    value = tl.load(parameters, mask).to(STATE)
    square_avg = tl.load(square_avgs, mask)
    acc_delta = tl.load(acc_deltas, mask)

    if MAXIMIZE:
        gradient = -gradient
    if DECAY == "coupled":
        gradient = tl.where(decay != 0, gradient + decay * value, gradient)
    # The difference is 0 for finite gradients and NaN for NaN and infinity, which thus show.
    # tl.clamp to -x and x does not compile in float64 (Triton 3.9).
    limited = tl.minimum(tl.maximum(gradient, -largest), largest)
    gradient = limited + (gradient - gradient)

    square_avg = rho * square_avg + one_minus_rho * (gradient * gradient)
    step = _root_of_quotient(acc_delta + epsilon, square_avg + epsilon) * gradient
    acc_delta = rho * acc_delta + one_minus_rho * (step * step)

    if DECAY == "decoupled":
        value = tl.where(decay != 0, value - value * (decay * rate), value)
    if DECAY == "unscaled":
        value = tl.where(decay != 0, value - value * decay, value)

    tl.store(parameters, (value - rate * step).to(PARAMETER), mask)
    tl.store(square_avgs, square_avg, mask)
    tl.store(acc_deltas, acc_delta, mask)


@triton.jit(do_not_specialize=["numbers", "rate"])
def step(
    row_of_chunk,
    table,
    numbers,
    rate,
    COLUMNS: tl.constexpr,
    FIRST_DECAY: tl.constexpr,
    BLOCK: tl.constexpr,
    PARAMETER: tl.constexpr,
    GRADIENT: tl.constexpr,
    STATE: tl.constexpr,
    ALIGNED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAY: tl.constexpr,
):
    """Run one step on one chunk of one tensor; `cuda.py` describes the arguments."""
    chunk = tl.program_id(0)
    row = tl.load(row_of_chunk + chunk)
    table += row * COLUMNS
    size, first_chunk = tl.load(table + 4), tl.load(table + 5)
    decay = tl.load(numbers + FIRST_DECAY + row)
    start = (chunk - first_chunk) * BLOCK
    offsets = start + tl.arange(0, BLOCK)
    # Only a tensor's last chunk needs a mask, which prevents wide loads and stores.
    if start + BLOCK <= size:
        _step_of_chunk(
            table, numbers, rate, decay, offsets, None,
            PARAMETER, GRADIENT, STATE, ALIGNED, MAXIMIZE, DECAY,
        )  # fmt: skip
    else:
        _step_of_chunk(
            table, numbers, rate, decay, offsets, offsets < size,
            PARAMETER, GRADIENT, STATE, ALIGNED, MAXIMIZE, DECAY,
        )  # fmt: skip


def dtype_of(dtype: object) -> object:
    """Return the Triton dtype for a torch dtype."""
    return getattr(tl, str(dtype).removeprefix("torch."))
