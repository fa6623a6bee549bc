"""The engine that makes the steps, for the backend that Keras uses in this process."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import keras

from adadelta._core import engine

_MODULES = {
    "jax": "adadelta._jax.engine",
    "tensorflow": "adadelta._tensorflow.engine",
    "torch": "adadelta._torch.engine",
}
if keras.config.backend() not in _MODULES:
    raise ImportError(
        f"adadelta has no engine for Keras' backend {keras.config.backend()}; set KERAS_BACKEND to "
        f"one of {', '.join(_MODULES)}"
    )

torch: Any = importlib.import_module("torch") if keras.config.backend() == "torch" else None

Engine: Callable[[bool | None], engine.Engine] = importlib.import_module(
    _MODULES[keras.config.backend()]
).Engine


def array_of(variable: Any) -> Any:
    """Return what an engine works on: the array, tensor or `tf.Variable` of a Keras variable."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Return a context outside TensorFlow's tracing: what runs in it is not part of the graph."""
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return tensorflow.init_scope()


def outside_programs() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which variables get their values at once, also while TensorFlow traces.

    Otherwise the program has a condition for each, which takes a third of the first epoch of a
    small model (0.4 of 1.1 s). Under a strategy, variables must be created inside.
    """
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return contextlib.nullcontext() if tensorflow.distribute.has_strategy() else eagerly()


def is_compiling() -> bool:
    """Whether torch's compiler is tracing. It can't trace a call of a kernel."""
    return torch is not None and bool(torch.compiler.is_compiling())


def _apply(optimizer: keras.optimizers.Optimizer, gradients: list[Any], variables: Any) -> None:
    optimizer.apply(gradients, variables)


# The compiler calls this function without tracing it. The first call imports the compiler, which
# takes seconds.
apply_uncompiled = _apply if torch is None else torch._disable_dynamo(_apply)


def without_recording() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which torch records no gradients."""
    return contextlib.nullcontext() if torch is None else torch.no_grad()


def has_several_workers() -> bool:
    """Whether a `MultiWorkerMirroredStrategy` of several workers is the current strategy."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker")) > 1
