"""The optimizers of Keras and tf_keras that wrap another one and scale the loss."""

from typing import Any

from adadelta._core.hyperparameters import attribute


def unwrapped(optimizer: object) -> tuple[Any, Any]:
    """Return the optimizer and the host's `LossScaleOptimizer` around it, or None."""
    inner = attribute(optimizer, "inner_optimizer")
    return (optimizer, None) if inner is None else (inner, optimizer)
