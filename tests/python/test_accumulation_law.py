"""k calls with `gradient_accumulation_steps = k` are one call with the mean of their gradients.

This holds for parameters, averages, EMA and the update count, with every other option on.
"""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest

import adadelta
from adadelta._core import rule
from driver import BACKEND, MODES, Driver, NonNegative, is_slow, numpy
from options import ALTERNATIVES, OPTIONS, name, optimizer_of, pairs, pairs_in, rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from traps.tools import COMPILED, FITS

STEPS = 3
UPDATES, UPDATES_IF_SLOW = 201, 51
# The gradients are chosen so that their sum is exact in float32, and one division gives the same
# mean in both runs. The only difference is the order in which a compiler multiplies and adds: a few
# times 6e-8 in each update, at most 1e-5 after 201 updates.
TOLERANCE = 1e-5

SHAPES = ((3,), (2, 2))
PAIRS = pairs(OPTIONS, ALTERNATIVES)
ROWS = rows(OPTIONS, ALTERNATIVES)


def micro_gradients(options, updates):
    """Return gradients: for each update, a list of calls with one gradient for each variable."""
    random = np.random.default_rng(20121225)
    windows = []
    for update in range(updates):
        window = [
            [np.round(random.normal(size=shape) * 256) / 256 for shape in SHAPES]
            for _ in range(STEPS)
        ]
        if "missing gradients" in options and update % 3:
            for position, call in enumerate(window):
                if update % 3 == 1 and position > 0:
                    call[1] = None  # in the last calls
                elif update % 3 == 2:
                    call[0] = None  # in all
        windows.append(window)
    return windows


def mean(window):
    columns = zip(*window, strict=True)
    return [_mean([g for g in column if g is not None]) for column in columns]


def _mean(gradients):
    return sum(gradients) / STEPS if gradients else None


class Run:
    """An optimizer, and the calls to drive it with."""

    def __init__(self, options, mode, windows, **arguments):
        """Each of the windows is a list of calls that ends with an update."""
        scale = OPTIONS["loss scale"]["loss_scale_factor"] if "loss scale" in options else 1.0
        calls, ends = [], []
        for update, window in enumerate(windows):
            for position, gradients in enumerate(window):
                if "skipping" in options and (update + position) % 4 == 0:
                    calls.append([np.full(shape, np.nan) for shape in SHAPES])
                calls.append([None if g is None else g * scale for g in gradients])
            ends.append(len(calls) - 1)
        # A schedule counts calls; the two counts agree where the rate changes between two windows.
        boundaries = [ends[len(ends) // 4], ends[len(ends) * 3 // 5]]
        optimizer = optimizer_of(options, OPTIONS, boundaries, **arguments)
        random = np.random.default_rng(6)
        variables = [keras.Variable(random.normal(size=s), dtype="float32") for s in SHAPES]
        if "constraint" in options:
            variables[0].constraint = NonNegative()
        self.calls = calls
        self.driver = Driver(optimizer, variables, mode)

    def finish(self):
        for gradients in self.calls:
            self.driver.call(gradients)
        return self.driver


def check_the_law(options, mode):
    updates = UPDATES_IF_SLOW if is_slow(mode) else UPDATES
    windows = micro_gradients(options, updates)
    parts = Run(options, mode, windows, gradient_accumulation_steps=STEPS).finish()
    whole = Run(options, mode, [[mean(window)] for window in windows]).finish()
    assert int(numpy(parts.optimizer.iterations)) == updates
    assert int(numpy(whole.optimizer.iterations)) == updates
    slots = ["variables", "square_avg", "acc_delta"]
    slots += ["average"] if whole.optimizer.use_ema else []
    for slot in slots:
        for one, other in zip(parts.state(slot), whole.state(slot), strict=True):
            assert np.all(np.isfinite(other))
            scale = np.max(np.abs(other))
            np.testing.assert_allclose(
                one / scale, other / scale, rtol=0, atol=TOLERANCE, err_msg=slot
            )
    for window in parts.state("window"):
        assert not np.any(window)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_every_pair_of_options(pair):
    check_the_law(pair, COMPILED)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: name(row[:3]))
def test_many_options_at_once(row, mode):
    check_the_law(row, mode)


def test_the_rows_hold_every_pair():
    assert set().union(*map(pairs_in, ROWS)) == {frozenset(pair) for pair in PAIRS}


def _trained(batch_size, options, fit_options):
    random = np.random.default_rng(3)
    x = random.normal(size=(96, 5)).astype("float32")
    y = np.tanh(x[:, :1] - x[:, 1:2])
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    optimizer = adadelta.Adadelta(learning_rate=1.0, epsilon=1e-4, **options)
    model.compile(optimizer, "mse", **fit_options)
    start = model.get_weights()
    history = model.fit(x, y, batch_size=batch_size, epochs=8, shuffle=False, verbose=0)
    moved = [after - before for before, after in zip(start, model.get_weights(), strict=True)]
    return model, moved, history.history["loss"]


@pytest.mark.parametrize(
    "fit_options", FITS.values(), ids=[name.replace(" ", "-") for name in FITS]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01, "clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5},
        {
            "weight_decay": 0.01,
            "decoupled_weight_decay": False,
            "global_clipnorm": 0.5,
            "use_ema": True,
            "ema_overwrite_frequency": 3,
            "loss_scale_factor": 128.0,
        },
    ],
    ids=["plain", "average", "overwriting"],
)
def test_fit_on_micro_batches_is_fit_on_large_batches(options, fit_options):
    _, whole, loss = _trained(32, options, fit_options)
    model, parts, _ = _trained(8, {**options, "gradient_accumulation_steps": 4}, fit_options)
    assert loss[-1] < loss[0]
    assert int(numpy(model.optimizer.iterations)) == 8 * 96 // 32
    # The sums over 8 and over 32 samples are rounded differently, by about 1e-7 of the gradient,
    # and each of 24 updates carries that over.
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.max(np.abs(other)))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "xla"])
def test_a_call_inside_a_window_computes_no_update(mode):
    counted = []

    def counting(function):
        def update(*arguments):
            if mode == "jit":
                import jax

                jax.debug.callback(lambda: counted.append(1))
            elif mode == "function":
                import tensorflow as tf

                tf.py_function(lambda: counted.append(1), [], [])
            else:
                counted.append(1)
            return function(*arguments)

        return update

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(rule, "update", counting(rule.update)))
        if BACKEND == "tensorflow":
            from adadelta._tensorflow import operation

            of_operation = mock.patch.object(operation, "update", counting(operation.update))
            patches.enter_context(of_operation)
        variable = keras.Variable([1.0, 2.0], dtype="float32")
        # The kernels of the other backends can't be counted; tests/kernels/test_cpu.py
        # checks that those calls only collect.
        fused = None if BACKEND == "tensorflow" else False
        optimizer = adadelta.Adadelta(gradient_accumulation_steps=4, fused=fused)
        run = Driver(optimizer, [variable], mode)
        seen = []
        for _ in range(8):
            run.call([np.ones(2)])
            if mode == "jit":
                import jax

                jax.effects_barrier()
            seen.append(len(counted))
    assert seen == [0, 0, 0, 1, 1, 1, 1, 2]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs")
def test_a_tensorflow_graph_has_the_update_inside_a_condition():
    # XLA can't call Python, so on TensorFlow the test reads the graph instead.
    import tensorflow as tf

    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(gradient_accumulation_steps=4, fused=False)
    optimizer.build([variable])
    step = tf.function(lambda g: optimizer.apply([g], [variable]), jit_compile=True)
    graph = step.get_concrete_function(tf.ones(2)).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert not kinds & {"Sqrt", "Rsqrt", "ResourceApplyAdadelta"}
    assert kinds & {"If", "StatelessIf"}
