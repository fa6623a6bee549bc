"""The step of TensorFlow's variables: by the kernel what it can take, by `_core/step.py` the rest.

It works eagerly, in functions and graphs, under distribution strategies and on DTensor meshes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from adadelta._core import clipping, precision
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import COLLECT, FOLLOW, SKIP, UPDATE, Call, Options, Row
from adadelta._kernels import report, xla_tensorflow
from adadelta._state import matching
from adadelta._tensorflow import arrays, operation, programs, rows
from adadelta._tensorflow.arrays import choose
from adadelta._tensorflow.gradients import name_of

Array = Any


class Engine:
    """Makes the steps of an optimizer, whose rows are variables that it changes in place.

    Args:
        fused: None takes the kernel for the rows that it can serve and gains from, True fails
            where there is one that it can't, False takes neither it nor TensorFlow's operation.
        sums_replicas: Whether, in a replica of a distribution strategy, the gradients of all
            replicas are summed first. Otherwise they have been.

    Attributes:
        reasons: For each row of the last step, why the kernel did not take it, or None.
        operations: What a graph of TensorFlow 1 must run for the last step.
        compiles_rows: Whether XLA compiles the update of each row that the kernel does not take.

    """

    kernel = "tensorflow"
    operators = "operators of TensorFlow"

    def __init__(self, fused: bool | None = None, sums_replicas: bool = True) -> None:
        self.fused, self.sums_replicas = fused, sums_replicas
        self.compiles_rows = False
        self._start()

    def _start(self) -> None:
        self.reasons: list[str | None] = []
        # By the identity of a parameter, what the last step with it found.
        self._found: dict[int, str | None] = {}
        self.operations: list[Any] = []
        self._programs = programs.Programs()
        self._compiled = tf.function(self._advance, jit_compile=True, autograph=False)

    def __getstate__(self) -> dict[str, Any]:
        # The rest is of these variables, and a copy is for others.
        return {it: getattr(self, it) for it in ("fused", "sums_replicas", "compiles_rows")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    # ------------------------------------------------------------------ what the kernel takes

    def reason_against_dtype(self, dtype: str) -> str | None:
        """See `adadelta._core.engine.Engine`, as for all of these."""
        return programs.reason_against_dtype(dtype)

    def reason_against(self, row: Row) -> str | None:
        """See there."""
        return (
            self._reason_against_call()
            or programs.reason_against(row)
            or programs.reason_against_dtype(arrays.dtype_of(row.parameter))
            or self._found.get(id(row.parameter))
        )

    def _reason_against_call(self) -> str | None:
        return "`fused` is False" if self.fused is False else xla_tensorflow.reason_against_here()

    def _find_reasons(self, given: Sequence[Row], options: Options) -> list[str | None]:
        """Return for each row why the kernel does not take it, or None."""
        reason = self._reason_against_call()
        if reason is not None:
            return [reason] * len(given)
        found = [programs.reason_against(row) for row in given]
        chosen = [row for row, reason in zip(given, found, strict=True) if reason is None]
        if chosen and not self.fused:
            # Where XLA compiles the step anyway, it takes the kernel in less time than operators:
            # for 200 variables in a quarter to a tenth.
            if not xla_tensorflow.is_compiled_here():
                reason = programs.reason_against_size(chosen)
            if reason is None and not self._programs.have_room(chosen):
                reason = f"there are programs for {programs.SETS} other sets of variables"
        with_norms = options.norm_limit is not None
        return [
            known
            or reason
            or programs.reason_against_dtype(arrays.dtype_of(row.parameter), with_norms)
            for row, known in zip(given, found, strict=True)
        ]

    # ------------------------------------------------------------------ a call

    @tf.autograph.experimental.do_not_convert
    def all_finite(self, given: Sequence[Row], call: Call) -> Any:
        """See there; unscaled, in the dtype of the state, and on all replicas."""
        scale = call.loss_scale
        # A finite gradient may leave the range of a dtype.
        may_grow = isinstance(scale, int | float) and scale < 1
        values = []
        for row in map(_with_tensor, given):
            if row.gradient is not None:
                gradient, dtype = row.gradient, arrays.dtype_of(row.gradient)
                is_narrow = not precision.is_complex(dtype) and (
                    precision.state_dtype(dtype) == row.square_avg.dtype.name
                )
                if may_grow or not is_narrow or rows.is_rows(gradient):
                    ready = rows.values_of(_ready(row).gradient)
                    gradient = steps.unscaled(row._replace(gradient=ready), call, arrays)
                values.append(gradient)
        finite = tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(it)) for it in values]))
        if self.sums_replicas and _is_in_a_replica():
            others = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.int32)
            )
            finite = tf.equal(others, 0)
        return finite

    @tf.autograph.experimental.do_not_convert
    def step(self, rows: Sequence[Row], call: Call, options: Options) -> Sequence[Row]:
        """See there. An action may only be known when a program runs."""
        given = [_with_tensor(row) for row in rows]
        self.reasons = self._find_reasons(given, options)
        self._found |= zip((id(row.parameter) for row in given), self.reasons, strict=True)
        if self.fused:
            for problem in filter(None, self.reasons):
                raise RuntimeError(
                    "`fused=True` needs a kernel, and there is none for a variable: "
                    f"{problem}; `fused=None` takes what there is"
                )
        self.operations = []
        served: list[Row] = []
        plain: list[Row] = []
        for row, reason in zip(self._summed(given), self.reasons, strict=True):
            if isinstance(row.action, int) and row.action == SKIP:
                continue
            # A row without gradient may only follow, which the kernel does not know.
            is_served = reason is None and row.gradient is not None
            (served if is_served else plain).append(row if is_served else _ready(row))
        parts = self._programs.parts(served, call, options) if served else []
        groups = _grouped(plain)
        factors = self._factors(parts, groups, call, options)
        for part, its_factors in zip(parts, factors, strict=False):
            part.step(its_factors)
        self._constrain([row for row in served if row.constraint is not None], call, options)
        for group, its_factors in zip(groups, factors[len(parts) :], strict=True):
            self._step_plainly(group, call, options, its_factors)
        return rows

    def _summed(self, given: Sequence[Row]) -> list[Row]:
        """Return rows with the sums of the gradients of all replicas."""
        if not self.sums_replicas or not _is_in_a_replica():
            return list(given)
        own = [row.gradient for row in given if row.gradient is not None]
        context = tf.distribute.get_replica_context()
        sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, own) if own else ())
        return [row if row.gradient is None else row._replace(gradient=next(sums)) for row in given]

    def _factors(
        self,
        parts: Sequence[programs.Part],
        groups: Sequence[list[Row]],
        call: Call,
        options: Options,
    ) -> list[Factors | None]:
        """Return by what gradients are divided and then multiplied, for each part and group.

        A group has none where the norm of each gradient is clipped: the rows find theirs.
        """
        limit, together = options.norm_limit, options.global_clipnorm is not None
        if limit is None:
            return [None] * (len(parts) + len(groups))
        dtypes = [part.dtype for part in parts]
        dtypes += [group[0].square_avg.dtype.name for group in groups] if together else []
        wide = together and clipping.is_wide(dtypes)
        norms = [part.norms(together, wide) for part in parts]
        if together:
            of_groups = (_norm_of(group, call, wide) for group in groups)
            # Those of the kernel have the shape (1,).
            norms += [(it[0][None], it[1][None]) for it in of_groups] if parts else of_groups
        namespace = arrays.ON_A_MESH if any(map(_is_on_a_mesh, groups)) else arrays
        found: list[Factors | None] = []
        if norms:
            found += clipping.factors_of_groups(norms, dtypes, limit, namespace, together)
        return found if together else [*found, *[None] * len(groups)]

    def _constrain(self, served: Sequence[Row], call: Call, options: Options) -> None:
        """Do what is left of an update after the kernel: constraints, and averages of these."""

        def constrain(members: Sequence[Row]) -> None:
            for row in members:
                new = steps.constrain(_read(row))
                row.parameter.assign(new.parameter)
            self._follow(members, call, options, _directly)

        for group in _grouped(served):
            _branch(group[0].action, {UPDATE: partial(constrain, group)})

    # ------------------------------------------------------------------ without the kernel

    def _step_plainly(
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

        if tf.distribute.has_strategy() and not _is_on_a_mesh(group):
            strategy = tf.distribute.get_strategy()
            # The other replicas have objects of their own for these.
            members = [row._replace(action=UPDATE) for row in group]
            tf.__internal__.distribute.interim.maybe_merge_call(run, strategy, members)
        else:
            run(None, group)

    def _update(self, row: Row, call: Call, options: Options, factors: Factors | None) -> None:
        if self.compiles_rows and not _is_on_a_mesh([row]):
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
        may_take_operation = self.fused is not False and not _is_on_a_mesh([row])
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


def kernel_report(engine: Engine, given: Sequence[Row]) -> list[report.Served]:
    """Return what `kernel_info()` says of rows."""
    names = matching.distinct(name_of(row.parameter) for row in given)
    devices = (row.parameter.device for row in given)
    by_name = dict(zip(names, given, strict=True))
    return report.served(engine, by_name, dict(zip(names, devices, strict=True)), {})


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


def _with_tensor(row: Row) -> Row:
    gradient = row.gradient
    if gradient is None or rows.is_rows(gradient) or tf.is_tensor(gradient):
        return row
    return row._replace(gradient=tf.convert_to_tensor(gradient))


def _in_state(gradient: Any, variable: Any, dtype: Any) -> Any:
    """Return a gradient in the dtype and shape of the state, with rows that each occur once."""
    own = arrays.dtype_of(variable)

    def in_state(values: Array) -> Array:
        if precision.is_complex(own) != values.dtype.is_complex:
            values = tf.cast(values, own)
        return arrays.in_state(values, dtype)

    return rows.map_values(in_state, rows.summed(gradient))


def _ready(row: Row) -> Row:
    """Return a row with a gradient as the plain step takes it."""
    if row.gradient is None:
        return row
    gradient = _in_state(row.gradient, row.parameter, row.square_avg.dtype)
    row = row._replace(gradient=gradient)
    return _with_dense_gradient(row) if _is_on_a_mesh([row]) else row


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


def _grouped(members: Sequence[Row]) -> list[list[Row]]:
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


def _is_in_a_replica() -> bool:
    return bool(tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context())


def _is_on_a_mesh(members: Sequence[Row]) -> bool:
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


def _norm_of(group: Sequence[Row], call: Call, wide: bool) -> Factors:
    """Return the norm of all gradients of rows that have the same action, if they are updated."""
    dtype = "float64" if wide else group[0].square_avg.dtype.name

    def norm() -> Factors:
        gradients = [tf.cast(_gradient_values(row, call), dtype) for row in group]
        return _norm(gradients, dtype, _is_on_a_mesh(group))

    action = group[0].action
    if isinstance(action, int):
        return norm()
    return choose(tf.equal(action, UPDATE), norm, lambda: (tf.ones((), dtype), tf.zeros((), dtype)))


def _factors_of(row: Row, call: Call, limit: float) -> Factors | None:
    """Return by what the gradient of a row is divided and then multiplied, to clip it alone."""
    on_a_mesh = _is_on_a_mesh([row])
    norm = _norm([_gradient_values(row, call)], row.square_avg.dtype.name, on_a_mesh)
    return clipping.factors(*norm, limit, arrays.ON_A_MESH if on_a_mesh else arrays)
