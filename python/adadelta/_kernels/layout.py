"""How a call of the fused step lies in memory: what Python writes and machine code reads."""

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

# The dtypes of parameters, and of their gradients, that there is a kernel for.
DTYPES = ("float16", "bfloat16", "float32", "float64")

# Elements in a piece: large enough that taking it (0.1 us) does not show, small enough that
# threads end together.
PIECE = 2**15
# Elements in a block: two blocks of float64 fill half of a first cache of 32 KiB.
BLOCK = 1024

# The columns of the table, int64: the addresses of a row's arrays in the order of
# `_core.step.Row`, 0 where there is none.
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
    STEPS,  # the window's sum is divided by it
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

# What each tensor has of its own, in the dtype of the state.
WEIGHT_DECAY, CLIP_DIVISOR, CLIP_FACTOR = range(3)
ROW_SETTINGS = 3

# A call, int64: what to do, how many tensors, and the addresses of the arrays. ENDS has, for
# each tensor, the number of elements up to its end. SCALE is a float64: gradients are multiplied
# by it before they are squared for a norm.
KIND, ROWS, TABLE, ENDS, SETTINGS_AT, ROW_SETTINGS_AT, SQUARES_AT, SCALE = range(8)
CALL = 8
STEP, SQUARES = 0, 1
# The squares of float64 may leave its range. So norms in float64 that are less or greater than the
# limits are computed again, of scaled gradients.
LEAST_NORM, GREATEST_NORM = 1e-125, 1e125
SCALE_OF_SMALL, SCALE_OF_LARGE = 2.0**600, 2.0**-600
# What threads share about a call, and all that they are told: the next piece, how many are done,
# how many pieces and elements there are, and where the call lies.
NEXT, DONE, PIECES, TOTAL, CALL_AT = range(5)
CONTROL = 5


# What a handler of XLA's knows, int64: addresses of C functions, the version of the interface,
# XLA's numbers for the dtypes of parameters and state, and the address of what it says when it
# refuses a call (`xla_handler.py`).
WORKER, TASK, MALLOC, FREE, YIELD, VERSION, DTYPE, STATE_DTYPE, REFUSAL = range(9)
KNOWN = 9
# XLA_FFI_DataType of XLA's `xla/ffi/api/c_api.h`.
XLA_DTYPES = {"int32": 4, "float16": 10, "float32": 11, "float64": 12, "bfloat16": 16}
# Beside a bit for each column of the table: one norm of all gradients together, and norms in
# float64 although the state is float32.
TOGETHER = 1 << COLUMNS
WIDE = 1 << COLUMNS + 1
# A larger norm is returned as two factors in float32, so that what several norms make together
# is still in its range.
LARGEST_NORM = 2.0**100
# Its scratch, in 8 bytes: the call, arguments for XLA's functions, the table, the ends, and for
# norms the squares.
SCRATCH_ARGUMENTS = CALL
SCRATCH_TABLE = SCRATCH_ARGUMENTS + 6


def address_of(array: NDArray[np.generic]) -> int:
    """Return where an array begins that is contiguous, has elements and can be written.

    It takes 0.3 us, and `array.ctypes.data` 1.2, which each step needs for six arrays.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


def number_of_squares(tensors: int, elements: int) -> int:
    """Return how many sums of squares a call for norms has: one where a piece and a tensor meet.

    The place of a sum is the number of its piece plus that of its tensor. Tensors without elements
    have places, too.
    """
    return (elements + PIECE - 1) // PIECE + tensors


def scratch_size(tensors: int, squares: int = 0) -> int:
    """Return how many int32 of scratch a handler of XLA's needs."""
    return 2 * (SCRATCH_TABLE + (COLUMNS + 1) * tensors + squares)


def settings(
    options: Options, call: Call, action: Number, largest_gradient: Number
) -> list[Number]:
    """Return the settings of a call in their order, to be made an array of the state's dtype.

    Args:
        options: What the optimizer is told.
        call: What the call is told. What changes from step to step may be a tensor.
        action: What becomes of all rows: SKIP, COLLECT or UPDATE.
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
    """Return what the settings of a call say, but for the sign: undoes `settings`.

    Args:
        settings: An array of them, whose numbers are known when a program runs.
        decay_mode: As in `Options`; by it programs differ.

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
    """Return what rows have of their own as an array, without clipping by norm."""
    own = np.ones((len(weight_decays), ROW_SETTINGS), dtype)
    own[:, WEIGHT_DECAY] = weight_decays
    return own
