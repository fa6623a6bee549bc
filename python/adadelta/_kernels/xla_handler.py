"""The part of the fused step that XLA calls: handlers of its foreign function interface.

XLA passes a frame of buffers. The handler writes the table that `fused.py` reads, and shares the
work with XLA's own threads, so that the number of threads stays that of XLA. It reads the C structs
of XLA's `xla/ffi/api/c_api.h` at the offsets below (64-bit processors).

The operands of a step are the settings, the row settings, and the arrays of each tensor in the
order of the table's columns. Its results are the same arrays without the gradients, in the memory
of the operands, and a scratch array of int32. The operands of norms are the settings, and each
tensor's gradient and `window`. Their results are the norms and a scratch array. The attribute
`columns` has a bit for each column present, and the two more bits of `layout.py`.

The call fails with an XLA error before any tensor changes if the number, the sizes or the dtypes of
the buffers are wrong: a kernel would write to memory that is not its own.
"""

import math

from adadelta._kernels import layout
from adadelta._kernels.fused import (
    block_on_stack,
    call_at,
    fetch_add,
    load_float64,
    load_int64,
    part,
    store_float32,
    store_float64,
    store_int64,
)

# Offsets in XLA_FFI_CallFrame, in units of 8 bytes.
_EXTENSION, _API, _CONTEXT, _STAGE = 1, 2, 3, 4
_OPERAND_COUNT, _OPERANDS = 7, 9
_RESULT_COUNT, _RESULTS = 12, 14
_ATTRIBUTE_COUNT, _ATTRIBUTES = 17, 20
_EXECUTE = 3
# In XLA_FFI_Buffer, XLA_FFI_Scalar and XLA_FFI_Metadata_Extension.
_DTYPE, _DATA, _RANK, _DIMENSIONS = 2, 3, 4, 5
_SCALAR = 1
_METADATA = 3
# In XLA_FFI_Api.
_CREATE_ERROR, _DESTROY_ERROR, _SCHEDULE, _NUMBER_OF_THREADS = 6, 8, 17, 18
# XLA_FFI_Error_Code_INVALID_ARGUMENT.
_INVALID_ARGUMENT = 3
_INT32, _FLOAT32, _FLOAT64 = (layout.XLA_DTYPES[name] for name in ("int32", "float32", "float64"))

# The columns that a step must have.
_NEEDED = 1 << layout.PARAMETER | 1 << layout.SQUARE_AVG | 1 << layout.ACC_DELTA

_number_of_squares = part(layout.number_of_squares)
_scratch_size = part(layout.scratch_size)

# More data that all threads of a call share, after those of `layout.CONTROL`.
_WORKER_AT, _FREE_AT, _USERS = range(layout.CONTROL, layout.CONTROL + 3)
_SHARED = layout.CONTROL + 3


@part
def _leave(shared):
    """Free the shared data if no other thread uses them."""
    free = load_int64(shared, _FREE_AT)
    if fetch_add(shared + 8 * _USERS, -1) == 1:
        call_at(free, shared)


def task(shared):
    """Work on a call in one of XLA's threads, perhaps after the call has ended."""
    call_at(load_int64(shared, _WORKER_AT), shared)
    _leave(shared)
    return 0


@part
def _ask(frame, function, size, arguments, first, second):
    """Call an XLA function for this frame, and return whether it succeeded."""
    api = load_int64(frame, _API)
    store_int64(arguments, 0, size)
    store_int64(arguments, 1, 0)
    store_int64(arguments, 2, load_int64(frame, _CONTEXT))
    store_int64(arguments, 3, first)
    store_int64(arguments, 4, second)
    error = call_at(load_int64(api, function), arguments)
    if error:
        store_int64(arguments, 0, 24)
        store_int64(arguments, 2, error)
        call_at(load_int64(api, _DESTROY_ERROR), arguments)
    return error == 0


@part
def _number_of_threads(frame, arguments):
    # XLA writes the number after the arguments.
    is_known = _ask(frame, _NUMBER_OF_THREADS, 32, arguments, arguments + 8 * 4, 0)
    # Without XLA's threads the calling thread does all the work.
    return load_int64(arguments, 4) if is_known else 0


@part
def _refuse(frame, known):
    """Return an XLA error for a call whose buffers do not belong together."""
    arguments = block_on_stack(0)
    # The size is that of the fields, without padding after the last.
    store_int64(arguments, 0, 28)
    store_int64(arguments, 1, 0)
    store_int64(arguments, 2, load_int64(known, layout.REFUSAL))
    store_int64(arguments, 3, _INVALID_ARGUMENT)
    return call_at(load_int64(load_int64(frame, _API), _CREATE_ERROR), arguments)


@part
def _buffer(frame, place, index):
    return load_int64(load_int64(frame, place), index)


@part
def _number_of_elements(buffer):
    dimensions = load_int64(buffer, _DIMENSIONS)
    size = 1
    for axis in range(load_int64(buffer, _RANK)):
        size *= load_int64(dimensions, axis)
    return size


@part
def _has(buffer, dtype, size):
    """Whether a buffer has `size` elements of a dtype."""
    return load_int64(buffer, _DTYPE) & 0xFFFFFFFF == dtype and _number_of_elements(buffer) == size


@part
def _columns(frame):
    """Return the attribute `columns`, or 0 if there is none."""
    if load_int64(frame, _ATTRIBUTE_COUNT) != 1:
        return 0
    return load_int64(load_int64(load_int64(load_int64(frame, _ATTRIBUTES), 0), _SCALAR), 0)


@part
def _number_of_rows(frame, before, columns):
    """Return the number of rows of the operands, or -1 if they are not whole rows."""
    operands, count = load_int64(frame, _OPERAND_COUNT) - before, _count_columns(columns)
    rows = operands // count if count else -1
    return rows if rows * count == operands else -1


@part
def _scratch(frame, result, size):
    """Return the address of scratch memory, or 0 if it is too small or not aligned for int64."""
    buffer = _buffer(frame, _RESULTS, result)
    elements, address = _number_of_elements(buffer), load_int64(buffer, _DATA)
    fits = load_int64(buffer, _DTYPE) & 0xFFFFFFFF == _INT32 and elements >= size
    return address if fits and address & 7 == 0 else 0


@part
def _run(frame, known, call, total):
    """Let this thread and XLA's threads work on a call until it is done."""
    pieces = (total + layout.PIECE - 1) // layout.PIECE
    allocated = call_at(load_int64(known, layout.MALLOC), 8 * _SHARED)
    # Without memory that helper threads can free, there are no helpers.
    shared = allocated if allocated else block_on_stack(0)
    for index in range(layout.PIECES):
        store_int64(shared, index, 0)
    store_int64(shared, layout.PIECES, pieces)
    store_int64(shared, layout.TOTAL, total)
    store_int64(shared, layout.CALL_AT, call)
    store_int64(shared, _WORKER_AT, load_int64(known, layout.WORKER))
    store_int64(shared, _FREE_AT, load_int64(known, layout.FREE))
    store_int64(shared, _USERS, 1)
    arguments = call + 8 * layout.SCRATCH_ARGUMENTS
    can_share = allocated and pieces > 1
    helpers = (_number_of_threads(frame, arguments) if can_share else 0) - 1
    helpers = helpers if helpers < pieces else pieces - 1
    for _ in range(helpers):
        fetch_add(shared + 8 * _USERS, 1)
        if not _ask(frame, _SCHEDULE, 40, arguments, load_int64(known, layout.TASK), shared):
            fetch_add(shared + 8 * _USERS, -1)
    call_at(load_int64(known, layout.WORKER), shared)
    # Threads that have begun a piece finish it soon. Those that have not started will find nothing
    # to do whenever they run, so this need not wait for a busy pool.
    while fetch_add(shared + 8 * layout.DONE, 0) < pieces:
        call_at(load_int64(known, layout.YIELD), 0)
    if allocated:
        _leave(allocated)


@part
def _write_table(frame, known, call, columns, rows, operand, result):
    """Write the addresses and ends of all tensors, and return the total number of elements.

    Return -1 if the arrays of a tensor differ in size or have a wrong dtype.
    """
    dtype, of_state = load_int64(known, layout.DTYPE), load_int64(known, layout.STATE_DTYPE)
    table = call + 8 * layout.SCRATCH_TABLE
    ends = table + 8 * layout.COLUMNS * rows
    total = 0
    for row in range(rows):
        size = _number_of_elements(_buffer(frame, _OPERANDS, operand))
        total += size
        store_int64(ends, row, total)
        for column in range(layout.COLUMNS):
            address = 0
            if columns >> column & 1:
                buffer = _buffer(frame, _OPERANDS, operand)
                operand += 1
                if result >= 0 and column != layout.GRADIENT:
                    # The operand's own memory if XLA could donate it, else a copy of it.
                    buffer = _buffer(frame, _RESULTS, result)
                    result += 1
                is_state = column != layout.PARAMETER and column != layout.GRADIENT
                if not _has(buffer, of_state if is_state else dtype, size):
                    return -1
                address = load_int64(buffer, _DATA)
            store_int64(table, row * layout.COLUMNS + column, address)
    store_int64(call, layout.ROWS, rows)
    store_int64(call, layout.TABLE, table)
    store_int64(call, layout.ENDS, ends)
    settings = _buffer(frame, _OPERANDS, 0)
    store_int64(call, layout.SETTINGS_AT, load_int64(settings, _DATA))
    return total if _has(settings, of_state, layout.SETTINGS) else -1


@part
def _count_columns(columns):
    count = 0
    for column in range(layout.COLUMNS):
        count += columns >> column & 1
    return count


@part
def _has_more_to_say(frame, known):
    """Whether XLA wants the handler to run; if it asks for the metadata, write them instead."""
    extension = load_int64(frame, _EXTENSION)
    if extension and load_int64(extension, 1) & 0xFFFFFFFF == 1:
        metadata = load_int64(extension, _METADATA)
        store_int64(metadata, 3, load_int64(known, layout.VERSION))
        # The first four of the next 8 bytes are the traits.
        store_int64(metadata, 4, load_int64(metadata, 4) >> 32 << 32)
        return False
    return load_int64(frame, _STAGE) & 0xFFFFFFFF == _EXECUTE


def step(frame, known):
    """Make the step of all tensors of a call."""
    if not _has_more_to_say(frame, known):
        return 0
    columns = _columns(frame)
    rows = _number_of_rows(frame, 2, columns) if columns & _NEEDED == _NEEDED else -1
    arrays = rows * _count_columns(columns & ~(1 << layout.GRADIENT))
    if rows < 0 or load_int64(frame, _RESULT_COUNT) != arrays + 1:
        return _refuse(frame, known)
    call = _scratch(frame, arrays, _scratch_size(rows, 0))
    row_settings = _buffer(frame, _OPERANDS, 1)
    state = load_int64(known, layout.STATE_DTYPE)
    if not call or not _has(row_settings, state, rows * layout.ROW_SETTINGS):
        return _refuse(frame, known)
    store_int64(call, layout.KIND, layout.STEP)
    store_int64(call, layout.ROW_SETTINGS_AT, load_int64(row_settings, _DATA))
    total = _write_table(frame, known, call, columns, rows, 2, 0)
    if total < 0:
        return _refuse(frame, known)
    if total:
        _run(frame, known, call, total)
    return 0


@part
def _norms(frame, known, store, dtype, largest):
    if not _has_more_to_say(frame, known):
        return 0
    columns = _columns(frame)
    together = columns & layout.TOGETHER
    rows = _number_of_rows(frame, 1, columns)
    if rows < 0 or load_int64(frame, _RESULT_COUNT) != 2:
        return _refuse(frame, known)
    call, norms = _scratch(frame, 1, _scratch_size(rows, 0)), _buffer(frame, _RESULTS, 0)
    if not call or not _has(norms, dtype, 2 * (1 if together else rows)):
        return _refuse(frame, known)
    total = _write_table(frame, known, call, columns, rows, 1, -1)
    places = _number_of_squares(rows, total)
    if total < 0 or not _scratch(frame, 1, _scratch_size(rows, places)):
        return _refuse(frame, known)
    result = load_int64(norms, _DATA)
    store_int64(call, layout.KIND, layout.SQUARES)
    store_int64(call, layout.SQUARES_AT, load_int64(call, layout.ENDS) + 8 * rows)
    squares = _sums_of_squares(frame, known, call, together, total, 1.0)
    for place in range(1 if together else rows):
        _store_norm(result, place, load_float64(squares, place), 1.0, store, largest)
    if load_int64(known, layout.STATE_DTYPE) == _FLOAT64:
        _scale_norms(frame, known, call, together, total, result, layout.SCALE_OF_LARGE)
        _scale_norms(frame, known, call, together, total, result, layout.SCALE_OF_SMALL)
    return 0


@part
def _scale_norms(frame, known, call, together, total, result, scale):
    """Compute norms that are too large or too small again, from scaled gradients."""
    squares = 0
    for place in range(1 if together else load_int64(call, layout.ROWS)):
        norm = load_float64(result, 2 * place + 1)
        if norm > layout.GREATEST_NORM if scale < 1 else norm < layout.LEAST_NORM:
            if not squares:
                squares = _sums_of_squares(frame, known, call, together, total, scale)
            again = load_float64(squares, place)
            _store_norm(result, place, again, 1 / scale, store_float64, math.inf)


@part
def _sums_of_squares(frame, known, call, together, total, scale):
    """Return the address of the sums of squares: one for each row, or one for all."""
    rows = load_int64(call, layout.ROWS)
    ends, squares = load_int64(call, layout.ENDS), load_int64(call, layout.SQUARES_AT)
    store_float64(call, layout.SCALE, scale)
    for place in range(_number_of_squares(rows, total)):
        store_float64(squares, place, 0.0)
    if total:
        _run(frame, known, call, total)
    of_all, begin = 0.0, 0
    for row in range(rows):
        end = load_int64(ends, row)
        of_row = 0.0
        # See `layout.number_of_squares`.
        for piece in range(begin // layout.PIECE, (end + layout.PIECE - 1) // layout.PIECE):
            if begin < end:
                of_row += load_float64(squares, piece + row)
        of_all += of_row
        # No later row has its sums here.
        store_float64(squares, row, of_row)
        begin = end
    if together:
        store_float64(squares, 0, of_all)
    return squares


@part
def _store_norm(result, place, squares, divisor, store, largest):
    """Store a norm as two factors, since the norm of finite numbers may overflow their dtype."""
    norm = math.sqrt(squares)
    if largest < norm < math.inf:
        norm, divisor = norm / 2.0**64, divisor * 2.0**64
    store(result, 2 * place, divisor)
    store(result, 2 * place + 1, norm)


def norms_float32(frame, known):
    """Compute norms in float32, of each gradient or of all together."""
    return _norms(frame, known, store_float32, _FLOAT32, layout.LARGEST_NORM)


def norms_float64(frame, known):
    """Compute norms in float64, of each gradient or of all together."""
    return _norms(frame, known, store_float64, _FLOAT64, math.inf)
