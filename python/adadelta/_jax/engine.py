"""The step of JAX arrays, by the kernel where it can be used, else by `_core/step.py`."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.sparse import JAXSparse

from adadelta._core import clipping, precision, step
from adadelta._core.clipping import Factors
from adadelta._core.engine import UNWANTED, alike, factors, may_grow, no_kernel
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import choose, jax_arrays, jax_devices, layout

Array = Any


def reason_against_machine() -> str | None:
    """Return why the kernel can't be used on this machine, or None when it can."""
    if jax.default_backend() != "cpu":
        return f"on a {jax.default_backend()} JAX itself fuses the step"
    return choose.reason_against("xla")


def next_count(count: Array) -> Array:
    """Return a counter of steps after one more; it stays at the largest number of its dtype."""
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count)


class Engine:
    """Makes the steps of an optimizer.

    Args:
        fused: None uses the kernel for the rows that it can take, True fails if it can't take one
            of them, False does not use it.

    Attributes:
        reasons: For each row of the last step, why the kernel did not take it, or None.

    """

    kernel = "xla"
    operators = "operators of JAX"

    def __init__(self, fused: bool | None = None) -> None:
        self.fused = fused
        self.reasons: list[str | None] = []

    def reason_against_dtype(self, dtype: str) -> str | None:
        """See `adadelta._core.engine.Engine`, as for the methods below."""
        return reason_against_machine() or _reason_against_dtype(dtype)

    def reason_against(self, row: Row) -> str | None:
        """See there."""
        if self.fused is False:
            return UNWANTED
        parameter = row.parameter
        if not isinstance(parameter, jax.core.Tracer):
            devices = len(parameter.sharding.device_set)
            if devices > 1:
                return f"it lies on {devices} devices, where XLA itself makes the step"
        return _reason_against_arrays(row)

    def all_finite(self, rows: Sequence[Row], call: Call) -> Any:
        """See there."""
        gradients = [
            step.unscaled(row, call, jax_arrays) if may_grow(call) else row.gradient
            for row in map(_with_dense_gradient, rows)
            if row.gradient is not None
        ]

        def found(*gradients: Array) -> Array:
            return jnp.stack([jnp.all(jnp.isfinite(gradient)) for gradient in gradients])

        def whole(*gradients: Array) -> Array:
            return jnp.all(found(*gradients))

        function = jax_devices.together(
            whole, found, lambda found, _: jnp.all(found), range(len(gradients))
        )
        return function(*gradients)

    def step(self, rows: Sequence[Row], call: Call, options: Options) -> list[Row]:
        """See there. An action may only be known when a compiled program runs."""
        rows = [_with_dense_gradient(row) for row in rows]
        self.reasons = [self.reason_against(row) for row in rows]
        if self.fused:
            for reason in filter(None, self.reasons):
                raise no_kernel(reason)
        made = list(rows)
        groups = self._groups(rows, call, options)
        for group, its_factors in zip(groups, factors(groups, options, jnp), strict=True):
            for place, row in zip(group.places, group.step(its_factors), strict=True):
                made[place] = row
        return made

    def after_step(self) -> contextlib.AbstractContextManager[None]:
        """See there: errors are raised before a step."""
        return contextlib.nullcontext()

    def catch_up(self) -> None:
        """Do nothing: a step changes all rows."""

    def _groups(self, rows: Sequence[Row], call: Call, options: Options) -> list["_Group"]:
        def kind_of(row: Row) -> tuple[bool, Any]:
            # Without a gradient a row's action may be FOLLOW, which the kernel does not support.
            may_be_served = self.fused is not False and row.gradient is not None
            if not may_be_served or _reason_against_arrays(row) is not None:
                return False, row.square_avg.dtype.name
            arrays = (array is not None for array in _for_kernel(row)[: layout.COLUMNS])
            return True, (row.parameter.dtype.name, *arrays)

        return [
            _Group(rows, places, call, options, is_for_kernel, bool(self.fused))
            for (action, (is_for_kernel, _)), places in alike(rows, kind_of).items()
            if action != step.SKIP
        ]


class _Group:
    """Rows with the same action and, for the kernel, the same dtype and columns of arrays."""

    def __init__(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        call: Call,
        options: Options,
        is_for_kernel: bool,
        is_required: bool,
    ) -> None:
        self.places, self._told = places, (call, options)
        self.is_for_kernel, self._is_required = is_for_kernel, is_required
        self.rows = [rows[place] for place in places]
        self.dtype: str = self.rows[0].square_avg.dtype.name

    def norms(self, together: bool, wide: bool) -> Factors:
        """Return the norms of the gradients, as `clipping.factors_of_groups` needs them."""
        call, options = self._told
        if self.is_for_kernel:
            from adadelta._kernels import xla

            return xla.norms([_for_kernel(row) for row in self.rows], call, options, together, wide)
        dtype = "float64" if wide else self.dtype

        def whole(*gradients: Array) -> Array:
            parts = [gradients] if together else [[gradient] for gradient in gradients]
            return jnp.stack([jnp.stack(_norm(part, dtype)) for part in parts])

        def found(*gradients: Array) -> Array:
            return jax_devices.norm_of_each(gradients, together)

        def careful() -> Factors:
            gradients = [step.mean(row, call, jax_arrays).astype(dtype) for row in self.rows]
            rows = range(len(gradients))
            factors = jax_devices.norms(whole, found, rows, together)(*gradients)
            return factors[:, 0], factors[:, 1]

        action = self.rows[0].action
        if not isinstance(action, jax.core.Tracer):
            return careful()
        shape = 1 if together else len(self.rows)
        nothing = jnp.ones(shape, dtype), jnp.zeros(shape, dtype)
        divisor, norm = jax.lax.cond(action == step.UPDATE, careful, lambda: nothing)
        return divisor, norm

    def step(self, factors: Factors | None) -> list[Row]:
        """Return the rows after the call."""
        call, options = self._told
        if not self.is_for_kernel:
            pairs: list[Factors | None] = [None] * len(self.rows)
            if factors is not None:
                columns = (jnp.broadcast_to(factor, len(self.rows)) for factor in factors)
                pairs = list(zip(*columns, strict=True))
            return jax_arrays.step(self.rows, call, options, pairs)
        from adadelta._kernels import xla

        given = [_for_kernel(row) for row in self.rows]
        made = xla.step(given, call, options, factors, self._is_required)
        return [
            _after_constraint(row, old, call, options)
            for row, old in zip(made, self.rows, strict=True)
        ]


def _reason_against_arrays(row: Row) -> str | None:
    machine = reason_against_machine()
    if machine is not None:
        return machine
    dtype = row.parameter.dtype.name
    # For a half-precision parameter the kernel would round a float32 gradient to half precision.
    given = None if row.gradient is None else jnp.result_type(row.gradient).name
    if given is not None and precision.is_complex(given):
        return f"its gradient is {given}"
    if given not in (None, dtype) and dtype != precision.state_dtype(dtype):
        return f"it is {dtype}, its gradient {given}"
    return _reason_against_dtype(dtype)


def _reason_against_dtype(dtype: str) -> str | None:
    return choose.reason_against_dtype("xla", dtype) if dtype in layout.DTYPES else f"it is {dtype}"


def _for_kernel(row: Row) -> Row:
    """Return a row as the kernel needs it; a constraint and its average are left for later."""
    gradient = jnp.asarray(row.gradient).astype(row.parameter.dtype)
    average = row.average if row.constraint is None else None
    return row._replace(gradient=gradient, average=average, constraint=None)


def _after_constraint(made: Row, row: Row, call: Call, options: Options) -> Row:
    """Return a row after the kernel, with its constraint applied and its average updated."""
    if row.constraint is None:
        return made._replace(gradient=row.gradient)

    def constrained(parameter: Array, average: Array | None) -> tuple[Array, Array | None]:
        updated = row._replace(parameter=parameter, average=average)
        new = step.follow(step.constrain(updated), call, options, jax_arrays)
        return new.parameter, new.average

    arrays = made.parameter, row.average
    if isinstance(row.action, jax.core.Tracer):
        is_update = row.action == step.UPDATE
        arrays = jax.lax.cond(is_update, constrained, lambda *unchanged: unchanged, *arrays)
    elif row.action == step.UPDATE:
        arrays = constrained(*arrays)
    parameter, average = arrays
    return made._replace(
        parameter=parameter, average=average, gradient=row.gradient, constraint=row.constraint
    )


def _with_dense_gradient(row: Row) -> Row:
    gradient = row.gradient
    return row._replace(gradient=gradient.todense()) if isinstance(gradient, JAXSparse) else row


def _norm(gradients: Sequence[Array], dtype: str) -> Factors:
    filled = [gradient for gradient in gradients if gradient.size]
    if not filled:
        return jnp.ones((), dtype), jnp.zeros((), dtype)
    return clipping.scaled_norm(filled, jnp, _choose)


def _choose(predicate: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    if isinstance(predicate, jax.core.Tracer):
        return jax.lax.cond(predicate, if_true, if_false)
    return (if_true if bool(predicate) else if_false)()
