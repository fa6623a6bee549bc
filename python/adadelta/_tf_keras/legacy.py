"""The config for tf_keras' `convert_to_legacy_optimizer()`, as the legacy Adadelta's arguments.

tf_keras calls that function itself where TensorFlow 2 is switched off. It creates its own legacy
class from the config, and first removes what that class does not accept.
"""

import sys
import warnings
from typing import Any

import tf_keras

from adadelta._core import hyperparameters
from adadelta._state.record import StateWarning

# What the legacy class does not support, unless it has this value.
_LOST = {
    "weight_decay": None,
    "use_ema": False,
    "maximize": False,
    "skip_nonfinite": False,
}
_KEPT = ("name", "rho", "epsilon", "clipnorm", "clipvalue", "global_clipnorm")


def is_asking() -> bool:
    """Whether `get_config()` was called for the conversion, which does not tell the optimizer."""
    frame = sys._getframe(2)
    # A subclass may have its own get_config(), which calls this class's.
    while frame.f_code.co_name == "get_config" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name == "convert_to_legacy_optimizer"


def config_of(optimizer: tf_keras.optimizers.Optimizer, rate: float | None) -> dict[str, Any]:
    """Return the arguments of the legacy optimizer, or raise if it would not do the same.

    Args:
        optimizer: The optimizer.
        rate: Its learning rate, or None if that is not a number.

    """
    lost = [
        argument for argument, neutral in _LOST.items() if getattr(optimizer, argument) != neutral
    ]
    if lost:
        argument = lost[0]
        value = hyperparameters.received(getattr(optimizer, argument))
        raise ValueError(
            f"`{argument}` must be {_LOST[argument]} for convert_to_legacy_optimizer(), since the "
            f"legacy Adadelta of tf_keras has nothing like it; received {value}"
        )
    if optimizer.built and int(optimizer.iterations) > 0:
        warnings.warn(
            "The legacy optimizer starts anew: the averages of this one can't be converted",
            StateWarning,
            stacklevel=4,
        )
    config = {argument: getattr(optimizer, argument) for argument in _KEPT}
    # tf_keras itself puts a schedule there.
    config["learning_rate"] = rate
    return config
