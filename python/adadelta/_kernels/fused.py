"""The step fused into one pass over memory, for tensors in the memory of the processor.

This is a transcription of the step in `_core`, compiled by numba: tests hold it to the rule. A
call gets a table of tensors by address, so that a thousand small ones cost about what a large one
does. All elements of all tensors are numbered through and cut into pieces; whichever thread is
free takes the next piece. A piece is worked on in blocks that stay in the processor's first
cache, where each option is a loop of its own; memory is read and written once.

Everything here takes addresses, in C's calling convention: Python calls it through ctypes, which
lets other threads run, and XLA calls it without Python (`xla.py`).
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from adadelta._kernels import layout


def part(function: Any = None, **options: Any) -> Any:
    """Compile a function that only other compiled ones call: without wrappers, which take time."""
    compiled = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)
    return compiled if function is None else compiled(function)


def _memory(element: Any, code: Any) -> tuple[Any, Any]:
    """Functions that read and write elements of a type by address and index."""

    def place(builder: Any, address: Any, index: Any) -> Any:
        return builder.gep(builder.inttoptr(address, code.as_pointer()), [index])

    @intrinsic
    def load(context, address, index):
        def generate(context, builder, signature, arguments):
            return builder.load(place(builder, *arguments))

        return element(types.int64, types.int64), generate

    @intrinsic
    def store(context, address, index, value):
        def generate(context, builder, signature, arguments):
            builder.store(arguments[2], place(builder, *arguments[:2]))

        return types.void(types.int64, types.int64, element), generate

    return load, store


load_int64, store_int64 = _memory(types.int64, ir.IntType(64))
load_float64, store_float64 = _memory(types.float64, ir.DoubleType())
load_float32, store_float32 = _memory(types.float32, ir.FloatType())
_load_uint16, _store_uint16 = _memory(types.uint16, ir.IntType(16))


@intrinsic
def fetch_add(context, address, increment):
    """Add to the int64 at an address, for all threads at once, and return what was there."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _sqrt(context, value):
    """Return the square root by the processor's instruction, without a call of C's library."""

    def generate(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.sqrt", [arguments[0].type])
        return builder.call(function, arguments)

    return value(value), generate


@intrinsic
def _block(context, like):
    """Return the address of BLOCK elements on the function's own stack."""

    def generate(context, builder, signature, arguments):
        with builder.goto_entry_block():
            place = builder.alloca(ir.ArrayType(ir.DoubleType(), layout.BLOCK))
            place.align = 64
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(like), generate


@intrinsic
def _bits(context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _float(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@part
def load_bfloat16(address, index):
    return _float(np.uint32(_load_uint16(address, index)) << np.uint32(16))


@part
def store_bfloat16(address, index, value):
    bits = _bits(value)
    # To the nearest, ties to the even one; NaN stays one.
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    _store_uint16(address, index, np.uint16(rounded if value == value else np.uint32(0x7FC0)))


@part
def load_float16(address, index):
    half = np.uint32(_load_uint16(address, index))
    sign = (half & np.uint32(0x8000)) << np.uint32(16)
    magnitude = half & np.uint32(0x7FFF)
    # The exponents are 112 apart; infinity and NaN have the largest one of both.
    offset = np.uint32(224 << 23) if magnitude >= np.uint32(0x7C00) else np.uint32(112 << 23)
    normal = (magnitude << np.uint32(13)) + offset
    # Not by shifting: threads of XLA take subnormal floats for 0.
    tiny = _bits(np.float32(np.int32(magnitude)) * np.float32(2.0**-24))
    return _float((tiny if magnitude < np.uint32(0x0400) else normal) | sign)


@part
def store_float16(address, index, value):
    bits = _bits(value)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    odd = (magnitude >> np.uint32(13)) & np.uint32(1)
    normal = (magnitude + np.uint32(0xFFF) + odd - np.uint32(112 << 23)) >> np.uint32(13)
    # Adding 2^23 rounds to whole multiples of the smallest float16.
    scaled = _float(magnitude) * np.float32(2.0**24) + np.float32(2.0**23)
    half = _bits(scaled) & np.uint32(0x7FFFFF) if magnitude < np.uint32(113 << 23) else normal
    # 65520 and more round to infinity.
    half = np.uint32(0x7C00) if magnitude >= np.uint32(0x477FF000) else half
    half = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else half
    _store_uint16(address, index, np.uint16(half | sign))


@part
def _load_gradient(block, row, start, size, settings, load, store, load_parameter):
    """Fill a block with the gradient: unscaled, and added to the window's sum."""
    given = load_int64(row, layout.GRADIENT)
    window = load_int64(row, layout.WINDOW)
    loss_scale = load(settings, layout.LOSS_SCALE)
    if given:
        for i in range(size):
            store(block, i, load_parameter(given, start + i))
        if loss_scale != 1:
            for i in range(size):
                store(block, i, load(block, i) / loss_scale)
    else:
        for i in range(size):
            store(block, i, 0)
    if window:
        for i in range(size):
            store(block, i, load(window, start + i) + load(block, i))


@part
def _divide(block, size, divisor, load, store):
    for i in range(size):
        store(block, i, load(block, i) / divisor)


@part
def _clip(block, size, limit, load, store):
    """Limit elements; NaN stays."""
    for i in range(size):
        value = load(block, i)
        value = limit if value > limit else value
        store(block, i, -limit if value < -limit else value)


@part
def _prepare_gradient(block, parameter, size, settings, row_settings, own, load, store):
    """Sign, clipping, coupled decay and saturation of a block."""
    if load(settings, layout.MAXIMIZE) != 0:
        for i in range(size):
            store(block, i, -load(block, i))
    divisor, factor = (
        load(row_settings, own + layout.CLIP_DIVISOR),
        load(row_settings, own + layout.CLIP_FACTOR),
    )
    if divisor != 1 or factor != 1:
        for i in range(size):
            store(block, i, load(block, i) / divisor * factor)
    limit = load(settings, layout.CLIP_VALUE)
    if limit < math.inf:
        _clip(block, size, limit, load, store)
    decay = load(row_settings, own + layout.WEIGHT_DECAY)
    if decay != 0 and load(settings, layout.DECAY_MODE) == layout.COUPLED:
        for i in range(size):
            store(block, i, load(block, i) + decay * load(parameter, i))
    limit = load(settings, layout.LARGEST_GRADIENT)
    for i in range(size):
        value = load(block, i)
        kept = limit if value > limit else value
        kept = -limit if kept < -limit else kept
        # The difference is 0 for finite gradients, and keeps infinity visible.
        store(block, i, kept + (value - value))


@part
def _decay(parameter, size, settings, row_settings, own, load, store):
    decay, mode = load(row_settings, own + layout.WEIGHT_DECAY), load(settings, layout.DECAY_MODE)
    if decay != 0 and mode != layout.COUPLED:
        share = decay * load(settings, layout.RATE) if mode == layout.DECOUPLED else decay
        for i in range(size):
            value = load(parameter, i)
            store(parameter, i, value - value * share)


@part
def _rule(parameter, gradient, square_avg, acc_delta, start, size, settings, load, store):
    rho, one_minus_rho = load(settings, layout.RHO), load(settings, layout.ONE_MINUS_RHO)
    epsilon, rate = load(settings, layout.EPSILON), load(settings, layout.RATE)
    for i in range(size):
        g = load(gradient, i)
        v = rho * load(square_avg, start + i) + one_minus_rho * (g * g)
        u = load(acc_delta, start + i)
        step = _sqrt((u + epsilon) / (v + epsilon)) * g
        store(square_avg, start + i, v)
        store(acc_delta, start + i, rho * u + one_minus_rho * (step * step))
        store(parameter, i, load(parameter, i) - rate * step)


@part
def _move_average(parameter, average, start, size, settings, load, store):
    if load(settings, layout.AVERAGE_STARTS) != 0:
        for i in range(size):
            store(average, start + i, load(parameter, i))
    else:
        momentum, rest = load(settings, layout.MOMENTUM), load(settings, layout.ONE_MINUS_MOMENTUM)
        for i in range(size):
            value = momentum * load(average, start + i) + rest * load(parameter, i)
            store(average, start + i, value)
    if load(settings, layout.OVERWRITE) != 0:
        for i in range(size):
            store(parameter, i, load(average, start + i))


@part
def _step(
    row, start, size, settings, row_settings, own, gradient, parameter, load, store,
    load_parameter, store_parameter,
):  # fmt: skip
    """One step of one block of one tensor."""
    window = load_int64(row, layout.WINDOW)
    _load_gradient(gradient, row, start, size, settings, load, store, load_parameter)
    if window:
        collects = load(settings, layout.ACTION) == layout.COLLECT
        for i in range(size):
            store(window, start + i, load(gradient, i) if collects else 0)
        if collects:
            return
        _divide(gradient, size, load(settings, layout.STEPS), load, store)
    values = load_int64(row, layout.PARAMETER)
    for i in range(size):
        store(parameter, i, load_parameter(values, start + i))
    _prepare_gradient(gradient, parameter, size, settings, row_settings, own, load, store)
    _decay(parameter, size, settings, row_settings, own, load, store)
    square_avg, acc_delta = load_int64(row, layout.SQUARE_AVG), load_int64(row, layout.ACC_DELTA)
    _rule(parameter, gradient, square_avg, acc_delta, start, size, settings, load, store)
    for i in range(size):
        store_parameter(values, start + i, load(parameter, i))
    average = load_int64(row, layout.AVERAGE)
    if average:
        # The average is of the parameter as it was rounded.
        for i in range(size):
            store(parameter, i, load_parameter(values, start + i))
        _move_average(parameter, average, start, size, settings, load, store)
        for i in range(size):
            store_parameter(values, start + i, load(parameter, i))


@part(fastmath={"reassoc"})
def _sum_of_squares(block, size, scale, load):
    total = 0.0
    for i in range(size):
        value = np.float64(load(block, i)) * scale
        total += value * value
    return total


@part
def _segment(call, place, index, start, stop, blocks, load, store, load_parameter, store_parameter):
    """Work on elements of one tensor, block by block."""
    row = load_int64(call, layout.TABLE) + 8 * layout.COLUMNS * index
    settings = load_int64(call, layout.SETTINGS_AT)
    row_settings = load_int64(call, layout.ROW_SETTINGS_AT)
    gradient, parameter = blocks
    squares = 0.0
    sums = load_int64(call, layout.KIND) == layout.SQUARES
    action = load(settings, layout.ACTION)
    if action == layout.SKIP or (sums and action == layout.COLLECT):
        return
    while start < stop:
        size = stop - start if stop - start < layout.BLOCK else layout.BLOCK
        if sums:
            _load_gradient(gradient, row, start, size, settings, load, store, load_parameter)
            if load_int64(row, layout.WINDOW):
                _divide(gradient, size, load(settings, layout.STEPS), load, store)
            scale = np.float64(load(settings, layout.NORM_SCALE))
            squares += _sum_of_squares(gradient, size, scale, load)
        else:
            _step(
                row, start, size, settings, row_settings, layout.ROW_SETTINGS * index, gradient,
                parameter, load, store, load_parameter, store_parameter,
            )  # fmt: skip
        start += size
    if sums:
        store_float64(load_int64(call, layout.SQUARES_AT), place, squares)


@part
def work(call, control, load, store, load_parameter, store_parameter):
    """Take pieces of a call until none is left."""
    blocks = _block(0), _block(1)
    pieces, total = load_int64(control, layout.PIECES), load_int64(control, layout.TOTAL)
    piece = fetch_add(control + 8 * layout.NEXT, 1)
    # When all pieces are taken, the arrays of the call may be gone.
    while piece < pieces:
        ends = load_int64(call, layout.ENDS)
        start = piece * layout.PIECE
        stop = start + layout.PIECE if start + layout.PIECE < total else total
        # The first row that ends behind the start.
        row, high = 0, load_int64(call, layout.ROWS)
        while row < high:
            middle = (row + high) // 2
            if load_int64(ends, middle) <= start:
                row = middle + 1
            else:
                high = middle
        while start < stop:
            begin = load_int64(ends, row - 1) if row else 0
            end = load_int64(ends, row)
            end = end if end < stop else stop
            # Each piece and row that meet have a place of their own for their sum.
            _segment(
                call, piece + row, row, start - begin, end - begin, blocks, load, store,
                load_parameter, store_parameter,
            )  # fmt: skip
            start = end
            row += 1
        fetch_add(control + 8 * layout.DONE, 1)
        piece = fetch_add(control + 8 * layout.NEXT, 1)


def float32(call, control):
    """Parameters and state in float32."""
    work(call, control, load_float32, store_float32, load_float32, store_float32)


def float64(call, control):
    """Parameters and state in float64."""
    work(call, control, load_float64, store_float64, load_float64, store_float64)


def float16(call, control):
    """Parameters in float16, state in float32."""
    work(call, control, load_float32, store_float32, load_float16, store_float16)


def bfloat16(call, control):
    """Parameters in bfloat16, state in float32."""
    work(call, control, load_float32, store_float32, load_bfloat16, store_bfloat16)
