"""The other arguments: which values are allowed, and when they may change."""

import math

import numpy as np

from traps.table import Trapped, trap
from traps.tools import (
    FITS,
    MODES,
    Driver,
    check,
    fit,
    model,
    numpy,
    refused,
    variable,
    weights,
)

BAD = {
    "learning_rate": (-1.0, math.nan, math.inf, "abc", None),
    "rho": (-0.1, 1.0, 1.5, math.nan, None, "a"),
    "epsilon": (0.0, -1.0, math.nan, math.inf, None),
    "weight_decay": (-0.1, math.nan, math.inf, "a"),
    "ema_momentum": (-0.1, 1.5, math.nan, None),
    "ema_overwrite_frequency": (0, -1, 1.5),
    "loss_scale_factor": (0.0, -1.0, math.nan, math.inf, "a"),
}


@trap(
    15,
    "rho, epsilon, weight_decay, clipping: ignored when changed after the first step",
    falls=("jax", "tensorflow"),
)
def changed_between_fits(cls):
    changes = {"rho": 0.5, "epsilon": 1e-2, "weight_decay": 0.25, "clipvalue": 0.01}
    for name, options in FITS.items():
        for argument, value in changes.items():
            made, twin = (
                model(cls(learning_rate=1.0, weight_decay=0.1, clipvalue=10.0), **options)
                for _ in range(2)
            )
            rows = [[1.0, 2.0, 3.0]] * 2
            fit(made, rows)
            fit(twin, rows)
            error = refused(lambda: setattr(made.optimizer, argument, value))  # noqa: B023
            if error is not None:
                check(argument in str(error), f"the message does not name {argument}: {error}")
                continue
            fit(made, rows)
            fit(twin, rows)
            if np.array_equal(weights(made), weights(twin)):
                raise Trapped(f"{argument} = {value} changes nothing ({name})")
    return "refused or honoured"


@trap(18, "no checks: a negative rate ascends, rho 1.5 gives NaN")
def bad_values(cls):
    accepted = []
    for argument, values in BAD.items():
        for value in values:
            error = refused(lambda argument=argument, value=value: cls(**{argument: value}))
            if error is None:
                accepted.append(f"{argument}={value}")
            elif argument not in str(error):
                accepted.append(f"{argument}={value} (refused without its name: {error})")
    check(not accepted, f"accepted: {', '.join(accepted)}")
    return "refused, by name"


@trap(18, "no checks: epsilon below the smallest number acts as 0")
def tiny_epsilon(cls):
    x = variable([1.0])
    error = refused(lambda: Driver(cls(epsilon=1e-40), [x]).call([np.zeros(1)]))
    check(error is not None and "epsilon" in str(error), "accepted for a float32 weight")
    return "refused for a float32 weight"


@trap(27, "exclude_from_weight_decay() after the first step is not refused")
def exclude_after_build(cls):
    x = variable([1.0])
    optimizer = cls(weight_decay=0.1)
    optimizer.build([x])
    error = refused(lambda: optimizer.exclude_from_weight_decay(var_list=[x]))
    check(error is not None, "accepted")
    return "refused"


@trap(27, "exclude_from_weight_decay(): excluding everything crashes", falls=("torch",))
def exclude_everything(cls):
    for mode in MODES:
        x, y = variable([1.0]), variable([2.0])
        optimizer = cls(learning_rate=1.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[x, y])
        Driver(optimizer, [x, y], mode).call([np.zeros(1), np.zeros(1)])
        check(numpy(x)[0] == 1 and numpy(y)[0] == 2, f"the weights decay ({mode})")
    return "nothing decays"


@trap(
    27, "exclude_from_weight_decay(): names match differently per backend", falls=("jax", "torch")
)
def exclude_by_the_layer_name(cls):
    import keras

    def made_of(optimizer):
        zeros = keras.initializers.Constant(1.0)
        return keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(1, use_bias=False, kernel_initializer=zeros, name="body"),
                keras.layers.Dense(1, use_bias=False, kernel_initializer=zeros, name="head"),
            ]
        ), optimizer

    made, optimizer = made_of(cls(learning_rate=1.0, weight_decay=0.5))
    optimizer.exclude_from_weight_decay(var_names=["head"])
    Driver(optimizer, made.trainable_variables).call([np.zeros((1, 1))] * 2)
    values = [float(value) for value in weights(made)]
    check(values == [0.5, 1.0], f"body and head go from 1, 1 to {values} where head is excluded")
    return "by the path"


@trap(39, "get_weights() and lr are gone")
def old_names(cls):
    x = variable([1.0])
    optimizer = cls(learning_rate=0.5)
    Driver(optimizer, [x]).call([np.ones(1)])
    saved = optimizer.get_weights()
    other = cls(learning_rate=0.25)
    other.build([x])
    other.set_weights(saved)
    check(
        all(np.array_equal(a, b) for a, b in zip(saved, other.get_weights(), strict=True)),
        "set_weights() does not take what get_weights() returned",
    )
    check(float(numpy(optimizer.lr)) == 0.5, "lr is not the rate")
    optimizer.lr = 0.125
    check(float(numpy(optimizer.learning_rate)) == 0.125, "lr does not set the rate")
    return "they are back"


@trap(39, "decay = is ignored with a warning")
def old_decay(cls):
    error = refused(lambda: cls(decay=0.5))
    check(error is not None, "accepted")
    check("InverseTimeDecay" in str(error), f"the message does not say what to use: {error}")
    return "refused, with the schedule to use"
