"""The step by the kernel on TensorFlow's variables."""

import math
import weakref
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from adadelta._core import clipping
from adadelta._keras import fused, precision, sparse
from adadelta._kernels import layout, xla_tensorflow
from adadelta._kernels.xla_tensorflow import Program

# Elements of a variable, on average, from which on the kernel is used. It gains 0.9 ns for each
# element of a step, and costs 15 ms once, to be compiled (two cores).
WORTHWHILE = 2**14
# How many different sets of variables of an optimizer have programs; each takes time and memory.
# The gradients of a model that leaves out layers by chance may come for others at each call.
SETS = 4
# Variables of one program. The time to compile one grows with their square: 0.1 s for 32, 0.4 to
# 0.7 for 64, 21 for 2,000.
TOGETHER = 48

# By optimizer and set of variables. Not in it, where TensorFlow would save them with it.
_programs: weakref.WeakKeyDictionary[Any, dict[Any, dict[Any, Program]]] = (
    weakref.WeakKeyDictionary()
)


def as_needed(gradient: Any, variable: Any) -> Any:
    """Return a gradient as the kernel takes it, or None when it can't serve the variable."""
    dtype, given = precision.dtype_of(variable), precision.dtype_of(gradient)
    if sparse.is_rows(gradient) or precision.is_complex(dtype) or precision.is_complex(given):
        return None
    if dtype != given and dtype != precision.state_dtype(dtype):
        # A wider gradient of a half-precision variable keeps its digits only without the kernel.
        return None
    return tf.ensure_shape(ops.cast(gradient, dtype), variable.shape)


def servable(optimizer: Any, gradients: dict[int, Any]) -> dict[int, Any]:
    """Return the gradients of variables that the kernel is to serve where this is called."""
    if not gradients or not xla_tensorflow.can_serve_here():
        return {}
    gradients = {
        index: gradient for index, gradient in gradients.items() if _is_served(optimizer, index)
    }
    elements = sum(math.prod(it.shape.as_list()) for it in gradients.values())
    if not (optimizer.fused or elements >= WORTHWHILE * len(gradients)):
        return {}
    known = _programs.get(optimizer, {})
    return gradients if tuple(gradients) in known or len(known) < SETS else {}


def _is_served(optimizer: Any, index: int) -> bool:
    row = fused.arrays(optimizer, index, optimizer.use_ema)
    return all(it is None or xla_tensorflow.can_serve(it.value) for it in row) and _has_handlers(
        optimizer, precision.dtype_of(optimizer._trainable_variables[index])
    )


def _has_handlers(optimizer: Any, dtype: str) -> bool:
    uses_norms = optimizer._skips or fused.norm_limit(optimizer) is not None
    kinds = ("step", "norms") if uses_norms else ("step",)
    return all(xla_tensorflow.reason_against_dtype(dtype, kind) is None for kind in kinds)


def all_finite(optimizer: Any, gradients: dict[int, Any]) -> Any:
    """Whether all gradients are finite, also when they are unscaled."""
    scale = optimizer.loss_scale_factor
    if isinstance(scale, float) and scale < 1:
        # A finite gradient may leave the range of its dtype, where its norm is still finite.
        wide = [precision.to_state(it, precision.dtype_of(it)) for it in gradients.values()]
        finite = [tf.reduce_all(tf.math.is_finite(it / scale)) for it in wide]
        return tf.reduce_all(tf.stack(finite))
    found = []
    for program, settings, _, given in _calls(optimizer, gradients, layout.UPDATE, 0.0):
        # The norm is finite when all are.
        _, norm = program.norms(settings, given, together=True, with_window=False)
        found.append(tf.reduce_all(tf.math.is_finite(norm)))
    return tf.reduce_all(tf.stack(found))


def step(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> None:
    """Do to the variables what a call does."""
    calls = _calls(optimizer, gradients, action, rate)
    factors = _factors(optimizer, calls)
    for (program, settings, decay, given), (divisor, factor) in zip(calls, factors, strict=True):
        ones = np.ones(len(given), decay.dtype)
        row_settings: Any = np.stack([decay, ones, ones], axis=1)
        if not isinstance(divisor, float):
            row_settings = tf.stack([decay, ones * divisor, ones * factor], axis=1)
        program.step(settings, row_settings, given)


def _calls(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> list[Any]:
    """Return, for variables of each dtype, the program, settings, weight decays and gradients."""
    known = _programs.setdefault(optimizer, {}).setdefault(tuple(gradients), {})
    calls = []
    for (name, averaged), members in fused.groups(optimizer, gradients).items():
        dtype = precision.state_dtype(name)
        settings = xla_tensorflow.together(fused.settings(optimizer, name, action, rate), dtype)
        for start in range(0, len(members), TOGETHER):
            indices = members[start : start + TOGETHER]
            rows = [
                [
                    None if it is None else it.value
                    for it in fused.arrays(optimizer, index, averaged)
                ]
                for index in indices
            ]
            key = name, averaged, start
            # A variable that was given a new one in its place is another.
            if key not in known or not _are_same(known[key].rows, rows):
                known[key] = Program(rows)
            parameters = [optimizer._trainable_variables[index] for index in indices]
            decay = np.array([optimizer._decay_of(it) for it in parameters], dtype)
            given = [gradients[index] for index in indices]
            calls.append((known[key], settings, decay, given))
    return calls


def _are_same(rows: Any, others: Any) -> bool:
    return all(
        mine is other
        for row, its_other in zip(rows, others, strict=True)
        for mine, other in zip(row, its_other, strict=True)
    )


def _factors(optimizer: Any, calls: Any) -> list[tuple[Any, Any]]:
    """Return by what the gradients of each call are to be divided, and then multiplied."""
    limit = fused.norm_limit(optimizer)
    if limit is None:
        return [(1.0, 1.0)] * len(calls)
    together = optimizer.global_clipnorm is not None
    dtypes = [decay.dtype for _, _, decay, _ in calls]
    wide = together and fused.are_wide(dtypes)
    norms = [
        program.norms(settings, given, together, wide=wide) for program, settings, _, given in calls
    ]
    if together:
        norms = [clipping.combined(norms, ops)] * len(calls)
    found = []
    for (divisor, norm), dtype in zip(norms, dtypes, strict=True):
        divisor, factor = clipping.factors(divisor, norm, limit, ops, together)
        if wide and dtype == np.float32:
            divisor, factor = clipping.narrowed(divisor, factor, ops)
        found.append((ops.cast(divisor, dtype.name), ops.cast(factor, dtype.name)))
    return found
