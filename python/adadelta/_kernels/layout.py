"""The memory layout of a call of the fused step: Python writes it and machine code reads it."""

import ctypes
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from adadelta._core.rule import Array, Number
from adadelta._core.step import COLLECT as COLLECT
from adadelta._core.step import SKIP as SKIP
from adadelta._core.step import UPDATE as UPDATE
from adadelta._core.step import Call, Options

# The dtypes of parameters and gradients for which there is a kernel.
DTYPES = ("float16", "bfloat16", "float32", "float64")

# Elements in a piece: large enough that the time to take one (0.1 us) does not matter, small
# enough that all threads finish at about the same time.
PIECE = 2**15
# Elements in a block: two blocks of float64 fill half of an L1 cache of 32 KiB.
BLOCK = 1024

# The columns of the table (int64): the addresses of a row's arrays in the order of
# `_core.step.Row`, or 0 for an array that does not exist.
PARAMETER, GRADIENT, SQUARE_AVG, ACC_DELTA, AVERAGE, WINDOW = range(6)
COLUMNS = 6

# The settings of a call, in the dtype of the state.
(
    ACTION,  # SKIP, COLLECT or UPDATE
    RATE,
    RHO,
    ONE_MINUS_RHO,
    EPSILON,
    LOSS_SCALE,  # gradients are divided by it
    STEPS,  # the sum of accumulated gradients is divided by it
    SIGN,  # gradients are multiplied by it: 1, or -1 to maximize
    CLIP_VALUE,  # infinity for none
    LARGEST_GRADIENT,
    DECAY_MODE,  # COUPLED, DECOUPLED or UNSCALED
    MOMENTUM,
    ONE_MINUS_MOMENTUM,
    AVERAGE_STARTS,  # 1 sets the average to the parameter, 0 moves it
    OVERWRITE,  # 1 sets the parameter to the average
) = range(15)
SETTINGS = 15
COUPLED, DECOUPLED, UNSCALED = 0, 1, 2
DECAY_MODES = {"coupled": COUPLED, "decoupled": DECOUPLED, "unscaled": UNSCALED}

# The settings of each tensor, in the dtype of the state.
WEIGHT_DECAY, CLIP_DIVISOR, CLIP_FACTOR = range(3)
ROW_SETTINGS = 3

# A call (int64): what to do, the number of tensors, and the addresses of the arrays. ENDS holds,
# for each tensor, the number of elements up to its end. SCALE is a float64: gradients are
# multiplied by it before they are squared for a norm.
KIND, ROWS, TABLE, ENDS, SETTINGS_AT, ROW_SETTINGS_AT, SQUARES_AT, SCALE = range(8)
CALL = 8
STEP, SQUARES = 0, 1
# Squares of float64 numbers may overflow or underflow. So a norm in float64 outside of these limits
# is computed again from scaled gradients.
LEAST_NORM, GREATEST_NORM = 1e-125, 1e125
SCALE_OF_SMALL, SCALE_OF_LARGE = 2.0**600, 2.0**-600
# The data that all threads of a call share, and the only data they get:
# - TAKEN, FROM_START, FROM_END, DONE: how many pieces have been taken in all, from the start and
#   from the end, and how many are finished. They begin at 0.
# - NUMBER_AT: the address of a C function that returns the number of the calling thread, or 0 if
#   all threads are to take pieces from the start.
# - PIECES, TOTAL: how many pieces and elements there are.
# - CALL_AT: the address of the call.
TAKEN, FROM_START, FROM_END, DONE, NUMBER_AT, PIECES, TOTAL, CALL_AT = range(8)
CONTROL = 8


# The constants of an XLA handler (int64): addresses of C functions, the version of the interface,
# XLA's numbers for the dtypes of parameters and state, and the address of the message with which
# it refuses a call (`xla_handler.py`).
WORKER, TASK, MALLOC, FREE, YIELD, VERSION, DTYPE, STATE_DTYPE, REFUSAL = range(9)
KNOWN = 9
# XLA_FFI_DataType of XLA's `xla/ffi/api/c_api.h`.
XLA_DTYPES = {"int32": 4, "float16": 10, "float32": 11, "float64": 12, "bfloat16": 16}
# Two more bits after those of the table's columns: compute one norm of all gradients together, and
# return norms in float64 although the state is float32.
TOGETHER = 1 << COLUMNS
WIDE = 1 << COLUMNS + 1
# A larger norm is returned as two factors in float32, so that several norms can be combined
# without overflow.
LARGEST_NORM = 2.0**100
# The handler's scratch memory, in units of 8 bytes: the call, arguments for XLA's functions, the
# table, the ends, and for norms the squares.
SCRATCH_ARGUMENTS = CALL
SCRATCH_TABLE = SCRATCH_ARGUMENTS + 6


def address_of(array: NDArray[np.generic]) -> int:
    """Return the address of a contiguous, writable array that has elements.

    It takes 0.3 us where `array.ctypes.data` takes 1.2, and each step needs six addresses.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


def number_of_squares(tensors: int, elements: int) -> int:
    """Return the number of sums of squares for norms: one for each overlap of piece and tensor.

    The index of a sum is the number of its piece plus that of its tensor. Tensors without elements
    are counted, too.
    """
    return (elements + PIECE - 1) // PIECE + tensors


def scratch_size(tensors: int, squares: int = 0) -> int:
    """Return how many int32 of scratch memory an XLA handler needs."""
    return 2 * (SCRATCH_TABLE + (COLUMNS + 1) * tensors + squares)


def settings(
    options: Options, call: Call, action: Number, largest_gradient: Number
) -> list[Number]:
    """Return the settings of a call in order; the caller makes them an array of the state's dtype.

    Args:
        options: The options of the optimizer.
        call: The arguments of this call. Those that change from step to step may be tensors.
        action: What to do with all rows: SKIP, COLLECT or UPDATE.
        largest_gradient: `rule.largest_gradient` for the dtype of the state.

    """
    rho, momentum = options.rho, options.ema_momentum
    rest, rest_of_momentum = options.one_minus_rho, options.one_minus_ema_momentum
    return [
        action,
        call.rate,
        rho,
        1 - rho if rest is None else rest,
        options.epsilon,
        1.0 if call.loss_scale is None else call.loss_scale,
        1.0 if call.steps is None else call.steps,
        -1.0 if options.maximize else 1.0,
        math.inf if options.clipvalue is None else options.clipvalue,
        largest_gradient,
        DECAY_MODES[options.decay_mode],
        momentum,
        1 - momentum if rest_of_momentum is None else rest_of_momentum,
        call.average_starts,
        call.average_overwrites,
    ]


def told(settings: Array, decay_mode: str = "decoupled") -> tuple[Call, Options]:
    """Return the call and options that settings stand for, without the sign; undoes `settings`.

    Args:
        settings: An array of settings, whose values may be known only when a program runs.
        decay_mode: As in `Options`. Each mode needs a program of its own.

    """
    call = Call(
        settings[RATE],
        settings[LOSS_SCALE],
        settings[STEPS],
        settings[AVERAGE_STARTS] != 0,
        settings[OVERWRITE] != 0,
    )
    options = Options(
        settings[RHO],
        settings[EPSILON],
        clipvalue=settings[CLIP_VALUE],
        decay_mode=decay_mode,
        ema_momentum=settings[MOMENTUM],
        one_minus_rho=settings[ONE_MINUS_RHO],
        one_minus_ema_momentum=settings[ONE_MINUS_MOMENTUM],
    )
    return call, options


def row_settings(weight_decays: Sequence[float], dtype: DTypeLike) -> Array:
    """Return the settings of each row as an array, without clipping by norm."""
    own = np.ones((len(weight_decays), ROW_SETTINGS), dtype)
    own[:, WEIGHT_DECAY] = weight_decays
    return own
