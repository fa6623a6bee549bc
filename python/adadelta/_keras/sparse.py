"""Sparse gradients: rows of an embedding, as `tf.IndexedSlices` or JAX's `BCOO`.

A row that occurs twice is summed before anything else sees it, so that a sparse gradient means
the same as the dense one. Sparse gradients of other kinds, and all of torch's, become dense.
"""

from collections.abc import Callable
from typing import Any

import keras


def _backend_of_rows(gradient: Any) -> str | None:
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return backend if isinstance(gradient, tf.IndexedSlices) else None
    if backend == "jax":
        from jax.experimental.sparse import BCOO

        is_rows = isinstance(gradient, BCOO) and gradient.n_sparse == 1 and gradient.n_batch == 0
        return backend if is_rows else None
    return None


def is_rows(gradient: Any) -> bool:
    """Whether a gradient holds rows of its variable instead of all of it."""
    return _backend_of_rows(gradient) is not None


def summed(gradient: Any) -> Any:
    """Return the gradient as a tensor, or as rows that each occur once."""
    backend = keras.config.backend()
    if backend == "tensorflow" and is_rows(gradient):
        from adadelta._tensorflow import rows

        return rows.summed(gradient)
    if backend == "jax":
        from jax.experimental.sparse import JAXSparse

        if is_rows(gradient):
            return gradient.sum_duplicates(nse=gradient.nse)
        return gradient.todense() if isinstance(gradient, JAXSparse) else gradient
    if backend == "torch":
        import torch

        is_tensor = isinstance(gradient, torch.Tensor)
        return gradient.to_dense() if is_tensor and gradient.layout != torch.strided else gradient
    return gradient


def shape_of(gradient: Any) -> tuple[Any, ...]:
    """Return the shape of a gradient, also of rows whose shape is given as a tuple."""
    if _backend_of_rows(gradient) == "tensorflow" and isinstance(gradient.dense_shape, tuple):
        return gradient.dense_shape
    return tuple(gradient.shape)


def values_of(gradient: Any) -> Any:
    """Return the tensor of a gradient's values, dense or of rows."""
    backend = _backend_of_rows(gradient)
    if backend is None:
        return gradient
    return gradient.values if backend == "tensorflow" else gradient.data


def with_values(gradient: Any, values: Any) -> Any:
    """Return a gradient of the same rows with other values, or the values when it is dense."""
    backend = _backend_of_rows(gradient)
    if backend == "tensorflow":
        from adadelta._tensorflow import rows

        return rows.with_values(gradient, values)
    if backend == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO((values, gradient.indices), shape=gradient.shape, unique_indices=True)
    return values


def map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Apply an elementwise function to a gradient, dense or of rows."""
    return with_values(gradient, function(values_of(gradient)))


def take(array: Any, gradient: Any) -> Any:
    """Return the rows of a tensor for which there is a gradient."""
    if _backend_of_rows(gradient) == "tensorflow":
        from adadelta._tensorflow import rows

        return rows.take(array, gradient)
    return array.at[gradient.indices[:, 0]].get(mode="fill", fill_value=0)


def put(array: Any, gradient: Any, values: Any) -> Any:
    """Return a tensor with the rows for which there is a gradient replaced by `values`."""
    if _backend_of_rows(gradient) == "tensorflow":
        from adadelta._tensorflow import rows

        return rows.put(array, gradient, values)
    # Summing duplicates leaves places unused, with an index outside, which is dropped.
    return array.at[gradient.indices[:, 0]].set(values, mode="drop")


def dense(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Return a gradient of rows as a dense tensor of the variable's shape."""
    backend = _backend_of_rows(gradient)
    if backend == "tensorflow":
        from adadelta._tensorflow import rows

        return rows.dense(gradient, shape)
    return gradient.todense() if backend == "jax" else gradient
