"""State by name: exported, imported, written, read; resumed bit for bit, or refused as a whole."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from conftest import floats

import adadelta
from adadelta._keras import exchange
from adadelta._state.matching import paired
from adadelta.state import OptimizerState, StateMismatchError, read_state, write_state
from driver import BACKEND, MODES, Driver, numpy

CALLS = 7
OPTIONS = {
    "plain": {},
    "decay and clipping": {"weight_decay": 0.1, "clipnorm": 0.5, "rho": 0.8},
    "average": {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 3},
    "window": {"gradient_accumulation_steps": 3},
    "window and average": {"gradient_accumulation_steps": 2, "use_ema": True},
    "skipping": {"skip_nonfinite": True, "gradient_accumulation_steps": 3},
    "dynamic loss scale": {"loss_scale_factor": "dynamic", "use_ema": True},
}


def variables_named(*names, shape=(2, 3)):
    values = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    return [
        keras.Variable(values + i, dtype=keras.config.floatx(), name=name)
        for i, name in enumerate(names)
    ]


def gradients_of(call, variables, options):
    rng = np.random.default_rng(call)
    gradients = [rng.normal(size=v.shape).astype(keras.config.floatx()) for v in variables]
    if call == 3 and ("skip_nonfinite" in options or "loss_scale_factor" in options):
        gradients[0][0, 0] = np.nan
    if call == 4:
        gradients[1] = None
    return gradients


@pytest.fixture(autouse=True)
def missing_gradients_are_wanted():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")
        yield


def run(driver, options, begin=0, end=CALLS, after=lambda done: None):
    for call in range(begin, end):
        if call == 2:
            driver.optimizer.learning_rate = 0.3
        driver.call(gradients_of(call, driver.variables, options))
        after(call + 1)


def bits(variables):
    return [numpy(v).tobytes() for v in variables]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_is_the_run_that_was_not_stopped(name, mode, tmp_path):
    options, weights = OPTIONS[name], {}
    driver = Driver(adadelta.Adadelta(1.0, **options), variables_named("a", "b"), mode)

    def save(done):
        weights[done] = [numpy(v).copy() for v in driver.variables]
        adadelta.save_state(driver.optimizer, tmp_path / str(done))

    run(driver, options, after=save)
    for stop in range(1, CALLS) if mode == "eager" else (2, 4):
        variables = variables_named("a", "b")
        for variable, value in zip(variables, weights[stop], strict=True):
            variable.assign(value)
        resumed = Driver(adadelta.Adadelta(1.0, **options), variables, mode)
        resumed.optimizer.build(variables)
        adadelta.load_state(resumed.optimizer, tmp_path / str(stop))
        run(resumed, options, begin=stop)
        assert bits(variables) == bits(driver.variables)
        assert adadelta.export_state(resumed.optimizer) == adadelta.export_state(driver.optimizer)


def network(optimizer):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((4,)), *layers])
    model.compile(optimizer, "mse")
    return model


def wrapped(**options):
    return keras.optimizers.LossScaleOptimizer(adadelta.Adadelta(**options), dynamic_growth_steps=3)


FITS = {
    "plain": (adadelta.Adadelta, {}),
    "window and average": (
        adadelta.Adadelta,
        {"gradient_accumulation_steps": 3, "use_ema": True, "ema_overwrite_frequency": 2},
    ),
    "dynamic loss scale": (adadelta.Adadelta, {"loss_scale_factor": "dynamic"}),
    "in Keras' LossScaleOptimizer": (wrapped, {}),
}


@pytest.mark.parametrize("name", FITS)
def test_fit_resumed_in_the_middle_of_an_epoch(name, tmp_path):
    make, options = FITS[name]
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(24, 4)).astype("float32"), rng.normal(size=(24, 1)).astype("float32")

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                adadelta.save_state(self.model.optimizer, tmp_path / "state")
                adadelta.save_model(self.model, tmp_path / "model.keras")
                self.weights = self.model.get_weights()

    def fit(model, rows, callbacks=()):
        model.fit(x[rows], y[rows], 4, 1, verbose=0, shuffle=False, callbacks=list(callbacks))

    whole, save = network(make(learning_rate=1.0, **options)), Save()
    fit(whole, slice(None), [save])

    again = network(make(learning_rate=1.0, **options))
    again.optimizer.build(again.trainable_variables)
    again.set_weights(save.weights)
    adadelta.load_state(again.optimizer, tmp_path / "state")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for model in (again, loaded):
        fit(model, slice(16, None))
        assert bits(model.weights) == bits(whole.weights)
        assert bits(model.optimizer.variables) == bits(whole.optimizer.variables)
        states = [adadelta.export_state(it.optimizer) for it in (model, whole)]
        mine, theirs = ({**it.counters(), "window_gradients": ()} for it in states)
        assert mine == theirs and (mine["loss_scale"] is None) == ("scale" not in name.lower())


# ------------------------------------------------------------------ what is exported


def trained(options=None, names=("a", "b"), calls=4, shape=(2, 3)):
    options = options or {}
    variables = variables_named(*names, shape=shape)
    driver = Driver(adadelta.Adadelta(1.0, **options), variables)
    run(driver, options, end=calls)
    return driver.optimizer


def test_the_exported_state(dtype):
    options = {"gradient_accumulation_steps": 3, "use_ema": True, "skip_nonfinite": True}
    optimizer = trained(options, calls=5)
    state = adadelta.export_state(optimizer)
    assert (state.step, state.update, state.skipped, state.window) == (5, 1, 1, 1)
    assert state.window_gradients == ("a",)
    assert state.hyperparameters["learning_rate"] == 0.3
    assert state.hyperparameters["use_ema"] is True and "name" not in state.hyperparameters
    assert list(state.parameters) == ["a", "b"]
    assert set(state.parameters["a"]) == {"square_avg", "acc_delta", "average", "window_sum"}
    assert state.parameters["a"]["square_avg"].dtype == dtype
    assert np.array_equal(
        state.parameters["b"]["acc_delta"], numpy(optimizer._accumulated_delta_vars[1])
    )
    assert "step=5" in repr(state) and "2 parameters" in repr(state)


def test_the_state_and_the_optimizer_do_not_share_memory():
    optimizer = trained()
    state = adadelta.export_state(optimizer)
    before = {k: v.copy() for k, v in state.parameters["a"].items()}
    optimizer.apply([np.ones((2, 3), "float32")] * 2)
    assert all(np.array_equal(state.parameters["a"][k], before[k]) for k in before)
    adadelta.import_state(optimizer, state)
    for array in state.parameters["a"].values():
        array[:] = 99
    assert adadelta.export_state(optimizer).parameters["a"]["square_avg"].max() < 99


def test_what_keras_does_not_copy_is_copied(monkeypatch):
    values = np.ones(3, "float32")
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda variable: values[:])
    assert not np.shares_memory(exchange.array_of(values), values)
    assert np.shares_memory(exchange.array_of(values, copy=False), values)


def test_equality_is_by_bits():
    def state(value, dtype="float32"):
        return OptimizerState(parameters={"a": {"square_avg": np.array([value], dtype)}})

    assert state(np.nan) == state(np.nan)
    assert state(0.0) != state(-0.0) and state(1.0) != state(1.0, "float64")
    assert state(1.0) != OptimizerState() and OptimizerState() != 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"step": -1}, ValueError),
        ({"step": 1.5}, TypeError),
        ({"window": True}, TypeError),
        ({"parameters": {"a": {"momentum": np.ones(1)}}}, ValueError),
        ({"parameters": {"a": {"square_avg": np.ones(1, "int32")}}}, TypeError),
    ],
)
def test_a_state_that_makes_no_sense(arguments, error):
    with pytest.raises(error, match=r"must be|can be"):
        OptimizerState(**arguments)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("saved", "own", "expected"),
    [
        (["a", "b"], ["b", "a"], {"a": "a", "b": "b"}),
        (["d/k", "d_1/k"], ["d_2/k", "d_3/k"], {"d_2/k": "d/k", "d_3/k": "d_1/k"}),
        (["d_9/k", "d_10/k"], ["d/k", "d_1/k"], {"d/k": "d_9/k", "d_1/k": "d_10/k"}),
        (["d/k", "d_1/k"], ["d_1/k", "d_2/k"], {"d_1/k": "d/k", "d_2/k": "d_1/k"}),
        (["m/d/k", "m_1/d/k"], ["m_3/d/k", "m_4/d/k"], {"m_3/d/k": "m/d/k", "m_4/d/k": "m_1/d/k"}),
        (["d/k", "d/k#2"], ["d_1/k", "d_1/k#2"], {"d_1/k": "d/k", "d_1/k#2": "d/k#2"}),
        (["s/d/k", "out/k"], ["d_4/k", "out/k"], {"d_4/k": "s/d/k", "out/k": "out/k"}),
        (["s/d/k", "s_1/d/k"], ["d/k", "d/k#2"], {"d/k": "s/d/k", "d/k#2": "s_1/d/k"}),
        (["d_1/k", "d_3/k"], ["d_1/k", "d_2/k"], {"d_1/k": "d_1/k", "d_2/k": "d_3/k"}),
        # A loaded model numbers the parts of a layer by itself.
        (
            ["m/d/k", "m/b/d_1/k", "m/b/d_2/k", "m/d_3/k"],
            ["d/k", "b/d/k", "b/d_1/k", "d_3/k"],
            {"d/k": "m/d/k", "b/d/k": "m/b/d_1/k", "b/d_1/k": "m/b/d_2/k", "d_3/k": "m/d_3/k"},
        ),
        # The file names one of two parts; the other gets a number.
        (["b/d_5/k", "b/d_7/k"], ["b/d_5/k", "b/d/k"], {"b/d_5/k": "b/d_5/k", "b/d/k": "b/d_7/k"}),
        (["b/d/k", "b/d_1/k"], ["b/d/k", "b/d/k#2"], {"b/d/k": "b/d/k", "b/d/k#2": "b/d_1/k"}),
        (["b/d_9/k", "b/d_10/k"], ["d_9/k", "b/d/k"], {"d_9/k": "b/d_9/k", "b/d/k": "b/d_10/k"}),
        # Names that the user gave take precedence over the order.
        (
            ["b_1/d/k", "b_2/d_1/k"],
            ["b_2/d_2/k", "b_1/d_3/k"],
            {"b_1/d_3/k": "b_1/d/k", "b_2/d_2/k": "b_2/d_1/k"},
        ),
        (
            ["b_1/k", "b_2/k", "d_3/k"],
            ["b_2/k", "b_1/k", "d/k"],
            {"b_1/k": "b_1/k", "b_2/k": "b_2/k", "d/k": "d_3/k"},
        ),
        # Here loading has removed the parents' names, so only the file's order is left.
        (["s/d_1/k", "t/d/k"], ["d/k", "d_1/k"], {"d/k": "s/d_1/k", "d_1/k": "t/d/k"}),
        # Exchanged names, another order, another structure, a left-over name, another name.
        (
            ["b_1/k", "b_2/k", "b_3/k"],
            ["b_2/k", "b_1/k", "b_4/k"],
            {"b_1/k": "b_1/k", "b_2/k": "b_2/k"},
        ),
        (["d/k", "d/b"], ["d_1/k", "d_2/b"], {}),
        (["d/k", "e/k"], ["e_1/k", "d_1/k"], {}),
        (["d/k"], ["d_1/k", "d_2/k"], {}),
        (["s/d/k", "s/e/k"], ["d/k"], {}),
        (["d/kernel"], ["d/bias"], {}),
        (["d/k"], ["e/k"], {}),
        (["d_1/k"], ["e_1/k"], {}),
        (["b/d/k", "b/d_1/k"], ["b/d/k", "c/d_1/k"], {"b/d/k": "b/d/k"}),
    ],
)
def test_paired_names(saved, own, expected):
    assert paired(saved, own) == expected


def test_names_are_paired_by_what_fits():
    shapes = {"b_1/k": 1, "b_2/k": 2}
    exchanged = {"b_2/k": 1, "b_1/k": 2}

    def fits(saved, own):
        return shapes[saved] == exchanged[own]

    names = paired(shapes, exchanged, fits=fits)
    assert names == {"b_2/k": "b_1/k", "b_1/k": "b_2/k"}


def test_names_are_taken_as_they_are_where_nobody_numbers_them():
    assert paired(["d/k"], ["d_1/k"], numbering=None) == {}


def test_the_same_model_made_again_has_other_numbers():
    first = network(adadelta.Adadelta(1.0))
    first.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    second = network(adadelta.Adadelta(1.0))
    second.optimizer.build(second.trainable_variables)
    adadelta.import_state(second.optimizer, adadelta.export_state(first.optimizer))
    mine, theirs = (it.optimizer._accumulated_grads for it in (second, first))
    assert [v.path for v in first.trainable_variables] != [v.path for v in second.weights]
    assert bits(mine) == bits(theirs)


def test_by_name_whatever_the_order():
    options = {"gradient_accumulation_steps": 2}
    optimizer = trained(options, calls=5)  # in the window, "a" alone had a gradient
    b, a = variables_named("b", "a")
    other = adadelta.Adadelta(1.0, **options)
    other.build([b, a])
    adadelta.import_state(other, adadelta.export_state(optimizer))
    assert bits(other._accumulated_grads) == bits(reversed(optimizer._accumulated_grads))
    assert numpy(other._state.window_has_gradient).tolist() == [0, 1]


# ------------------------------------------------------------------ what is refused


def changed(state, **arguments):
    everything = {
        **state.counters(),
        "parameters": state.parameters,
        "hyperparameters": state.hyperparameters,
    }
    return OptimizerState(**{**everything, **arguments})


def refused(optimizer, state):
    """Return the message and all problems; nothing of the optimizer may have changed."""
    before, config = bits(optimizer.variables), optimizer.get_config()
    with pytest.raises(StateMismatchError) as error:
        adadelta.import_state(optimizer, state)
    assert bits(optimizer.variables) == before and optimizer.get_config() == config
    return "; ".join([str(error.value), *error.value.problems])


def test_all_that_does_not_fit_is_listed_at_once():
    state = adadelta.export_state(trained(names=("a", "b", "c", "d", "e", "f")))
    parameters = state.parameters
    parameters["new"] = parameters.pop("b")
    parameters["c"]["square_avg"] = np.ones((3, 2), "float32")
    parameters["d"]["acc_delta"] = np.ones((2, 3), "float64")
    del parameters["e"]["acc_delta"]
    parameters["f"]["square_avg"] = -parameters["f"]["square_avg"]
    message = refused(trained(names=("a", "b", "c", "d", "e", "f"), calls=1), state)
    for part in (
        "left as it is",
        "missing: b, e (acc_delta)",
        "not in this optimizer: new",
        "of another shape: c (square_avg) (3, 2) instead of (2, 3)",
        "of another dtype: d (acc_delta) float64 instead of float32",
        "negative, as no average of squares is: f (square_avg)",
    ):
        assert part in message


WINDOW = {"gradient_accumulation_steps": 3}


@pytest.mark.parametrize(
    ("saved", "own", "message"),
    [
        ({"use_ema": True}, {}, "it has average, for which an optimizer without `use_ema` has no"),
        ({}, {"use_ema": True}, "it has no average, which an optimizer with `use_ema` needs"),
        (WINDOW, {}, "window_sum, for which an optimizer without `gradient_accumulation_steps`"),
        ({}, WINDOW, "no window_sum, which an optimizer with `gradient_accumulation_steps` needs"),
        ({"use_ema": True}, WINDOW, "it has no window_sum"),
        ({"gradient_accumulation_steps": 8}, WINDOW, "is never full with"),
        ({"skip_nonfinite": True}, {}, "it has 1 skipped calls"),
        ({"skip_nonfinite": True}, {}, "3 updates in 4 calls"),
        ({"loss_scale_factor": "dynamic"}, {"skip_nonfinite": True}, "has a dynamic loss scale"),
        ({}, {"loss_scale_factor": "dynamic"}, "it has no dynamic loss scale"),
    ],
)
def test_a_state_that_needs_other_options(saved, own, message):
    state = adadelta.export_state(trained(saved))
    assert message in refused(trained(own, calls=1), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 2**70, "update": 2**70}, "counts up to"),
        ({"hyperparameters": {"learning_rate": -1.0}}, "`learning_rate` must be"),
    ],
)
def test_numbers_that_do_not_fit(change, message):
    optimizer = trained()
    assert message in refused(optimizer, changed(adadelta.export_state(optimizer), **change))


def test_what_is_no_optimizer_of_ours_or_no_state():
    for optimizer in (keras.optimizers.SGD(), 3, None):
        for function in (adadelta.export_state, lambda it: adadelta.load_state(it, "nowhere")):
            with pytest.raises(TypeError, match=r"an optimizer of this package.*received"):
                function(optimizer)
    with pytest.raises(TypeError, match="must be an OptimizerState; received dict"):
        adadelta.import_state(trained(), {})


def test_before_it_is_built():
    for optimizer in (adadelta.Adadelta(), wrapped()):
        for function in (
            adadelta.export_state,
            lambda it: adadelta.import_state(it, OptimizerState()),
        ):
            with pytest.raises(StateMismatchError, match=r"optimizer\.build\("):
                function(optimizer)


# ------------------------------------------------------------------ what the optimizer keeps


def test_its_own_arguments_but_the_learning_rate():
    state = adadelta.export_state(trained({"rho": 0.8}))
    other = adadelta.Adadelta(1.0, rho=0.5)
    other.build(variables_named("a", "b"))
    adadelta.import_state(other, state)
    assert other.rho == 0.5 and other.get_config()["learning_rate"] == 0.3


def test_a_schedule_stays():
    state = adadelta.export_state(trained())
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)
    other = adadelta.Adadelta(schedule)
    other.build(variables_named("a", "b"))
    adadelta.import_state(other, state)
    assert other._learning_rate is schedule
    assert float(numpy(other.learning_rate)) == 0.25  # after the state's 4 calls
    third = adadelta.Adadelta(0.7)
    third.build(variables_named("a", "b"))
    adadelta.import_state(third, adadelta.export_state(other))
    assert third.get_config()["learning_rate"] == 0.7


def test_a_state_that_counts_more_than_this_optimizer_asks_for():
    # Every state has all counters, so a plain run can continue with `skip_nonfinite`.
    other = adadelta.Adadelta(1.0, skip_nonfinite=True)
    other.build(variables_named("a", "b"))
    adadelta.import_state(other, adadelta.export_state(trained()))
    assert int(numpy(other.iterations)) == 4 and other.skipped == 0


def test_narrow_arrays_widen():
    state = adadelta.export_state(trained())
    with floats("float64"):
        other = adadelta.Adadelta(1.0)
        other.build(variables_named("a", "b"))
        adadelta.import_state(other, state)
        wide = adadelta.export_state(other)
    assert wide.parameters["a"]["square_avg"].dtype == "float64"
    assert np.array_equal(wide.parameters["a"]["square_avg"], state.parameters["a"]["square_avg"])


def test_odd_shapes(tmp_path):
    variables = [keras.Variable(3.0, name="scalar"), keras.Variable(np.ones((0, 3)), name="empty")]
    if BACKEND != "jax":
        variables.append(keras.Variable(np.ones(2), dtype="complex64", name="complex"))
    optimizer = adadelta.Adadelta(1.0, use_ema=True)
    optimizer.build(variables)
    adadelta.save_state(optimizer, tmp_path / "state")
    other = adadelta.Adadelta(1.0, use_ema=True)
    other.build(variables)
    adadelta.load_state(other, tmp_path / "state")
    assert read_state(tmp_path / "state") == adadelta.export_state(optimizer)


def test_a_function_as_the_rate(tmp_path):
    optimizer = adadelta.Adadelta(rate_of_tests)
    optimizer.build(variables_named("a"))
    adadelta.save_state(optimizer, tmp_path / "state")
    other = adadelta.Adadelta(rate_of_tests)
    other.build(variables_named("a"))
    adadelta.load_state(other, tmp_path / "state")
    assert adadelta.export_state(other) == adadelta.export_state(optimizer)


def rate_of_tests():
    return 0.5


def test_any_arrays_come_back(tmp_path):
    wide = np.arange(6.0).reshape(2, 3)
    arrays = {
        "in another order": wide.T,
        "of another machine": wide.astype(">f8"),
        "of an average that overflowed": np.array([np.inf, -0.0, 1e-45], "float32"),
        "a|b/c_1 é\n": wide[:, ::2],
        "square_avg": np.ones(1),
        "none": np.ones((0, 3), "float32"),
    }
    state = OptimizerState(
        step=3,
        hyperparameters={"clipnorm": float("inf"), "name": "é"},
        parameters={name: {"square_avg": array} for name, array in arrays.items()},
    )
    # These result from weights and gradients, which can have any value.
    wild = np.array([np.nan, -np.inf, -1.0], "float32")
    state.parameters["wild"] = {"average": wild, "window_sum": wild}
    write_state(state, tmp_path / "state")
    back = read_state(tmp_path / "state")
    assert list(back.parameters) == [*arrays, "wild"]
    for name, array in arrays.items():
        assert (
            back.parameters[name]["square_avg"].tobytes()
            == array.astype(array.dtype.newbyteorder("=")).tobytes()
        )
    assert back.parameters["wild"]["window_sum"].tobytes() == wild.tobytes()
    assert back.hyperparameters == state.hyperparameters


def test_variables_can_be_read_from_the_outermost_level_of_a_script():
    code = "import adadelta; print(len(adadelta.Adadelta().variables))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr
