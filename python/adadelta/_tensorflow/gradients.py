"""Check the gradients of TensorFlow's variables, and convert them for the step."""

from typing import Any

import tensorflow as tf

from adadelta._core import parameters
from adadelta._tensorflow import rows


def name_of(variable: Any) -> str:
    """Return the name of a variable, without the number of its output."""
    return str(variable.name).split(":")[0]


def fitting(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a tensor or rows that fit the variable, or raise an error."""
    given = gradient
    try:
        if rows.is_rows(gradient):
            dtype = gradient.values.dtype
        else:
            if not tf.is_tensor(gradient):
                gradient = tf.convert_to_tensor(gradient)
            dtype = gradient.dtype
    except Exception:
        raise parameters.no_numbers(name_of(variable), given) from None
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex):
        raise parameters.no_numbers(name_of(variable), given)
    if rows.is_rows(gradient):
        if gradient.dense_shape is None:
            shape = tf.TensorShape([variable.shape[0], *gradient.values.shape[1:]])
            gradient = tf.IndexedSlices(gradient.values, gradient.indices, variable.shape)
        else:
            shape = tf.TensorShape(tf.get_static_value(gradient.dense_shape, partial=True))
        if shape.rank is not None and gradient.values.shape.rank is not None:
            shape = shape.merge_with([shape[0], *gradient.values.shape[1:]])
    else:
        shape = gradient.shape
    if not shape.is_compatible_with(variable.shape):
        raise parameters.other_shape(name_of(variable), tuple(variable.shape.as_list()), shape)
    return gradient


def check_rows(gradient: Any, variable: Any) -> Any:
    """Raise an error if a gradient has rows that its variable lacks.

    In a graph, return the operation that does so, or None if the gradient is dense. XLA leaves the
    operation out.
    """
    is_on_a_mesh = isinstance(variable, tf.experimental.dtensor.DVariable)
    if not rows.is_rows(gradient) or is_on_a_mesh:
        return None
    indices, count = gradient.indices, variable.shape[0]
    if indices.dtype not in (tf.int32, tf.int64):
        raise TypeError(
            f"the rows of the gradient for {name_of(variable)} must be int32 or int64; received "
            f"{indices.dtype.name}"
        )
    size, given = indices.shape.num_elements(), gradient.values.shape[0]
    if size is not None and given is not None and size != given:
        what = "values of the gradient"
        expected = (size, *variable.shape[1:])
        raise parameters.other_shape(name_of(variable), expected, gradient.values.shape, what)
    if tf.executing_eagerly():
        given = indices.numpy()
        if given.size and (given.min() < 0 or given.max() >= count):
            wrong = given[(given < 0) | (given >= count)][0]
            raise parameters.other_row(name_of(variable), count, wrong)
        return None
    is_inside = tf.reduce_all((indices >= 0) & (indices < tf.cast(count, indices.dtype)))
    message = parameters.other_row(name_of(variable), count, "others").args[0]
    return tf.debugging.Assert(is_inside, [message, indices])
