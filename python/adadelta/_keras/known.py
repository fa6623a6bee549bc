"""Numbers that are known now, or only when a compiled program runs."""

from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import hyperparameters


def known(scalar: Any) -> Any:
    """Return the Python number in a scalar tensor, or the tensor while a program is traced."""
    if isinstance(scalar, bool | int | float):
        return scalar
    scalar = scalar.value if isinstance(scalar, keras.Variable) else scalar
    if is_traced(scalar):
        return scalar
    return ops.convert_to_numpy(scalar).item()


def known_all(variable: Any) -> Any:
    """Return the numbers in a variable as a NumPy array, or as a tensor while it is traced."""
    value = variable.value
    return value if is_traced(value) else ops.convert_to_numpy(value)


def is_traced(tensor: Any) -> bool:
    """Whether a tensor stands for a value that is known only when a program runs."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return hyperparameters.is_a(tensor, jax.core.Tracer)
    if backend == "tensorflow":
        import tensorflow as tf

        is_tensor = hyperparameters.is_a(tensor, tf.Tensor)
        return not tf.executing_eagerly() or (is_tensor and bool(tf.is_symbolic_tensor(tensor)))
    return False


def where(condition: Any, if_true: Any, if_false: Any) -> Any:
    """Choose between two scalars."""
    if isinstance(condition, bool | int):
        return if_true if condition else if_false
    return ops.where(condition, if_true, if_false)


def both(one: Any, other: Any) -> Any:
    """Whether both conditions are true."""
    if isinstance(one, bool):
        return other if one else False
    return one if other is True else where(other, one, False)


def opposite(condition: Any) -> Any:
    """Whether a condition is false."""
    return not condition if isinstance(condition, bool) else ops.logical_not(condition)


def is_equal(scalar: Any, number: int) -> Any:
    """Compare a Python integer or a scalar tensor with a number."""
    return scalar == number if isinstance(scalar, int) else ops.equal(scalar, number)


def array_of(variable: Any, copy: bool = True) -> np.ndarray:
    """Return the value of a variable or tensor as an array, perhaps not a copy without `copy`."""
    if getattr(variable, "_value", variable) is None:
        raise RuntimeError(
            "the state is inside compiled training: in a callback, reach the optimizer by "
            "self.model.optimizer, which brings it back"
        )
    array = np.asarray(ops.convert_to_numpy(variable))
    # Most versions of Keras copy already.
    is_copy = array.flags.owndata and array.flags.writeable
    return np.array(array) if copy and not is_copy else array


def number_of(variable: Any) -> int:
    """Return the whole number in a variable."""
    return int(array_of(variable, False))
