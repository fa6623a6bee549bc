"""One step of TensorFlow's variables, in a graph or eagerly."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from adadelta._core import parameters, rule
from adadelta._core.precision import largest_gradient, state_dtype
from adadelta._kernels import tensorflow as operation
from adadelta._tensorflow import precision, rows


def name_of(variable: Any) -> str:
    """The name of a variable, without the number of its output."""
    return str(variable.name).split(":")[0]


def fitting(gradient: Any, variable: Any) -> Any:
    """Return the gradient as a tensor or rows that fit the variable, or raise."""
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


def prepared(gradient: Any, variable: Any) -> Any:
    """Return a gradient as its state has it, with rows that each occur once."""
    dtype = precision.dtype_of(variable)
    return rows.map_values(lambda values: precision.to_state(values, dtype), rows.summed(gradient))


def all_finite(gradients: Iterable[Any]) -> Any:
    """Whether no element of any gradient is NaN or infinite."""
    finite = [tf.reduce_all(tf.math.is_finite(rows.values_of(it))) for it in gradients]
    return tf.reduce_all(tf.stack(finite))


def update(
    variable: Any,
    gradient: Any,
    square_avg: Any,
    acc_delta: Any,
    rate: Any,
    rho: float,
    epsilon: float,
    *,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    constraint: Any = None,
    in_one_operation: bool = True,
) -> list[Any]:
    """Decay one variable, apply the rule to it, and then its constraint.

    Args:
        variable: The variable.
        gradient: Its gradient, ready to be used, as `prepared` returns it.
        square_avg: The variable of its average of squared gradients.
        acc_delta: The variable of its average of squared steps.
        rate: The learning rate, in the dtype of the state.
        rho: As for `adadelta._core.rule.update`.
        epsilon: Likewise.
        weight_decay: The share that is taken from the weights, times the rate.
        decoupled: Whether it is taken from the weights, or added to the gradient.
        constraint: What returns the value that is allowed in the place of another, or None.
        in_one_operation: Whether TensorFlow's own operation may be used.

    Returns:
        The operations, which in a graph of TensorFlow 1 must be run.

    """
    dtype = precision.dtype_of(variable)
    # Half precision is rounded once, after the subtraction, which only the dense step does.
    is_exact = dtype == state_dtype(dtype)
    if rows.is_rows(gradient) and is_exact and not weight_decay and constraint is None:
        return _update_rows(variable, gradient, square_avg, acc_delta, rate, rho, epsilon)
    gradient = rows.dense(gradient, square_avg.shape)
    if (
        in_one_operation
        and constraint is None
        and (decoupled or not weight_decay)
        and operation.can_serve(variable, rho)
    ):
        return [
            operation.update(
                variable,
                square_avg,
                acc_delta,
                rate,
                rho,
                epsilon,
                gradient,
                lambda gradient: saturated(gradient, epsilon),
                weight_decay,
            )
        ]
    value = precision.to_state(tf.convert_to_tensor(variable), dtype)
    value, new_square_avg, new_acc_delta = rule.step(
        value,
        gradient,
        tf.convert_to_tensor(square_avg),
        tf.convert_to_tensor(acc_delta),
        rate=rate,
        rho=rho,
        epsilon=epsilon,
        limit=largest_gradient(epsilon, dtype),
        weight_decay=weight_decay,
        weight_decay_mode="decoupled" if decoupled else "coupled",
        sqrt=tf.sqrt,
        clip=tf.clip_by_value,
    )
    value = precision.from_state(value, dtype)
    if constraint is not None:
        value = constraint(value)
    return [
        square_avg.assign(new_square_avg),
        acc_delta.assign(new_acc_delta),
        variable.assign(value),
    ]


def _update_rows(
    variable: Any,
    gradient: Any,
    square_avg: Any,
    acc_delta: Any,
    rate: Any,
    rho: float,
    epsilon: float,
) -> list[Any]:
    """Apply the rule to the rows that have a gradient; in the others the averages decay."""
    old_square_avg = tf.convert_to_tensor(square_avg)
    old_acc_delta = tf.convert_to_tensor(acc_delta)
    step, square_avg_rows, acc_delta_rows = rule.update(
        saturated(gradient.values, epsilon),
        rows.take(old_square_avg, gradient),
        rows.take(old_acc_delta, gradient),
        rho,
        epsilon,
        tf.sqrt,
    )
    return [
        square_avg.assign(rows.put(rho * old_square_avg, gradient, square_avg_rows)),
        acc_delta.assign(rows.put(rho * old_acc_delta, gradient, acc_delta_rows)),
        variable.scatter_sub(rows.with_values(gradient, rate * step)),
    ]


def saturated(gradient: Any, epsilon: float) -> Any:
    """Limit a gradient so that its averages stay in the range of its dtype."""
    dtype = precision.dtype_of(gradient)
    return rule.saturated(gradient, largest_gradient(epsilon, dtype), tf.clip_by_value)
