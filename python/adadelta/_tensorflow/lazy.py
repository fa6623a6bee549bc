"""Steps of sparse gradients that cost the rows they touch: the averages of the others wait.

`_core/lazy.py` says how they catch up.
"""

from typing import Any

import tensorflow as tf

from adadelta._core import interrupts, lazy
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import xla_tensorflow
from adadelta._tensorflow import arrays, rows


class Table:
    """The averages of one parameter, and how far each row of them is behind.

    Neither the counts nor the rows' last steps are part of the optimizer's state. They are 0 after
    `catch_up`.

    Args:
        row: The parameter with its averages.
        rho: The decay rate of the averages.

    """

    def __init__(self, row: Row, rho: float) -> None:
        self.averages, self.rho = (row.square_avg, row.acc_delta), rho
        # Outside of the function that is being traced, if any.
        with tf.init_scope(), tf.device(row.square_avg.device):
            # The number of steps, and the number of the last step of each row.
            self._steps = tf.Variable(0, trainable=False, dtype=tf.int32)
            self._last = tf.Variable(tf.zeros(row.square_avg.shape[:1], tf.int32), trainable=False)

    def step(self, row: Row, call: Call, options: Options, factors: Factors | None) -> None:
        """Make the step of the rows that have a gradient."""
        # Repeated rows have the same numbers, so that it does not matter which is written last.
        gradient = rows.with_equal_repeats(row.gradient)
        missed = self._missed(rows.take(self._last, gradient))
        square_avg, acc_delta = (
            self._caught_up(rows.take(average, gradient), missed) for average in self.averages
        )
        parameter = rows.take(row.parameter, gradient)
        some = Row(parameter, rows.values_of(gradient), square_avg, acc_delta)
        new = steps.advance(some, call, options, arrays, factors)
        now = self._steps + 1
        self._steps.assign(now)
        for variable, values in (
            (row.parameter, new.parameter),
            (row.square_avg, new.square_avg),
            (row.acc_delta, new.acc_delta),
            (self._last, tf.fill(tf.shape(missed), now)),
        ):
            variable.scatter_update(rows.with_values(gradient, values))

    def catch_up(self) -> None:
        """Let all rows catch up: at once, or when the function that is being traced runs."""

        def all_rows() -> Any:
            missed = self._missed(self._last)
            for average in self.averages:
                average.assign(self._caught_up(tf.convert_to_tensor(average), missed))
            self._last.assign(tf.zeros_like(self._last))
            self._steps.assign(0)
            return tf.constant(0)

        arrays.choose(tf.not_equal(self._steps, 0), all_rows, lambda: tf.constant(0))

    def _missed(self, last: Any) -> Any:
        # Unsigned, so that it is right for the first 4 billion steps.
        return tf.bitcast(self._steps - last, tf.uint32)

    def _caught_up(self, average: Any, missed: Any) -> Any:
        ones = [1] * (average.shape.rank - 1)
        missed = tf.reshape(missed, [-1, *ones])
        return lazy.caught_up(average, missed, self.rho, arrays)


class Lazy:
    """The parameters of an optimizer that may have rows behind."""

    def __init__(self) -> None:
        self._tables: dict[int, Table] = {}
        # The averages that functions update without letting rows catch up, since no row was behind
        # when the functions were traced. They must stay so.
        self._dense: set[int] = set()

    def find(self, row: Row, options: Options) -> tuple[Table | None, str]:
        """Return the table that makes the step of a row, or None and the reason against it.

        If there is none, all rows of the parameter catch up.
        """
        key = id(row.square_avg)
        table = self._tables.get(key)
        reason = _reason_against(row)
        if reason is None and table is not None and table.rho != options.rho:
            reason = "`rho` has changed"
        if reason is None and key in self._dense:
            reason = "a compiled function updates all rows of this variable"
        if reason is None:
            if table is None:
                table = self._tables[key] = Table(row, options.rho)
            return table, ""
        if table is not None:
            table.catch_up()
        elif not tf.executing_eagerly():
            self._dense.add(key)
        return None, reason

    def catch_up(self) -> None:
        """Let all rows of all parameters catch up now."""
        if self._tables:
            with interrupts.Deferred(), tf.init_scope():
                for table in self._tables.values():
                    table.catch_up()


def _reason_against(row: Row) -> str | None:
    """Return why a step touches all rows of a parameter, or None when it need not."""
    if not rows.is_rows(row.gradient):
        return "its gradient is dense"
    changing = {
        "weight decay": row.weight_decay,
        "the moving average": row.average is not None,
        "accumulation": row.window is not None,
        "the constraint": row.constraint is not None,
    }
    for name, changes_all_rows in changing.items():
        if changes_all_rows:
            return f"{name} needs all rows"
    if tf.distribute.has_strategy():
        return "it is under a distribution strategy"
    if not _is_in_an_eager_program():
        return "in a graph of TensorFlow 1 the state is in a session"
    variables = (row.parameter, row.square_avg, row.acc_delta)
    return next(filter(None, map(xla_tensorflow.reason_against_variable, variables)), None)


def _is_in_an_eager_program() -> bool:
    if tf.executing_eagerly():
        return True
    with tf.init_scope():
        return bool(tf.executing_eagerly())
