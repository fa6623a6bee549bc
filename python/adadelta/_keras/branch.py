"""Run pieces of a step where it is traced, compiled or eager."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

Body = Callable[[], None]


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Leave a function that TensorFlow is tracing: what is done inside is no part of it."""
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return tensorflow.init_scope()


def branch(predicate: Any, if_true: Body, if_false: Body, variables: Sequence[Any]) -> None:
    """Run `if_true` or `if_false`, which assign to Keras variables and return nothing.

    Only the chosen piece is computed. On JAX a traced predicate turns both into pure functions
    of `variables`, which must be all variables that either of them reads or assigns.

    Args:
        predicate: A boolean scalar: a bool or a tensor of the backend.
        if_true: What to do where it is true.
        if_false: What to do where it is false.
        variables: The Keras variables that the two may read or assign.

    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        if isinstance(predicate, jax.core.Tracer):
            _branch_jax(predicate, if_true, if_false, variables)
            return
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.is_symbolic_tensor(predicate):
            tf.cond(predicate, _returning_nothing(if_true), _returning_nothing(if_false))
            return
    (if_true if bool(predicate) else if_false)()


def choose(predicate: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Return what one of two functions of no variables returns; only the chosen one runs.

    Args:
        predicate: A boolean scalar: a bool or a tensor of the backend.
        if_true: A function that returns tensors, called where it is true.
        if_false: One that returns tensors of the same shapes and dtypes, called where it is false.

    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        if isinstance(predicate, jax.core.Tracer):
            return jax.lax.cond(predicate, if_true, if_false)
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.is_symbolic_tensor(predicate):
            return tf.cond(predicate, if_true, if_false)
    return (if_true if bool(predicate) else if_false)()


def _returning_nothing(body: Body) -> Callable[[], Any]:
    # tf.cond wants the same outputs from both, and runs the assignments for their effect.
    def run() -> Any:
        import tensorflow as tf

        body()
        return tf.constant(0)

    return run


def _branch_jax(predicate: Any, if_true: Body, if_false: Body, variables: Sequence[Any]) -> None:
    import jax

    def pure(body: Body) -> Callable[[list[Any]], list[Any]]:
        def run(values: list[Any]) -> list[Any]:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                body()
            return [scope.get_current_value(variable) for variable in variables]

        return run

    values = [variable.value for variable in variables]
    for variable, value in zip(
        variables, jax.lax.cond(predicate, pure(if_true), pure(if_false), values), strict=True
    ):
        variable.assign(value)
