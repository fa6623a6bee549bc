"""Steps of sparse gradients that cost the rows they touch: the averages of the others wait.

`_core/lazy.py` says how they catch up.
"""

from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

from adadelta._core import interrupts, lazy
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import xla_tensorflow
from adadelta._tensorflow import arrays, rows

Array = Any


class Table:
    """The averages of one parameter, and how far each row of them is behind.

    What the table counts is not part of the optimizer's state. It is 0 after `catch_up`.

    Args:
        row: The parameter with its averages.
        options: The options of the steps.

    Attributes:
        options: See the argument.

    """

    def __init__(self, row: Row, options: Options) -> None:
        self._variables = row.parameter, row.square_avg, row.acc_delta
        self.options = options
        # Outside of the function that is being traced, if any.
        with tf.init_scope(), tf.device(row.square_avg.device):
            # The number of steps, and the number of the last step of each row.
            self._steps = tf.Variable(0, trainable=False, dtype=tf.int32)
            self._last = tf.Variable(tf.zeros(row.square_avg.shape[:1], tf.int32), trainable=False)
        self._compiled = tf.function(self._step, autograph=False, reduce_retracing=True)

    def step(self, row: Row, call: Call, factors: Factors | None) -> None:
        """Make the step of the rows that have a gradient."""
        gradient: Any = row.gradient
        numbers = [
            number if number is None or tf.is_tensor(number) else tf.constant(number, tf.float64)
            for number in (call.rate, call.loss_scale, *(factors or ()))
        ]
        if tf.executing_eagerly():
            with record.stop_recording():
                self._compiled(gradient.values, gradient.indices, *numbers)
        else:
            self._step(gradient.values, gradient.indices, *numbers)

    def _step(
        self, values: Array, indices: Array, rate: Array, scale: Array | None, *factors: Array
    ) -> None:
        def read(variable: Any) -> Array:
            return tf.gather(variable, indices)

        def write(variable: Any, values: Array) -> None:
            variable.scatter_update(tf.IndexedSlices(values, indices))

        count = tf.size(indices)
        last = read(self._last)
        missed = self._steps - last
        # After two billion steps without a read it stays, since it must not become negative.
        now = self._steps + tf.cast(self._steps < tf.int32.max, tf.int32)
        # A place for each row, the same wherever it is repeated: XLA takes 0.7 ms to find 1,024
        # unique numbers. What is written depends on what was read, although its value does not:
        # otherwise XLA copies the whole variable, three times.
        write(self._last, tf.maximum(tf.range(count), -1 - last))
        places = read(self._last)
        # XLA reads the last row in the place of one that the parameter lacks, and writes none. The
        # gradient of such a row must not be added to another's.
        size = tf.cast(self._last.shape[0], indices.dtype)
        places = tf.where((indices >= 0) & (indices < size), places, -1)
        write(self._last, tf.maximum(now, places - count))
        self._steps.assign(now)

        parameter, *averages = map(read, self._variables)
        averages = [self._caught_up(average, missed) for average in averages]
        gradient = tf.gather(tf.math.unsorted_segment_sum(values, places, count), places)
        row = Row(parameter, gradient, *averages)
        call = Call(rate, scale)
        new = steps.advance(row, call, self.options, arrays, factors or None)
        # A repeated row is written more than once, with the same values.
        new_values = new.parameter, new.square_avg, new.acc_delta
        for variable, its_values in zip(self._variables, new_values, strict=True):
            write(variable, its_values)

    def catch_up(self) -> None:
        """Let all rows catch up: at once, or when the function that is being traced runs."""

        def all_rows() -> Any:
            missed = self._steps - self._last
            for average in self._variables[1:]:
                average.assign(self._caught_up(tf.convert_to_tensor(average), missed))
            self._last.assign(tf.zeros_like(self._last))
            self._steps.assign(0)
            return tf.constant(0)

        arrays.choose(self._steps > 0, all_rows, lambda: tf.constant(0))

    def _caught_up(self, average: Array, missed: Array) -> Array:
        ones = [1] * (average.shape.rank - 1)
        return lazy.caught_up(average, tf.reshape(missed, [-1, *ones]), self.options.rho, arrays)


class Lazy:
    """The parameters of an optimizer that may have rows behind."""

    def __init__(self) -> None:
        self._tables: dict[int, Table] = {}
        # The averages that functions update without letting rows catch up, since no row was behind
        # when the functions were traced. They must stay so.
        self._dense: set[int] = set()
        # Whether a function reads or sets the state, perhaps of parameters without a table.
        self._is_used = False

    def find(self, row: Row, options: Options) -> tuple[Table | None, str]:
        """Return the table that makes the step of a row, or None and the reason against it.

        If there is none, all rows of the parameter catch up.
        """
        key = id(row.square_avg)
        table = self._tables.get(key)
        reason = _reason_against(row)
        if reason is None and table is not None and table.options != options:
            reason = "an option has changed"
        if reason is None and key in self._dense:
            reason = "a compiled function updates all rows of this variable"
        if reason is None and table is None and self._is_used:
            reason = "a compiled function reads or sets the state"
        if reason is None:
            if table is None:
                table = self._tables[key] = Table(row, options)
            return table, ""
        if table is not None:
            table.catch_up()
        elif not tf.executing_eagerly():
            self._dense.add(key)
        return None, reason

    def catch_up(self) -> None:
        """Let all rows of all parameters catch up now, and when a function being traced runs."""
        if self._tables:
            with interrupts.Deferred(), tf.init_scope():
                for table in self._tables.values():
                    table.catch_up()
        if not tf.executing_eagerly():
            self._is_used = True
            for table in self._tables.values():
                table.catch_up()


def _reason_against(row: Row) -> str | None:
    """Return why a step touches all rows of a parameter, or None when it need not."""
    if not rows.is_rows(row.gradient):
        return "its gradient is dense"
    reason = lazy.reason_against(row)
    if reason is not None:
        return reason
    if tf.distribute.has_strategy():
        return "it is under a distribution strategy"
    if not _is_in_an_eager_program():
        return "in a graph of TensorFlow 1 the state is in a session"
    variables = (row.parameter, row.square_avg, row.acc_delta)
    return next(filter(None, map(xla_tensorflow.reason_against_variable, variables)), None)


def _is_in_an_eager_program() -> bool:
    """Whether the outermost program is eager; a function may be traced inside a session's graph."""
    if tf.executing_eagerly():
        return True
    with tf.init_scope():
        return bool(tf.executing_eagerly())
