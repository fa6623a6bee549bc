"""Sparse gradients, `tf.IndexedSlices`: some rows of a variable, possibly more than once.

Repeated rows are summed, so that a sparse gradient gives the same result as the dense one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def is_rows(gradient: Any) -> bool:
    """Whether a gradient is sparse: it holds only some rows of its variable."""
    return isinstance(gradient, tf.IndexedSlices)


def summed(gradient: Any) -> Any:
    """Return a gradient in which repeated rows are summed, so that each occurs once.

    XLA adds rows of zeros in the place of the repeated ones.
    """
    if not is_rows(gradient):
        return gradient
    gradient = flat(gradient)
    indices, positions = tf.unique(gradient.indices)
    rows = tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(indices))
    return tf.IndexedSlices(rows, indices, gradient.dense_shape)


def flat(gradient: Any) -> Any:
    """Return a gradient whose row numbers, if it has any, are a vector."""
    if not is_rows(gradient) or gradient.indices.shape.rank == 1:
        return gradient
    shape = tf.concat([[-1], tf.shape(gradient.values)[1:]], 0)
    values, indices = tf.reshape(gradient.values, shape), tf.reshape(gradient.indices, [-1])
    return tf.IndexedSlices(values, indices, tf.convert_to_tensor(gradient.dense_shape))


def values_of(gradient: Any) -> Any:
    """Return the tensor of a gradient's values, dense or of rows."""
    return gradient.values if is_rows(gradient) else gradient


def with_values(gradient: Any, values: Any) -> Any:
    """Return a gradient of the same rows with other values, or the values when it is dense."""
    if not is_rows(gradient):
        return values
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Apply an elementwise function to a gradient, dense or of rows."""
    return with_values(gradient, function(values_of(gradient)))


def dense(gradient: Any, shape: Sequence[int]) -> Any:
    """Return a gradient as a dense tensor of the shape of its variable."""
    if not is_rows(gradient):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])
