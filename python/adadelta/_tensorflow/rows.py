"""Sparse gradients, `tf.IndexedSlices`: some rows of a variable, possibly more than once.

Repeated rows are summed first, so that a sparse gradient gives the same result as the dense one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def is_rows(gradient: Any) -> bool:
    """Whether a gradient is sparse: it holds only some rows of its variable."""
    return isinstance(gradient, tf.IndexedSlices)


def summed(gradient: Any) -> Any:
    """Return a gradient in which repeated rows are summed, so that each occurs once."""
    if not is_rows(gradient):
        return gradient
    shape = tf.convert_to_tensor(gradient.dense_shape)
    indices, positions = tf.unique(tf.reshape(gradient.indices, [-1]))
    row = tf.shape(gradient.values)[1:]
    values = tf.reshape(gradient.values, tf.concat([[-1], row], 0))
    rows = tf.math.unsorted_segment_sum(values, positions, tf.size(indices))
    return tf.IndexedSlices(rows, indices, shape)


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


def take(array: Any, gradient: Any) -> Any:
    """Return the rows of a tensor for which there is a gradient."""
    return tf.gather(array, gradient.indices)


def put(array: Any, gradient: Any, values: Any) -> Any:
    """Return a tensor with the rows for which there is a gradient replaced by `values`."""
    # The difference is added. XLA pads the unique rows with row 0, with a gradient and thus a
    # difference of 0; replacing that row would undo the effect of its own gradient.
    change = values - tf.gather(array, gradient.indices)
    return tf.tensor_scatter_nd_add(array, tf.reshape(gradient.indices, [-1, 1]), change)


def dense(gradient: Any, shape: Sequence[int]) -> Any:
    """Return a gradient as a dense tensor of the shape of its variable."""
    if not is_rows(gradient):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])
