"""Check the gradients of a call before anything else uses them."""

from typing import Any

from keras import ops

from adadelta._core import parameters
from adadelta._keras import precision
from adadelta._keras.state import path_of


def fitting(gradients: list[Any], variables: list[Any]) -> list[Any]:
    """Return the gradients as tensors that fit their variables, or raise."""
    if len(gradients) != len(variables):
        raise ValueError(
            f"there must be as many gradients as variables, which are {len(variables)}; "
            f"received {len(gradients)}"
        )
    if all(gradient is None for gradient in gradients):
        raise ValueError("No gradients provided for any variable.")
    pairs = zip(gradients, variables, strict=True)
    return [
        None if gradient is None else _fitting(gradient, variable) for gradient, variable in pairs
    ]


def _fitting(gradient: Any, variable: Any) -> Any:
    """Return the gradient as a tensor of the variable's shape, or raise."""
    given = gradient
    try:
        if not (ops.is_tensor(gradient) or hasattr(gradient, "shape")):
            gradient = ops.convert_to_tensor(gradient)
        dtype = precision.dtype_of(gradient)
    except Exception:
        dtype = "none"
    if not any(kind in dtype for kind in ("float", "int", "bool", "complex")):
        raise parameters.no_numbers(path_of(variable), given)
    # The dense shape of a sparse gradient may be a tuple, which TensorFlow does not show.
    dense_shape = getattr(gradient, "dense_shape", None)
    shape = dense_shape if isinstance(dense_shape, tuple) else tuple(gradient.shape)
    expected = tuple(variable.shape)
    fits = len(shape) == len(expected) and all(
        mine is None or mine == other for mine, other in zip(shape, expected, strict=True)
    )
    if not fits:
        raise parameters.other_shape(path_of(variable), expected, shape)
    return gradient
