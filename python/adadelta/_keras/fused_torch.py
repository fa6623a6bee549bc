"""The step by the kernel on torch tensors in the processor's memory."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from keras import ops

from adadelta._core import clipping
from adadelta._keras import fused, precision
from adadelta._kernels import cpu, layout, torch_memory
from adadelta._kernels.torch_threads import threads

# What a row of the table has beside the gradient.
_LASTING = (layout.PARAMETER, layout.SQUARE_AVG, layout.ACC_DELTA, layout.AVERAGE, layout.WINDOW)


def as_needed(gradient: Any, variable: Any) -> Any:
    """Return a gradient as the kernel takes it, or None when it can't serve the variable."""
    value = _tensor(variable)
    if value is None or torch_memory.reason_against(value, "", value.dtype) is not None:
        return None
    gradient = ops.convert_to_tensor(gradient)
    if not gradient.is_cpu or gradient.is_complex() != value.is_complex():
        return None
    name = precision.dtype_of(variable)
    if fused.reason_against_dtype(name) is not None:
        return None
    if gradient.dtype != value.dtype and name != precision.state_dtype(name):
        # A wider gradient of a half-precision variable keeps its digits only without the kernel.
        return None
    gradient = gradient.to(value.dtype).resolve_conj().resolve_neg().contiguous()
    return None if torch_memory.reason_against(gradient, "", value.dtype) else gradient


def check(optimizer: Any, gradients: dict[int, Any]) -> None:
    """Refuse a step with a tensor that somebody has cut off, which torch would read beyond.

    Args:
        optimizer: The optimizer, built.
        gradients: By the index of their variables.

    """
    for index in gradients:
        variables = _variables(optimizer, index, optimizer.use_ema)
        for variable in variables:
            if tuple(variable.value.shape) != tuple(variable.shape):
                raise ValueError(
                    f"the tensor of the variable {variable.path} must have shape "
                    f"{tuple(variable.shape)}; received {tuple(variable.value.shape)}"
                )
        rows = torch_memory.Rows([[gradients[index]], *([it.value] for it in variables)], 0)
        if rows.too_short():
            raise ValueError(
                f"the storage of {variables[0].path}, its gradient or its state ends before the "
                "tensor does; it must hold all of its elements in a step"
            )


def servable(optimizer: Any, gradients: dict[int, Any]) -> dict[int, Any]:
    """Return the gradients of the variables that the kernel can update."""
    if not gradients or torch_memory.is_watched():
        return {}
    rows = {
        index: [it._value for it in _variables(optimizer, index, optimizer.use_ema)]
        for index in gradients
    }
    rows = {index: row for index, row in rows.items() if _is_plain(*row)}
    if not rows:
        return {}
    given = [gradients[index] for index in rows]
    shared = torch_memory.Rows([given, *zip(*rows.values(), strict=True)], gradient=0).sharing()
    return {index: gradients[index] for place, index in enumerate(rows) if place not in shared}


def _is_plain(value: Any, *state: Any) -> bool:
    name = precision.dtype_of(value)
    dtype = getattr(torch, precision.state_dtype(name))
    return not any(torch_memory.reason_against(it, "", dtype) for it in state)


def _variables(optimizer: Any, index: int, averaged: bool) -> list[Any]:
    """The Keras variables of a row of the kernel's table."""
    return [it for it in fused.arrays(optimizer, index, averaged) if it is not None]


def _tensor(variable: Any) -> Any:
    """Return the tensor in a Keras variable, or None when something stands in its place."""
    # In a stateless scope the variable answers with another tensor.
    value = variable.value
    return value if value is variable._value else None


class Group(NamedTuple):
    """Variables of one dtype, and what the kernel needs to know of them."""

    # Of the parameters as the kernel sees them, of their state, and as Keras calls it.
    dtype: str
    state: str
    name: str
    members: list[int]
    # Without the gradients' addresses.
    table: np.ndarray
    sizes: np.ndarray
    row_settings: np.ndarray


class Plan:
    """What stays the same from call to call for the variables of these indices."""

    def __init__(self, optimizer: Any, gradients: dict[int, Any]) -> None:
        self.variables = [optimizer._trainable_variables[index] for index in gradients]
        self.values = [variable._value for variable in self.variables]
        groups = fused.groups(optimizer, gradients).items()
        self.lasting_variables = [
            variable
            for (_, averaged), members in groups
            for index in members
            for variable in _variables(optimizer, index, averaged)
        ]
        self.noted = torch_memory.Noted(
            [variable._value for variable in self.lasting_variables], list(gradients.values())
        )
        self.groups = [
            _group(optimizer, name, members, averaged) for (name, averaged), members in groups
        ]

    def holds(self, gradients: Sequence[Any]) -> bool:
        """Whether variables and state are as they were, and the gradients like those before.

        Those of a copy of the plan, which a copy of the optimizer has, are not.
        """
        lasting = [variable._value for variable in self.lasting_variables]
        return self.noted.still_holds(lasting, gradients)


class Gradients(dict[int, Any]):
    """Gradients of all variables by index, each just as the kernel takes it."""

    plan: Plan


def _group(optimizer: Any, name: str, members: list[int], averaged: bool) -> Group:
    rows = [fused.arrays(optimizer, index, averaged) for index in members]
    table = np.zeros((len(rows), layout.COLUMNS), np.int64)
    for column in _LASTING:
        if rows[0][column] is not None:
            table[:, column] = [row[column]._value.data_ptr() for row in rows]
    parameters = [row[layout.PARAMETER] for row in rows]
    state = precision.state_dtype(name)
    # A complex number is a pair of real ones.
    dtype, width = (state, 2) if precision.is_complex(name) else (name, 1)
    sizes = np.array([width * it._value.numel() for it in parameters], np.int64)
    row_settings = np.ones((len(rows), layout.ROW_SETTINGS), state)
    row_settings[:, layout.WEIGHT_DECAY] = list(map(optimizer._decay_of, parameters))
    return Group(dtype, state, name, members, table, sizes, row_settings)


def fitting(optimizer: Any, gradients: list[Any], variables: Any) -> Gradients | None:
    """Return the gradients of a call if they are of all variables and as the kernel takes them.

    This looks at all tensors at once, since of a thousand small ones each microsecond counts:
    2,000 take 1.4 ms, and a look at each by itself, which the first call needs, 26.
    """
    known = optimizer._trainable_variables
    plan = optimizer.__dict__.get("_plans", {}).get(tuple(range(len(gradients))))
    if plan is None or len(gradients) != len(known):
        return None
    if variables is not None and not (
        len(variables) == len(known) and all(map(operator.is_, variables, known))
    ):
        return None
    if _tensor(known[0]) is None or not plan.holds(gradients):
        return None
    found = Gradients(enumerate(gradients))
    found.plan = plan
    return found


def _plan(optimizer: Any, gradients: dict[int, Any]) -> Plan:
    if isinstance(gradients, Gradients):
        return gradients.plan
    plans = optimizer.__dict__.setdefault("_plans", {})
    indices = tuple(gradients)
    if indices not in plans or not plans[indices].holds(list(gradients.values())):
        plans[indices] = Plan(optimizer, gradients)
    plan: Plan = plans[indices]
    return plan


def _tables(plan: Plan, gradients: dict[int, Any]) -> Iterator[tuple[Group, np.ndarray]]:
    """Yield the variables of each dtype with the addresses of their tensors."""
    for group in plan.groups:
        table = group.table.copy()
        given = map(gradients.__getitem__, group.members)
        table[:, layout.GRADIENT] = [it.data_ptr() for it in given]
        yield group, table


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else float(ops.convert_to_numpy(value))


def _settings(optimizer: Any, group: Group, action: Any, rate: Any) -> np.ndarray:
    numbers = fused.settings(optimizer, group.name, action, rate)
    return np.array([_number(number) for number in numbers], group.state)


def all_finite(optimizer: Any, gradients: dict[int, Any]) -> bool:
    """Whether all gradients are finite, also when they are unscaled."""
    scale = optimizer.loss_scale_factor
    if isinstance(scale, float) and scale < 1:
        # A finite gradient may leave the range of its dtype, where its norm is still finite.
        wide = (precision.to_state(it, precision.dtype_of(it)) for it in gradients.values())
        return all(bool(torch.isfinite(it / scale).all()) for it in wide)
    for group, table in _tables(_plan(optimizer, gradients), gradients):
        settings = _settings(optimizer, group, layout.UPDATE, 0.0)
        table[:, layout.WINDOW] = 0
        # The norm is finite when all are, and takes one pass at the speed of memory.
        _, norm = cpu.norms(group.dtype, table, group.sizes, settings, True, threads())
        if not np.isfinite(norm).all():
            return False
    return True


def step(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> None:
    """Do to the variables what a call does."""
    action, rate = _number(action), _number(rate)
    plan = _plan(optimizer, gradients)
    calls = []
    for group, table in _tables(plan, gradients):
        settings = _settings(optimizer, group, action, rate)
        calls.append((group.dtype, table, group.sizes, settings, group.row_settings.copy()))
    limit = fused.norm_limit(optimizer)
    if limit is not None and action == layout.UPDATE:
        _clip(calls, limit, optimizer.global_clipnorm is not None)
    for call in calls:
        cpu.step(*call, threads())
    if action == layout.UPDATE:
        # Autograd must know of it, to refuse a backward pass that needs the old values.
        torch.autograd.graph.increment_version(plan.values)


def _clip(calls: Any, limit: float, together: bool) -> None:
    """Write into the settings of each row what its gradient is divided and multiplied by."""
    wide = together and fused.are_wide(row_settings.dtype for *_, row_settings in calls)
    norms = [
        cpu.norms(dtype, table, sizes, settings, together, threads(), wide)
        for dtype, table, sizes, settings, _ in calls
    ]
    with np.errstate(all="ignore"):
        if together:
            norms = [clipping.combined(norms, np)] * len(calls)
        for (*_, row_settings), norm in zip(calls, norms, strict=True):
            divisor, factor = clipping.factors(*norm, limit, np, together)
            if wide and row_settings.dtype == np.float32:
                divisor, factor = clipping.narrowed(divisor, factor, np)
            row_settings[:, layout.CLIP_DIVISOR] = divisor
            row_settings[:, layout.CLIP_FACTOR] = factor
