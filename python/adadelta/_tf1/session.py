"""Read and write the values of variables, in eager mode and in a TensorFlow 1 graph.

In eager mode a variable holds its value; in a graph it has one in each session.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

try:
    # The graph mode of tf_keras, the successor of TF 1.13's tf.keras, accepts only optimizers of
    # this class.
    from tf_keras.saving import register_keras_serializable
    from tf_keras.src.optimizers.optimizer_v1 import Optimizer as KerasOptimizer
except ImportError:
    KerasOptimizer = object


def known_to_keras(optimizer: type) -> type:
    """Register the class, so that tf_keras, if installed, finds it when it loads a model."""
    if KerasOptimizer is not object:
        register_keras_serializable(package="adadelta", name="tf1.Adadelta")(optimizer)
    return optimizer


def variable(value: Any, name: str, dtype: Any) -> Any:
    """Create a variable of the optimizer; tf_keras initializes it together with its own."""
    with tf.init_scope():
        made = tf.compat.v1.Variable(
            value, name=name, dtype=dtype, trainable=False, use_resource=True
        )
        backend = _keras_backend()
        if backend is not None:
            backend.track_variable(made)
    return made


def can_read(variable: Any) -> bool:
    """Whether a variable has a value now: it is eager, or there is a session."""
    current = tf.compat.v1.get_default_session() or _keras_backend()
    return _is_eager(variable) or current is not None


def read(variables: Iterable[Any]) -> list[np.ndarray]:
    """Return the values of variables; those without one are initialized first."""
    variables = list(variables)
    if all(map(_is_eager, variables)):
        return [variable.numpy() for variable in variables]
    session = _session(variables[0])
    with session.graph.as_default():
        asked = [tf.compat.v1.is_variable_initialized(variable) for variable in variables]
        known = session.run(asked)
        session.run(
            [
                variable.initializer
                for variable, is_known in zip(variables, known, strict=True)
                if not is_known
            ]
        )
        return list(session.run([variable.read_value() for variable in variables]))


def write(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Set the values of variables."""
    for variable, value in zip(variables, values, strict=True):
        value = np.asarray(value, variable.dtype.base_dtype.as_numpy_dtype)
        if _is_eager(variable):
            variable.assign(value)
        else:
            # Through the initializer, which adds nothing to the graph.
            initial = variable.initializer.inputs[1]
            _session(variable).run(variable.initializer, {initial: value})


def _is_eager(variable: Any) -> bool:
    return not tf.is_symbolic_tensor(variable.handle)


def _session(variable: Any) -> Any:
    current = tf.compat.v1.get_default_session()
    backend = _keras_backend()
    if current is None and backend is not None:
        with variable.graph.as_default():
            current = backend.get_session()
    if current is None:
        raise RuntimeError(
            "the optimizer's variables have their values in a session, and there is none: use "
            "`with session.as_default():`"
        )
    return current


def _keras_backend() -> Any:
    """Return the backend of tf_keras if it is imported, which keeps one session for every graph."""
    return sys.modules.get("tf_keras.src.backend")
