"""The dtypes of the optimizer's state for JAX arrays, and its conversion to NumPy and back.

Half-precision parameters have float32 state: averages in float16 or bfloat16 stop changing or
drift. Complex parameters are treated as pairs of real ones, as in torch: the real parts of their
averages belong to the real parts of the parameter, the imaginary parts to the imaginary parts. So
the state has the shape of its parameter, and can be sharded in the same way.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adadelta._core import hyperparameters
from adadelta._core import precision as by_name
from adadelta._core.step import Row

Array = Any


def is_traced(value: Any) -> bool:
    """Whether a value will only be known when a compiled function runs."""
    return hyperparameters.is_a(value, jax.core.Tracer)


def dtype_of(value: Any) -> Any:
    """Return the dtype of an array or of a value that can be converted to one."""
    # JAX's own function would interpret a string as the name of a dtype.
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


def can_be_trained(dtype: Any) -> bool:
    """Whether parameters of this dtype can be trained."""
    return by_name.has_state(str(dtype))


def state_dtype(dtype: Any) -> Any:
    """Return the dtype of the averages for parameters of `dtype`."""
    name = str(dtype)
    return jnp.dtype(name if by_name.is_complex(name) else by_name.state_dtype(name))


def zeros_like(parameter: Array) -> Array:
    """Return a new average for a parameter."""
    return jnp.zeros_like(parameter, dtype=state_dtype(jnp.result_type(parameter)))


def problem_with_gradient(gradient: Array, like: Array) -> tuple[type[Exception], str] | None:
    """Return what is wrong with a gradient for a parameter whose average is `like`, or None.

    Returns:
        The type of the error, and a message to which the caller adds the subject.

    """
    try:
        dtype, shape = dtype_of(gradient), np.shape(gradient)
    except Exception:
        return TypeError, f"must be an array; received {hyperparameters.received(gradient)}"
    if not jnp.issubdtype(dtype, jnp.number) and dtype != jnp.bool_:
        return TypeError, f"must be an array of numbers; received {dtype}"
    if jnp.issubdtype(dtype, jnp.complexfloating) and not jnp.iscomplexobj(like):
        return TypeError, f"must be real, as the parameter is; received {dtype}"
    if shape != jnp.shape(like):
        return ValueError, f"must have shape {jnp.shape(like)}; received {shape}"
    return None


def in_pairs(average: Array) -> Array:
    """Return an average as the step needs it, with a last axis of two if it is complex."""
    if not jnp.iscomplexobj(average):
        return average
    return jnp.stack([average.real, average.imag], axis=-1)


def from_pairs(array: Array, like: Array) -> Array:
    """Undo `in_pairs`: return an array as an average of the kind of `like`."""
    if not jnp.iscomplexobj(like) or jnp.iscomplexobj(array):
        return array
    return jax.lax.complex(array[..., 0], array[..., 1])


def with_pairs(row: Row) -> Row:
    """Return a row with its averages as the step needs them."""
    return row._replace(square_avg=in_pairs(row.square_avg), acc_delta=in_pairs(row.acc_delta))


def without_pairs(row: Row, like: Row) -> Row:
    """Undo `with_pairs`: return a row after a step with averages of the kind of `like`."""
    return row._replace(
        square_avg=from_pairs(row.square_avg, like.square_avg),
        acc_delta=from_pairs(row.acc_delta, like.acc_delta),
    )


def to_record(average: Array) -> np.ndarray:
    """Return a copy of an average for portable state: a NumPy array, in pairs if complex."""
    return np.array(in_pairs(average))


def like_record(average: Array) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of the result of `to_record`."""
    return jax.eval_shape(in_pairs, average)


def from_record(array: np.ndarray, like: Array) -> Array:
    """Return a portable array as an average with the dtype and sharding of `like`."""
    average = from_pairs(jnp.array(array, like_record(like).dtype), like)
    # JAX moves an array that is not committed to a device, such as a new counter, to the
    # parameters' devices.
    is_placed = hasattr(like, "sharding") and getattr(like, "committed", True)
    return jax.device_put(average, like.sharding) if is_placed else average
