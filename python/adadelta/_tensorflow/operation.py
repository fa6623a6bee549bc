"""TensorFlow's own Adadelta operation, for the cases in which it computes the rule.

`ResourceApplyAdadelta` makes one pass over memory, and the rule's operators in a TensorFlow graph
make twenty: for 20 million parameters it takes a quarter of the time on a 2-core machine.
"""

import math
from functools import partial
from typing import Any

import tensorflow as tf

from adadelta._core import rule
from adadelta._core.step import Array, Call, Options, Row
from adadelta._kernels import xla_tensorflow
from adadelta._tensorflow import arrays

# The options that are applied before or after the operation.
_KNOWN = ("maximize", "clipnorm", "clipvalue", "global_clipnorm", "decay_mode", "ema_momentum")

# From how many elements on a condition is faster than saturating every gradient. Up to here both
# take as long, and the condition takes 6 ms more when it is traced.
_LARGE = 2**14


def can_serve(row: Row, options: Options) -> bool:
    """Whether the operation can update a row of variables, accurately for its rho."""
    variable = row.parameter
    # TensorFlow 1 variables that are no resource variables have a handle of another dtype.
    handle = getattr(variable, "handle", None) if isinstance(variable, tf.Variable) else None
    is_resource = handle is not None and handle.dtype == tf.resource
    # Under a distribution strategy an average consists of several variables.
    return (
        is_resource
        # For a half-precision variable it needs averages in half precision, too.
        and variable.dtype in (tf.float32, tf.float64)
        and row.constraint is None
        and options.are_only(*_KNOWN)
        and (options.decay_mode == "decoupled" or not row.weight_decay)
        and not tf.distribute.has_strategy()
        and _keeps(options.rho, variable.dtype.as_numpy_dtype)
        # XLA fuses the rule's operators and is slower with the operation: it takes 1.5 times as
        # long as Keras' step, the operators 1.1 times.
        and not xla_tensorflow.is_compiled_here()
    )


def _keeps(rho: float, dtype: Any) -> bool:
    # The operation computes 1 - rho in the dtype of the averages, which loses digits if rho is near
    # 1: in float32 the weight of a new square is 1.3e-5 too small at 0.999, and 1e-6 at 0.99.
    rest = 1 - rho
    return abs(1 - float(dtype(rho)) - rest) <= 1e-6 * rest


def update(row: Row, gradient: Array, call: Call, options: Options) -> Any:
    """Decay and update the variables of a row.

    In the operation, squares may overflow, so the gradient is saturated. For a large one, one more
    read finds out first whether that changes anything.

    Args:
        row: The row.
        gradient: Its gradient after sign and clipping.
        call: The arguments of this call, such as the rate.
        options: The options of the optimizer.

    Returns:
        The last operation, which a TensorFlow 1 graph must run.

    """
    variable, square_avg = row.parameter, row.square_avg
    limit = arrays.largest_gradient(options.epsilon, square_avg)
    saturated = partial(rule.saturated, gradient, limit, arrays.clip)
    if math.prod(variable.shape.as_list()) < _LARGE:
        gradient = saturated()
    else:
        is_small = tf.math.is_finite(tf.nn.l2_loss(gradient))
        gradient = tf.cond(is_small, partial(tf.identity, gradient), saturated)
    rate = tf.convert_to_tensor(arrays.number(call.rate, square_avg), square_avg.dtype)

    decayed = []
    if row.weight_decay:
        decayed.append(variable.assign_sub(variable * (row.weight_decay * rate)))
    with tf.control_dependencies(decayed):
        return tf.raw_ops.ResourceApplyAdadelta(
            var=variable.handle,
            accum=square_avg.handle,
            accum_update=row.acc_delta.handle,
            lr=rate,
            rho=tf.constant(options.rho, square_avg.dtype),
            epsilon=tf.constant(options.epsilon, square_avg.dtype),
            grad=gradient,
        )
