"""What users do with tf_keras' optimizers, in the kinds of tests that tf_keras itself has."""

import copy
import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import adadelta
import adadelta.tf_keras

OURS = adadelta.tf_keras.Adadelta
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype("float32"), RNG.normal(size=(32, 1)).astype("float32")


def network(optimizer, seed=1, **options):
    tf_keras.utils.set_random_seed(seed)
    model = tf_keras.Sequential(
        [tf_keras.Input((4,)), tf_keras.layers.Dense(3, "tanh"), tf_keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse", **options)
    return model


def test_it_is_found_after_importing_the_package():
    assert adadelta.tf_keras.Adadelta is OURS
    assert isinstance(OURS(), tf_keras.optimizers.Optimizer)


def test_add_variable_from_reference():
    optimizer, variable = OURS(), tf.Variable([[1.0, 2.0]], name="variable")
    made = optimizer.add_variable_from_reference(variable, "test")
    assert made.name == "test/variable:0"
    np.testing.assert_array_equal(made.numpy(), [[0.0, 0.0]])
    made = optimizer.add_variable_from_reference(variable, "test", initial_value=variable)
    np.testing.assert_array_equal(made.numpy(), [[1.0, 2.0]])


def test_build_index_dict():
    variables = [tf.Variable(float(number), name=f"var{number}") for number in range(10)]
    optimizer = OURS()
    optimizer._build_index_dict(variables)
    assert optimizer._index_dict[optimizer._var_key(variables[7])] == 7


def test_compute_gradients():
    x = tf.Variable(3.0, name="x")
    optimizer = OURS()
    for given in ([x], lambda: [x]):
        ((gradient, variable),) = optimizer.compute_gradients(lambda: x * x, given)
        assert float(gradient) == 6 and variable is x
    with tf.GradientTape() as tape:
        loss = x * x
    ((gradient, _),) = optimizer.compute_gradients(loss, [x], tape)
    assert float(gradient) == 6


def test_minimize_goes_down():
    x, optimizer = tf.Variable([3.0, -2.0]), OURS(1.0)
    for _ in range(200):
        optimizer.minimize(lambda: tf.reduce_sum(x * x), [x])
    assert float(tf.reduce_sum(x * x)) < 10.5 and int(optimizer.iterations) == 200


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("clipnorm", [2**0.5 / 2] * 2), ("global_clipnorm", [2**0.5 / 2] * 2), ("clipvalue", [1, 1])],
)
def test_clipping(argument, expected):
    optimizer = OURS(**{argument: 1})
    clipped = optimizer._clip_gradients([tf.constant([100.0, 100.0])])
    np.testing.assert_allclose(clipped[0], expected, rtol=1e-6)
    none, clipped = optimizer._clip_gradients([None, tf.constant([100.0, 100.0])])
    assert none is None
    np.testing.assert_allclose(clipped, expected, rtol=1e-6)


def test_weight_decay_and_what_is_excluded_from_it():
    def decayed(exclude, **options):
        variables = [tf.Variable([2.0], name=name) for name in ("kernel", "exclude", "other")]
        optimizer = OURS(1.0, weight_decay=0.004, **options)
        exclude(optimizer, variables)
        optimizer.apply_gradients([(tf.zeros(1), variable) for variable in variables])
        return [round(float(variable[0]), 4) for variable in variables], optimizer

    def nothing(optimizer, variables):
        return None

    def names(optimizer, variables):
        optimizer.exclude_from_weight_decay(var_names=["exclude"])

    def one_name(optimizer, variables):
        optimizer.exclude_from_weight_decay(var_names="exclude")

    def variable(optimizer, variables):
        optimizer.exclude_from_weight_decay(var_list=[variables[2]])

    assert decayed(nothing)[0] == [1.992, 1.992, 1.992]
    assert decayed(names)[0] == decayed(one_name)[0] == [1.992, 2.0, 1.992]
    values, optimizer = decayed(variable)
    assert values == [1.992, 1.992, 2.0]
    with pytest.raises(ValueError, match="can only be"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    # Excluded variables are part of the config, so a loaded optimizer excludes them too.
    for exclude in (names, variable):
        expected, optimizer = decayed(exclude)
        again = OURS.from_config(optimizer.get_config())
        variables = [tf.Variable([2.0], name=name) for name in ("kernel", "exclude", "other")]
        again.apply_gradients([(tf.zeros(1), variable) for variable in variables])
        assert [round(float(variable[0]), 4) for variable in variables] == expected


def test_what_is_excluded_may_be_said_again():
    a, b, c = (tf.Variable([2.0], name=name) for name in ("a", "b", "a"))
    for given in ({}, {"var_names": ["a", "b"]}, {"var_list": [a, b]}, {"var_list": [a]}):
        optimizer = OURS(1.0, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(**given)
        loaded = OURS.from_config(optimizer.get_config())
        for one in (optimizer, loaded):
            one.build([a, b, c])
            before = one.get_config(), [one._use_weight_decay(it) for it in (a, b, c)]
            one.exclude_from_weight_decay(**{key: it[::-1] for key, it in given.items()})
            for others in ({"var_names": "a"}, {"var_list": [b]}, {"var_list": [c, b]}):
                if one is optimizer or "a" not in str(given) or others != {"var_list": [c, b]}:
                    with pytest.raises(ValueError, match="can only be called before"):
                        one.exclude_from_weight_decay(**others)
            after = one.get_config(), [one._use_weight_decay(it) for it in (a, b, c)]
            assert before == after


def test_coupled_weight_decay_enters_the_averages():
    x = tf.Variable([2.0])
    optimizer = OURS(1.0, weight_decay=0.5, decoupled_weight_decay=False)
    optimizer.apply_gradients([(tf.zeros(1), x)])
    assert optimizer._accumulated_grads[0].numpy()[0] == pytest.approx(0.05)


def to_legacy(optimizer):
    return tf_keras.__internal__.optimizers.convert_to_legacy_optimizer(optimizer)


def schedule():
    return tf_keras.optimizers.schedules.ExponentialDecay(0.5, 2, 0.5)


@pytest.mark.parametrize("rate", [0.5, schedule, lambda: lambda: 0.5], ids=["number", "s", "f"])
@pytest.mark.parametrize("options", [{}, {"clipnorm": 0.5, "rho": 0.75}], ids=str)
def test_a_legacy_optimizer_makes_the_same_steps(rate, options):
    rate = rate() if callable(rate) else rate
    x, y = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    own = OURS(rate, **options)
    legacy = to_legacy(own)
    assert type(legacy) is tf_keras.optimizers.legacy.Adadelta
    for gradient in ([1.0, -1.0], [0.5, 3.0], [-2.0, 0.0]):
        own.apply_gradients([(tf.constant(gradient), x)])
        legacy.apply_gradients([(tf.constant(gradient), y)])
    np.testing.assert_allclose(x, y, rtol=1e-6)
    wrapped = tf_keras.mixed_precision.LossScaleOptimizer(OURS(rate, **options))
    assert to_legacy(wrapped).get_config()["inner_optimizer"]["class_name"] == "Adadelta"


@pytest.mark.parametrize(
    "options",
    [{"weight_decay": 0.1}, {"use_ema": True}, {"maximize": True}, {"skip_nonfinite": True}],
    ids=str,
)
def test_a_legacy_optimizer_that_would_do_something_else_is_refused(options):
    ((argument, value),) = options.items()
    before = OURS(**options).get_config()
    optimizer = OURS(**options)
    message = f"`{argument}` must be .* legacy Adadelta .* received {value}"
    with pytest.raises(ValueError, match=message):
        to_legacy(optimizer)
    assert optimizer.get_config() == before and before[argument] == value


def test_a_legacy_optimizer_has_no_state():
    optimizer = OURS(0.5)
    optimizer.apply_gradients([(tf.ones(1), tf.Variable([2.0]))])
    with pytest.warns(adadelta.StateWarning, match="legacy optimizer starts anew"):
        to_legacy(optimizer)


class Named(OURS):
    def __init__(self, *args, word="", **kwargs):
        super().__init__(*args, **kwargs)
        self.word = word

    def get_config(self):
        return {**super().get_config(), "word": self.word}


def partial_rate():
    return functools.partial(lambda rate: rate, 0.5)


@pytest.mark.parametrize("rate", [0.5, schedule, partial_rate, lambda: lambda: 0.5])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_ema": True, "weight_decay": 0.1, "skip_nonfinite": True, "clipnorm": 1.0}],
    ids=["plain", "everything"],
)
@pytest.mark.parametrize("calls", [0, 2])
def test_a_deep_copy_goes_on_alike_and_apart(rate, options, calls):
    def step(optimizer, x):
        optimizer.apply_gradients([(x * 0.5, x)])

    x = tf.Variable([1.0, 2.0], name="x")
    optimizer = Named(rate() if callable(rate) else rate, word="mine", **options)
    optimizer.exclude_from_weight_decay(var_names=["y"])
    for _ in range(calls):
        step(optimizer, x)
    again = copy.deepcopy(optimizer)
    assert type(again) is Named and again.word == "mine"
    assert again._with_any_rate().get_config() == optimizer._with_any_rate().get_config()
    y = tf.Variable(x.numpy(), name="x")
    before = optimizer.get_weights()
    for _ in range(2):
        step(again, y)
    for old, new in zip(before, optimizer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for _ in range(2):
        step(optimizer, x)
    np.testing.assert_array_equal(x.numpy(), y.numpy())
    for mine, theirs in zip(optimizer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert int(again.iterations) == calls + 2
    if not callable(rate):
        again.learning_rate = 0.25
        assert float(optimizer.learning_rate) == 0.5


def test_maximize_ascends():
    x = tf.Variable([2.0])
    OURS(1.0, maximize=True).apply_gradients([(tf.ones(1), x)])
    assert x.numpy()[0] > 2


def test_variables_and_weights():
    optimizer, x = OURS(use_ema=True, skip_nonfinite=True), tf.Variable([1.0, 2.0])
    optimizer.apply_gradients([(tf.ones(2), x)])
    assert len(optimizer.variables) == len(optimizer.variables()) == 5
    weights = optimizer.get_weights()
    optimizer.apply_gradients([(tf.ones(2), x)])
    optimizer.set_weights(weights)
    for old, new in zip(weights, optimizer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_setting_the_learning_rate():
    optimizer = OURS(1.0)
    optimizer.learning_rate = 2.0
    assert float(optimizer.learning_rate) == float(optimizer.lr) == 2
    optimizer.lr = 3
    assert optimizer.get_config()["learning_rate"] == 3
    tf_keras.backend.set_value(optimizer.lr, 0.1)
    assert optimizer.get_config()["learning_rate"] == 0.1
    schedule = tf_keras.optimizers.schedules.PiecewiseConstantDecay([2], [2.0, 0.5])
    optimizer = OURS(schedule)
    assert float(optimizer.learning_rate) == 2
    with pytest.raises(TypeError, match="This optimizer was created with"):
        optimizer.learning_rate = 2.0
    with pytest.raises(TypeError, match="This optimizer was created with"):
        OURS(lambda: 0.1).learning_rate = 2.0
    optimizer = OURS(1.0)
    optimizer.learning_rate = schedule
    assert float(optimizer.learning_rate) == 2


def test_a_schedule_can_not_come_after_the_step_is_compiled():
    x, optimizer = tf.Variable([1.0]), OURS(1.0)

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.ones(1), x)])

    step()
    with pytest.raises(ValueError, match="can't be replaced by another kind of rate"):
        optimizer.learning_rate = tf_keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    optimizer.learning_rate = 0.0
    before = x.numpy()
    step()
    np.testing.assert_array_equal(x.numpy(), before)


@pytest.mark.parametrize("compiled", [True, False])
def test_schedules_count_calls(compiled):
    x = tf.Variable([1.0])
    schedule = tf_keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.0])
    optimizer = OURS(schedule)

    def step():
        optimizer.apply_gradients([(tf.ones(1), x)])

    step = tf.function(step) if compiled else step
    seen = []
    for _ in range(4):
        before = x.numpy()
        step()
        seen.append(bool(np.any(before != x.numpy())))
    assert seen == [True, True, False, False]


def test_setting_iterations():
    optimizer = OURS(1.0)
    optimizer.iterations = tf.Variable(2, dtype=tf.int64)
    assert int(optimizer.iterations) == 2
    optimizer.apply_gradients([(tf.ones(1), tf.Variable([1.0]))])
    assert int(optimizer.iterations) == 3
    with pytest.raises(RuntimeError, match="Cannot set `iterations`"):
        optimizer.iterations = tf.Variable(2, dtype=tf.int64)


def test_constraints_are_applied():
    for dtype in ("float32", "bfloat16"):
        x = tf.Variable([1.0, 0.001], constraint=tf.nn.relu, dtype=dtype)
        OURS(1.0, epsilon=1.0).apply_gradients([(tf.cast([0.5, 2.0], dtype), x)])
        assert x.numpy()[1] == 0 and 0 < x.numpy()[0] < 1


def test_no_gradients():
    optimizer, x = OURS(), tf.Variable([1.0])
    optimizer.apply_gradients([])
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        optimizer.apply_gradients([(None, x)])
    assert int(optimizer.iterations) == 0 and not optimizer.built


def test_some_gradients_are_missing():
    x, y = tf.Variable([1.0]), tf.Variable([1.0])
    optimizer = OURS(use_ema=True)
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply_gradients([(None, x), (tf.ones(1), y)])
    assert x.numpy() == 1 and y.numpy() < 1
    optimizer.apply_gradients([(tf.ones(1), x)])
    assert x.numpy() < 1


def test_the_name_argument_is_a_scope():
    x, optimizer = tf.Variable([1.0]), OURS()
    graph = tf.function(
        lambda: optimizer.apply_gradients([(tf.ones(1), x)], name="dummy")
    ).get_concrete_function()
    assert any(operation.name.startswith("dummy") for operation in graph.graph.get_operations())


@pytest.mark.parametrize("compiled", [True, False])
def test_the_moving_average(compiled):
    x, y = tf.Variable([1.0, 2.0]), tf.Variable([5.0])
    optimizer = OURS(0.5, epsilon=1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    optimizer.build([x, y])

    def step():
        optimizer.apply_gradients([(tf.ones(2), x), (tf.ones(1), y)])

    step = tf.function(step) if compiled else step
    average = x.numpy().astype("float64")
    for call in range(1, 7):
        before, averages = x.numpy(), optimizer._model_variables_moving_average
        step()
        if call % 3:
            assert np.all(x.numpy() < before)
            average = 0.5 * average + 0.5 * x.numpy()
        else:
            average = averages[0].numpy()
            np.testing.assert_array_equal(x.numpy(), average)
        np.testing.assert_allclose(averages[0].numpy(), average, rtol=1e-6)
    optimizer.finalize_variable_values([y, x])
    np.testing.assert_array_equal(y.numpy(), averages[1].numpy())
    other = tf.Variable([1.0])
    with pytest.warns(UserWarning, match="no moving average"):
        optimizer.finalize_variable_values([other])
    assert other.numpy()[0] == 1


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
def test_skip_nonfinite(mode):
    x, optimizer = tf.Variable([1.0, 2.0]), OURS(1.0, skip_nonfinite=True, use_ema=True)

    def step(gradient):
        optimizer.apply_gradients([(gradient, x)])

    step = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla")
    step(tf.ones(2))
    before = [x.numpy(), *(v.numpy() for v in optimizer.variables[1:-1])]
    for bad in (np.nan, np.inf):
        step(tf.constant([bad, 1.0]))
    for old, new in zip(before, [x.numpy(), *optimizer.get_weights()[1:-1]], strict=True):
        np.testing.assert_array_equal(old, new)
    assert optimizer.skipped == 2 and int(optimizer.iterations) == 3


def test_from_config():
    config = {
        "name": "custom",
        "learning_rate": 0.1,
        "rho": 0.9,
        "epsilon": 1e-5,
        "weight_decay": 0.01,
        "clipnorm": None,
        "clipvalue": 0.5,
        "global_clipnorm": None,
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 50,
        "jit_compile": False,
        "is_legacy_optimizer": False,
        "maximize": True,
        "decoupled_weight_decay": False,
        "skip_nonfinite": True,
    }
    assert OURS.from_config(config).get_config() == config
    optimizer = tf_keras.optimizers.deserialize(tf_keras.optimizers.serialize(OURS(0.1)))
    assert type(optimizer) is OURS


@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_fit_again_and_again(compiled):
    model = network(OURS(1.0, use_ema=True, clipnorm=1.0, weight_decay=0.001), **compiled)
    losses = [
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"][-1] for _ in range(3)
    ]
    assert losses[2] < losses[0] and int(model.optimizer.iterations) == 24


def test_fit_with_an_embedding():
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Embedding(9, 2, input_length=5),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(1),
        ]
    )
    model.compile(OURS(1.0, clipvalue=0.5), "mse")
    ids = RNG.integers(0, 9, size=(32, 5))
    history = model.fit(ids, ids.sum(1) / 20, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    before = tf_keras.mixed_precision.global_policy()
    try:
        tf_keras.mixed_precision.set_global_policy(policy)
        model = network(OURS(1.0, use_ema=True))
        history = model.fit(X, Y, batch_size=8, epochs=4, verbose=0).history["loss"]
        wrapped = isinstance(model.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        assert wrapped == (policy == "mixed_float16")
        assert history[-1] < history[0] and int(model.optimizer.iterations) == 16
        state = adadelta.export_state(model.optimizer)
        assert (state.loss_scale is not None) == wrapped
        adadelta.import_state(model.optimizer, state)
        assert adadelta.export_state(model.optimizer) == state
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def test_callbacks_set_the_rate():
    model = network(OURS(1.0))
    rates = tf_keras.callbacks.LearningRateScheduler(lambda epoch: [0.5, 0.0][epoch])
    model.fit(X, Y, epochs=1, callbacks=[rates], verbose=0)
    before = model.get_weights()
    model.fit(X, Y, initial_epoch=1, epochs=2, callbacks=[rates], verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
