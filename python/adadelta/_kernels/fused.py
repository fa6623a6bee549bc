"""The step fused into one pass over memory, for tensors in the processor's memory.

This is a transcription of the step in `_core`, compiled by numba; tests compare it with the rule.
A call gets a table of addresses of all tensors, so that a thousand small ones cost about as much
as a large one. The elements of all tensors are numbered consecutively and cut into pieces, and
each free thread takes the next piece. Threads that have numbers take it from the start or from the
end, so that each of two has the same elements in its cache in every step. A piece is updated in
blocks that fit into the L1 cache, with one loop for each option, so that memory is read and
written once.

All functions take addresses and use C's calling convention: Python calls them through ctypes,
which releases the GIL, and XLA calls them without Python (`xla.py`).
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from adadelta._kernels import layout


def part(function: Any = None, **options: Any) -> Any:
    """Compile a function that only compiled functions call, without wrappers, which take time."""
    compiled = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)
    return compiled if function is None else compiled(function)


def _memory(element: Any, code: Any) -> tuple[Any, Any]:
    """Return functions that read and write elements of a type by address and index."""

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
# How many bytes a number in float16 or bfloat16 takes.
_BYTES_OF_HALF = 2


@intrinsic
def fetch_add(context, address, increment):
    """Add to the int64 at an address atomically, and return its old value."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def call_at(context, function, argument):
    """Call the C function of one argument at an address."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _sqrt(context, value):
    """Return the square root by the processor's instruction, without calling the C library."""

    def generate(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.sqrt", [arguments[0].type])
        return builder.call(function, arguments)

    return value(value), generate


@intrinsic
def block_on_stack(context, like):
    """Return the address of a block of BLOCK elements on the calling function's stack."""

    def generate(context, builder, signature, arguments):
        with builder.goto_entry_block():
            place = builder.alloca(ir.ArrayType(ir.DoubleType(), layout.BLOCK))
            place.align = 64
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(like), generate


def _conversion(given: Any, returned: Any, *instructions: tuple[str, Any]) -> Any:
    """Return a function that converts a number by LLVM instructions, each to a given type."""

    @intrinsic
    def convert(context, value):
        def generate(context, builder, signature, arguments):
            (value,) = arguments
            for instruction, code in instructions:
                value = getattr(builder, instruction)(value, code)
            return value

        return returned(given), generate

    return convert


_bits = _conversion(types.float32, types.uint32, ("bitcast", ir.IntType(32)))
_float = _conversion(types.uint32, types.float32, ("bitcast", ir.FloatType()))
_from_half = _conversion(
    types.uint16, types.float32, ("bitcast", ir.HalfType()), ("fpext", ir.FloatType())
)
_to_half = _conversion(
    types.float32, types.uint16, ("fptrunc", ir.HalfType()), ("bitcast", ir.IntType(16))
)


@part
def load_bfloat16(address, index):
    return _float(np.uint32(_load_uint16(address, index)) << np.uint32(16))


@part
def store_bfloat16(address, index, value):
    bits = _bits(value)
    # Round to nearest, ties to even; NaN stays NaN.
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    _store_uint16(address, index, np.uint16(rounded if value == value else np.uint32(0x7FC0)))


@part
def load_float16(address, index):
    return _from_half(_load_uint16(address, index))


@part
def store_float16(address, index, value):
    _store_uint16(address, index, _to_half(value))


@part
def _unscaled(block, given, start, size, loss_scale, kind):
    """Fill a block with the unscaled gradient, or with 0 if there is none.

    A loss scale of 1 is skipped to save the time of the division.
    """
    store, load_parameter = kind[1], kind[2]
    if not given:
        for i in range(size):
            store(block, i, 0)
    elif loss_scale == 1:
        for i in range(size):
            store(block, i, load_parameter(given, start + i))
    else:
        for i in range(size):
            store(block, i, load_parameter(given, start + i) / loss_scale)


@part
def _clipped(value, divisor, factor, limit):
    value = value / divisor * factor
    value = limit if value > limit else value
    return -limit if value < -limit else value


@part
def _is_plain(row, own, settings, kind):
    """Whether no option changes the gradient before weight decay."""
    load = kind[0]
    divisor, factor = load(own, layout.CLIP_DIVISOR), load(own, layout.CLIP_FACTOR)
    return (
        load(settings, layout.LOSS_SCALE) == 1
        and divisor == 1
        and factor * load(settings, layout.SIGN) == 1
        and load(settings, layout.CLIP_VALUE) == math.inf
        and not load_int64(row, layout.WINDOW)
    )


@part
def _gradient(block, row, own, start, size, settings, kind):
    """Return the address of the gradient that the rule uses, before weight decay.

    It is that of the given gradient if no option changes it, else that of the block.
    """
    load, store, load_parameter, _, is_same, width = kind
    given, window = load_int64(row, layout.GRADIENT), load_int64(row, layout.WINDOW)
    loss_scale = load(settings, layout.LOSS_SCALE)
    if _is_plain(row, own, settings, kind):
        if is_same and given:
            return given + width * start
        _unscaled(block, given, start, size, loss_scale, kind)
        return block
    divisor = load(own, layout.CLIP_DIVISOR)
    factor = load(own, layout.CLIP_FACTOR) * load(settings, layout.SIGN)
    limit = load(settings, layout.CLIP_VALUE)
    if window:
        _unscaled(block, given, start, size, loss_scale, kind)
        window += width * start
        steps = load(settings, layout.STEPS)
        for i in range(size):
            value = (load(window, i) + load(block, i)) / steps
            store(block, i, _clipped(value, divisor, factor, limit))
            store(window, i, 0)
    elif given:
        for i in range(size):
            value = load_parameter(given, start + i) / loss_scale
            store(block, i, _clipped(value, divisor, factor, limit))
    else:
        _unscaled(block, given, start, size, loss_scale, kind)
        for i in range(size):
            store(block, i, _clipped(load(block, i), divisor, factor, limit))
    return block


@part
def _decay(parameter, gradient, block, own, size, settings, kind):
    """Apply weight decay to a block, and return the address of the gradient with coupled decay."""
    load, store = kind[0], kind[1]
    decay, mode = load(own, layout.WEIGHT_DECAY), load(settings, layout.DECAY_MODE)
    if decay != 0 and mode == layout.COUPLED:
        for i in range(size):
            store(block, i, load(gradient, i) + decay * load(parameter, i))
        return block
    if decay != 0:
        share = decay * load(settings, layout.RATE) if mode == layout.DECOUPLED else decay
        for i in range(size):
            value = load(parameter, i)
            store(parameter, i, value - value * share)
    return gradient


@part
def _rule(parameter, gradient, square_avg, acc_delta, size, settings, kind, access):
    """Apply the equations; `access` reads and writes an element of parameter and gradient."""
    load, store = kind[0], kind[1]
    load_parameter, store_parameter = access
    rho, one_minus_rho = load(settings, layout.RHO), load(settings, layout.ONE_MINUS_RHO)
    epsilon, rate = load(settings, layout.EPSILON), load(settings, layout.RATE)
    limit = load(settings, layout.LARGEST_GRADIENT)
    for i in range(size):
        value = load_parameter(gradient, i)
        g = limit if value > limit else value
        g = -limit if g < -limit else g
        # The difference is 0 for finite gradients and NaN for infinite ones, which thus show.
        g = g + (value - value)
        v = rho * load(square_avg, i) + one_minus_rho * (g * g)
        u = load(acc_delta, i)
        step = _sqrt((u + epsilon) / (v + epsilon)) * g
        store(square_avg, i, v)
        store(acc_delta, i, rho * u + one_minus_rho * (step * step))
        store_parameter(parameter, i, load_parameter(parameter, i) - rate * step)


@part
def _move_average(parameter, average, size, settings, kind):
    load, store = kind[0], kind[1]
    if load(settings, layout.AVERAGE_STARTS) != 0:
        for i in range(size):
            store(average, i, load(parameter, i))
    else:
        momentum, rest = load(settings, layout.MOMENTUM), load(settings, layout.ONE_MINUS_MOMENTUM)
        for i in range(size):
            store(average, i, momentum * load(average, i) + rest * load(parameter, i))
    if load(settings, layout.OVERWRITE) != 0:
        for i in range(size):
            store(parameter, i, load(average, i))


@part
def _collect(block, row, start, size, settings, kind):
    """Add a block of the gradient to the sum of accumulated gradients."""
    load, store, _, _, is_same, width = kind
    given, window = load_int64(row, layout.GRADIENT), load_int64(row, layout.WINDOW)
    loss_scale = load(settings, layout.LOSS_SCALE)
    if given and window:
        window += width * start
        if is_same and loss_scale == 1:
            block = given + width * start
        else:
            _unscaled(block, given, start, size, loss_scale, kind)
        for i in range(size):
            store(window, i, load(window, i) + load(block, i))


@part
def _step(row, own, start, size, settings, blocks, kind):
    """Make the step of one block of one tensor."""
    load, store, load_parameter, store_parameter, is_same, width = kind
    if load(settings, layout.ACTION) == layout.COLLECT:
        _collect(blocks[0], row, start, size, settings, kind)
        return
    values, given = load_int64(row, layout.PARAMETER), load_int64(row, layout.GRADIENT)
    parameter = values + width * start if is_same else blocks[1]
    square_avg = load_int64(row, layout.SQUARE_AVG) + width * start
    acc_delta = load_int64(row, layout.ACC_DELTA) + width * start
    undecayed = load(own, layout.WEIGHT_DECAY) == 0
    if not is_same and given and undecayed and _is_plain(row, own, settings, kind):
        # Converted in the same loop, which takes 0.93 of the time that it takes block by block.
        places = values + _BYTES_OF_HALF * start, given + _BYTES_OF_HALF * start
        access = load_parameter, store_parameter
        _rule(*places, square_avg, acc_delta, size, settings, kind, access)
    else:
        gradient = _gradient(blocks[0], row, own, start, size, settings, kind)
        if not is_same:
            for i in range(size):
                store(parameter, i, load_parameter(values, start + i))
        gradient = _decay(parameter, gradient, blocks[0], own, size, settings, kind)
        access = load, store
        _rule(parameter, gradient, square_avg, acc_delta, size, settings, kind, access)
        if not is_same:
            for i in range(size):
                store_parameter(values, start + i, load(parameter, i))
    average = load_int64(row, layout.AVERAGE)
    if average:
        if not is_same:
            # The moving average is that of the rounded parameter.
            for i in range(size):
                store(parameter, i, load_parameter(values, start + i))
        _move_average(parameter, average + width * start, size, settings, kind)
        if not is_same:
            for i in range(size):
                store_parameter(values, start + i, load(parameter, i))


@part(fastmath={"reassoc", "contract"})
def _squares(row, start, size, settings, scale, kind):
    """Return the sum of squares of elements of the gradient times a scale, in float64."""
    load, load_parameter, width = kind[0], kind[2], kind[5]
    given, window = load_int64(row, layout.GRADIENT), load_int64(row, layout.WINDOW)
    total = 0.0
    if window:
        loss_scale, steps = load(settings, layout.LOSS_SCALE), load(settings, layout.STEPS)
        for i in range(size):
            value = load(window, start + i)
            if given:
                value = value + load_parameter(given, start + i) / loss_scale
            scaled = np.float64(value / steps) * scale
            total += scaled * scaled
    elif given:
        # Scale the sum once instead of each element, which saves time. In float64, where squares
        # may overflow, scale the elements.
        scale = scale / np.float64(load(settings, layout.LOSS_SCALE))
        before, after = (scale, 1.0) if width == 8 else (1.0, scale)
        for i in range(size):
            scaled = np.float64(load_parameter(given, start + i)) * before
            total += scaled * scaled
        total *= after * after
    return total


@part
def _segment(call, place, index, start, stop, blocks, kind):
    """Do the work of a call on a range of elements of one tensor, block by block."""
    load, width = kind[0], kind[5]
    row = load_int64(call, layout.TABLE) + 8 * layout.COLUMNS * index
    settings = load_int64(call, layout.SETTINGS_AT)
    own = load_int64(call, layout.ROW_SETTINGS_AT) + width * layout.ROW_SETTINGS * index
    sums = load_int64(call, layout.KIND) == layout.SQUARES
    action = load(settings, layout.ACTION)
    if action == layout.SKIP or (sums and action == layout.COLLECT):
        return
    if sums:
        scale = load_float64(call, layout.SCALE)
        squares = _squares(row, start, stop - start, settings, scale, kind)
        store_float64(load_int64(call, layout.SQUARES_AT), place, squares)
        return
    while start < stop:
        size = stop - start if stop - start < layout.BLOCK else layout.BLOCK
        _step(row, own, start, size, settings, blocks, kind)
        start += size


@part
def work(control, kind):
    """Take pieces of a call until none is left.

    `kind` holds functions that read and write an element of the state and one of a parameter,
    whether both have the same dtype, and the size of an element of the state in bytes.
    """
    blocks = block_on_stack(0), block_on_stack(1)
    pieces, total = load_int64(control, layout.PIECES), load_int64(control, layout.TOTAL)
    call = load_int64(control, layout.CALL_AT)
    number_at = load_int64(control, layout.NUMBER_AT)
    at_end = number_at and call_at(number_at, 0) & 1
    # When all pieces are taken, the arrays of the call may have been freed already.
    while fetch_add(control + 8 * layout.TAKEN, 1) < pieces:
        piece = fetch_add(control + 8 * (layout.FROM_END if at_end else layout.FROM_START), 1)
        piece = pieces - 1 - piece if at_end else piece
        ends = load_int64(call, layout.ENDS)
        start = piece * layout.PIECE
        stop = start + layout.PIECE if start + layout.PIECE < total else total
        # Find the first row that ends after the start.
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
            # See `layout.number_of_squares`.
            _segment(call, piece + row, row, start - begin, end - begin, blocks, kind)
            start = end
            row += 1
        fetch_add(control + 8 * layout.DONE, 1)


def float32(control):
    """Run `work` for parameters and state in float32."""
    work(control, (load_float32, store_float32, load_float32, store_float32, True, 4))


def float64(control):
    """Run `work` for parameters and state in float64."""
    work(control, (load_float64, store_float64, load_float64, store_float64, True, 8))


def float16(control):
    """Run `work` for parameters in float16 and state in float32."""
    work(control, (load_float32, store_float32, load_float16, store_float16, False, 4))


def bfloat16(control):
    """Run `work` for parameters in bfloat16 and state in float32."""
    work(control, (load_float32, store_float32, load_bfloat16, store_bfloat16, False, 4))
