"""`Monitor` records what the optimizer holds, and it warns exactly when it should."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import adadelta
import driver
from adadelta._core import rule

X = np.random.default_rng(3).normal(size=(48, 5)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5], [3.0], [0.0]], "float32")) / 3
BATCH = 8
CALLS = 6  # of an epoch


def model(hidden=4, **arguments):
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.layers.Input((5,)),
            keras.layers.Dense(hidden, activation="tanh", name="first", **arguments),
            keras.layers.Dense(1, name="second"),
        ]
    )


def fitted(optimizer, monitor, epochs=2, net=None, data=(X, Y), **compile_arguments):
    net = net or model()
    net.compile(optimizer, "mse", **compile_arguments)
    net.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0, shuffle=False, callbacks=[monitor])
    return net


def custom_loop(optimizer, epochs):
    """Do the same training by hand; return the optimizer's state after every call, in NumPy."""
    net = model()
    variables = net.trainable_variables
    optimizer.build(variables)

    def gradients(x, y):
        # Gradients of the mean squared error of tanh(x k1 + b1) k2 + b2, in NumPy.
        k1, b1, k2, b2 = (np.asarray(ops.convert_to_numpy(v), "float64") for v in variables)
        hidden = np.tanh(x @ k1 + b1)
        residual = 2 * (hidden @ k2 + b2 - y) / len(x)
        inner = (residual @ k2.T) * (1 - hidden**2)
        return [x.T @ inner, inner.sum(0), hidden.T @ residual, residual.sum(0)]

    for _ in range(epochs):
        for start in range(0, len(X), BATCH):
            part = slice(start, start + BATCH)
            grads = [
                ops.convert_to_tensor(g.astype("float32")) for g in gradients(X[part], Y[part])
            ]
            optimizer.apply(grads, variables)
            yield [
                [np.asarray(ops.convert_to_numpy(it), "float64") for it in (v, a, d)]
                for v, a, d in zip(
                    variables,
                    optimizer._accumulated_grads,
                    optimizer._accumulated_delta_vars,
                    strict=True,
                )
            ]


OPTIONS = [{}, {"gradient_accumulation_steps": 2}, {"skip_nonfinite": True, "use_ema": True}]


@pytest.mark.parametrize("eagerly", [False, True], ids=["compiled", "eagerly"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "accumulating", "skipping"])
def test_every_record_is_what_a_custom_loop_holds_then(options, eagerly):
    monitor = adadelta.Monitor(every=1)
    fitted(adadelta.Adadelta(0.5, **options), monitor, run_eagerly=eagerly)
    every = options.get("gradient_accumulation_steps", 1)
    states = list(custom_loop(adadelta.Adadelta(0.5, **options), 2))[every - 1 :: every]
    rows = np.array(monitor.records).reshape(-1, 4)
    assert len(rows) == len(states) == 2 * CALLS // every
    for number, (records, state) in enumerate(zip(rows, states, strict=True), start=1):
        for row, (weights, square_avg, acc_delta) in zip(records, state, strict=True):
            assert row["update"] == number and row["step"] == number * every
            effective = 0.5 * rule.effective_rate(square_avg, acc_delta, 1e-7, np.sqrt)
            # Compiled and eager float32 graphs differ by 1e-6, over 12 steps; the averages of
            # squares, whose roots are compared, are near 0 where gradients cancel.
            near = {"rtol": 2e-3, "atol": 1e-7}
            for name, quantile in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
                expected = np.quantile(effective, quantile)
                np.testing.assert_allclose(row[f"effective_rate_{name}"], expected, **near)
            gradient, update = np.sqrt(square_avg.mean()), 0.5 * np.sqrt(acc_delta.mean())
            np.testing.assert_allclose(row["gradient_rms"], gradient, **near)
            np.testing.assert_allclose(row["update_rms"], update, **near)
            if number < len(rows) or not options.get("use_ema"):
                weight = np.sqrt((weights**2).mean())
                np.testing.assert_allclose(row["weight_rms"], weight, **near)


def test_watching_changes_nothing():
    nets = [
        fitted(adadelta.Adadelta(0.5), callback)
        for callback in (adadelta.Monitor(every=1), keras.callbacks.Callback())
    ]
    for one, two in zip(*(net.get_weights() for net in nets), strict=True):
        np.testing.assert_array_equal(one, two)


def test_when_it_records():
    monitor = adadelta.Monitor(every=5)
    net = fitted(adadelta.Adadelta(1.0), monitor, epochs=3)
    updates = [row["update"] for row in monitor.records[::4]]
    assert updates == [1, 5, 10, 15, 18]
    assert [row["epoch"] for row in monitor.records[::4]] == [1, 1, 2, 3, 3]
    # Another fit() continues the records, and another optimizer starts them again.
    net.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[monitor])
    assert [row["update"] for row in monitor.records[::4]] == [*updates, 19, 23, 24]
    fitted(adadelta.Adadelta(1.0), monitor, epochs=1)
    assert [row["update"] for row in monitor.records[::4]] == [1, 5, 6]


@pytest.mark.skipif(driver.BACKEND == "torch", reason="Keras has no such option on torch")
def test_several_steps_per_execution_are_counted():
    monitor = adadelta.Monitor(every=2)
    fitted(adadelta.Adadelta(1.0), monitor, steps_per_execution=3)
    assert [row["update"] for row in monitor.records[::4]] == [3, 6, 9, 12]


def test_the_last_loss_is_that_of_the_epoch():
    monitor = adadelta.Monitor()
    net = fitted(adadelta.Adadelta(1.0), monitor)
    np.testing.assert_allclose(monitor.records[-1]["loss"], net.history.history["loss"][-1])


def test_the_columns():
    monitor = adadelta.Monitor()
    fitted(adadelta.Adadelta(1.0), monitor)
    columns = monitor.to_dict()
    assert {len(column) for column in columns.values()} == {len(monitor.records)} == {8}
    assert list(columns) == list(monitor.records[0])
    paths = [name.split("/")[-2:] for name in columns["variable"][:4]]
    assert paths == [[a, b] for a in ("first", "second") for b in ("kernel", "bias")]
    assert columns["layer"][0] + "/kernel" == columns["variable"][0]
    assert columns["size"][:4] == [20, 4, 4, 1]


def test_inside_keras_loss_scale_optimizer():
    alone, wrapped = adadelta.Monitor(every=1), adadelta.Monitor(every=1)
    fitted(adadelta.Adadelta(0.5), alone)
    inner = adadelta.Adadelta(0.5)
    fitted(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0), wrapped)
    for one, two in zip(alone.records, wrapped.records, strict=True):
        # A scale that is a power of two changes no digit; the graph is fused differently.
        np.testing.assert_allclose(one["update_rms"], two["update_rms"], rtol=2e-3)
        assert one["update"] == two["update"]


def test_the_learning_rate_is_that_of_the_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [1.0, 0.25])
    monitor = adadelta.Monitor(every=1)
    fitted(adadelta.Adadelta(schedule), monitor, epochs=1)
    rates = [row["learning_rate"] for row in monitor.records[::4]]
    assert rates == [1.0] * 4 + [0.25] * 2


def test_a_function_is_not_asked_again():
    asked = []

    def rate():
        asked.append(0)
        return 0.5 / len(asked)

    monitor = adadelta.Monitor(every=1)
    fitted(adadelta.Adadelta(rate), monitor, epochs=1, run_eagerly=True, jit_compile=False)
    assert len(asked) == CALLS
    rates = [row["learning_rate"] for row in monitor.records[::4]]
    assert rates == [0.5 / (call + 1) for call in range(CALLS)]


def test_a_large_variable_is_read_by_a_sample_that_is_always_the_same():
    def records(sample):
        monitor = adadelta.Monitor(every=3, sample=sample)
        fitted(adadelta.Adadelta(1.0), monitor, net=model(hidden=400))
        numbers = [row for row in monitor.records if row["size"] == 2000]
        return [{k: v for k, v in row.items() if k not in ("variable", "layer")} for row in numbers]

    sampled = records(500)
    assert sampled == records(500)
    for one, all_of_it in zip(sampled, records(2000), strict=True):
        # The sample is 500 of 2000 elements: its median is off by about a tenth, hardly by a third.
        middle = "effective_rate_q50"
        assert 0.67 < one[middle] / all_of_it[middle] < 1.5 and one != all_of_it


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision(dtype):
    monitor = adadelta.Monitor(every=1)
    fitted(adadelta.Adadelta(1.0), monitor, net=model(dtype=dtype))
    assert all(np.isfinite(row["weight_rms"]) for row in monitor.records)
    assert monitor.records[-4]["effective_rate_q50"] > 0


def test_a_variable_without_elements_is_left_out():
    monitor = adadelta.Monitor()
    optimizer = adadelta.Adadelta(1.0)
    net = model()
    net.compile(optimizer, "mse")
    empty, full = keras.Variable(np.zeros((0, 3))), keras.Variable([1.0])
    optimizer.build([empty, full])
    monitor.set_model(net)
    monitor.on_train_begin()
    optimizer.apply([ops.zeros((0, 3)), ops.ones((1,))], [empty, full])
    monitor.on_train_batch_end(0, {"loss": 1.0})
    assert [row["size"] for row in monitor.records] == [1]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["every", "sample"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None, "often", float("nan"), float("inf")])
def test_bad_arguments(name, value):
    with pytest.raises((TypeError, ValueError), match=f"`{name}` must be a whole number"):
        adadelta.Monitor(**{name: value})


@pytest.mark.parametrize("wrapped", [False, True])
def test_another_optimizer_is_refused_before_anything_changes(wrapped):
    optimizer = keras.optimizers.Adadelta()
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    net = model()
    before = net.get_weights()
    with pytest.raises(TypeError, match=r"must be adadelta.Adadelta.*; received keras.*Adadelta"):
        fitted(optimizer, adadelta.Monitor(), net=net)
    for one, two in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert int(optimizer.iterations.numpy()) == 0


# ---------------------------------------------------------------- what it warns of


class Heard(adadelta.Monitor):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.heard = []

    def warn(self, message):
        self.heard.append(message)


def heard(optimizer, epochs=25, every=10, **arguments):
    monitor = Heard(every=every)
    fitted(optimizer, monitor, epochs=epochs, **arguments)
    return monitor.heard


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip_nonfinite": True},
        {"loss_scale_factor": "dynamic"},
        {"gradient_accumulation_steps": 2},
        {"weight_decay": 0.01, "use_ema": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_a_healthy_training_gives_no_warning(options):
    assert heard(adadelta.Adadelta(1.0, **options)) == []


def test_nor_does_one_that_has_come_to_its_end():
    net = fitted(adadelta.Adadelta(1.0), keras.callbacks.Callback(), epochs=100)
    monitor = Heard()
    net.fit(X, Y, batch_size=BATCH, epochs=20, verbose=0, callbacks=[monitor])
    assert monitor.heard == []


def test_a_rate_at_which_nothing_moves():
    (message,) = heard(adadelta.Adadelta())
    assert "at learning rate 0.001 the weights changed by 0." in message
    assert "learning_rate = 1" in message


def test_a_rate_of_0_or_one_that_rises_is_meant_so():
    # The rate has reached only 0.002 when training ends, so nothing has moved.
    rising = keras.optimizers.schedules.PolynomialDecay(1e-5, 100_000, 1.0)
    for rate in (0.0, rising):
        assert heard(adadelta.Adadelta(rate)) == []


def test_weights_that_hardly_move_may_be_enough():
    net = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(1, use_bias=False)])
    solution = np.ones((5, 1), "float32")
    net.set_weights([1.002 * solution])
    assert heard(adadelta.Adadelta(0.05), net=net, data=(X, X @ solution)) == []


def test_gradients_at_their_limit():
    messages = heard(adadelta.Adadelta(1.0), data=(X, Y * 1e16), epochs=1, every=1)
    assert ["are limited" in message for message in messages] == [True]
    assert "first/kernel" in messages[0] or "second/kernel" in messages[0]


def with_nan(calls):
    x = X.copy()
    for call in calls:
        x[call * BATCH] = np.nan
    return x, Y


def test_skipped_calls():
    optimizer = adadelta.Adadelta(1.0, skip_nonfinite=True)
    (message,) = heard(optimizer, data=with_nan([1, 3]), epochs=1, every=3)
    assert "calls skipped so far: 1 of 3," in message


def test_a_loss_scale_may_skip_some_calls_to_find_its_size():
    optimizer = adadelta.Adadelta(1.0, loss_scale_factor="dynamic")
    assert heard(optimizer, data=with_nan([1, 3]), epochs=5) == []
    (message,) = heard(adadelta.Adadelta(1.0, loss_scale_factor="dynamic"), data=with_nan(range(6)))
    assert "calls skipped so far" in message


def test_nan_in_the_averages():
    (message,) = heard(adadelta.Adadelta(1.0), data=with_nan([2]), epochs=2, every=1)
    assert "became NaN" in message and "skip_nonfinite" in message


class Apart(keras.layers.Layer):
    """A layer with a weight on which nothing depends."""

    def build(self, shape):
        self.idle = self.add_weight(shape=(3,), name="idle")

    def call(self, x):
        return x + 0 * ops.sum(self.idle)


def test_a_variable_without_gradient():
    net = keras.Sequential(
        [keras.layers.Input((5,)), Apart(name="apart"), keras.layers.Dense(1, name="used")]
    )
    (message,) = heard(adadelta.Adadelta(1.0), net=net)
    assert "apart/idle" in message and "used" not in message


def test_an_embedding_of_which_few_rows_are_used_has_a_gradient():
    ids = np.full((48, 1), 7, "int32")
    net = keras.Sequential(
        [keras.layers.Input((1,), dtype="int32"), keras.layers.Embedding(5000, 2),
         keras.layers.Flatten(), keras.layers.Dense(1)]
    )  # fmt: skip
    assert heard(adadelta.Adadelta(1.0), net=net, data=(ids, Y)) == []


def test_it_warns_once_and_as_python_does():
    with pytest.warns(UserWarning, match="learning_rate = 1") as caught:
        fitted(adadelta.Adadelta(), adadelta.Monitor(every=10), epochs=30)
    assert sum("learning_rate = 1" in str(one.message) for one in caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted(adadelta.Adadelta(1.0), adadelta.Monitor(every=10), epochs=30)


# ---------------------------------------------------------------- the picture


def test_the_picture_has_a_line_for_each_layer(tmp_path):
    pytest.importorskip("matplotlib")
    monitor = adadelta.Monitor(every=2)
    fitted(adadelta.Adadelta(1.0), monitor)
    figure = monitor.plot()
    upper, lower = figure.axes
    assert [len(panel.lines) for panel in (upper, lower)] == [2, 2]
    assert [line.get_label() for line in upper.lines] == ["first", "second"]
    # A band for each layer; the title says what the band is.
    assert [len(panel.collections) for panel in (upper, lower)] == [2, 0]
    assert "band of the middle 90 %" in upper.get_title()
    rows = [row for row in monitor.records if row["variable"].endswith("second/kernel")]
    np.testing.assert_array_equal(lower.lines[1].get_ydata(), [row["update_rms"] for row in rows])
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(monitor.plot(rows[0]["variable"]).axes[0].lines) == 1
    with pytest.raises(ValueError, match="`variables` must be recorded variables, such as"):
        monitor.plot(["nothing"])
    with pytest.raises(ValueError, match=r"must be recorded variables, .*received \[\]"):
        monitor.plot([])


def test_a_picture_needs_records():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        adadelta.Monitor().plot()


def test_without_matplotlib_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib, .*: pip install matplotlib"):
        adadelta.Monitor().plot()


def test_keras_is_imported_with_it_only():
    look = "print('keras' in sys.modules)"
    code = f"import sys, adadelta; {look}; adadelta.Monitor; {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_monitor_shows_its_last_record():
    monitor = adadelta.Monitor()
    assert repr(monitor) == "<Adadelta monitor>\n  nothing recorded yet"
    common = {"update": 4, "epoch": 2, "loss": 0.12345, "learning_rate": 1.0}
    rates = {"effective_rate_q50": 0.0098765, "update_rms": 1e-5}
    monitor.records = [
        {**common, **rates, "variable": name, "step": step}
        for step in (3, 5)
        for name in ("dense/kernel", "dense/bias")
    ]
    assert repr(monitor).splitlines() == [
        "<Adadelta monitor>",
        "  2 records, to update 4 in epoch 2: loss 0.123, learning rate 1",
        "  dense/kernel  effective learning rate 0.00988, update 1e-05",
        "  dense/bias    effective learning rate 0.00988, update 1e-05",
    ]
