"""What can go wrong under Keras' trainer on JAX, found before the trainer takes the weights.

The trainer passes values without their variables, so a built optimizer that is given to a second
model would go on there with what it knows of the first. And once a step is being traced it is
too late for an error: the trainer has taken the weights out of the model and would lose them.
The one moment before is when it reads the optimizer's `variables`.
"""

import sys
from typing import Any

import keras

from adadelta._core.engine import no_kernel
from adadelta._keras import learning_rate as rates


def reading_trainer(optimizer: Any) -> tuple[Any, bool]:
    """Return the model whose trainer on JAX is reading the optimizer's variables, or None.

    Returns:
        `(model, shares)`: whether the optimizer shares the model's variables with others, as those
        in a `keras.optimizers.MultiOptimizer` do.

    """
    frame, shares = sys._getframe().f_back, False
    # Behind `variables` and its readers, which optimizers around this one may be.
    for _ in range(3):
        frame = frame and frame.f_back
        owner = frame and frame.f_locals.get("self")
        if frame and frame.f_code.co_name == "_get_jax_state":
            return (owner if isinstance(owner, keras.Model) else None), shares
        is_for_all = owner is optimizer or isinstance(owner, keras.optimizers.LossScaleOptimizer)
        shares = shares or not is_for_all
    return None, False


def refuse_what_compiled_training_cannot_do(optimizer: Any, model: Any, shares: bool) -> None:
    """Raise when the optimizer belongs to other variables, lacks a kernel or can't ask its rate."""
    if optimizer.built:
        optimizer._refuse_other_variables(list(model.trainable_variables), shares)
    if optimizer.fused:
        # Before it is built there is nothing to report.
        for served in optimizer._kernel_report():
            if served.reason is not None:
                raise no_kernel(served.reason)
    asked = rates.callable_rate_of(optimizer._learning_rate)
    if asked is not None and model.jit_compile and not model.run_eagerly:
        asked.refuse_main_thread()
