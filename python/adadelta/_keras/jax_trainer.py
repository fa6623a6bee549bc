"""Checks that must be made before Keras' trainer on JAX takes the weights.

The trainer passes values without their variables, so a built optimizer that is given to a second
model would continue there with the state of the first. Once a step is being traced, it is too late
for an error: the trainer has taken the weights out of the model and would lose them. The only time
before that is when it reads the optimizer's `variables`.
"""

import sys
from typing import Any

import keras


def reading_trainer(optimizer: object) -> tuple[Any, bool]:
    """Return the model whose trainer on JAX is reading the optimizer's variables, or None.

    Returns:
        `(model, shares)`: `shares` is whether the optimizer shares the model's variables with
        others, as those in a `keras.optimizers.MultiOptimizer` do.

    """
    frame, shares = sys._getframe().f_back, False
    # Past `variables` and its readers, which may be optimizers around this one.
    for _ in range(3):
        frame = frame and frame.f_back
        owner = frame and frame.f_locals.get("self")
        if frame and frame.f_code.co_name == "_get_jax_state":
            return (owner if isinstance(owner, keras.Model) else None), shares
        is_for_all = owner is optimizer or isinstance(owner, keras.optimizers.LossScaleOptimizer)
        shares = shares or not is_for_all
    return None, False


def has_taken(model: Any) -> bool:
    """Whether Keras' trainer has taken the values out of a model's variables to train with them."""
    return any(variable._value is None for variable in model.trainable_variables)
