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


def checked(gradient: Any, variable: Any) -> tuple[Any, list[Any]]:
    """Return a gradient whose shape is that of its variable, and the checks of its rows, or raise.

    What is only known when a graph runs is checked then: by the gradient itself, which has no value
    if its shape is another one, and by the operations that are returned. XLA leaves these out.
    """
    is_on_a_mesh = isinstance(variable, tf.experimental.dtensor.DVariable)
    if gradient is None or is_on_a_mesh:
        return gradient, []
    if not rows.is_rows(gradient):
        return _of_shape(gradient, variable.shape), []
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
        rows_given = indices.numpy()
        if rows_given.size and (rows_given.min() < 0 or rows_given.max() >= count):
            wrong = rows_given[(rows_given < 0) | (rows_given >= count)][0]
            raise parameters.other_row(name_of(variable), count, wrong)
        return gradient, []
    values = _of_shape(gradient.values, [size, *variable.shape[1:]])
    is_inside = tf.reduce_all((indices >= 0) & (indices < tf.cast(count, indices.dtype)))
    message = parameters.other_row(name_of(variable), count, "others").args[0]
    checks = [tf.debugging.Assert(is_inside, [message, indices])]
    if size is None:
        numbers = tf.size(indices), tf.shape(values)[0]
        message = f"the gradient for {name_of(variable)} must have as many rows as row numbers"
        checks.append(tf.debugging.Assert(tf.equal(*numbers), [message, *numbers]))
    return rows.with_values(gradient, values), checks


def _of_shape(tensor: Any, shape: Any) -> Any:
    return tensor if tensor.shape.is_fully_defined() else tf.ensure_shape(tensor, shape)
