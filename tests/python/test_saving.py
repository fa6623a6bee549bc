"""The optimizer's part of Keras files: ours is read by name, Keras' Adadelta by position."""

import copy
import warnings

import h5py
import keras
import numpy as np
import pytest

import adadelta
from adadelta.state import StateMismatchError, StateWarning
from driver import numpy

EVERYTHING = {
    "gradient_accumulation_steps": 3,
    "use_ema": True,
    "loss_scale_factor": "dynamic",
    "weight_decay": 0.01,
}
RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(40, 4)).astype("float32"), RNG.normal(size=(40, 1)).astype("float32")


class Store(dict):
    """The store that Keras passes to `save_own_variables()`, sorted as a file returns it."""

    def __init__(self, optimizer):
        optimizer.save_own_variables(self)
        super().__init__({name: np.array(value) for name, value in sorted(self.items())})


def network(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, begin=0, end=20):
    model.fit(X[2 * begin : 2 * end], Y[2 * begin : 2 * end], 2, 1, verbose=0, shuffle=False)
    return model


def variables_named(*names):
    return [keras.Variable(np.ones((2, 3), "float32"), name=name) for name in names]


def trained(make=adadelta.Adadelta, names=("a", "b"), calls=4, **options):
    optimizer, variables = make(learning_rate=0.5, **options), variables_named(*names)
    optimizer.build(variables)
    for call in range(calls):
        gradients = np.random.default_rng(call).normal(size=(len(names), 2, 3))
        optimizer.apply([keras.ops.array(g.astype("float32")) for g in gradients], variables)
    return optimizer


def fresh(names=("a", "b"), **options):
    return trained(names=names, calls=0, **options)


def bits(variables):
    return [numpy(v).tobytes() for v in variables]


def left_out(load, *arguments):
    """Return the text of the only warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(*arguments)
    (warning,) = [it for it in caught if it.category is StateWarning]
    assert warning.filename == __file__
    return str(warning.message)


def refused(optimizer, saved):
    """Return the text of the only warning; the optimizer has started anew with its own rate."""
    message = left_out(optimizer.load_own_variables, saved)
    start = adadelta.Adadelta.from_config(optimizer.get_config())
    start.build(variables_named(*(it.path for it in optimizer._trainable_variables)))
    assert bits(optimizer.variables) == bits(start.variables) and "starts anew" in message
    return message


def load_strictly(optimizer, saved, tmp_path):
    """Write `saved` to a weights file, and load it explicitly with `load_keras_adadelta()`."""
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for name, array in saved.items():
            file[f"optimizer/vars/{name}"] = array
    adadelta.load_keras_adadelta(optimizer, tmp_path / "a.weights.h5")


def refused_strictly(optimizer, saved, tmp_path):
    """Return the message and all problems; nothing of the optimizer may have changed."""
    before = bits(optimizer.variables)
    with pytest.raises(StateMismatchError) as error:
        load_strictly(optimizer, saved, tmp_path)
    assert bits(optimizer.variables) == before
    return "; ".join([str(error.value), *error.value.problems])


# ------------------------------------------------------------------ ours


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_model_goes_on_from_its_file(options, tmp_path):
    def make():
        return network(adadelta.Adadelta(1.0, **options))

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 9:
                self.model.save(tmp_path / "model.keras")
                self.model.save_weights(tmp_path / "model.weights.h5")

    whole = make()
    whole.fit(X, Y, 2, 1, verbose=0, shuffle=False, callbacks=[Save()])
    from_weights = make()
    from_weights.load_weights(tmp_path / "model.weights.h5")
    built = make()
    built.optimizer.build(built.trainable_variables)
    built.load_weights(tmp_path / "model.weights.h5")
    for model in (keras.saving.load_model(tmp_path / "model.keras"), from_weights, built):
        fit(model, 10)
        assert bits(model.weights) == bits(whole.weights)
        assert bits(model.optimizer.variables) == bits(whole.optimizer.variables)


def test_everything_is_in_the_store_by_name():
    optimizer = trained(**EVERYTHING)
    store = Store(optimizer)
    assert not any(name.isdigit() for name in store)
    other = fresh(**EVERYTHING)
    other.load_own_variables(store)
    assert bits(other.variables) == bits(optimizer.variables)


def test_by_name_whatever_the_order():
    a, b = variables_named("a", "b")
    optimizer = adadelta.Adadelta(1.0, gradient_accumulation_steps=3)
    ones = keras.ops.ones((2, 3))
    optimizer.apply([ones, 2 * ones], [a, b])
    optimizer.apply([ones], [a])
    optimizer.apply([ones, ones], [a, b])
    optimizer.apply([ones], [a])
    other = fresh(names=("b", "a"), gradient_accumulation_steps=3)
    other.load_own_variables(Store(optimizer))
    assert bits(other._accumulated_grads) == bits(reversed(optimizer._accumulated_grads))
    assert numpy(other._state.window_has_gradient).tolist() == [0, 1]


def test_many_parameters_keep_their_order_where_names_change():
    # In a file, a_10 is sorted before a_2.
    theirs = trained(names=[f"w_{n}" for n in range(1, 13)], calls=2)
    own = fresh(names=[f"w_{n}" for n in range(5, 17)])
    own.load_own_variables(Store(theirs))
    assert bits(own._accumulated_grads) == bits(theirs._accumulated_grads)


@pytest.mark.parametrize(
    ("saved", "own", "brief", "message"),
    [
        ({"use_ema": True}, {"gradient_accumulation_steps": 4}, "has average", "no window_sum"),
        (
            {"gradient_accumulation_steps": 6},
            {"gradient_accumulation_steps": 3},
            "never full",
            "never full",
        ),
        (
            {},
            {"names": ("a", "c")},
            "(missing: c; 1 more problem)",
            "missing: c; not in this optimizer: b",
        ),
        (
            {"names": [f"of_a_layer_with_a_long_name_{n}" for n in range(100)]},
            {"names": [f"another_layer_with_a_long_name_{n}" for n in range(99)]},
            "(missing: another_layer_with_a_long_name_0 and 98 more; 1 more problem)",
            "another_layer_with_a_long_name_98; not in this optimizer: of_a_layer",
        ),
    ],
)
def test_what_does_not_fit(saved, own, brief, message, tmp_path):
    """A warning has the first problem with its first parameter; an error lists all problems."""
    store = Store(trained(**saved))
    warning = refused(trained(**own), store)
    assert brief in warning and len(warning) <= 200
    assert message in refused_strictly(trained(**own), store, tmp_path)


def test_a_damaged_store(tmp_path):
    store = Store(trained())
    del store["iteration"], store["b|acc_delta"]
    store["momentum"] = np.ones(2)
    assert "(missing: iteration; 1 more problem)" in refused(trained(), store)
    message = refused_strictly(trained(), store, tmp_path)
    assert "missing: iteration" in message and "not in this optimizer: momentum" in message
    for name, value in {"iteration": -3, "update": [1, 2], "format": 2}.items():
        store = Store(trained())
        store[name] = np.asarray(value)
        refused(trained(), store)
        refused_strictly(trained(), store, tmp_path)
    store = Store(trained())
    del store["b|acc_delta"]
    store["a|square_avg"] = np.ones((1, 3), "float32")
    assert "(missing: b (acc_delta); 1 more problem)" in refused(fresh(), store)
    message = refused_strictly(fresh(), store, tmp_path)
    assert "b (acc_delta)" in message and "a (square_avg) (1, 3) instead of (2, 3)" in message


def test_the_learning_rate():
    optimizer = trained()
    optimizer.learning_rate = 0.25
    other = fresh()
    other.load_own_variables(Store(optimizer))
    assert other.get_config()["learning_rate"] == 0.25
    third = adadelta.Adadelta(0.1)
    third.build(variables_named("a", "b"))
    third.load_own_variables(Store(third))
    assert third.get_config()["learning_rate"] == 0.1  # and not 0.10000000149
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)
    third.learning_rate = schedule
    other.load_own_variables(Store(third))
    assert other.get_config()["learning_rate"] == 0.25
    third.load_own_variables(Store(optimizer))
    assert third._learning_rate is schedule and int(numpy(third.iterations)) == 4


# ------------------------------------------------------------------ before and after building


def test_what_an_unbuilt_optimizer_has_loaded_waits_until_it_is_built():
    optimizer, waiting = trained(), adadelta.Adadelta(0.5)
    waiting.load_own_variables(Store(trained(calls=1)))
    waiting.load_own_variables(Store(optimizer))  # the later one counts
    copied = copy.deepcopy(waiting)
    saved_again = adadelta.Adadelta(0.1)
    saved_again.load_own_variables(Store(waiting))
    for it in (waiting, copied, saved_again):
        it.build(variables_named("a", "b"))
        assert bits(it.variables) == bits(optimizer.variables)
        assert it._saved.waiting is None


def test_what_waits_from_a_file_of_keras_is_saved_as_it_is(tmp_path):
    theirs = fit(network(keras.optimizers.Adadelta(0.5)))
    theirs.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for path in ("model.keras", "again.weights.h5", "once_more.weights.h5"):
        model.compile(adadelta.Adadelta(0.1), "mse")
        model.load_weights(tmp_path / path)
        model.save_weights(tmp_path / "again.weights.h5")
        model.save_weights(tmp_path / "once_more.weights.h5")
    model.optimizer.build(model.trainable_variables)
    assert int(numpy(model.optimizer.iterations)) == 20
    assert model.optimizer.get_config()["learning_rate"] == 0.5


def test_a_rate_that_is_set_while_the_state_waits_stays():
    waiting = adadelta.Adadelta(0.1)
    waiting.load_own_variables(Store(trained()))
    assert waiting.get_config()["learning_rate"] == 0.5
    waiting.learning_rate = 0.25
    waiting.build(variables_named("a", "b"))
    assert waiting.get_config()["learning_rate"] == 0.25


def test_a_waiting_state_that_does_not_fit_is_left_out_when_it_is_built():
    waiting, other = adadelta.Adadelta(0.25), adadelta.Adadelta(0.25)
    for it in (waiting, other):
        it.load_own_variables(Store(trained()))
        assert it.get_config()["learning_rate"] == 0.5
    assert "missing: c" in left_out(waiting.build, variables_named("a", "c"))
    assert bits(waiting.variables[2:]) == bits(fresh(names=("a", "c")).variables[2:])
    assert waiting.get_config()["learning_rate"] == 0.25 and not numpy(waiting.iterations)
    # A rate that is set before building stays.
    other.learning_rate = 0.75
    left_out(other.build, variables_named("a", "c"))
    assert other.get_config()["learning_rate"] == 0.75


def test_a_rate_that_can_not_be():
    store, waiting = Store(trained()), adadelta.Adadelta(0.25)
    store["learning_rate"] = np.asarray(-1.0)
    assert "`learning_rate` must be" in left_out(waiting.load_own_variables, store)
    waiting.build(variables_named("a", "b"))
    assert not numpy(waiting.iterations) and waiting.get_config()["learning_rate"] == 0.25


def test_a_file_without_an_optimizer_changes_nothing():
    optimizer, waiting = trained(), adadelta.Adadelta(0.5)
    before = bits(optimizer.variables)
    optimizer.load_own_variables({})
    waiting.load_own_variables(Store(trained()))
    waiting.load_own_variables({})
    waiting.build(variables_named("a", "b"))
    assert bits(optimizer.variables) == before
    assert bits(waiting.variables) == bits(fresh().variables)


def test_a_model_saved_before_training(tmp_path):
    model = network(adadelta.Adadelta(1.0, **EVERYTHING))
    model.save(tmp_path / "model.keras")
    loaded = fit(keras.saving.load_model(tmp_path / "model.keras"))
    assert bits(loaded.weights) == bits(fit(model).weights)


def test_a_file_from_before_training_takes_the_optimizer_back_to_its_start(tmp_path):
    model = network(adadelta.Adadelta(1.0, **EVERYTHING))
    model.save_weights(tmp_path / "model.weights.h5")
    first = bits(fit(model).weights)
    model.load_weights(tmp_path / "model.weights.h5")
    assert not any(np.any(numpy(v)) for v in model.optimizer._accumulated_grads)
    assert bits(fit(model).weights) == first


def test_a_file_from_before_training_can_wait_until_training_begins(tmp_path):
    model = network(adadelta.Adadelta(1.0, **EVERYTHING))
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = network(adadelta.Adadelta(1.0, **EVERYTHING))
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert bits(fit(loaded).weights) == bits(fit(model).weights)


class WithoutConfig(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 1.0


@pytest.mark.parametrize("rate", [WithoutConfig(), lambda: 1.0], ids=["schedule", "lambda"])
def test_weights_can_be_saved_whatever_the_rate_is(rate, tmp_path, recwarn):
    model = fit(network(adadelta.Adadelta(rate)))
    model.save_weights(tmp_path / "model.weights.h5")
    assert not [str(it.message) for it in recwarn if "lambda" in str(it.message)]
    loaded = network(adadelta.Adadelta(rate))
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert bits(fit(loaded).weights) == bits(fit(model).weights)


# ------------------------------------------------------------------ files of Keras' Adadelta

THEIRS = {
    "plain": {},
    "average": {"use_ema": True, "ema_momentum": 0.8},
    "clipped": {"clipnorm": 0.1},
    "window": {"gradient_accumulation_steps": 3},
}


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_file_of_keras_goes_on_to_the_same_numbers(name, ending, tmp_path):
    theirs = network(keras.optimizers.Adadelta(1.0, **THEIRS[name]))
    x, y = keras.ops.array(X), keras.ops.array(Y)
    for call in range(7):  # in the middle of a window
        theirs.train_on_batch(x[2 * call : 2 * call + 2], y[2 * call : 2 * call + 2])
    path = tmp_path / ("model" + ending)
    if ending == ".keras":
        theirs.save(path)
        ours = keras.saving.load_model(path, compile=False)
        ours.compile(adadelta.Adadelta(1.0, **THEIRS[name]), "mse")
        ours.load_weights(path)
    else:
        theirs.save_weights(path)
        ours = network(adadelta.Adadelta(1.0, **THEIRS[name]))
        assert "load_keras_adadelta" in left_out(ours.load_weights, path)
        adadelta.load_keras_adadelta(ours, path)
    assert type(ours.optimizer) is adadelta.Adadelta
    for model in (theirs, ours):
        for call in range(7, 12):
            model.train_on_batch(x[2 * call : 2 * call + 2], y[2 * call : 2 * call + 2])
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(numpy(mine), numpy(other), rtol=2e-5, atol=1e-6)
    assert ours.optimizer.iterations == theirs.optimizer.iterations


def theirs(**options):
    return Store(trained(keras.optimizers.Adadelta, **options))


def test_averages_and_windows_are_not_taken_for_each_other(tmp_path):
    average, window = {"use_ema": True}, {"gradient_accumulation_steps": 3}
    message = refused_strictly(fresh(**window), theirs(calls=3, **average), tmp_path)
    assert "its sums are not 0" in message
    message = refused_strictly(fresh(**average), theirs(calls=3, **window), tmp_path)
    assert "every average in it is 0" in message
    other = fresh(gradient_accumulation_steps=2)
    assert "written with another" in refused_strictly(other, theirs(calls=4, **window), tmp_path)
    load_strictly(fresh(**average), theirs(calls=3, **average), tmp_path)
    load_strictly(fresh(**window), theirs(calls=3, **window), tmp_path)


def test_what_keras_has_saved_and_does_not_fit(tmp_path):
    message = refused_strictly(fresh(names=("a", "b", "c")), theirs(), tmp_path)
    assert "6 arrays without names" in message and "7 or 8" in message
    wide = theirs()
    wide["2"] = np.ones((5, 5), "float32")
    message = refused_strictly(fresh(), wide, tmp_path)
    assert "a (square_avg) (5, 5) instead of (2, 3)" in message


def test_half_precision_of_keras_widens(tmp_path):
    half = theirs()
    for place in range(2, 6):
        half[str(place)] = half[str(place)].astype("float16")
    optimizer = fresh()
    load_strictly(optimizer, half, tmp_path)
    assert np.array_equal(numpy(optimizer._accumulated_grads[0]), half["2"].astype("float32"))


def test_a_schedule_in_the_place_of_the_rate(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)
    saved = theirs()
    scheduled = adadelta.Adadelta(schedule)
    scheduled.build(variables_named("a", "b"))
    load_strictly(scheduled, saved, tmp_path)
    assert float(numpy(scheduled.learning_rate)) == 0.25
    without = {"0": saved["0"], **{str(n - 1): saved[str(n)] for n in range(2, 6)}}
    optimizer = fresh()
    load_strictly(optimizer, without, tmp_path)
    assert np.array_equal(numpy(optimizer._accumulated_grads[0]), saved["2"])


def test_what_keras_does_not_count_starts(tmp_path):
    optimizer = fresh(skip_nonfinite=True, loss_scale_factor="dynamic")
    load_strictly(optimizer, theirs(), tmp_path)
    state = adadelta.export_state(optimizer)
    assert (state.step, state.update, state.skipped) == (4, 4, 0)
    assert (state.loss_scale, state.finite_calls) == (2.0**15, 0)
