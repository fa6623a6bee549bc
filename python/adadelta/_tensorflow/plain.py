"""The step of TensorFlow's variables, in place, by `_core/step.py` or TensorFlow's operation."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from adadelta._core import clipping, engine, precision
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import COLLECT, FOLLOW, UPDATE, Call, Options, Row
from adadelta._tensorflow import arrays, operation, rows
from adadelta._tensorflow.arrays import ON_SCALARS, choose
from adadelta._tensorflow.lazy import Table

Array = Any

_VARIABLES = ("parameter", "square_avg", "acc_delta", "average", "window")


class Plain:
    """Makes steps without the kernel.

    Args:
        takes_operation: Whether TensorFlow's own operation is used where it can be.

    Attributes:
        operations: The operations that a TensorFlow 1 graph must run for the last step.
        tables: Makes the next step of a parameter with a sparse gradient, by the id of its
            `square_avg`. Without a table the step touches all of its rows.
        compiles_rows: Whether XLA compiles the update of each row.

    """

    def __init__(self, takes_operation: bool) -> None:
        self.takes_operation, self.compiles_rows = takes_operation, False
        self.operations: list[Any] = []
        self.tables: dict[int, Table] = {}
        self._compiled = tf.function(self._update, jit_compile=True, autograph=False)

    def groups(self, given: Sequence[Row], call: Call, options: Options) -> list["Group"]:
        """Return groups of rows, returned by `ready`, that are updated together."""
        # On a mesh several norms can't be in one tensor.
        alone = options.global_clipnorm is None and is_on_a_mesh(given)
        groups = [[row] for row in given] if alone else _grouped(given)
        return [Group(self, members, call, options) for members in groups]

    def step(self, row: Row, call: Call, options: Options, factors: Factors | None = None) -> None:
        """Make the step of a row whose action is known."""
        gradient, window = row.gradient, row.window
        if row.action == UPDATE and id(row.square_avg) in self.tables:
            self.tables[id(row.square_avg)].step(row, call, factors)
        elif row.action == UPDATE:
            update = (
                self._compiled if self.compiles_rows and not is_on_a_mesh([row]) else self._update
            )
            update(row, call, options, factors)
        elif row.action == COLLECT and window is not None and rows.is_rows(gradient):
            values = steps.unscaled(row._replace(gradient=rows.values_of(gradient)), call, arrays)
            self._assigned(window.scatter_add(rows.with_values(gradient, values)))
        else:
            self._take(row, lambda values: steps.step(values, call, options, _namespace([row])))

    def _update(self, row: Row, call: Call, options: Options, factors: Factors | None) -> None:
        row = _with_dense_gradient(row)
        if self.takes_operation and not is_on_a_mesh([row]) and operation.can_serve(row, options):
            gradient = steps.clipped(_read(row), call, options, arrays, factors)
            self._assigned(operation.update(row, gradient, call, options))
            if row.window is not None:
                self._assign(row.window, arrays.zeros_like(row.window))
        else:
            namespace = _namespace([row])
            self._take(row, lambda values: steps.step(values, call, options, namespace, factors))
            return
        if row.average is not None:
            self._take(row, lambda values: steps.follow(values, call, options, arrays))

    def _take(self, row: Row, made: Callable[[Row], Row]) -> None:
        """Apply a function to the values of a row, and assign the results to its variables."""
        values = _read(row)
        for variable, old, new in zip(row, values, made(values), strict=True):
            if new is not old:
                self._assign(variable, new)

    def _assign(self, variable: Any, value: Array) -> None:
        self._assigned(variable.assign(value))

    def _assigned(self, made: Any) -> None:
        if not tf.executing_eagerly() and not tf.compat.v1.get_default_graph().building_function:
            self.operations.append(made)

    def constrain(self, served: Sequence[Row], call: Call, options: Options) -> None:
        """Finish an update after the kernel: apply constraints, then update moving averages."""

        def constrained(values: Row) -> Row:
            return steps.follow(steps.constrain(values), call, options, arrays)

        def constrain(members: Sequence[Row]) -> None:
            for row in members:
                self._take(row, constrained)

        for group in _grouped(served):
            _branch(group[0].action, {UPDATE: partial(constrain, group)})


class Group:
    """Rows with the same action and dtype of state, which are updated together."""

    def __init__(self, plain: Plain, members: Sequence[Row], call: Call, options: Options) -> None:
        self._plain, self._rows, self._call, self._options = plain, members, call, options
        self.dtype: str = members[0].square_avg.dtype.name

    def norms(self, together: bool, wide: bool) -> Factors:
        """Return the norms of the gradients, as `clipping.factors_of_groups` needs them."""
        dtype = "float64" if wide else self.dtype
        on_a_mesh, namespace = is_on_a_mesh(self._rows), _namespace(self._rows)

        def norm(gradients: Sequence[Array]) -> Factors:
            filled = [gradient for gradient in gradients if 0 not in gradient.shape]
            if not filled:
                return tf.ones((), dtype), tf.zeros((), dtype)
            return clipping.scaled_norm(filled, namespace, choose)

        def norms() -> Factors:
            gradients = [tf.cast(_gradient_values(row, self._call), dtype) for row in self._rows]
            parts = [gradients] if together else [[gradient] for gradient in gradients]
            found = [norm(part) for part in parts]
            if on_a_mesh:
                return found[0]
            divisors, norms = map(tf.stack, zip(*found, strict=True))
            return divisors, norms

        action = self._rows[0].action
        if isinstance(action, int):
            return norms()
        shape = () if on_a_mesh else (1 if together else len(self._rows),)
        nothing = tf.ones(shape, dtype), tf.zeros(shape, dtype)
        return choose(tf.equal(action, UPDATE), norms, lambda: nothing)

    def step(self, factors: Factors | None) -> None:
        """Make the step of the rows."""
        call, options, action = self._call, self._options, self._rows[0].action
        pairs: list[Factors | None] = [None]
        if factors is not None:
            columns = (tf.unstack(factor) if factor.shape.rank else [factor] for factor in factors)
            pairs = list(zip(*columns, strict=True))
        actions = [UPDATE]
        if call.steps is not None:
            actions.append(COLLECT)
        if any(row.gradient is None for row in self._rows):
            actions.append(FOLLOW)

        def run(strategy: Any, members: Sequence[Row]) -> None:
            def run_known(action: int) -> None:
                # There is one pair of factors for all rows, or one for each.
                for row, pair in zip(members, itertools.cycle(pairs), strict=False):
                    step = partial(self._plain.step, call=call, options=options, factors=pair)
                    _on_each_device(strategy, row._replace(action=action), step)

            _branch(action, {known: partial(run_known, known) for known in actions})

        if tf.distribute.has_strategy() and not is_on_a_mesh(self._rows):
            strategy = tf.distribute.get_strategy()
            # Each replica has its own objects for actions, so all rows get the same constant.
            members = [row._replace(action=UPDATE) for row in self._rows]
            if tf.distribute.in_cross_replica_context():
                # When training ends, no replica runs, and the gradients left make an update.
                run(strategy, members)
            else:
                tf.__internal__.distribute.interim.maybe_merge_call(run, strategy, members)
        else:
            run(None, self._rows)


def clipped(gradient: Any, variable: Any, options: Options) -> Any:
    """Return the gradient of a variable, clipped by itself, in the dtype and shape of its state."""
    dtype = precision.state_dtype(arrays.dtype_of(variable))
    state = tf.TensorSpec(arrays.state_shape(variable), dtype)
    row, call = ready(Row(variable, rows.summed(gradient), state, state)), Call(None)
    group = Group(Plain(takes_operation=False), [row], call, options)
    (factors,) = engine.factors([group], options, arrays)
    values = row._replace(gradient=rows.values_of(row.gradient))
    found = steps.clipped(values, call, options, arrays, factors)
    return rows.with_values(row.gradient, found)


def ready(row: Row) -> Row:
    """Return a row with a gradient as the plain step needs it, in the dtype of the state."""
    if row.gradient is None:
        return row
    own = arrays.dtype_of(row.parameter)

    def in_state(values: Array) -> Array:
        if precision.is_complex(own) != values.dtype.is_complex:
            values = tf.cast(values, own)
        return arrays.to_state(values, row.square_avg)

    row = row._replace(gradient=rows.map_values(in_state, rows.flat(row.gradient)))
    return _with_dense_gradient(row) if is_on_a_mesh([row]) else row


def _with_dense_gradient(row: Row) -> Row:
    return row._replace(gradient=rows.dense(row.gradient, row.square_avg.shape))


def _read(row: Row) -> Row:
    """Return a row with the values of its variables as tensors."""
    given = {name: getattr(row, name) for name in _VARIABLES}
    present = {name: variable for name, variable in given.items() if variable is not None}
    return row._replace(
        **{name: tf.convert_to_tensor(variable) for name, variable in present.items()}
    )


def _grouped(given: Sequence[Row]) -> list[list[Row]]:
    def kind_of(row: Row) -> Any:
        return row.square_avg.dtype.name

    return [[given[place] for place in places] for places in engine.alike(given, kind_of).values()]


def _branch(action: Any, branches: dict[int, Callable[[], None]]) -> None:
    """Run the branch of an action, which may only be known when a program runs."""
    if isinstance(action, int) or tf.executing_eagerly():
        branches.get(int(action), lambda: None)()
        return

    def run(body: Callable[[], None]) -> Any:
        # tf.cond needs the same outputs from both branches; it runs assignments for their effect.
        body()
        return tf.constant(0)

    for known, body in branches.items():
        choose(tf.equal(action, known), partial(run, body), lambda: tf.constant(0))


def _on_each_device(strategy: Any, row: Row, function: Callable[[Row], None]) -> None:
    """Call a function with a row, or with its part on each device of a strategy."""

    def update(parameter: Any, own: Row) -> None:
        function(own._replace(parameter=parameter))

    if strategy is None:
        function(row)
    else:
        strategy.extended.update(row.parameter, update, args=(row,), group=False)


def is_on_a_mesh(members: Sequence[Row]) -> bool:
    """Whether rows are on a DTensor mesh."""
    dvariable = tf.experimental.dtensor.DVariable
    return any(isinstance(row.parameter, dvariable) for row in members)


def _namespace(members: Sequence[Row]) -> Any:
    return ON_SCALARS if is_on_a_mesh(members) else arrays


def _gradient_values(row: Row, call: Call) -> Array:
    if row.window is not None:
        row = _with_dense_gradient(row)
    values = rows.values_of(rows.summed(row.gradient))
    return steps.mean(row._replace(gradient=values), call, arrays)
