"""The step of TensorFlow's variables, by the kernel where it can be used, else by `_core/step.py`.

It works eagerly, in functions and graphs, under distribution strategies and on DTensor meshes.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from adadelta._core import step as steps
from adadelta._core.engine import UNWANTED, Group, factors, may_grow, no_kernel
from adadelta._core.lazy import updates_all_rows
from adadelta._core.step import SKIP, Call, Options, Row
from adadelta._kernels import report, xla_tensorflow
from adadelta._state import matching
from adadelta._tensorflow import arrays, programs
from adadelta._tensorflow.gradients import checked, name_of
from adadelta._tensorflow.lazy import Lazy
from adadelta._tensorflow.plain import Plain, is_on_a_mesh, ready
from adadelta._tensorflow.rows import is_rows, summed, values_of


class Engine:
    """Makes the steps of an optimizer, whose rows are variables that it changes in place.

    Args:
        fused: None uses the kernel for the rows that it can take and makes faster, True fails if
            it can't take one of them, False uses neither it nor TensorFlow's operation.
        sums_replicas: Whether to sum the gradients of all replicas first, in a replica of a
            distribution strategy. Otherwise they must have been summed already.

    Attributes:
        reasons: For each row of the last step, why the kernel did not take it, or None.
        plain: Makes the step of the rows that the kernel does not take.

    """

    kernel = "tensorflow"
    operators = "operators of TensorFlow"

    def __init__(self, fused: bool | None = None, sums_replicas: bool = True) -> None:
        self.fused, self.sums_replicas = fused, sums_replicas
        self.reasons: list[str | None] = []
        self.plain = Plain(takes_operation=fused is not False)
        # The reason against the kernel in the last step with a parameter, by the parameter's id.
        self._found: dict[int, str | None] = {}
        self._programs = programs.Programs()
        self._lazy = Lazy()
        # The operation, if any, that must run in a graph before anything changes.
        self._needed: list[Any] = []

    def __reduce__(self) -> Any:
        # The other attributes are about these variables, and a copy is for others.
        return type(self), (self.fused, self.sums_replicas)

    # ------------------------------------------------------------------ what the kernel takes

    def reason_against_dtype(self, dtype: str) -> str | None:
        """See `adadelta._core.engine.Engine`, as for the methods below."""
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
        return UNWANTED if self.fused is False else xla_tensorflow.reason_against_here()

    def _find_reasons(self, given: Sequence[Row], options: Options) -> list[str | None]:
        """Return for each row why the kernel does not take it, or None."""
        reason = self._reason_against_call()
        if reason is not None:
            return [reason] * len(given)
        found = [programs.reason_against(row) for row in given]
        chosen = [row for row, reason in zip(given, found, strict=True) if reason is None]
        if chosen and not self.fused:
            # If XLA compiles the step anyway, it compiles the kernel faster than operators: for
            # 200 variables in a tenth to a quarter of the time.
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
        """See there; gradients are unscaled, in the dtype of the state, and of all replicas."""
        values = []
        for row in map(_with_tensor, given):
            if row.gradient is not None:
                # In its own dtype, in which the sum of repeated rows may overflow.
                row = ready(row._replace(gradient=summed(row.gradient)))
                row = row._replace(gradient=values_of(row.gradient))
                unscaled = steps.unscaled(row, call, arrays) if may_grow(call) else row.gradient
                values.append(unscaled)
        finite = tf.reduce_all(
            tf.stack([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in values])
        )
        if self.sums_replicas and _is_in_a_replica():
            others = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.int32)
            )
            finite = tf.equal(others, 0)
        return finite

    @tf.autograph.experimental.do_not_convert
    def step(self, rows: Sequence[Row], call: Call, options: Options) -> Sequence[Row]:
        """See there. An action may only be known when a program runs."""
        given: list[Row] = []
        checks: list[Any] = []
        for row in map(_with_tensor, rows):
            gradient, its_checks = checked(row.gradient, row.parameter)
            given.append(row._replace(gradient=gradient))
            checks += its_checks
        with tf.control_dependencies(checks):
            given = self._summed(given)
        # Whatever may fail when a graph runs must do so before anything changes.
        needed = checks + _computed_here([*call, *(row.gradient for row in given)])
        needed = [tf.group(needed)] if needed else []
        with tf.control_dependencies(needed):
            self._step(given, call, options)
        self._needed = needed
        return rows

    def after_step(self) -> contextlib.AbstractContextManager[object]:
        """See there."""
        needed, self._needed = self._needed, []
        context: contextlib.AbstractContextManager[object] = tf.control_dependencies(needed)
        return context

    def _step(self, given: Sequence[Row], call: Call, options: Options) -> None:
        self.reasons = self._find_reasons(given, options)
        if self.fused:
            for problem in filter(None, self.reasons):
                raise no_kernel(problem)
        self._find_tables(given, options)
        self._found |= zip((id(row.parameter) for row in given), self.reasons, strict=True)
        self.plain.operations = []
        served: list[Row] = []
        plain: list[Row] = []
        for row, reason in zip(given, self.reasons, strict=True):
            if isinstance(row.action, int) and row.action == SKIP:
                continue
            # A row's action without a gradient may be FOLLOW, which the kernel does not support.
            is_served = reason is None and row.gradient is not None
            (served if is_served else plain).append(row if is_served else ready(row))
        groups: list[Group] = [
            *self._programs.parts(served, call, options),
            *self.plain.groups(plain, call, options),
        ]
        namespace = arrays.ON_SCALARS if is_on_a_mesh(plain) else arrays
        for group, its_factors in zip(groups, factors(groups, options, namespace), strict=True):
            group.step(its_factors)
        self.plain.constrain([row for row in served if row.constraint is not None], call, options)

    def _find_tables(self, given: Sequence[Row], options: Options) -> None:
        """Find out which sparse gradients touch only their rows, and note why others do not."""
        self.plain.tables = {}
        if self.fused is False:
            return
        for place, row in enumerate(given):
            table, reason = self._lazy.find(row, options)
            if table is not None:
                self.plain.tables[id(row.square_avg)] = table
            elif is_rows(row.gradient):
                self.reasons[place] = updates_all_rows(reason)

    def catch_up(self) -> None:
        """See there."""
        self._lazy.catch_up()

    def _summed(self, given: Sequence[Row]) -> list[Row]:
        """Return rows with gradients that are summed over all replicas."""
        if not self.sums_replicas or not _is_in_a_replica():
            return list(given)
        own = [row.gradient for row in given if row.gradient is not None]
        context = tf.distribute.get_replica_context()
        sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, own) if own else ())
        return [row if row.gradient is None else row._replace(gradient=next(sums)) for row in given]


def _computed_here(values: Iterable[Any]) -> list[Any]:
    """Return those of the values that are tensors computed by the graph under construction."""
    parts = (
        part
        for value in values
        for part in ((value.values, value.indices) if is_rows(value) else (value,))
    )
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return [part for part in parts if graph and getattr(part, "graph", None) is graph]


def kernel_report(engine: Engine, given: Sequence[Row]) -> list[report.Served]:
    """Return what `kernel_info()` reports about rows."""
    names = matching.distinct(name_of(row.parameter) for row in given)
    return report.served(engine, dict(zip(names, given, strict=True)), {})


def _is_in_a_replica() -> bool:
    return bool(tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context())


def _with_tensor(row: Row) -> Row:
    gradient = row.gradient
    if gradient is None or is_rows(gradient) or tf.is_tensor(gradient):
        return row
    return row._replace(gradient=tf.convert_to_tensor(gradient))
