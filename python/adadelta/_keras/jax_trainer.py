"""What can go wrong under Keras' trainer on JAX, found before the trainer takes the weights.

The trainer passes values without their variables, so a built optimizer that is given to a second
model would go on there with what it knows of the first. And once a step is being traced it is
too late for an error: the trainer has taken the weights out of the model and would lose them.
The one moment before is when it reads the optimizer's `variables`.
"""

import sys
from typing import Any

import keras

from adadelta._keras import learning_rate as rates


def reading_trainer() -> Any:
    """Return the model whose trainer on JAX is reading the optimizer's variables, if one is."""
    frame = sys._getframe().f_back
    # Behind `variables` and its reader; Keras' LossScaleOptimizer may stand between them.
    for _ in range(2):
        frame = frame and frame.f_back
        if frame and frame.f_code.co_name == "_get_jax_state":
            owner = frame.f_locals.get("self")
            return owner if isinstance(owner, keras.Model) else None
    return None


def refuse_what_compiled_training_cannot_do(optimizer: Any, model: Any) -> None:
    """Raise when the optimizer belongs to other variables, or its rate can't be asked."""
    if optimizer.built:
        optimizer._refuse_other_variables(list(model.trainable_variables))
    asked = rates.asked_of(optimizer._learning_rate)
    if asked is not None and model.jit_compile and not model.run_eagerly:
        asked.refuse_main_thread()
