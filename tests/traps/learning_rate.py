"""The learning rate: numbers, functions, schedules, and replacing one by another."""

import keras
import numpy as np

from traps.table import Trapped, trap
from traps.tools import (
    FITS,
    Driver,
    Exact,
    calls,
    check,
    close,
    finite,
    float64,
    numpy,
    rates_of,
    refused,
    variable,
)


class Falling:
    """Return 1, 1/2, 1/3, ... in successive calls."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return 1.0 / self.asked


def _asked_once(cls, compiled, **options):
    rate = Falling()
    used = rates_of(cls, rate, 4, compiled=compiled, **options)
    close(used, [1.0, 1 / 2, 1 / 3, 1 / 4], "the rate of four steps", 1e-4)
    check(rate.asked == 4, f"it is asked {rate.asked} times in 4 steps")


@trap(14, "learning_rate: a function is frozen when fit() is compiled", falls=("jax", "tensorflow"))
def function_in_compiled_fit(cls):
    for compiled in FITS.values():
        _asked_once(cls, compiled)
    return "asked once for every step"


@trap(14, "learning_rate: a function under XLA is frozen without a word", backends=("tensorflow",))
def function_under_xla(cls):
    try:
        _asked_once(cls, {"jit_compile": True})
    except Trapped:
        raise
    except Exception as error:
        check("learning_rate" in str(error), f"an error about something else: {error}")
        return "refused, with the word learning_rate: XLA can't call Python"
    return "asked once for every step"


@trap(14, "learning_rate: with weight decay a function is asked twice per step")
def function_with_weight_decay(cls):
    x = variable([1.0])
    rate = Falling()
    calls(Driver(cls(learning_rate=rate, weight_decay=0.1), [x]), [[[1.0]]] * 4)
    check(rate.asked == 4, f"it is asked {rate.asked} times in 4 steps")
    return "asked once"


@trap(
    14,
    "learning_rate: a function that returns a variable is ignored or fails",
    falls=("jax", "torch"),
)
def function_that_returns_a_variable(cls):
    for name, compiled in FITS.items():
        rate = keras.Variable(1.0, dtype="float32")
        used = rates_of(
            cls,
            lambda rate=rate: rate,
            3,
            compiled=compiled,
            then=lambda made, batch, rate=rate: rate.assign(0.5 ** (batch + 1)),
        )
        close(used, [1.0, 0.5, 0.25], f"the rate of three steps ({name})", 1e-4)
    return "followed"


@trap(16, "learning_rate: a number can't be set after a function or a schedule")
def one_after_another(cls):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1000], [0.25, 0.0])
    kinds = [(0.5, 0.5), (lambda: 0.125, 0.125), (2.0, 2.0), (schedule, 0.25), (1.0, 1.0)]
    optimizer = cls(learning_rate=schedule)
    x, exact = variable([0.0]), Exact([0.0])
    run = Driver(optimizer, [x])
    calls(run, [[[1.0]]])
    exact.call([1.0], 0.25)
    for rate, expected in kinds:
        optimizer.learning_rate = rate
        calls(run, [[[1.0]]])
        exact.call([1.0], expected)
        close(numpy(x), exact.x, f"the weight after the rate {expected}")
    return "in any order"


@trap(16, "learning_rate: after a function was set, saved state does not load")
def state_after_a_function(cls):
    x = variable([1.0])
    optimizer = cls(learning_rate=1.0)
    calls(Driver(optimizer, [x]), [[[1.0]]] * 3)
    store = {}
    optimizer.save_own_variables(store)
    other = cls(learning_rate=1.0)
    other.build([x])
    other.learning_rate = lambda: 0.5
    other.load_own_variables(store)
    close(numpy(other._accumulated_grads[0]), numpy(optimizer._accumulated_grads[0]), "square_avg")
    return "it loads"


@trap(17, "learning_rate: 1 and NumPy's numbers are refused")
def numbers_of_any_kind(cls):
    values = [1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1), np.array(0.5)]
    for value in values:
        error = refused(lambda value=value: cls(learning_rate=value))
        check(error is None, f"{value!r} is refused: {error}")
    return "any real number"


@trap(17, "learning_rate: get_config() returns another number than was given")
def config_has_the_number(cls):
    given = cls(learning_rate=0.1).get_config()["learning_rate"]
    check(given == 0.1, f"0.1 comes back as {given!r}")
    return "0.1 comes back"


@trap(17, "learning_rate: float64 weights get a float32 rate")
def float64_rate(cls):
    with float64():
        x, exact = variable([1.0, -2.0], "float64"), Exact([1.0, -2.0])
        run = Driver(cls(learning_rate=0.1), [x])
        for _ in range(20):
            run.call([np.array([1.0, -0.3])])
            exact.call([1.0, -0.3], 0.1)
        close(numpy(x) - [1.0, -2.0], exact.x - [1.0, -2.0], "the way the weights went", 1e-11)
    return "float64 throughout"


@trap(31, "learning_rate: rounded to the first weight's dtype for all", falls=("torch",))
def rate_by_weight(cls):
    half, single = variable([1.0], "float16"), variable([0.0])
    exact = Exact([0.0])
    run = Driver(cls(learning_rate=0.1), [half, single])
    for _ in range(5):
        run.call([np.array([1.0]), np.array([1.0])])
        exact.call([1.0], 0.1)
    check(finite(numpy(single)), "the float32 weight is not finite")
    close(numpy(single), exact.x, "the float32 weight beside a float16 one", 1e-5)
    return "rounded for each weight"
