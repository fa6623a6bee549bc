"""The step of TensorFlow's variables by the kernel, in programs that XLA compiles."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from adadelta._core import engine, precision
from adadelta._core.clipping import Factors
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import choose, layout, xla_tensorflow
from adadelta._kernels.xla_tensorflow import Program
from adadelta._tensorflow import arrays, rows

# The average number of elements of a variable from which on the kernel is used. It saves 0.9 ns
# per element in each step, and its compilation costs 15 ms once (two cores).
WORTHWHILE = 2**14
# For how many different sets of variables an optimizer has programs; each takes time and memory.
# In a model that drops layers at random, each call may have gradients for another set.
SETS = 4
# Variables per program. The time to compile a program grows with the square of their number: 0.1 s
# for 32, 0.4 to 0.7 for 64, 21 for 2,000.
TOGETHER = 48


def reason_against(row: Row) -> str | None:
    """Return why the kernel can't take the arrays of a row, or None when it can."""
    dtype = arrays.dtype_of(row.parameter)
    if dtype not in layout.DTYPES:
        return f"it is {dtype}"
    variables = (variable for variable in _columns(row) if variable is not None)
    reasons = map(xla_tensorflow.reason_against_variable, variables)
    return next(filter(None, reasons), None) or _reason_against_gradient(row.gradient, dtype)


def _reason_against_gradient(gradient: Any, dtype: str) -> str | None:
    if gradient is None:
        return None
    if rows.is_rows(gradient):
        return "its gradient is sparse"
    given = arrays.dtype_of(gradient)
    # For a half-precision variable the kernel would round a float32 gradient to half precision.
    is_taken = given == dtype or dtype == precision.state_dtype(dtype)
    if precision.is_complex(given) or not is_taken:
        return f"it is {dtype}, its gradient {given}"
    return None


def reason_against_dtype(dtype: str, with_norms: bool = False) -> str | None:
    """Return why there is no kernel for a dtype on this machine, or None when there is one."""
    if dtype not in layout.DTYPES:
        return f"it is {dtype}"
    reason = choose.reason_against_dtype("tensorflow", dtype)
    if reason is None and with_norms:
        reason = xla_tensorflow.reason_against_dtype(dtype, "norms")
    return reason


def reason_against_size(chosen: Sequence[Row]) -> str | None:
    """Return why the kernel is not worth its compilation for rows, or None when it is."""
    mean = sum(math.prod(row.parameter.shape.as_list()) for row in chosen) / len(chosen)
    if mean >= WORTHWHILE:
        return None
    return f"variables have {mean:,.0f} elements on average; the kernel gains from {WORTHWHILE:,}"


class Part:
    """Some of the rows of a call, with the program that updates them."""

    def __init__(
        self, program: Program, members: Sequence[Row], call: Call, options: Options
    ) -> None:
        self.action = members[0].action
        self.dtype = precision.state_dtype(arrays.dtype_of(members[0].parameter))
        self._program, self._decays = program, [row.weight_decay for row in members]
        self._gradients = [tf.cast(row.gradient, row.parameter.dtype) for row in members]
        limit = precision.largest_gradient(options.epsilon, self.dtype)
        numbers = layout.settings(options, call, self.action, limit)
        self._settings = xla_tensorflow.together(numbers, self.dtype)

    def norms(self, together: bool, wide: bool) -> Factors:
        """Return the norms of the gradients, as `clipping.factors_of_groups` needs them."""
        return self._program.norms(self._settings, self._gradients, together, wide)

    def step(self, factors: Factors | None) -> None:
        """Make the step."""
        own: Any = layout.row_settings(self._decays, self.dtype)
        if factors is not None:
            ones = own[:, layout.CLIP_FACTOR]
            divisor, factor = (tf.cast(factor, self.dtype) for factor in factors)
            own = tf.stack([own[:, layout.WEIGHT_DECAY], ones * divisor, ones * factor], axis=1)
        self._program.step(self._settings, own, self._gradients)


class Programs:
    """The programs of an optimizer."""

    def __init__(self) -> None:
        # By the ids of a call's parameters, and then by what the rows of a part have in common.
        self._known: dict[Any, dict[Any, Program]] = {}

    def have_room(self, chosen: Sequence[Row]) -> bool:
        """Whether there are programs for these rows, or room for new ones."""
        return _names(chosen) in self._known or len(self._known) < SETS

    def parts(self, chosen: Sequence[Row], call: Call, options: Options) -> list[Part]:
        """Return the parts of a call, for rows that the kernel can take."""
        known = self._known.setdefault(_names(chosen), {}) if chosen else {}
        found = []
        for places in engine.alike(chosen, _kind_of).values():
            for start in range(0, len(places), TOGETHER):
                some = [chosen[place] for place in places[start : start + TOGETHER]]
                variables = [_columns(row) for row in some]
                key = (*_kind_of(some[0]), id(some[0].parameter))
                # Programs are for these very variables, so a replaced one needs a new program.
                if key not in known or not _are_same(known[key].rows, variables):
                    known[key] = Program(variables)
                found.append(Part(known[key], some, call, options))
        return found


def _names(chosen: Sequence[Row]) -> tuple[int, ...]:
    return tuple(id(row.parameter) for row in chosen)


def _columns(row: Row) -> list[Any]:
    """Return the variables that the kernel updates: not the average if there is a constraint."""
    average = row.average if row.constraint is None else None
    return list(row._replace(gradient=None, average=average)[: layout.COLUMNS])


def _kind_of(row: Row) -> tuple[Any, ...]:
    return arrays.dtype_of(row.parameter), tuple(array is None for array in _columns(row))


def _are_same(rows: Any, others: Any) -> bool:
    return len(rows) == len(others) and all(
        all(map(operator.is_, *pair)) for pair in zip(rows, others, strict=True)
    )
