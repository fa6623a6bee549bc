"""What a fused step is told beside its tensors."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """One step's hyperparameters and options, in the order in which the step uses them.

    `rate`, `unscale` and `factor` may be Python numbers or tensors of one element; for the value
    of one on the parameters' own device the host never waits. All numbers are rounded to the
    dtype of the averages before they are used, as operators on tensors do.

    Attributes:
        rate: The learning rate.
        rho: Decay rate of both averages.
        epsilon: Added inside both square roots.
        unscale: What gradients are divided by: the loss scale, or the number of calls when they
            are the sums of a window. None for nothing.
        factor: What gradients are multiplied by, to clip them. None for nothing.
        maximize: Whether gradients are negated.
        decay_mode: What becomes of a row's weight decay: "coupled" (added to the gradient),
            "decoupled" (subtracted times the rate) or "unscaled" (subtracted). None for nothing.
        ema_momentum: How much of the old moving average stays.
        ema_mode: "start" sets the moving averages to the new parameters, "move" moves them
            there. None leaves them alone.
        largest: The magnitude to which finite gradients are limited: `rule.largest_gradient` for
            the dtype of the averages.

    """

    rate: Any
    rho: float
    epsilon: float
    unscale: Any = None
    factor: Any = None
    maximize: bool = False
    decay_mode: str | None = None
    ema_momentum: float = 0.99
    ema_mode: str | None = None
    largest: float = math.inf
