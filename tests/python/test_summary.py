"""`summary()` and `repr()` show the right numbers for every kind of variable and change nothing."""

import copy
import math
import pickle
import warnings

import keras
import numpy as np
import pytest
from conftest import floats

import adadelta
from driver import BACKEND, numpy, sparse, tensor

RATES = ("rate_min", "rate_q25", "rate_median", "rate_q75", "rate_max")


def trained(optimizer, variables, calls=3):
    random = np.random.default_rng(1212)
    for _ in range(calls):
        gradients = [
            keras.ops.cast(tensor(random.normal(size=tuple(v.shape)), "float32"), v.dtype)
            for v in variables
        ]
        optimizer.apply(gradients, variables)
    return optimizer


def expected(optimizer, index, learning_rate):
    """Compute a row from the definitions, in float64."""
    square_avg = numpy(optimizer._accumulated_grads[index]).astype("float64")
    acc_delta = numpy(optimizer._accumulated_delta_vars[index]).astype("float64")
    epsilon = optimizer.epsilon
    rates = np.sort(
        learning_rate * np.sqrt(acc_delta + epsilon) / np.sqrt(square_avg + epsilon), axis=None
    )
    return {
        **dict(zip(RATES, np.quantile(rates, [0, 0.25, 0.5, 0.75, 1]), strict=True)),
        "gradient_rms": np.sqrt(np.mean(square_avg)),
        "update_rms": learning_rate * np.sqrt(np.mean(acc_delta)),
    }


def close(row, numbers):
    # Division, square root and interpolation each round to float32.
    return all(math.isclose(row[name], number, rel_tol=5e-7) for name, number in numbers.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_are_those_of_the_definitions(dtype):
    with floats("float64" if dtype == "float64" else "float32"):
        variables = [keras.Variable(np.ones((5, 4)), dtype=dtype, name="a"), keras.Variable(2.0)]
        optimizer = trained(adadelta.Adadelta(0.5, epsilon=1e-3), variables)
        summary = optimizer.summary()
        assert [(row["shape"], row["parameters"]) for row in summary] == [((5, 4), 20), ((), 1)]
        assert summary[0]["variable"].endswith("a")
        for index, row in enumerate(summary):
            assert close(row, expected(optimizer, index, 0.5)), row


@pytest.mark.parametrize(
    "options",
    [
        {"use_ema": True, "gradient_accumulation_steps": 2},
        {"loss_scale_factor": "dynamic"},
        {"fused": False},
        {"weight_decay": 0.1, "maximize": True},
    ],
    ids=str,
)
def test_nothing_changes(options):
    variables = [keras.Variable(np.ones(3), name="a"), keras.Variable(1.0, name="b")]
    optimizer = trained(adadelta.Adadelta(0.5, **options), variables)
    before = adadelta.export_state(optimizer), optimizer.get_config()
    config = copy.deepcopy(before[1])
    variables_before = [id(it) for it in optimizer.variables]
    weights = [numpy(it).tobytes() for it in variables]
    summary, text = optimizer.summary(), repr(optimizer)
    assert (optimizer.summary(), repr(optimizer)) == (summary, text)
    assert adadelta.export_state(optimizer) == before[0]
    assert optimizer.get_config() == config
    assert [id(it) for it in optimizer.variables] == variables_before
    assert [numpy(it).tobytes() for it in variables] == weights


def test_looking_takes_no_name_of_a_later_optimizer():
    before = adadelta.Adadelta()
    for _ in range(3):
        repr(before), before.summary()
    numbers = [int(it.name.partition("_")[2] or 0) for it in (before, adadelta.Adadelta())]
    assert numbers[1] == numbers[0] + 1


def test_calls_inside_a_window_count_as_calls():
    variables = [keras.Variable(np.ones(3))]
    optimizer = trained(adadelta.Adadelta(1.0, gradient_accumulation_steps=2), variables, 5)
    assert "after 2 updates in 5 calls" in repr(optimizer)
    assert "after 2 updates in 5 calls" in repr(optimizer.summary())


def test_complex_variables_have_their_own_shape():
    variable = keras.Variable(np.ones(3) + 1j, dtype="complex64")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([keras.ops.cast(tensor([1.0, 2.0, 3.0]), "complex64")], [variable])
    (row,) = optimizer.summary()
    assert (row["shape"], row["parameters"]) == ((3,), 3)
    # Each complex number counts as two elements; the imaginary parts had no gradient.
    assert row["rate_max"] == 1.0
    assert close(row, expected(optimizer, 0, 1.0))


def test_rows_of_an_embedding_without_gradients_have_the_learning_rate():
    table = keras.Variable(np.ones((6, 2)))
    optimizer = adadelta.Adadelta(0.25)
    gradient = sparse(tensor([1, 1], "int32"), tensor(np.ones((2, 2))), (6, 2))
    assert BACKEND == "torch" or hasattr(gradient, "indices")
    optimizer.apply([gradient], [table])
    (row,) = optimizer.summary()
    assert row["rate_max"] == row["rate_median"] == 0.25
    assert row["rate_min"] < 0.01


def test_empty_and_overwritten_variables_have_no_numbers():
    empty, plain = keras.Variable(np.ones((0, 3))), keras.Variable(1.0)
    own = keras.Variable(1.0)
    own.overwrite_with_gradient = True
    optimizer = trained(adadelta.Adadelta(1.0), [empty, plain, own])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        summary = optimizer.summary()
    assert [row["parameters"] for row in summary] == [0, 1, 1]
    assert [math.isnan(row["rate_median"]) for row in summary] == [True, False, True]
    assert "nan" in repr(summary)


def test_a_poisoned_variable_shows_it():
    variable = keras.Variable(np.ones(3))
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([tensor([1.0, np.nan, 1.0])], [variable])
    assert math.isnan(optimizer.summary()[0]["gradient_rms"])


def test_saturated_averages_have_a_finite_root():
    variable = keras.Variable(np.ones(100), dtype="float32")
    optimizer = adadelta.Adadelta(1.0, epsilon=1e8)
    for _ in range(200):
        optimizer.apply([tensor(np.full(100, 3e38), "float32")], [variable])
    # Their sum exceeds the range of float32.
    assert 1e18 < optimizer.summary()[0]["gradient_rms"] < 2e19


@pytest.mark.parametrize("kind", ["function", "schedule", "function of the step", "variable"])
def test_the_learning_rate_is_that_of_the_next_step(kind):
    def of_the_step(step):
        return 0.5**step

    of_the_step.takes_step = True
    rate = {
        "function": lambda: 0.125,
        "schedule": keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [1.0, 0.5, 0.125]),
        "function of the step": of_the_step,
        "variable": keras.Variable(0.125),
    }[kind]
    variables = [keras.Variable(np.ones(3))]
    optimizer = trained(adadelta.Adadelta(rate), variables)
    summary = optimizer.summary()
    assert summary.learning_rate == 0.125
    assert close(summary[0], expected(optimizer, 0, 0.125))


def test_a_function_that_fails_fails_here_too():
    answers = iter([1.0])
    variables = [keras.Variable(np.ones(3))]
    optimizer = trained(adadelta.Adadelta(lambda: next(answers)), variables, 1)
    with pytest.raises(StopIteration):
        optimizer.summary()
    optimizer = adadelta.Adadelta(lambda: -1.0)
    optimizer.build(variables)
    with pytest.raises(ValueError, match=r"learning_rate\(\)"):
        optimizer.summary()


def test_before_build_the_table_is_empty_and_says_so():
    summary = adadelta.Adadelta(1.0).summary()
    assert len(summary) == 0 and not summary.built
    assert "not yet built" in repr(summary)
    assert set(summary.to_dict()) == {
        *("variable", "shape", "parameters", *RATES, "gradient_rms", "update_rms")
    }
    assert not any(summary.to_dict().values())


def test_columns_rows_and_text_hold_the_same():
    variables = [keras.Variable(np.ones((2, 3)), name="one"), keras.Variable(1.0, name="two")]
    summary = trained(adadelta.Adadelta(1.0), variables).summary()
    columns = summary.to_dict()
    assert [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ] == [*summary]
    head, blank, headings, *lines = repr(summary).splitlines()
    assert head == ("Adadelta, built on 2 variables (7 numbers), after 3 updates, learning rate 1")
    assert not blank and len(lines) == 2
    assert len({len(line) for line in (headings, *lines)}) == 1
    assert f"{summary[0]['rate_median']:.3g}" in lines[0]
    assert pickle.loads(pickle.dumps(summary)) == summary
    assert repr(copy.deepcopy(summary)) == repr(summary)


def test_a_state_has_the_same_summary():
    variables = [keras.Variable(np.ones((2, 3)), name="one"), keras.Variable(1.0, name="two")]
    optimizer = trained(adadelta.Adadelta(0.5, use_ema=True), variables)
    state = adadelta.export_state(optimizer)
    assert state.summary() == optimizer.summary()
    assert repr(state.summary()) == repr(optimizer.summary())
    assert state.summary(learning_rate=1.0)[0]["rate_max"] == 2 * state.summary()[0]["rate_max"]


def test_a_state_with_a_schedule_needs_the_rate():
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    state = adadelta.export_state(
        trained(adadelta.Adadelta(schedule), [keras.Variable(np.ones(3))])
    )
    with pytest.raises(ValueError, match="`learning_rate` must be given"):
        state.summary()
    assert state.summary(learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number"):
        state.summary(learning_rate=-1)
    with pytest.raises(TypeError, match="`epsilon` must be"):
        state.summary(learning_rate=1.0, epsilon="small")
    state.hyperparameters = {"groups": [{"learning_rate": 1.0}, {"learning_rate": 0.5}]}
    with pytest.raises(ValueError, match="`learning_rate` must be given"):
        state.summary()


def test_repr_shows_what_differs_first():
    assert repr(adadelta.Adadelta()) == "<Adadelta, all settings at their defaults; not yet built>"
    optimizer = adadelta.Adadelta(1, weight_decay=0.01, clipnorm=math.inf, name="mine")
    assert repr(optimizer) == (
        '<Adadelta learning_rate=1.0, weight_decay=0.01, clipnorm=inf, name="mine", '
        "the rest at its defaults; not yet built>"
    )
    optimizer.build([keras.Variable(np.ones(1000))])
    assert repr(optimizer).endswith("; built on 1 variable (1,000 numbers), after 0 updates>")


def test_repr_shows_schedules_functions_and_what_is_excluded():
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.5, 100, 0.75)
    optimizer = adadelta.Adadelta(schedule)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    text = repr(optimizer)
    assert "learning_rate=InverseTimeDecay(initial_learning_rate=0.5, decay_steps=100" in text
    assert "exclude_from_weight_decay=['bias']" in text

    def falling():
        raise AssertionError("it must not be asked")

    assert "learning_rate=<function" in repr(adadelta.Adadelta(falling))


def test_repr_is_there_while_the_optimizer_is_made_and_traced():
    assert "Adadelta" in repr(adadelta.Adadelta.__new__(adadelta.Adadelta))
    optimizer = adadelta.Adadelta(1.0)
    seen = []

    class Look(keras.layers.Layer):
        def call(self, inputs):
            seen.append(repr(optimizer))
            return inputs

    model = keras.Sequential([keras.layers.Input((2,)), Look(), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert len(seen) > 1 and all("Adadelta" in text for text in seen)


def test_a_callback_can_look():
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            tables.append(self.model.optimizer.summary())

    tables = []
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(adadelta.Adadelta(1.0), "mse")
    random = np.random.default_rng(1)
    x, y = random.normal(size=(8, 2)), random.normal(size=(8, 1))
    model.fit(x, y, epochs=3, batch_size=4, verbose=0, callbacks=[Look()])
    assert [table.progress.rpartition("after ")[2] for table in tables] == [
        "2 updates",
        "4 updates",
        "6 updates",
    ]
    assert tables[0] != tables[2]


@pytest.mark.skipif(BACKEND != "jax", reason="the state is away on JAX only")
@pytest.mark.parametrize("rate", [1.0, keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)])
def test_an_optimizer_whose_state_is_away_says_how_to_bring_it_back(rate):
    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for look in (optimizer.summary, lambda: adadelta.export_state(optimizer), config):
                with pytest.raises(RuntimeError, match=r"self\.model\.optimizer"):
                    look()

    optimizer = adadelta.Adadelta(rate)
    # The configuration of a schedule is always known.
    config = optimizer.get_config if isinstance(rate, float) else optimizer.summary
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Look()])
