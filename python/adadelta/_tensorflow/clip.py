"""Clipping of TensorFlow's gradients, dense or of rows that each occur once."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from adadelta._core import clipping
from adadelta._tensorflow import rows


def choose(predicate: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Return what one of two functions returns; only the chosen one runs."""
    if tf.executing_eagerly():
        return (if_true if bool(predicate) else if_false)()
    return tf.cond(predicate, if_true, if_false)


def _where(predicate: Any, if_true: Any, if_false: Any) -> Any:
    # The predicates of clipping are scalars. tf.where ends the process when it has to spread one
    # over a DTensor (TensorFlow 2.21).
    return choose(predicate, lambda: if_true, lambda: if_false)


# NumPy's names, as adadelta._core.clipping uses them.
_ARRAY = SimpleNamespace(
    absolute=tf.abs,
    divide=tf.divide,
    isfinite=tf.math.is_finite,
    logical_and=tf.logical_and,
    max=tf.reduce_max,
    multiply=tf.multiply,
    ones_like=tf.ones_like,
    sqrt=tf.sqrt,
    square=tf.square,
    stack=tf.stack,
    sum=tf.reduce_sum,
    where=_where,
)


def clipped(
    gradients: Sequence[Any],
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> list[Any]:
    """Return the gradients, clipped in the way for which there is a limit."""
    gradients = list(gradients)
    limits = (clipnorm, clipvalue, global_clipnorm)
    if all(limit is None or limit == math.inf for limit in limits):
        return gradients
    values = [tf.convert_to_tensor(rows.values_of(gradient)) for gradient in gradients]
    if global_clipnorm is not None:
        if any(value.dtype == tf.float64 for value in values):
            values = [tf.cast(value, tf.float64) for value in values]
        values = clipping.by_global_norm(values, global_clipnorm, _ARRAY, choose)
    elif clipnorm is not None:
        values = [clipping.by_norm(value, clipnorm, _ARRAY, choose) for value in values]
    elif clipvalue is not None:
        values = [clipping.by_value(value, clipvalue, tf.clip_by_value) for value in values]
    return [
        rows.with_values(it, tf.cast(value, rows.values_of(it).dtype))
        for it, value in zip(gradients, values, strict=True)
    ]
