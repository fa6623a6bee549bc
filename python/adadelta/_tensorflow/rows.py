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
    """Return a gradient in which repeated rows are summed, so that each occurs once.

    In a function, the first row occurs again, with zeros, in the place of each row that would
    repeat another.
    """
    if not is_rows(gradient):
        return gradient
    shape = tf.convert_to_tensor(gradient.dense_shape)
    given = tf.reshape(gradient.indices, [-1])
    indices, positions = tf.unique(given)
    if not tf.executing_eagerly():
        # XLA must know how many rows there are, and it may compile any function.
        found = tf.math.unsorted_segment_max(given, positions, tf.size(given))
        indices = tf.where(found < 0, given[:1], found)
    row = tf.shape(gradient.values)[1:]
    values = tf.reshape(gradient.values, tf.concat([[-1], row], 0))
    rows = tf.math.unsorted_segment_sum(values, positions, tf.size(indices))
    return tf.IndexedSlices(rows, indices, shape)


def with_equal_repeats(gradient: Any) -> Any:
    """Return a gradient that was `summed`, with the sum of the first row wherever it repeats.

    Then the new values of a row are the same wherever it occurs.
    """
    if tf.executing_eagerly():
        return gradient
    values, indices = gradient.values, gradient.indices
    is_first = tf.equal(indices, indices[:1])
    is_first = tf.reshape(is_first, [-1, *[1] * (values.shape.rank - 1)])
    return with_values(gradient, tf.where(is_first, values[:1], values))


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
    """Return the rows of a tensor or variable for which there is a gradient."""
    return tf.gather(array, gradient.indices)


def dense(gradient: Any, shape: Sequence[int]) -> Any:
    """Return a gradient as a dense tensor of the shape of its variable."""
    if not is_rows(gradient):
        return gradient
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])
