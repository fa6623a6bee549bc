"""The step of TensorFlow's variables by `_core/step.py` or TensorFlow's own operation, in place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from adadelta._core import clipping, precision
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import COLLECT, FOLLOW, UPDATE, Call, Options, Row
from adadelta._tensorflow import arrays, operation, rows
from adadelta._tensorflow.arrays import choose

Array = Any


class Plain:
    """Makes steps without the kernel.

    Args:
        takes_operation: Whether TensorFlow's own operation is used where it can serve.

    Attributes:
        operations: What a graph of TensorFlow 1 must run for the last step.
        compiles_rows: Whether XLA compiles the update of each row.

    """

    def __init__(self, takes_operation: bool) -> None:
        self.takes_operation, self.compiles_rows = takes_operation, False
        self.operations: list[Any] = []
        self._compiled = tf.function(self._advance, jit_compile=True, autograph=False)

    def step(
        self, group: Sequence[Row], call: Call, options: Options, factors: Factors | None
    ) -> None:
        """Make what a call makes of rows that have the same action."""
        action = group[0].action
        if factors is not None:
            factors = tf.reshape(factors[0], ()), tf.reshape(factors[1], ())

        def run(strategy: Any, members: Sequence[Row]) -> None:
            each = _directly if strategy is None else partial(_on_each_device, strategy)

            def update() -> None:
                for row in members:
                    each(row, partial(self._update, call=call, options=options, factors=factors))
                self._follow(members, call, options, each)

            def collect() -> None:
                for row in members:
                    each(row, partial(self._collect, call=call))

            branches = {UPDATE: update}
            if call.steps is not None:
                branches[COLLECT] = collect
            if any(row.gradient is None for row in members):
                branches[FOLLOW] = partial(self._follow, members, call, options, each)
            _branch(action, branches)

        if tf.distribute.has_strategy() and not is_on_a_mesh(group):
            strategy = tf.distribute.get_strategy()
            # The other replicas have objects of their own for these.
            members = [row._replace(action=UPDATE) for row in group]
            if tf.distribute.in_cross_replica_context():
                # No replica runs when training ends, and what is left of a window makes an update.
                run(strategy, members)
            else:
                tf.__internal__.distribute.interim.maybe_merge_call(run, strategy, members)
        else:
            run(None, group)

    def _update(self, row: Row, call: Call, options: Options, factors: Factors | None) -> None:
        if self.compiles_rows and not is_on_a_mesh([row]):
            self._compiled(row, call, options, factors)
        else:
            self._advance(row, call, options, factors)

    def _advance(self, row: Row, call: Call, options: Options, factors: Factors | None) -> None:
        """Make an update of a row, but for its moving average."""
        row = _whole(row)
        if options.norm_limit is not None and options.global_clipnorm is None:
            factors = _factors_of(row, call, options.norm_limit)
        if rows.is_rows(row.gradient):
            self._advance_rows(row, call, options, factors)
            return
        values = _read(row)
        may_take_operation = self.takes_operation and not is_on_a_mesh([row])
        if may_take_operation and operation.can_serve(row, options):
            gradient = steps.clipped(values, call, options, arrays, factors)
            self._assigned(operation.update(row, gradient, call, options))
            if row.window is not None:
                self._assign(row.window, arrays.zeros_like(values.window))
            return
        new = steps.constrain(steps.advance(values, call, options, arrays, factors))
        self._assign(row.square_avg, new.square_avg)
        self._assign(row.acc_delta, new.acc_delta)
        if row.window is not None:
            self._assign(row.window, new.window)
        self._assign(row.parameter, new.parameter)

    def _advance_rows(
        self, row: Row, call: Call, options: Options, factors: Factors | None
    ) -> None:
        """Make an update of what has a gradient; of the rest only the averages decay."""
        gradient: Any = row.gradient
        rho = options.rho
        old_square_avg = tf.convert_to_tensor(row.square_avg)
        old_acc_delta = tf.convert_to_tensor(row.acc_delta)
        some = row._replace(
            parameter=rows.take(row.parameter, gradient),
            gradient=gradient.values,
            square_avg=rows.take(old_square_avg, gradient),
            acc_delta=rows.take(old_acc_delta, gradient),
            constraint=None,
        )
        new = steps.advance(some, call, options, arrays, factors)
        self._assign(row.square_avg, rows.put(rho * old_square_avg, gradient, new.square_avg))
        self._assign(row.acc_delta, rows.put(rho * old_acc_delta, gradient, new.acc_delta))
        change = rows.with_values(gradient, new.parameter - some.parameter)
        self._assigned(row.parameter.scatter_add(change))

    def _collect(self, row: Row, call: Call) -> None:
        gradient, window = row.gradient, row.window
        if gradient is None or window is None:
            return
        if rows.is_rows(gradient):
            values = steps.unscaled(row._replace(gradient=gradient.values), call, arrays)
            self._assigned(window.scatter_add(rows.with_values(gradient, values)))
        else:
            self._assign(window, steps.collect(_read(row), call, arrays).window)

    def _follow(
        self, members: Sequence[Row], call: Call, options: Options, each: Callable[..., None]
    ) -> None:
        """Let moving averages follow, after an update."""
        averaged = [row for row in members if row.average is not None]

        def follow(starts: bool, overwrites: bool) -> None:
            told = call._replace(average_starts=starts, average_overwrites=overwrites)
            for row in averaged:
                each(row, partial(self._follow_row, call=told, options=options))

        def when_known(starts: bool) -> None:
            overwrites = call.average_overwrites
            _run(overwrites, partial(follow, starts, True), partial(follow, starts, False))

        if averaged:
            starts = call.average_starts
            _run(starts, partial(when_known, True), partial(when_known, False))

    def _follow_row(self, row: Row, call: Call, options: Options) -> None:
        new = steps.follow(_read(row), call, options, arrays)
        self._assign(row.average, new.average)
        if call.average_overwrites:
            self._assign(row.parameter, new.parameter)

    def _assign(self, variable: Any, value: Array) -> None:
        self._assigned(variable.assign(value))

    def _assigned(self, made: Any) -> None:
        if not tf.executing_eagerly() and not tf.compat.v1.get_default_graph().building_function:
            self.operations.append(made)

    def constrain(self, served: Sequence[Row], call: Call, options: Options) -> None:
        """Do what is left of an update after the kernel: constraints, and averages of these."""

        def constrain(members: Sequence[Row]) -> None:
            for row in members:
                new = steps.constrain(_read(row))
                row.parameter.assign(new.parameter)
            self._follow(members, call, options, _directly)

        for group in grouped(served):
            _branch(group[0].action, {UPDATE: partial(constrain, group)})


def clipped(gradient: Any, variable: Any, options: Options) -> Any:
    """Return the gradient of a variable, clipped alone, in the dtype and shape of its state."""
    dtype = precision.state_dtype(arrays.dtype_of(variable))
    gradient = _in_state(gradient, variable, tf.as_dtype(dtype))
    values = rows.values_of(gradient)
    # Of the state only the dtype counts.
    row, call = Row(variable, values, values, values), Call(None)
    limit = options.norm_limit
    factors = None if limit is None else _factors_of(row, call, limit)
    return rows.with_values(gradient, steps.clipped(row, call, options, arrays, factors))


def _in_state(gradient: Any, variable: Any, dtype: Any) -> Any:
    """Return a gradient in the dtype and shape of the state, with rows that each occur once."""
    own = arrays.dtype_of(variable)

    def in_state(values: Array) -> Array:
        if precision.is_complex(own) != values.dtype.is_complex:
            values = tf.cast(values, own)
        return arrays.in_state(values, dtype)

    return rows.map_values(in_state, rows.summed(gradient))


def ready(row: Row) -> Row:
    """Return a row with a gradient as the plain step takes it."""
    if row.gradient is None:
        return row
    gradient = _in_state(row.gradient, row.parameter, row.square_avg.dtype)
    row = row._replace(gradient=gradient)
    return _with_dense_gradient(row) if is_on_a_mesh([row]) else row


def _whole(row: Row) -> Row:
    """Return a row with a dense gradient, unless the update is one of some rows alone."""
    # Half precision is rounded once, after the subtraction, which only the dense step does.
    is_exact = arrays.dtype_of(row.parameter) == row.square_avg.dtype.name
    needs_all = row.weight_decay or row.window is not None or row.constraint is not None
    return _with_dense_gradient(row) if needs_all or not is_exact else row


def _with_dense_gradient(row: Row) -> Row:
    return row._replace(gradient=rows.dense(row.gradient, row.square_avg.shape))


def _read(row: Row) -> Row:
    """Return a row of the values of its variables."""

    def value(variable: Any) -> Any:
        return None if variable is None else tf.convert_to_tensor(variable)

    return row._replace(
        parameter=value(row.parameter),
        square_avg=value(row.square_avg),
        acc_delta=value(row.acc_delta),
        average=value(row.average),
        window=value(row.window),
    )


def grouped(members: Sequence[Row]) -> list[list[Row]]:
    """Return rows that have the same action and dtype of state together."""
    groups: dict[Any, list[Row]] = {}
    for row in members:
        action = row.action if isinstance(row.action, int) else id(row.action)
        groups.setdefault((action, row.square_avg.dtype.name), []).append(row)
    return list(groups.values())


def _branch(action: Any, branches: dict[int, Callable[[], None]]) -> None:
    """Run what belongs to an action, which may only be known when a program runs."""
    if isinstance(action, int) or tf.executing_eagerly():
        branches.get(int(action), lambda: None)()
        return
    (chosen, body), *others = branches.items()
    rest = partial(_branch, action, dict(others)) if others else lambda: None
    _run(tf.equal(action, chosen), body, rest)


def _run(predicate: Any, if_true: Callable[[], None], if_false: Callable[[], None]) -> None:
    def returning(body: Callable[[], None]) -> Callable[[], Any]:
        # tf.cond wants the same outputs from both, and runs the assignments for their effect.
        def run() -> Any:
            body()
            return tf.constant(0)

        return run

    if isinstance(predicate, bool):
        (if_true if predicate else if_false)()
    else:
        choose(predicate, returning(if_true), returning(if_false))


def _directly(row: Row, function: Callable[[Row], None]) -> None:
    function(row)


def _on_each_device(strategy: Any, row: Row, function: Callable[[Row], None]) -> None:
    def update(parameter: Any, own: Row) -> None:
        function(own._replace(parameter=parameter))

    strategy.extended.update(row.parameter, update, args=(row,), group=False)


def is_on_a_mesh(members: Sequence[Row]) -> bool:
    dvariable = tf.experimental.dtensor.DVariable
    return any(isinstance(row.parameter, dvariable) for row in members)


def _gradient_values(row: Row, call: Call) -> Array:
    row = _whole(row)
    return steps.mean(row._replace(gradient=rows.values_of(row.gradient)), call, arrays)


def _norm(gradients: Sequence[Array], dtype: str, on_a_mesh: bool) -> Factors:
    filled = [gradient for gradient in gradients if 0 not in gradient.shape]
    if not filled:
        return tf.ones((), dtype), tf.zeros((), dtype)
    namespace = arrays.ON_A_MESH if on_a_mesh else arrays
    return clipping.scaled_norm(filled, namespace, choose)


def norm_of(group: Sequence[Row], call: Call, wide: bool) -> Factors:
    """Return the norm of all gradients of rows that have the same action, if they are updated."""
    dtype = "float64" if wide else group[0].square_avg.dtype.name

    def norm() -> Factors:
        gradients = [tf.cast(_gradient_values(row, call), dtype) for row in group]
        return _norm(gradients, dtype, is_on_a_mesh(group))

    action = group[0].action
    if isinstance(action, int):
        return norm()
    return choose(tf.equal(action, UPDATE), norm, lambda: (tf.ones((), dtype), tf.zeros((), dtype)))


def _factors_of(row: Row, call: Call, limit: float) -> Factors | None:
    """Return by what the gradient of a row is divided and then multiplied, to clip it alone."""
    on_a_mesh = is_on_a_mesh([row])
    norm = _norm([_gradient_values(row, call)], row.square_avg.dtype.name, on_a_mesh)
    return clipping.factors(*norm, limit, arrays.ON_A_MESH if on_a_mesh else arrays)
