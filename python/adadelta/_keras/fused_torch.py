"""The step by the kernel on torch tensors in the processor's memory."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from adadelta._core import clipping
from adadelta._keras import fused, precision
from adadelta._kernels import cpu, layout

_address = torch.Tensor.data_ptr
_shape = operator.attrgetter("shape")
_dtype = operator.attrgetter("dtype")
_is_on_cpu = operator.attrgetter("is_cpu")
_layout = operator.attrgetter("layout")
_STATE = (layout.SQUARE_AVG, layout.ACC_DELTA, layout.AVERAGE, layout.WINDOW)


def as_needed(gradient: Any, variable: Any) -> Any:
    """Return a gradient as the kernel takes it, or None when it can't serve the variable."""
    value = _tensor(variable)
    gradient = ops.convert_to_tensor(gradient)
    if not (_can_serve(value) and gradient.is_cpu) or gradient.is_complex() != value.is_complex():
        return None
    name = precision.dtype_of(variable)
    if gradient.dtype != value.dtype and name != precision.state_dtype(name):
        # A wider gradient of a half-precision variable keeps its digits only without the kernel.
        return None
    return gradient.to(value.dtype).resolve_conj().resolve_neg().contiguous()


def _can_serve(value: Any) -> bool:
    return bool(
        value is not None
        and value.is_cpu
        and value.layout == torch.strided
        and value.is_contiguous()
        and not (value.is_conj() or value.is_neg())
    )


def _tensor(variable: Any) -> Any:
    """Return the tensor in a Keras variable, or None when something stands in its place."""
    # In a stateless scope the variable answers with another tensor.
    value = variable.value
    return value if value is variable._value else None


class Plan:
    """What stays the same from call to call for the variables of these indices.

    Also where the state lies, which nobody but the optimizer has: it is written in place only.
    """

    def __init__(self, optimizer: Any, indices: Sequence[int]) -> None:
        # A copy of the optimizer has its state elsewhere.
        self.owner = id(optimizer)
        self.calls = []
        for (name, averaged), members in fused.groups(optimizer, indices).items():
            rows = [fused.arrays(optimizer, index, averaged) for index in members]
            table = np.zeros((len(rows), layout.COLUMNS), np.int64)
            for column in _STATE:
                if rows[0][column] is not None:
                    table[:, column] = [_address(row[column]._value) for row in rows]
            parameters = [row[layout.PARAMETER]._value for row in rows]
            state = precision.state_dtype(name)
            # A complex number is a pair of real ones.
            width = 2 if precision.is_complex(name) else 1
            sizes = np.array([width * it.numel() for it in parameters], np.int64)
            decay = [optimizer._decay_of(row[layout.PARAMETER]) for row in rows]
            dtype = state if precision.is_complex(name) else name
            self.calls.append((dtype, state, name, members, parameters, table, sizes, decay))


def fits(optimizer: Any, gradients: list[Any], variables: Any) -> bool:
    """Whether a call is for all variables, each with a gradient just as the kernel takes it.

    This looks at all tensors at once, since of a thousand small ones each microsecond counts.
    """
    known = optimizer._trainable_variables
    if not optimizer._uses_kernel or len(gradients) != len(known):
        return False
    if variables is not None and not (
        len(variables) == len(known) and all(map(operator.is_, variables, known))
    ):
        return False
    if not set(map(type, gradients)) <= {torch.Tensor, torch.nn.Parameter}:
        return False
    values = [variable._value for variable in known]
    dtypes = list(map(_dtype, values))
    return (
        not optimizer._has_overwriting
        and _tensor(known[0]) is not None
        and not any(dtype.is_complex for dtype in set(dtypes))
        and list(map(_dtype, gradients)) == dtypes
        and list(map(_shape, gradients)) == list(map(_shape, values))
        and all(map(_is_on_cpu, gradients))
        and all(map(_is_on_cpu, values))
        and set(map(_layout, gradients)) == {torch.strided}
        and all(map(torch.Tensor.is_contiguous, gradients))
        and all(map(torch.Tensor.is_contiguous, values))
    )


def _plan(optimizer: Any, indices: tuple[int, ...]) -> Plan:
    plans = optimizer.__dict__.setdefault("_plans", {})
    if indices not in plans or plans[indices].owner != id(optimizer):
        plans[indices] = Plan(optimizer, indices)
    return plans[indices]


def _tables(optimizer: Any, gradients: dict[int, Any]) -> Any:
    """Yield what the kernel needs for the variables of each dtype."""
    calls = _plan(optimizer, tuple(gradients)).calls
    for dtype, state, name, members, parameters, state_table, sizes, decay in calls:
        table = state_table.copy()
        count = len(members)
        given = map(gradients.__getitem__, members)
        table[:, layout.PARAMETER] = np.fromiter(map(_address, parameters), np.int64, count)
        table[:, layout.GRADIENT] = np.fromiter(map(_address, given), np.int64, count)
        yield dtype, state, name, table, sizes, decay


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else float(ops.convert_to_numpy(value))


def _settings(optimizer: Any, name: str, state: str, action: Any, rate: Any) -> np.ndarray:
    numbers = fused.settings(optimizer, name, action, rate)
    return np.array([_number(number) for number in numbers], state)


def all_finite(optimizer: Any, gradients: dict[int, Any]) -> bool:
    """Whether all gradients are finite, also when they are unscaled."""
    scale = optimizer.loss_scale_factor
    if isinstance(scale, float) and scale < 1:
        # A finite gradient may leave the range of its dtype, where its norm is still finite.
        wide = (precision.to_state(it, precision.dtype_of(it)) for it in gradients.values())
        return all(bool(torch.isfinite(it / scale).all()) for it in wide)
    for dtype, state, name, table, sizes, _ in _tables(optimizer, gradients):
        settings = _settings(optimizer, name, state, layout.UPDATE, 0.0)
        table[:, layout.WINDOW] = 0
        # The norm is finite when all are, and takes one pass at the speed of memory.
        _, norm = cpu.norms(dtype, table, sizes, settings, True, torch.get_num_threads())
        if not np.isfinite(norm).all():
            return False
    return True


def step(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> None:
    """Do to the variables what a call does."""
    threads = torch.get_num_threads()
    action, rate = _number(action), _number(rate)
    calls = []
    for dtype, state, name, table, sizes, decay in _tables(optimizer, gradients):
        settings = _settings(optimizer, name, state, action, rate)
        row_settings = np.ones((len(table), layout.ROW_SETTINGS), state)
        row_settings[:, layout.WEIGHT_DECAY] = decay
        calls.append((dtype, table, sizes, settings, row_settings))
    limit = fused.norm_limit(optimizer)
    if limit is not None and action == layout.UPDATE:
        _clip(calls, limit, optimizer.global_clipnorm is not None, threads)
    for call in calls:
        cpu.step(*call, threads)
    if action == layout.UPDATE:
        # Autograd must know of it, to refuse a backward pass that needs the old values.
        for _, _, _, _, parameters, *_ in _plan(optimizer, tuple(gradients)).calls:
            torch.autograd.graph.increment_version(parameters)


def _clip(calls: Any, limit: float, together: bool, threads: int) -> None:
    """Write into the settings of each row what its gradient is divided and multiplied by."""
    norms = [
        cpu.norms(dtype, table, sizes, settings, together, threads)
        for dtype, table, sizes, settings, _ in calls
    ]
    if together:
        norms = [clipping.combined(norms, np)] * len(calls)
    with np.errstate(all="ignore"):
        for (*_, row_settings), norm in zip(calls, norms, strict=True):
            divisor, factor = clipping.factors(*norm, limit, np, together)
            row_settings[:, layout.CLIP_DIVISOR] = divisor
            row_settings[:, layout.CLIP_FACTOR] = factor
