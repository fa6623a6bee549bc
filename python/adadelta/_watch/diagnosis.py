"""Detect the most frequent problems of training from what the monitor records."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adadelta._core import hyperparameters
from adadelta._core.messages import Message
from adadelta._core.precision import largest_gradient, largest_number
from adadelta._keras import loss_scale, precision, reading
from adadelta._keras.exchange import parts_of
from adadelta.keras import Adadelta

# Measured on four small problems, of 32 to 6,000 rows: in 100 updates weights changed by 0.03 % to
# 0.1 % of their size at a learning rate of 0.001, by 0.3 % to 1.1 % at 0.01, by 2.6 % to 11 % at
# 0.1, and by 16 % to 39 % at 1.
UPDATES_TO_MOVE = 100
LITTLE_MOVEMENT = 0.01
LITTLE_LOSS = 0.05
LOW_RATE = 0.1

# An average of squared gradients has forgotten its start after 1 / (1 - rho) updates, 20 by
# default. If a variable had no gradient until then, the cause is not a single input of 0.
UPDATES_TO_HAVE_A_GRADIENT = 20

# Gradients above this share of their limit leave no doubt: in float32, with epsilon 1e-7, it is
# 3e13. The averages may reach the same share of the largest number.
NEAR_THE_LIMIT = 0.01


@dataclass
class Watched:
    """What was recorded since training began.

    Args:
        start: The weights of each variable at the beginning.
        update: The number of updates at the beginning.
        step: The number of calls at the beginning.
        skipped: The number of skipped calls at the beginning.
        optimizer: The optimizer.

    """

    start: Mapping[str, np.ndarray]
    update: int
    step: int
    skipped: int
    optimizer: Adadelta
    last: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    readings: list[reading.Reading] = field(default_factory=list)

    def add(
        self, common: dict[str, Any], readings: list[reading.Reading], batches: int, loss: float
    ) -> None:
        """Add what was recorded now, and the mean loss of the batches since the last record."""
        self.last = common
        self.losses.append((batches, loss))
        self.readings = readings

    @property
    def updates(self) -> int:
        """How many updates there were since training began."""
        return int(self.last["update"]) - self.update


def nothing_moves(watched: Watched) -> str | None:
    """Warn if at a low, constant learning rate neither the weights nor the loss have changed."""
    rate = watched.last["learning_rate"]
    is_constant = parts_of(watched.optimizer).rate.is_number
    if not (0 < rate < LOW_RATE and is_constant and watched.updates >= UPDATES_TO_MOVE):
        return None
    change = _change_of_weights(watched)
    # Without a loss the weights decide.
    if not change < LITTLE_MOVEMENT or _change_of_loss(watched) > LITTLE_LOSS:
        return None
    return (
        f"in {watched.updates} updates at learning rate {rate:.3g} the weights changed by "
        f"{change:.2%} of their size; Adadelta needs a learning rate near 1, while Keras' default "
        "is 0.001: try `learning_rate = 1`"
    )


def _change_of_weights(watched: Watched) -> float:
    """Return the root mean square change of all weights, as a share of that of the weights."""
    changes, sizes = 0.0, 0.0
    for one in watched.readings:
        start = watched.start[one.variable]
        changes += float(np.mean(np.square(one.weights - start))) * one.size
        sizes += float(np.mean(np.square(start))) * one.size
    return math.sqrt(changes / sizes) if sizes else math.inf


def _change_of_loss(watched: Watched) -> float:
    """Return the relative change of the mean loss from the first half to the second."""
    batches, losses = np.array(watched.losses).T
    half = len(losses) // 2
    first, second = (
        np.average(losses[part], weights=batches[part])
        for part in (slice(None, half), slice(half, None))
    )
    return float(abs(second - first) / abs(first)) if first else math.nan


def saturated(watched: Watched) -> str | None:
    """Warn if gradients are near their limit, or averages near the largest number."""
    own = parts_of(watched.optimizer).state
    dtypes = dict(zip(own.names, map(precision.dtype_of, own.parameters), strict=True))
    found, largest = [], 0.0
    for one in watched.readings:
        dtype = dtypes[one.variable]
        limit = largest_gradient(watched.optimizer.epsilon, dtype)
        gradient = math.sqrt(np.max(one.square_avg))
        is_near = np.max(one.acc_delta) >= NEAR_THE_LIMIT * largest_number(dtype)
        if gradient >= NEAR_THE_LIMIT * limit or is_near:
            found.append(one.variable)
            largest = max(largest, limit)
    if not found:
        return None
    return (
        f"gradients or steps of {_list(found)} are so large that they are limited (gradients to "
        f"{largest:.1e}); scale the data and the loss to about 1, or set `global_clipnorm`"
    )


# Why a gradient is NaN or infinite.
_CAUSES = "look for missing values in the data, logarithms of 0 and divisions by 0"


def calls_are_skipped(watched: Watched) -> str | None:
    """Warn if calls were skipped, by `skip_nonfinite` or loss scaling, for NaN or infinity."""
    skipped = watched.last["skipped"] - watched.skipped
    calls = watched.last["step"] - watched.step
    allowed = 0
    if watched.optimizer.loss_scale_factor == "dynamic":
        # A dynamic loss scale skips a call each time that it halves.
        halvings = math.log2(loss_scale.FIRST / loss_scale.SMALLEST)
        allowed = int(halvings) + 1 + calls // loss_scale.CALLS_TO_GROW
    if skipped <= allowed:
        return None
    return (
        f"calls skipped so far: {skipped} of {calls}, because a gradient was NaN or infinite; "
        + _CAUSES
    )


def averages_are_lost(watched: Watched) -> str | None:
    """Warn if a gradient that was not finite has reached the averages."""
    found = [
        one.variable
        for one in watched.readings
        if np.isnan(one.square_avg).any() or np.isnan(one.acc_delta).any()
    ]
    if not found:
        return None
    variables = _list(found)
    text = (
        f"the averages of {variables} became NaN; train new weights with "
        f"`skip_nonfinite = True`, and {_CAUSES}"
    )
    return Message(text, "averages_lost", variables=variables)


def no_gradient(watched: Watched) -> str | None:
    """Warn if a variable that is trained has had no gradient other than 0."""
    if watched.updates < UPDATES_TO_HAVE_A_GRADIENT:
        return None
    suspects = {one.variable for one in watched.readings if not one.square_avg.any()}
    if suspects:
        # A sample may miss the rows of an embedding that were used.
        suspects -= reading.has_gradient(parts_of(watched.optimizer).state, suspects)
    if not suspects:
        return None
    names = [one.variable for one in watched.readings if one.variable in suspects]
    return (
        f"in {watched.updates} updates {_list(names)} had no gradient other than 0: the loss does "
        "not depend on it, or a layer gives 0 for all data, such as a ReLU that is never active"
    )


# By kind, since each warning is given once.
KINDS: Mapping[str, Callable[[Watched], str | None]] = {
    "rate": nothing_moves,
    "saturation": saturated,
    "skipped": calls_are_skipped,
    "nonfinite": averages_are_lost,
    "no_gradient": no_gradient,
}


def _list(names: Iterable[str]) -> str:
    """Return the names in quotes, or the first few of many."""
    return hyperparameters.first_of([hyperparameters.received(name, 40) for name in names], 45)
