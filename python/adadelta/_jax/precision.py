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
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def state_dtype(dtype: Any) -> Any:
    """The dtype of the averages for parameters of `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


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


def to_record(average: Array) -> np.ndarray:
    """Return an average as a NumPy array of its own, in portable state a pair if complex."""
    array = np.array(average)
    if not np.iscomplexobj(array):
        return array
    return np.stack([array.real, array.imag], axis=-1)


def like_record(average: Array) -> jax.ShapeDtypeStruct:
    """The shape and dtype of `to_record`."""
    if jnp.iscomplexobj(average):
        return jax.ShapeDtypeStruct((*average.shape, 2), jnp.finfo(average.dtype).dtype)
    return jax.ShapeDtypeStruct(average.shape, average.dtype)


def from_record(array: np.ndarray, like: Array) -> Array:
    """Return a portable array as an average, of the dtype and where `like` is."""
    if jnp.iscomplexobj(like):
        array = array[..., 0] + 1j * array[..., 1]
    average = jnp.array(array, like.dtype)
    return jax.device_put(average, like.sharding) if hasattr(like, "sharding") else average
