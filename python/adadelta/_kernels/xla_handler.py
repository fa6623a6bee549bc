"""The side of the fused step that XLA calls: handlers of its foreign function interface.

XLA hands over a frame of buffers; the handler writes the table that `fused.py` reads, and shares
the work with XLA's own threads, so that there are never more than XLA was given. It knows the C
structs of XLA's `xla/ffi/api/c_api.h` by the offsets below (64-bit processors).

Operands of a step are the settings, the row settings, and the arrays of each tensor in the order
of the table's columns; results are the same arrays without the gradients, in the places of the
operands, and a scratch array of int32. Operands of norms are the settings, and each tensor's
gradient and window; results are the norms and a scratch array. The attribute `columns` has a bit
for each column that there is, and one more for a single norm of all gradients together.
"""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from adadelta._kernels import layout
from adadelta._kernels.fused import (
    fetch_add,
    load_float64,
    load_int64,
    part,
    store_float32,
    store_float64,
    store_int64,
)

# Offsets in XLA_FFI_CallFrame, in 8 bytes.
_EXTENSION, _API, _CONTEXT, _STAGE = 1, 2, 3, 4
_OPERAND_COUNT, _OPERANDS = 7, 9
_RESULT_COUNT, _RESULTS = 12, 14
_ATTRIBUTES = 20
_EXECUTE = 3
# In XLA_FFI_Buffer, XLA_FFI_Scalar and XLA_FFI_Metadata_Extension.
_DATA, _RANK, _DIMENSIONS = 3, 4, 5
_SCALAR = 1
_METADATA = 3
# In XLA_FFI_Api.
_DESTROY_ERROR, _SCHEDULE, _NUMBER_OF_THREADS = 8, 17, 18

# What threads share about a call, behind the control of `layout`.
_CALL_AT, _WORKER_AT, _FREE_AT, _USERS = range(layout.CONTROL, layout.CONTROL + 4)
_SHARED = layout.CONTROL + 4


@intrinsic
def _call_1(context, function, one):
    """Call the C function of one argument at an address."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _call_2(context, function, one, two):
    """Call the C function of two arguments at an address."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * 2)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.int64, types.int64, types.int64), generate


@part
def _leave(shared):
    """Free what threads share when no other uses it."""
    free = load_int64(shared, _FREE_AT)
    if fetch_add(shared + 8 * _USERS, -1) == 1:
        _call_1(free, shared)


def task(shared):
    """Help with a call; XLA runs this on its threads, perhaps after the call has ended."""
    _call_2(load_int64(shared, _WORKER_AT), load_int64(shared, _CALL_AT), shared)
    _leave(shared)
    return 0


@part
def _answer_about_itself(extension, known):
    metadata = load_int64(extension, _METADATA)
    store_int64(metadata, 3, load_int64(known, layout.VERSION))
    # Of the next 8 bytes the first four are the traits.
    store_int64(metadata, 4, load_int64(metadata, 4) >> 32 << 32)


@part
def _forget_error(api, error, arguments):
    if error:
        store_int64(arguments, 0, 24)
        store_int64(arguments, 1, 0)
        store_int64(arguments, 2, error)
        _call_1(load_int64(api, _DESTROY_ERROR), arguments)


@part
def _number_of_threads(frame, arguments):
    api = load_int64(frame, _API)
    store_int64(arguments, 0, 32)
    store_int64(arguments, 1, 0)
    store_int64(arguments, 2, load_int64(frame, _CONTEXT))
    store_int64(arguments, 3, arguments + 8 * 4)
    store_int64(arguments, 4, 0)
    error = _call_1(load_int64(api, _NUMBER_OF_THREADS), arguments)
    # Without threads of XLA's the caller's own does it all.
    threads = 0 if error else load_int64(arguments, 4)
    _forget_error(api, error, arguments)
    return threads


@part
def _schedule(frame, arguments, function, data):
    api = load_int64(frame, _API)
    store_int64(arguments, 0, 40)
    store_int64(arguments, 1, 0)
    store_int64(arguments, 2, load_int64(frame, _CONTEXT))
    store_int64(arguments, 3, function)
    store_int64(arguments, 4, data)
    error = _call_1(load_int64(api, _SCHEDULE), arguments)
    _forget_error(api, error, arguments)
    return error == 0


@part
def _buffer(frame, place, index):
    return load_int64(load_int64(load_int64(frame, place), index), _DATA)


@part
def _number_of_elements(frame, operand):
    buffer = load_int64(load_int64(frame, _OPERANDS), operand)
    dimensions = load_int64(buffer, _DIMENSIONS)
    size = 1
    for axis in range(load_int64(buffer, _RANK)):
        size *= load_int64(dimensions, axis)
    return size


@part
def _columns(frame):
    return load_int64(load_int64(load_int64(load_int64(frame, _ATTRIBUTES), 0), _SCALAR), 0)


@part
def _run(frame, known, call, total):
    """Let this thread and XLA's work on a call, until it is done."""
    pieces = (total + layout.PIECE - 1) // layout.PIECE
    shared = _call_1(load_int64(known, layout.MALLOC), 8 * _SHARED)
    store_int64(shared, layout.NEXT, 0)
    store_int64(shared, layout.DONE, 0)
    store_int64(shared, layout.PIECES, pieces)
    store_int64(shared, layout.TOTAL, total)
    store_int64(shared, _CALL_AT, call)
    store_int64(shared, _WORKER_AT, load_int64(known, layout.WORKER))
    store_int64(shared, _FREE_AT, load_int64(known, layout.FREE))
    store_int64(shared, _USERS, 1)
    arguments = call + 8 * layout.SCRATCH_ARGUMENTS
    helpers = (_number_of_threads(frame, arguments) if pieces > 1 else 0) - 1
    helpers = helpers if helpers < pieces else pieces - 1
    for _ in range(helpers):
        fetch_add(shared + 8 * _USERS, 1)
        if not _schedule(frame, arguments, load_int64(known, layout.TASK), shared):
            fetch_add(shared + 8 * _USERS, -1)
    _call_2(load_int64(known, layout.WORKER), call, shared)
    # Threads that have begun a piece end it soon. Those that have not begun find nothing to do,
    # whenever they come, so a busy pool holds nobody up.
    while fetch_add(shared + 8 * layout.DONE, 0) < pieces:
        _call_1(load_int64(known, layout.YIELD), 0)
    _leave(shared)


@part
def _write_table(frame, call, columns, rows, operand, result):
    """Write the addresses of all tensors and where each ends; return how many elements."""
    table = call + 8 * layout.SCRATCH_TABLE
    ends = table + 8 * layout.COLUMNS * rows
    total = 0
    for row in range(rows):
        total += _number_of_elements(frame, operand)
        store_int64(ends, row, total)
        for column in range(layout.COLUMNS):
            address = 0
            if columns >> column & 1:
                address = _buffer(frame, _OPERANDS, operand)
                operand += 1
                if result >= 0 and column != layout.GRADIENT:
                    # The operand's own place, when XLA could give it away, or a copy of it.
                    address = _buffer(frame, _RESULTS, result)
                    result += 1
            store_int64(table, row * layout.COLUMNS + column, address)
    store_int64(call, layout.ROWS, rows)
    store_int64(call, layout.TABLE, table)
    store_int64(call, layout.ENDS, ends)
    store_int64(call, layout.SETTINGS_AT, _buffer(frame, _OPERANDS, 0))
    return total


@part
def _count_columns(columns):
    count = 0
    for column in range(layout.COLUMNS):
        count += columns >> column & 1
    return count


@part
def _has_more_to_say(frame, known):
    """Whether XLA wants the step itself, and not to know something about the handler."""
    extension = load_int64(frame, _EXTENSION)
    if extension and load_int64(extension, 1) & 0xFFFFFFFF == 1:
        _answer_about_itself(extension, known)
        return False
    return load_int64(frame, _STAGE) & 0xFFFFFFFF == _EXECUTE


def step(frame, known):
    """Make one step of all tensors of a call."""
    if not _has_more_to_say(frame, known):
        return 0
    columns = _columns(frame)
    rows = (load_int64(frame, _OPERAND_COUNT) - 2) // _count_columns(columns)
    call = _buffer(frame, _RESULTS, load_int64(frame, _RESULT_COUNT) - 1)
    store_int64(call, layout.KIND, layout.STEP)
    store_int64(call, layout.ROW_SETTINGS_AT, _buffer(frame, _OPERANDS, 1))
    total = _write_table(frame, call, columns, rows, 2, 0)
    if total:
        _run(frame, known, call, total)
    return 0


@part
def _norms(frame, known, store, largest):
    if not _has_more_to_say(frame, known):
        return 0
    columns = _columns(frame)
    rows = (load_int64(frame, _OPERAND_COUNT) - 1) // _count_columns(columns)
    call, result = _buffer(frame, _RESULTS, 1), _buffer(frame, _RESULTS, 0)
    total = _write_table(frame, call, columns, rows, 1, -1)
    ends = load_int64(call, layout.ENDS)
    squares = ends + 8 * rows
    store_int64(call, layout.KIND, layout.SQUARES)
    store_int64(call, layout.SQUARES_AT, squares)
    pieces = (total + layout.PIECE - 1) // layout.PIECE
    for place in range(pieces + rows):
        store_float64(squares, place, 0.0)
    if total:
        _run(frame, known, call, total)
    together = columns & layout.TOGETHER
    of_all = 0.0
    begin = 0
    for row in range(rows):
        end = load_int64(ends, row)
        of_row = 0.0
        # Each piece and row that meet have a place: the sum of their numbers.
        for piece in range(begin // layout.PIECE, (end + layout.PIECE - 1) // layout.PIECE):
            if begin < end:
                of_row += load_float64(squares, piece + row)
        of_all += of_row
        if not together:
            _store_norm(result, row, of_row, store, largest)
        begin = end
    if together:
        _store_norm(result, 0, of_all, store, largest)
    return 0


@part
def _store_norm(result, row, squares, store, largest):
    """Store a norm as two factors, since the norm of finite numbers may leave their dtype."""
    norm = math.sqrt(squares)
    divisor = 2.0**64 if largest < norm < math.inf else 1.0
    store(result, 2 * row, divisor)
    store(result, 2 * row + 1, norm / divisor)


def norms_float32(frame, known):
    """Return norms as float32: of each gradient, or the one of all."""
    return _norms(frame, known, store_float32, layout.LARGEST_NORM)


def norms_float64(frame, known):
    """Return norms as float64: of each gradient, or the one of all."""
    return _norms(frame, known, store_float64, math.inf)
