"""Gradient accumulation: `gradient_accumulation_steps`."""

import os
import tempfile
from unittest import mock

import keras
import numpy as np

from adadelta._core import rule
from traps.table import Trapped, trap
from traps.tools import (
    BACKEND,
    COMPILED,
    FITS,
    MODES,
    Driver,
    Exact,
    calls,
    check,
    close,
    finite,
    fit,
    is_ours,
    model,
    numpy,
    refused,
    variable,
    weights,
)


@trap(5, "accumulation: a missing gradient drops the window's sum or leaks it into later windows")
def missing_gradient(cls):
    for mode in MODES:
        x, y = variable([0.0]), variable([0.0])
        run = Driver(cls(learning_rate=1.0, gradient_accumulation_steps=2), [x, y], mode)
        exact = Exact([0.0])
        for first, second in ((1.0, None), (None, 3.0), (2.0, 4.0)):
            calls(run, [[None if g is None else [g], [1.0]] for g in (first, second)])
            exact.call([((first or 0.0) + (second or 0.0)) / 2])
            close(numpy(x), exact.x, f"the weight ({mode})")
            close(run.state("window")[0], [0.0], f"what is left of the window ({mode})")
    return "counts as 0 for its call"


@trap(6, "accumulation: after one NaN the window stays NaN for good", falls=("torch",))
def window_after_nan(cls):
    for mode in MODES:
        run = Driver(cls(gradient_accumulation_steps=2), [variable([0.0])], mode)
        calls(run, [[[np.nan]], [[1.0]]])
        left = run.state("window")[0][0]
        check(left == 0, f"the window holds {left} after its update ({mode})")
    return "emptied by assignment"


def _primitives_that_always_run(jaxpr, found):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            continue
        found.add(equation.primitive.name)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                _primitives_that_always_run(inner, found)
    return found


def _by_the_rule(cls):
    # A kernel gets its own call to accumulate (tests/kernels/test_cpu.py); this trap watches the
    # operators of the rule.
    return {"fused": False} if is_ours(cls) else {}


@trap(8, "accumulation: a compiled call inside a window computes the whole update", falls=("jax",))
def work_inside_a_window_compiled(cls):
    x = variable([1.0])
    optimizer = cls(gradient_accumulation_steps=4, **_by_the_rule(cls))
    if BACKEND == "jax":
        import jax

        optimizer.build([x])
        traced = jax.make_jaxpr(optimizer.stateless_apply)(
            [v.value for v in optimizer.variables], [x.value], [x.value]
        )
        always = _primitives_that_always_run(traced.jaxpr, set())
        roots = {"sqrt", "rsqrt"} & always
        check(not roots, "the square roots stand outside every condition")
        return "the square roots stand inside a condition"
    updates = _updates_of(cls, "function" if BACKEND == "tensorflow" else "eager")
    return f"{updates} updates in 8 calls"


@trap(8, "accumulation: an eager call inside a window computes the whole update", falls=("jax",))
def work_inside_a_window_eagerly(cls):
    return f"{_updates_of(cls, 'eager')} updates in 8 calls"


def _updates_of(cls, mode):
    counted = []

    def counting(function):
        def update(*arguments):
            if mode == "function":
                import tensorflow as tf

                tf.py_function(lambda: counted.append(1), [], [])
            else:
                counted.append(1)
            return function(*arguments)

        return update

    optimizer = cls(gradient_accumulation_steps=4, **_by_the_rule(cls))
    # No update works without this method.
    owner, name = (rule, "update") if is_ours(cls) else (optimizer, "_backend_update_step")
    with mock.patch.object(owner, name, counting(getattr(owner, name))):
        run = Driver(optimizer, [variable([1.0])], mode)
        calls(run, [[[1.0]]] * 8)
    check(len(counted) == 2, f"{len(counted)} updates in 8 calls of which 2 are to update")
    return len(counted)


@trap(9, "accumulation: what is left at the end of fit() contaminates the next fit()")
def open_window_at_the_end_of_fit(cls):
    for name, options in FITS.items():
        optimizer = cls(learning_rate=1.0, gradient_accumulation_steps=4)
        made = model(optimizer, width=1, start=0.0, **options)
        exact = Exact([0.0])
        fit(made, [[1.0]] * 4 + [[1000.0], [500.0]])
        exact.call([1.0])
        exact.call([750.0])
        close(weights(made), exact.x, f"the weight after the first fit ({name})")
        fit(made, [[1.0]] * 4)
        exact.call([1.0])
        close(weights(made), exact.x, f"the weight after the second fit ({name})")
    return "closed with the mean of what it holds"


@trap(9, "accumulation: a saved model loses its open window", falls=())
def open_window_is_saved(cls):
    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    made.compile(cls(learning_rate=1.0, gradient_accumulation_steps=3), "mse")
    x = np.ones((2, 1), "float32")
    for _ in range(2):
        made.train_on_batch(x, x)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        made.save(path)
        loaded = keras.saving.load_model(path)
    for each in (made, loaded):
        each.train_on_batch(x, x)
    check(np.array_equal(weights(made), weights(loaded)), "it goes on otherwise than unsaved")
    return "it goes on bit for bit"


@trap(10, "accumulation: the documentation is silent on micro-batches of unequal size")
def unequal_micro_batches(cls):
    # As in Keras: the mean of the calls' gradients, whatever the sizes of their batches.
    optimizer = cls(learning_rate=1.0, gradient_accumulation_steps=2)
    made = model(optimizer, width=1, start=0.0)
    fit(made, [[1.0], [3.0], [6.0]], batch_size=2)
    exact = Exact([0.0])
    exact.call([(2.0 + 6.0) / 2])
    close(weights(made), exact.x, "the weight")
    says = "calls have the same weight" in " ".join((cls.__doc__ or "").split())
    check(says, "the class does not say how they weigh")
    return "each call weighs the same, and the class says so"


@trap(11, "accumulation: the documentation is silent on what schedules count")
def schedules_count_calls(cls):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [1.0, 0.0])
    for mode in MODES:
        x = variable([0.0])
        optimizer = cls(learning_rate=schedule, gradient_accumulation_steps=4)
        exact = Exact([0.0])
        calls(Driver(optimizer, [x], mode), [[[1.0]]] * 8)
        exact.call([1.0])
        close(numpy(x), exact.x, f"the weight ({mode})")
    says = "schedules count calls" in " ".join((cls.__doc__ or "").split())
    check(says, "the class does not say what they count")
    return "calls, and the class says so"


@trap(12, "gradient_accumulation_steps: 2.5 is accepted, 1 refused, 0 silently off")
def steps_per_window(cls):
    for value in (None, 1, 2, 2.0):
        error = refused(lambda value=value: cls(gradient_accumulation_steps=value))
        check(error is None, f"{value} is refused: {error}")
    for value in (2.5, 0, -3, float("nan"), "2"):
        error = refused(lambda value=value: cls(gradient_accumulation_steps=value))
        check(error is not None, f"{value} is accepted")
    run = Driver(cls(learning_rate=1.0, gradient_accumulation_steps=2.0), [variable([0.0])])
    calls(run, [[[1.0]]] * 2)
    check(numpy(run.variables[0])[0] != 0, "2.0 does not update")
    return "None, 1 and whole numbers"


@trap(13, "accumulation: a bfloat16 window stands still at 256")
def window_of_small_gradients(cls):
    run = Driver(
        cls(learning_rate=1.0, gradient_accumulation_steps=600),
        [variable([0.0], "bfloat16")],
        COMPILED,
    )
    calls(run, [[[1.0]]] * 599)
    window = run.optimizer._accumulated_gradients[0]
    held = float(numpy(window)[0])
    check(held == 599, f"it holds {held:.0f} after 599 gradients of 1")
    return "it holds 599 after 599 gradients of 1"


@trap(13, "accumulation: a float16 window overflows although the mean is finite")
def window_of_large_gradients(cls):
    run = Driver(
        cls(learning_rate=1.0, epsilon=1e-3, gradient_accumulation_steps=4),
        [variable([0.0], "float16")],
        COMPILED,
    )
    calls(run, [[[20000.0]]] * 4)
    exact = Exact([0.0], epsilon=1e-3)
    exact.call([20000.0])
    value = numpy(run.variables[0]).astype("float64")
    check(finite(value), f"the weight becomes {value[0]}")
    close(value, exact.x, "the weight", 2e-3)
    return "the update has the finite mean"


@trap(0, "skip_nonfinite: one NaN or infinite gradient poisons a parameter for good")
def one_nonfinite_gradient(cls):
    arguments = {"skip_nonfinite": True} if is_ours(cls) else {}
    for mode in MODES:
        options = {"use_ema": True, "gradient_accumulation_steps": 2, **arguments}
        run = Driver(cls(learning_rate=1.0, **options), [variable([1.0])], mode)
        twin = Driver(cls(learning_rate=1.0, **options), [variable([1.0])], mode)
        calls(run, [[[1.0]], [[np.nan]], [[2.0]], [[np.inf]], [[-1.0]], [[3.0]]])
        calls(twin, [[[1.0]], [[2.0]], [[-1.0]], [[3.0]]])
        for slot in ("variables", "square_avg", "acc_delta", "average", "window"):
            if not np.array_equal(run.state(slot), twin.state(slot)):
                raise Trapped(f"{slot} becomes {run.state(slot)[0][0]} ({mode})")
        check(run.optimizer.skipped == 2, f"{run.optimizer.skipped} calls counted as skipped")
    return "two calls skipped and counted"
