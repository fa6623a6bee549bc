"""Half precision, and complex numbers."""

import numpy as np

from traps.table import trap
from traps.tools import COMPILED, MODES, Driver, Exact, check, close, finite, numpy, variable


@trap(21, "the accumulators of a bfloat16 weight stand still")
def accumulators_in_bfloat16(cls):
    run = Driver(cls(learning_rate=0.0, rho=0.999), [variable([1.0], "bfloat16")], COMPILED)
    exact = Exact([1.0], rho=0.999)
    for _ in range(400):
        run.call([np.ones(1)])
        exact.call([1.0])
    close(numpy(run.optimizer._accumulated_grads[0]), exact.v, "square_avg", 1e-4)
    close(numpy(run.optimizer._accumulated_delta_vars[0]), exact.u, "acc_delta", 1e-3)
    return "float32"


@trap(21, "float16: small gradients vanish in the accumulators")
def small_gradients_in_float16(cls):
    run = Driver(cls(learning_rate=1.0), [variable([0.0], "float16")], COMPILED)
    exact = Exact([0.0])
    gradient = float(np.float16(1e-4))
    for _ in range(100):
        run.call([np.array([gradient])])
        exact.call([gradient])
    # x itself is rounded a hundred times, each time by at most half of 2^-11 of its value.
    close(numpy(run.variables[0]), exact.x, "the weight", 0.03)
    return "the weight goes where it should"


@trap(21, "float16: a small epsilon is rounded to 0 and gives NaN")
def epsilon_in_float16(cls):
    for mode in MODES:
        run = Driver(cls(learning_rate=1.0, epsilon=1e-8), [variable([1.0, 1.0], "float16")], mode)
        run.call([np.array([0.0, 1.0])])
        value = numpy(run.variables[0])
        check(finite(value), f"the weights become {value} ({mode})")
    return "epsilon keeps its value"


@trap(21, "float16: one gradient of 256 freezes its weight for good")
def large_gradient_in_float16(cls):
    for mode in MODES:
        run = Driver(cls(learning_rate=1.0, rho=0.5), [variable([0.0], "float16")], mode)
        for gradient in (1000.0, *[1.0] * 40):
            run.call([np.array([gradient])])
        before = numpy(run.variables[0]).copy()
        for _ in range(3):
            run.call([np.ones(1)])
        check(np.all(numpy(run.variables[0]) < before), f"the weight stands still ({mode})")
    return "it goes on"


@trap(22, "use_ema: the average of a bfloat16 weight stands still")
def average_in_bfloat16(cls):
    x = variable([1.0], "bfloat16")
    run = Driver(cls(learning_rate=0.0, use_ema=True, ema_momentum=0.999), [x], COMPILED)
    run.call([np.zeros(1)])
    x.assign([2.0])
    for _ in range(300):
        run.call([np.zeros(1)])
    average = numpy(run.optimizer._model_variables_moving_average[0])
    close(average, [2 - 0.999**300], "the average", 1e-3)
    return "float32"


@trap(29, "complex weights diverge")
def complex_weights(cls):
    for mode in MODES:
        start = np.array([1 + 2j, -0.5 + 0.25j], "complex64")
        x = variable(start, "complex64")
        pair = Exact(np.stack([start.real, start.imag]))
        optimizer = cls(learning_rate=1.0)
        run = Driver(optimizer, [x], mode)
        for _ in range(30):
            run.call([keras_tensor(numpy(x))])
            pair.call(pair.x)
        got = numpy(x)
        close(np.stack([got.real, got.imag]), pair.x, f"the weight ({mode})", 1e-4)
    return "two real weights each"


def keras_tensor(value):
    import keras

    return keras.ops.convert_to_tensor(value)
