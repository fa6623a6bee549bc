"""The moving average of the weights: `use_ema`."""

import warnings

import keras
import numpy as np

from traps.table import trap
from traps.tools import (
    MODES,
    Driver,
    calls,
    check,
    close,
    finite,
    fit,
    model,
    numpy,
    refused,
    variable,
    weights,
)

ROWS = [[1.0, 2.0, -1.0], [0.5, -1.0, 2.0], [2.0, 1.0, 1.0]]


@trap(1, "use_ema: the second fit() crashes and the weights are lost", falls=("jax",))
def fits_again(cls):
    made = model(cls(learning_rate=1.0, use_ema=True))
    for _ in range(3):
        fit(made, ROWS)
        check(finite(weights(made)), "the weights are not finite")
    made.train_on_batch(np.asarray(ROWS, "float32"), np.zeros((3, 1), "float32"))
    check(finite(weights(made)), "the weights are not finite after train_on_batch()")
    return "three fits and train_on_batch()"


@trap(2, "use_ema: a fit() without an epoch sets every weight to 0")
def fit_without_an_epoch(cls):
    optimizer = cls(learning_rate=1.0, use_ema=True)
    made = model(optimizer)
    optimizer.build(made.trainable_variables)
    before = weights(made)
    fit(made, ROWS, epochs=3, initial_epoch=3)
    close(weights(made), before, "the weight")
    return "the weights stay"


@trap(2, "use_ema: finalizing before the first update changes the weights")
def finalize_before_the_first_update(cls):
    x = variable([1.0, 2.0])
    optimizer = cls(learning_rate=1.0, use_ema=True)
    optimizer.build([x])
    optimizer.finalize_variable_values([x])
    close(numpy(x), [1.0, 2.0], "the weight")
    optimizer.apply([keras.ops.array([1.0, 1.0])], [x])
    average = numpy(optimizer._model_variables_moving_average[0])
    close(average, numpy(x), "the average after the first update")
    return "the weights stay"


def _against_one_batch(cls, mode, **arguments):
    # Three accumulated calls with one gradient equal one call with it, so each comes three times.
    gradients = [1.0, -2.0, 0.5, 3.0, 1.0, 2.0, -1.0]
    whole = Driver(cls(learning_rate=1.0, **arguments), [variable([0.0])], mode)
    parts = Driver(
        cls(learning_rate=1.0, gradient_accumulation_steps=3, **arguments), [variable([0.0])], mode
    )
    calls(whole, [[[g]] for g in gradients])
    calls(parts, [[[g]] for g in gradients for _ in range(3)])
    return whole, parts


@trap(7, "accumulation: the average moves on every call")
def average_per_update(cls):
    for mode in MODES:
        whole, parts = _against_one_batch(cls, mode, use_ema=True, ema_momentum=0.5)
        close(parts.state("average"), whole.state("average"), f"the average ({mode})")
    return "once per update"


@trap(7, "accumulation: the average overwrites the weights several times per window")
def overwrite_per_update(cls):
    for mode in MODES:
        options = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
        whole, parts = _against_one_batch(cls, mode, **options)
        close(parts.state("variables"), whole.state("variables"), f"the weight ({mode})")
    return "after every third update"


@trap(23, "use_ema: the average ignores the variable's constraint")
def average_of_the_constrained(cls):
    for mode in MODES:
        x = variable([0.1])
        x.constraint = keras.constraints.NonNeg()
        run = Driver(cls(learning_rate=1.0, epsilon=1.0, use_ema=True, ema_momentum=0.5), [x], mode)
        calls(run, [[[1.0]]] * 3)
        run.optimizer.finalize_variable_values([x])
        close(numpy(x), [0.0], f"the weight that may not be negative ({mode})")
    return "it averages the constrained value"


@trap(24, "ema_overwrite_frequency = 0 means something else on each backend")
def overwrite_every_zeroth(cls):
    error = refused(lambda: cls(use_ema=True, ema_overwrite_frequency=0))
    check(error is not None, "0 is accepted")
    check("ema_overwrite_frequency" in str(error), f"the message does not say which: {error}")
    return "refused"


@trap(25, "ema_overwrite_frequency: an infinite weight becomes NaN", falls=("jax",))
def infinite_weight(cls):
    for mode in MODES:
        x = variable([np.inf, 1.0])
        optimizer = cls(learning_rate=1.0, use_ema=True, ema_overwrite_frequency=100)
        calls(Driver(optimizer, [x], mode), [[[0.0, 1.0]]] * 3)
        check(numpy(x)[0] == np.inf, f"the weight becomes {numpy(x)[0]} ({mode})")
    return "it stays infinite"


@trap(26, "finalize_variable_values() pairs weights and averages by position")
def finalize_in_another_order(cls):
    x, y = variable([1.0]), variable([10.0])
    optimizer = cls(learning_rate=1.0, use_ema=True)
    calls(Driver(optimizer, [x, y]), [[[1.0], [1.0]]] * 2)
    optimizer.finalize_variable_values([y, x])
    check(numpy(x)[0] < 2 < numpy(y)[0], "two weights change places")
    other = variable([5.0])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizer.finalize_variable_values([other])
    check(
        numpy(other)[0] == 5 and "no moving average" in str([it.message for it in told]),
        "a variable that the optimizer does not know is accepted",
    )
    return "by variable"
