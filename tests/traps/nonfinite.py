"""Gradients that are not finite, and dynamic loss scaling."""

import keras
import numpy as np

from traps.table import trap
from traps.tools import FITS, MODES, Driver, check, finite, fit, is_ours, numpy, variable, weights

LARGEST = {True: 2.0**24, False: 2.0**127}


def _scaling(cls):
    """Return an optimizer that scales the loss dynamically."""
    if is_ours(cls):
        return cls(learning_rate=1.0, loss_scale_factor="dynamic")
    return keras.optimizers.LossScaleOptimizer(cls(learning_rate=1.0))


def _scale(optimizer):
    own = getattr(optimizer, "dynamic_scale", None)
    return optimizer._state.loss_scale if own is None else own


def _finite_calls(optimizer):
    own = getattr(optimizer, "step_counter", None)
    return optimizer._state.finite_calls if own is None else own


@trap(3, "loss scaling: an eager call leaks tracers into the weights", falls=("jax",))
def eager_loss_scaling(cls):
    x = variable([1.0])
    run = Driver(_scaling(cls), [x], "eager")
    for gradient in (1.0, np.inf, 2.0):
        run.call([np.array([gradient])])
    check(finite(numpy(x)) and numpy(x)[0] < 1, f"the weight is {numpy(x)[0]}")
    check(float(numpy(_scale(run.optimizer))) == 2.0**14, "the scale is not halved")
    return "the weights are whole"


@trap(3, "loss scaling: Keras' own wrapper does not work around the class", falls=())
def inside_the_wrapper(cls):
    # On JAX the wrapper works in compiled training only.
    for options in FITS.values():
        layer = keras.layers.Dense(1, dtype="mixed_float16", kernel_initializer="ones")
        made = keras.Sequential([keras.Input((3,)), layer])
        wrapped = keras.optimizers.LossScaleOptimizer(
            cls(learning_rate=1.0, gradient_accumulation_steps=2), initial_scale=16.0
        )
        made.compile(wrapped, "mse", **options)
        before = weights(made)
        fit(made, [[1.0, 2.0, 3.0]] * 4)
        check(finite(weights(made)), "the weights are not finite")
        check(not np.array_equal(before, weights(made)), "the weights stand still")
        if keras.config.backend() == "jax":
            break
    return "it trains"


@trap(4, "loss scaling: the scale runs to 0 and then to NaN")
def scale_has_a_floor(cls):
    for mode in _modes(cls):
        x = variable([1.0])
        run = Driver(_scaling(cls), [x], mode)
        for gradient in (*[np.nan] * 170, 1.0):
            run.call([np.array([gradient])])
        scale = float(numpy(_scale(run.optimizer)))
        check(finite(numpy(x)), f"the weight becomes {numpy(x)[0]} ({mode})")
        check(scale >= 1, f"the scale becomes {scale} ({mode})")
    return "never below 1"


@trap(4, "loss scaling: the scale runs to infinity")
def scale_has_a_ceiling(cls):
    for mode in _modes(cls):
        x = variable([1.0])
        optimizer = _scaling(cls)
        run = Driver(optimizer, [x], mode)
        optimizer.build([x])
        _scale(optimizer).assign(LARGEST[is_ours(cls)])
        _finite_calls(optimizer).assign(1999)
        run.call([np.ones(1)])
        scale = float(numpy(_scale(optimizer)))
        check(scale <= 2.0**127, f"the scale becomes {scale} ({mode})")
        check(not is_ours(cls) or scale == 2.0**24, f"the scale becomes {scale} ({mode})")
    return "never above 2^24"


def _modes(cls):
    # Keras' wrapper can't be called eagerly on JAX (trap 3).
    theirs_on_jax = keras.config.backend() == "jax" and not is_ours(cls)
    return [mode for mode in MODES if mode != "eager"] if theirs_on_jax else MODES
