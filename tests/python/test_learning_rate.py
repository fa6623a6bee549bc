"""The learning rate: numbers, variables, schedules and functions, eagerly and compiled."""

import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import floats

import adadelta
from driver import BACKEND, MODES, Driver, numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from traps.tools import FITS, Exact, Weights, fit, model, rates_of

# XLA on TensorFlow can't call Python: a function is refused there, which another test checks.
ASKING = [mode for mode in MODES if mode != "xla"]
schedules = keras.optimizers.schedules


def names(values):
    return [str(value).replace(" ", "-") for value in values]


def followed(rate, expected, mode, between=None, calls=4):
    """Drive with gradients of 1, and compare with the exact rule at the expected rates."""
    x = keras.Variable([0.0], dtype="float32")
    run = Driver(adadelta.Adadelta(learning_rate=rate), [x], mode)
    exact = Exact([0.0])
    for call in range(calls):
        run.call([np.ones(1)])
        exact.call([1.0], expected[call])
        np.testing.assert_allclose(numpy(x), exact.x, rtol=1e-5, err_msg=f"call {call}")
        if between is not None:
            between(call)
    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "rate",
    [0.5, 1, 0, np.float32(0.5), np.float64(0.1), np.float16(0.5), np.int64(2), np.array(0.25)],
    ids=lambda rate: f"{type(rate).__name__}-{rate}",
)
def test_a_number_of_any_kind(rate, mode):
    run = followed(rate, [float(rate)] * 4, mode)
    given = run.optimizer.get_config()["learning_rate"]
    assert type(given) is float
    assert given == float(rate)


def test_a_tensor_is_the_number_that_it_holds():
    optimizer = adadelta.Adadelta(keras.ops.convert_to_tensor(0.5))
    assert optimizer.get_config()["learning_rate"] == 0.5
    optimizer.learning_rate *= 0.5
    assert optimizer.get_config()["learning_rate"] == 0.25
    with pytest.raises(TypeError, match="learning_rate"):
        optimizer.learning_rate = keras.ops.ones(2)
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.learning_rate = -optimizer.learning_rate
    assert optimizer.get_config()["learning_rate"] == 0.25


@pytest.mark.parametrize("rate", [0.1, 1e-3, 1 / 3, 1e-30, 1e30])
def test_the_configuration_has_the_number_that_was_given(rate):
    optimizer = adadelta.Adadelta(rate)
    assert optimizer.get_config()["learning_rate"] == rate
    optimizer.build([keras.Variable([0.0])])
    assert optimizer.get_config()["learning_rate"] == rate
    optimizer.learning_rate = 0.7
    assert optimizer.get_config()["learning_rate"] == 0.7
    assert adadelta.Adadelta.from_config(optimizer.get_config()).get_config() == (
        optimizer.get_config()
    )


def rate_in_files(optimizer):
    (state,) = {adadelta.export_state(optimizer).hyperparameters["learning_rate"]}
    assert state == optimizer.get_config()["learning_rate"]
    return state


@pytest.mark.parametrize("start, factor, short", [(0.01, 0.1, 0.001), (0.7, 0.5, 0.35)])
@pytest.mark.parametrize("is_built", [True, False])
def test_a_rate_that_was_computed_from_float32_is_the_short_decimal(start, factor, short, is_built):
    """ReduceLROnPlateau and LearningRateScheduler compute such rates."""
    x, optimizer = keras.Variable([0.0], dtype="float32"), adadelta.Adadelta(start)
    if is_built:
        optimizer.build([x])
    rate = float(numpy(optimizer.learning_rate)) * factor
    assert rate != short
    optimizer.learning_rate = rate
    optimizer.build([x])
    assert rate_in_files(optimizer) == short
    # The rate in files is the rate that the steps use.
    assert float(numpy(optimizer.learning_rate)) == np.float32(short)
    assert f"learning_rate={short}," in repr(optimizer) or short == 0.001


def test_a_rate_that_was_assigned_is_the_shortest_decimal_of_its_float32():
    x, optimizer = keras.Variable([0.0], dtype="float32"), adadelta.Adadelta(0.5)
    optimizer.build([x])
    for value, short in (
        (0.3, 0.3),
        (1 / 3, 0.33333334),
        (float(np.float32(0.01)) * 0.1, 0.0009999999),
    ):
        optimizer.learning_rate.assign(value)
        assert rate_in_files(optimizer) == short
        assert float(numpy(optimizer.learning_rate)) == np.float32(short)
    held = adadelta.Adadelta(keras.Variable(0.001, dtype="float32"))
    assert held.get_config()["learning_rate"] == 0.001
    optimizer.learning_rate = 1 / 3
    assert float(numpy(optimizer.learning_rate)) == np.float32(1 / 3)
    # A loaded state keeps all digits of its rate.
    state = adadelta.export_state(optimizer)
    state.hyperparameters["learning_rate"] = 0.123456789012
    adadelta.import_state(optimizer, state)
    assert rate_in_files(optimizer) == 0.123456789012


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_that_changes_between_steps(mode):
    rate = keras.Variable(1.0, dtype="float32")
    followed(rate, [1.0, 0.5, 0.25, 0.125], mode, lambda call: rate.assign(0.5 ** (call + 1)))


@pytest.mark.parametrize("mode", MODES)
def test_a_schedule(mode):
    rate = schedules.PiecewiseConstantDecay([0, 2], [1.0, 0.5, 0.25])
    followed(rate, [1.0, 0.5, 0.5, 0.25], mode)


@pytest.mark.parametrize("mode", ASKING)
def test_a_function_is_asked_once_for_every_step(mode):
    asked = []

    def rate():
        asked.append(1)
        return 1.0 / len(asked)

    followed(rate, [1.0, 1 / 2, 1 / 3, 1 / 4], mode)
    assert len(asked) == 4


@pytest.mark.parametrize("mode", ASKING)
def test_a_function_is_asked_once_also_with_decay_clipping_and_accumulation(mode):
    asked = []

    def rate():
        asked.append(1)
        return 1.0

    x = keras.Variable([1.0], dtype="float32")
    optimizer = adadelta.Adadelta(
        rate, weight_decay=0.1, clipnorm=1.0, gradient_accumulation_steps=2, use_ema=True
    )
    run = Driver(optimizer, [x], mode)
    for _ in range(4):
        run.call([np.ones(1)])
    assert len(asked) == 4


@pytest.mark.parametrize("mode", ASKING)
def test_a_function_sees_what_changes_outside(mode):
    outside = {"rate": 1.0}

    def change(call):
        outside["rate"] = 0.5 ** (call + 1)

    followed(lambda: outside["rate"], [1.0, 0.5, 0.25, 0.125], mode, change)


@pytest.mark.parametrize("mode", ASKING)
@pytest.mark.parametrize("kind", ["variable", "tensor", "int", "numpy"])
def test_a_function_may_return_any_kind_of_number(kind, mode):
    variable = keras.Variable(2.0, dtype="float32")
    answers = {
        "variable": variable,
        "tensor": keras.ops.convert_to_tensor(2.0),
        "int": 2,
        "numpy": np.float32(2),
    }
    followed(lambda: answers[kind], [2.0] * 4, mode)


@pytest.mark.parametrize("mode", ASKING)
def test_a_function_that_returns_a_variable_is_followed(mode):
    rate = keras.Variable(1.0, dtype="float32")
    followed(
        lambda: rate, [1.0, 0.5, 0.25, 0.125], mode, lambda call: rate.assign(0.5 ** (call + 1))
    )


@pytest.mark.parametrize("compiled", FITS.values(), ids=names(FITS))
def test_fit_asks_a_function_once_for_every_batch(compiled):
    asked = []

    def rate():
        asked.append(1)
        return 1.0 / len(asked)

    used = rates_of(adadelta.Adadelta, rate, 5, compiled=compiled)
    np.testing.assert_allclose(used, [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rtol=1e-4)
    assert len(asked) == 5


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow compiles without callbacks")
def test_a_function_under_xla_is_refused_with_the_way_out():
    x = keras.Variable([1.0], dtype="float32")
    run = Driver(adadelta.Adadelta(lambda: 1.0), [x], "xla")
    with pytest.raises(Exception, match="learning_rate") as error:
        run.call([np.ones(1)])
    assert "jit_compile_False" in str(error.value)
    assert float(numpy(x)[0]) == 1.0


KINDS = {
    "number": lambda: (0.5, 0.5),
    "variable": lambda: (keras.Variable(0.75, dtype="float32"), 0.75),
    "schedule": lambda: (schedules.PiecewiseConstantDecay([10**6], [0.25, 0.0]), 0.25),
    "function": lambda: (lambda: 2.0, 2.0),
}


def refused_once_compiled(first, later, compiled):
    """TensorFlow's graph keeps the kind of rate it was traced with; only numbers can be set."""
    is_assigned = first in ("number", "variable") and later == "number"
    return BACKEND == "tensorflow" and not compiled.get("run_eagerly") and not is_assigned


@pytest.mark.parametrize("later", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_one_kind_replaces_another_between_calls(first, later):
    x, exact = keras.Variable([0.0], dtype="float32"), Exact([0.0])
    optimizer = adadelta.Adadelta(KINDS[first]()[0])
    for kind in (first, later, first, "number"):
        optimizer.learning_rate, expected = KINDS[kind]()
        optimizer.apply([keras.ops.ones(1)], [x])
        exact.call([1.0], expected)
        np.testing.assert_allclose(numpy(x), exact.x, rtol=1e-5)


@pytest.mark.parametrize("compiled", FITS.values(), ids=names(FITS))
@pytest.mark.parametrize("later", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_one_kind_replaces_another_between_fits(first, later, compiled):
    rate, before = KINDS[first]()
    made = model(adadelta.Adadelta(rate), width=1, start=0.0, **compiled)
    exact = Exact([0.0])
    fit(made, np.ones((2, 1)))
    replaced, after = KINDS[later]()
    if refused_once_compiled(first, later, compiled):
        with pytest.raises(ValueError, match="`learning_rate` can't be replaced"):
            made.optimizer.learning_rate = replaced
        after = before
    else:
        made.optimizer.learning_rate = replaced
    fit(made, np.ones((2, 1)))
    for expected in (before, before, after, after):
        exact.call([1.0], expected)
    np.testing.assert_allclose(made.get_weights()[0].reshape(-1), exact.x, rtol=1e-5)


@pytest.mark.parametrize("compiled", FITS.values(), ids=names(FITS))
@pytest.mark.parametrize("later", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_one_kind_replaces_another_in_a_callback_of_fit(first, later, compiled):
    rate, before = KINDS[first]()
    replaced, after = KINDS[later]()

    def replace(made, batch):
        if batch == 1:
            made.optimizer.learning_rate = replaced

    if refused_once_compiled(first, later, compiled):
        with pytest.raises(ValueError, match="`learning_rate` can't be replaced"):
            rates_of(adadelta.Adadelta, rate, 4, then=replace, compiled=compiled)
        return
    used = rates_of(adadelta.Adadelta, rate, 4, then=replace, compiled=compiled)
    np.testing.assert_allclose(used, [before, before, after, after], rtol=1e-4)


BAD = {
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "None": lambda: None,
    "a vector": lambda: np.ones(2),
    "a string": lambda: "fast",
    "negative": lambda: -1.0,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=names(BAD))
@pytest.mark.parametrize("mode", ASKING)
def test_a_bad_answer_is_an_error_and_changes_nothing(mode, bad):
    answers = [lambda: 1.0, bad, lambda: 1.0]
    calls = iter(answers)
    x = keras.Variable([1.0], dtype="float32")
    optimizer = adadelta.Adadelta(lambda: next(calls)(), use_ema=True, weight_decay=0.1)
    run = Driver(optimizer, [x], mode)
    run.call([np.ones(1)])
    state = [numpy(variable).copy() for variable in (x, *optimizer.variables)]
    if mode == "jit":
        # An error raised there would lose the weights, whose memory compiled training has donated.
        run.call([np.ones(1)])
    else:
        with pytest.raises(Exception, match="learning_rate"):
            run.call([np.ones(1)])
    for before, after in zip(state, (x, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(numpy(after), before)
    if mode == "jit":
        with pytest.raises((TypeError, ValueError), match="learning_rate"):
            optimizer.finalize_variable_values([x])
    run.call([np.ones(1)])
    assert float(numpy(x)[0]) < float(state[0][0])


@pytest.mark.parametrize("bad", BAD.values(), ids=names(BAD))
@pytest.mark.parametrize("compiled", FITS.values(), ids=names(FITS))
def test_a_bad_answer_in_fit_is_an_error_and_no_weight_is_lost(compiled, bad):
    calls = []

    def rate():
        calls.append(1)
        return bad() if len(calls) == 3 else 1.0

    made = model(adadelta.Adadelta(rate), width=1, start=0.0, **compiled)
    kept = Weights()
    with pytest.raises(Exception, match="learning_rate"):
        fit(made, np.ones((3, 1)), callbacks=[kept])
    exact = Exact([0.0])
    for _ in range(2):
        exact.call([1.0])
    np.testing.assert_allclose(made.get_weights()[0].reshape(-1), exact.x, rtol=1e-5)
    assert int(numpy(made.optimizer.iterations)) == 2
    fit(made, np.ones((1, 1)))
    exact.call([1.0])
    np.testing.assert_allclose(made.get_weights()[0].reshape(-1), exact.x, rtol=1e-5)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "fast", None, [1.0], np.ones(2)])
def test_a_bad_rate_can_not_be_set(bad):
    optimizer = adadelta.Adadelta(0.5)
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        optimizer.learning_rate = bad
    assert float(numpy(optimizer.learning_rate)) == 0.5
    assert optimizer.get_config()["learning_rate"] == 0.5


@pytest.mark.parametrize("mode", ASKING)
@pytest.mark.parametrize("kind", ["number", "function", "set later"])
def test_float64_parameters_get_a_float64_rate(kind, mode):
    with floats("float64"):
        keras.config.set_floatx("float32")  # the parameter alone is float64
        x, exact = keras.Variable([0.0], dtype="float64"), Exact([0.0])
        optimizer = adadelta.Adadelta({"number": 0.1, "function": lambda: 0.1}.get(kind, 0.7))
        run = Driver(optimizer, [x], mode)
        optimizer.build([x])
        if kind == "set later":
            optimizer.learning_rate = 0.1
        for _ in range(50):
            run.call([np.ones(1)])
            exact.call([1.0], 0.1)
        np.testing.assert_allclose(numpy(x), exact.x, rtol=1e-12)
