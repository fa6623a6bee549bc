"""In which dtype the optimizer keeps what it knows about a JAX array, and how it leaves JAX.

Half-precision parameters have float32 state: averages in float16 or bfloat16 stand still or
drift. Complex parameters are pairs of real ones, as in torch: the real parts of their averages
belong to the real parts of the parameter, the imaginary to the imaginary. So state has the shape
of its parameter, and what is said of the one's sharding holds for the other.
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
    """The dtype of what is an array or can be made one."""
    # JAX itself would take a string for the name of a dtype.
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


def can_be_trained(dtype: Any) -> bool:
    """Whether parameters can be of this dtype."""
    return by_name.has_state(str(dtype))


def state_dtype(dtype: Any) -> Any:
    """The dtype of the averages for parameters of `dtype`."""
    name = str(dtype)
    return jnp.dtype(name if by_name.is_complex(name) else by_name.state_dtype(name))


def zeros_like(parameter: Array) -> Array:
    """New averages for a parameter."""
    return jnp.zeros_like(parameter, dtype=state_dtype(jnp.result_type(parameter)))


def problem_with_gradient(gradient: Array, like: Array) -> tuple[type[Exception], str] | None:
    """What is wrong with a gradient for a parameter whose average is `like`, if anything.

    Returns:
        The kind of error and the end of a sentence that begins with what the gradient is for.

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
    """Return an average as the step takes it, with a last axis of two if it is complex."""
    if not jnp.iscomplexobj(average):
        return average
    return jnp.stack([average.real, average.imag], axis=-1)


def from_pairs(array: Array, like: Array) -> Array:
    """Undo `in_pairs`, for an average like another one."""
    if not jnp.iscomplexobj(like) or jnp.iscomplexobj(array):
        return array
    return jax.lax.complex(array[..., 0], array[..., 1])


def with_pairs(row: Row) -> Row:
    """Return a row with its averages as the step takes them."""
    return row._replace(square_avg=in_pairs(row.square_avg), acc_delta=in_pairs(row.acc_delta))


def without_pairs(row: Row, like: Row) -> Row:
    """Undo `with_pairs`, for what a step made of a row."""
    return row._replace(
        square_avg=from_pairs(row.square_avg, like.square_avg),
        acc_delta=from_pairs(row.acc_delta, like.acc_delta),
    )


def to_record(average: Array) -> np.ndarray:
    """Return an average as a NumPy array of its own, in portable state a pair if complex."""
    return np.array(in_pairs(average))


def like_record(average: Array) -> jax.ShapeDtypeStruct:
    """The shape and dtype of `to_record`."""
    return jax.eval_shape(in_pairs, average)


def from_record(array: np.ndarray, like: Array) -> Array:
    """Return a portable array as an average, of the dtype and where `like` is."""
    average = from_pairs(jnp.array(array, like_record(like).dtype), like)
    # What is not committed to a device, as a counter is at first, JAX moves to the parameters'.
    is_placed = hasattr(like, "sharding") and getattr(like, "committed", True)
    return jax.device_put(average, like.sharding) if is_placed else average
