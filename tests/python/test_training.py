"""The optimizer works in fit(), in custom loops, in Keras' wrapper, saved and loaded."""

import keras
import numpy as np
import pytest

import adadelta
import driver

EVERYTHING = {
    "weight_decay": 0.001,
    "global_clipnorm": 1.0,
    "use_ema": True,
    "ema_momentum": 0.9,
    "ema_overwrite_frequency": 2,
    "loss_scale_factor": 64.0,
    "gradient_accumulation_steps": 2,
    "skip_nonfinite": True,
}


def data():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(64, 5)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5], [3.0], [0.0]], "float32")) ** 2 / 10


def model(dtype=None):
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.layers.Input((5,)),
            keras.layers.Dense(16, activation="relu", dtype=dtype),
            keras.layers.Dense(1, dtype=dtype),
        ]
    )


def fitted(optimizer, epochs=12, net=None, **compile_arguments):
    net = net or model()
    net.compile(optimizer=optimizer, loss="mse", **compile_arguments)
    history = net.fit(*data(), batch_size=16, epochs=epochs, verbose=0, shuffle=False)
    return net, history.history["loss"]


@pytest.mark.parametrize("eagerly", [False, True], ids=["compiled", "eagerly"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_loss_falls(options, eagerly):
    _, losses = fitted(adadelta.Adadelta(learning_rate=3.0, **options), run_eagerly=eagerly)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_compiled_and_eager_training_agree(options):
    nets = [
        fitted(adadelta.Adadelta(learning_rate=1.0, **options), run_eagerly=eagerly)[0]
        for eagerly in (False, True)
    ]
    for one, two in zip(*(net.get_weights() for net in nets), strict=True):
        # The forward pass is fused in only one of them: a difference of 1e-6, over 48 steps.
        np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.skipif(driver.BACKEND != "tensorflow", reason="only TensorFlow traces programs")
def test_the_program_that_makes_the_state_has_no_condition_for_each_variable(options):
    import tensorflow as tf

    def gradients():
        return [tf.ones([2]), tf.ones([1, 1])]

    def made():
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([[3.0]])]
        return variables, adadelta.Adadelta(learning_rate=1.0, **options)

    variables, optimizer = made()

    @tf.function
    def step():
        optimizer.build(variables)
        operations = tf.compat.v1.get_default_graph().get_operations()
        assert "If" not in {operation.type for operation in operations}
        optimizer.apply(gradients())

    eager, other = made()
    for _ in range(8):
        step()
        other.apply(gradients(), eager)
    pairs = zip(variables + optimizer.variables, eager + other.variables, strict=True)
    for one, two in pairs:
        # A program rounds some products differently.
        np.testing.assert_allclose(driver.numpy(one), driver.numpy(two), rtol=2e-6)


def test_fitting_again_and_again_with_an_average():
    optimizer = adadelta.Adadelta(learning_rate=3.0, use_ema=True, ema_momentum=0.5)
    net, first = fitted(optimizer, epochs=3)
    for _ in range(3):
        last = net.fit(*data(), batch_size=16, epochs=3, verbose=0).history["loss"]
    assert last[-1] < first[0]
    assert all(np.isfinite(weight).all() for weight in net.get_weights())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    _, losses = fitted(adadelta.Adadelta(learning_rate=3.0), net=model(policy))
    assert losses[-1] < 0.95 * losses[0]


def test_under_keras_loss_scale_optimizer():
    inner = adadelta.Adadelta(learning_rate=3.0)
    net, losses = fitted(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
    assert losses[-1] < 0.95 * losses[0]
    alone, _ = fitted(adadelta.Adadelta(learning_rate=3.0))
    for one, two in zip(net.get_weights(), alone.get_weights(), strict=True):
        # A scale that is a power of two changes no digit; the graph is fused differently.
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_schedule_counts_calls():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [1.0, 0.0])
    optimizer = adadelta.Adadelta(learning_rate=schedule)
    x = keras.Variable([1.0])
    run = driver.Driver(optimizer, [x], driver.MODES[-1])
    values = []
    for _ in range(6):
        run.call([[1.0]])
        values.append(float(x.numpy()[0]))
    assert len(set(values[:4])) == 4 and len(set(values[4:])) == 1


@pytest.mark.parametrize("names", ["bias", ["bias"]], ids=["one-word", "a-list"])
def test_excluded_variables_do_not_decay_also_after_saving(names, tmp_path):
    optimizer = adadelta.Adadelta(learning_rate=1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=names)
    net, _ = fitted(optimizer, epochs=1)
    net.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    for one in (optimizer, loaded):
        decays = {v.path.split("/")[-1]: one._use_weight_decay(v) for v in one._trainable_variables}
        assert decays == {"kernel": True, "bias": False}


def test_what_is_excluded_after_loading_takes_the_place_of_what_was():
    one, two = (keras.Variable([1.0], name=name) for name in ("one", "two"))
    optimizer = adadelta.Adadelta(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[one])
    loaded = adadelta.Adadelta.from_config(optimizer.get_config())
    loaded.exclude_from_weight_decay(var_list=[two])
    loaded.build([one, two])
    assert [loaded._use_weight_decay(it) for it in (one, two)] == [True, False]


@pytest.mark.parametrize("given", [{}, {"var_names": ["a", "b"]}, {"var_list": (0, 1)}])
@pytest.mark.parametrize("is_loaded", [False, True])
def test_what_is_excluded_may_be_said_again_but_nothing_else(given, is_loaded):
    variables = [keras.Variable([1.0], name=name) for name in ("a", "b", "c", "a")]
    if "var_list" in given:
        given = {"var_list": [variables[i] for i in given["var_list"]]}
    optimizer = adadelta.Adadelta(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(**given)
    if is_loaded:
        optimizer = adadelta.Adadelta.from_config(optimizer.get_config())
    optimizer.build(variables)
    before = optimizer.get_config(), [optimizer._use_weight_decay(it) for it in variables]
    optimizer.exclude_from_weight_decay(**{key: it[::-1] for key, it in given.items()})
    others = [{"var_names": "a"}, {"var_list": [variables[2]]}, {"var_list": variables[:1]}]
    if not is_loaded:
        # Another variable has the same name; a loaded optimizer can't tell the two apart.
        others.append({"var_list": [variables[3], variables[1]]})
    for other in others:
        with pytest.raises(ValueError, match="can only be called before the optimizer is built"):
            optimizer.exclude_from_weight_decay(**other)
    after = optimizer.get_config(), [optimizer._use_weight_decay(it) for it in variables]
    assert before == after


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_variables_that_were_excluded_stay_so_after_saving(kind, trained, tmp_path):
    inputs = keras.layers.Input((5,))
    layers = [keras.layers.Dense(4), keras.layers.Dense(1)]
    if kind == "sequential":
        net = keras.Sequential([inputs, *layers])
    else:
        net = keras.Model(inputs, layers[1](layers[0](inputs)))
    optimizer = adadelta.Adadelta(learning_rate=1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[layers[0].bias, layers[1].kernel])
    net.compile(optimizer, "mse")
    if trained:
        net.fit(np.ones((4, 5)), np.ones((4, 1)), verbose=0)
    net.save(tmp_path / "model.keras")
    for _ in range(2):
        loaded = keras.models.load_model(tmp_path / "model.keras")
        one = loaded.optimizer
        assert [one._use_weight_decay(it) for it in one._trainable_variables] == [
            True, False, False, True
        ]  # fmt: skip
        loaded.save(tmp_path / "model.keras")


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_saved_model_goes_on_as_if_nothing_had_happened(options, tmp_path):
    net, _ = fitted(adadelta.Adadelta(learning_rate=0.7, **options), epochs=2)
    net.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is adadelta.Adadelta
    assert loaded.optimizer.get_config() == net.optimizer.get_config()
    for each in (net, loaded):
        each.fit(*data(), batch_size=16, epochs=2, verbose=0, shuffle=False)
    for one, two in zip(
        [*net.get_weights(), *net.optimizer.get_weights()],
        [*loaded.get_weights(), *loaded.optimizer.get_weights()],
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_the_saved_rate_and_the_config_are_exact():
    optimizer = adadelta.Adadelta(learning_rate=0.1)
    assert optimizer.get_config()["learning_rate"] == 0.1
    optimizer.learning_rate = 0.3
    assert optimizer.get_config()["learning_rate"] == 0.3
    again = adadelta.Adadelta.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


@pytest.mark.skipif(driver.BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas_step_as_one():
    import subprocess
    import sys

    code = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, adadelta
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
G = [np.array([0.5, -1.5], "float32"), np.array([2.0, 0.25], "float32")]
def gradients(options, call):
    broken = "skip_nonfinite" in options and call == 1
    # In one replica only.
    return [G[0], np.full_like(G[1], np.inf) if broken else G[1] * call]
def trained(options, step):
    x = keras.Variable([1.0, 2.0])
    optimizer = adadelta.Adadelta(learning_rate=1.0, **options)
    optimizer.build([x])
    step(optimizer, x)
    return x, optimizer
def alone(options):
    def step(optimizer, x):
        for call in range(5):
            optimizer.apply([sum(gradients(options, call))], [x])
    return trained(options, step)
def spread(options, compiled):
    def step(optimizer, x):
        def replica(given):
            optimizer.apply([given], [x])
        def run(*given):
            own = strategy.experimental_distribute_values_from_function(
                lambda context: given[context.replica_id_in_sync_group]
            ) if not compiled else given[0]
            strategy.run(replica, args=(own,))
        step = tf.function(run) if compiled else run
        for call in range(5):
            given = [tf.constant(it) for it in gradients(options, call)]
            if compiled:
                given = [strategy.experimental_distribute_values_from_function(
                    lambda context: given[context.replica_id_in_sync_group]
                )]
            step(*given)
    with strategy.scope():
        return trained(options, step)
for options in (
    {"weight_decay": 0.1, "use_ema": True},
    {"global_clipnorm": 0.5, "gradient_accumulation_steps": 2, "use_ema": True},
    {"skip_nonfinite": True, "clipnorm": 0.5, "use_ema": True, "ema_overwrite_frequency": 2},
):
    for compiled in (False, True):
        (x, ours), (y, exact) = spread(options, compiled), alone(options)
        for one, other in zip([x, *ours.variables], [y, *exact.variables], strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6, err_msg=str(options))
        for value in (x, *ours.variables):
            copies = [it.numpy() for it in strategy.experimental_local_results(value.value)]
            np.testing.assert_array_equal(copies[0], copies[-1])
        assert ours.skipped == exact.skipped == ("skip_nonfinite" in options)

# What each replica says, to an optimizer that the first of them has built.
with strategy.scope():
    a, b = keras.Variable([1.0], name="a"), keras.Variable([1.0], name="b")
    optimizer = adadelta.Adadelta(learning_rate=1.0, weight_decay=0.5)
def replica():
    optimizer.exclude_from_weight_decay(var_list=[a])
    optimizer.apply_gradients([(tf.zeros(1), a), (tf.zeros(1), b)])
for _ in range(2):
    strategy.run(replica)
assert (a.numpy(), b.numpy()) == (1.0, 0.25)
print("same")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip().endswith("same"), result.stderr[-2000:]


def partly_frozen(frozen, **arguments):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "tanh", name="first"), keras.layers.Dense(1, name="second")]
    trained = keras.Sequential([keras.layers.Input((5,)), *layers])
    trained.get_layer("first").trainable = not frozen
    trained.compile(adadelta.Adadelta(1.0, **arguments), "mse")
    trained.fit(*data(), verbose=0)
    trained.get_layer("first").trainable = frozen
    return trained


@pytest.mark.parametrize("arguments", [{}, {"use_ema": True}, {"gradient_accumulation_steps": 3}])
@pytest.mark.skipif(driver.BACKEND == "jax", reason="JAX takes the weights by their number")
def test_freezing_without_compiling_again_keeps_the_history(arguments):
    trained = partly_frozen(False, **arguments)
    history = trained.fit(*data(), epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    assert history["loss"][1] < history["loss"][0]


@pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 3}])
@pytest.mark.skipif(driver.BACKEND != "tensorflow", reason="elsewhere the first step is refused")
def test_unfreezing_without_compiling_again_keeps_the_history(arguments):
    trained = partly_frozen(True, **arguments)
    history = trained.fit(*data(), epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    assert history["loss"][1] < history["loss"][0]


@pytest.mark.skipif(driver.BACKEND != "tensorflow", reason="elsewhere the first step is refused")
def test_what_has_no_average_keeps_its_value():
    trained = partly_frozen(True, use_ema=True, ema_momentum=0.5)
    before = trained.get_layer("first").get_weights()
    with pytest.warns(UserWarning, match="of sequential.*/first/kernel and 1 more") as told:
        history = trained.fit(*data(), epochs=2, verbose=0).history
    assert len(told) == 1
    assert len(str(told[0].message)) <= 200
    assert len(history["loss"]) == 2
    for now, then in zip(trained.get_layer("first").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    averages = trained.optimizer._model_variables_moving_average
    for weight, average in zip(trained.get_layer("second").weights, averages, strict=True):
        np.testing.assert_array_equal(driver.numpy(weight), driver.numpy(average))


@pytest.mark.skipif(driver.BACKEND == "tensorflow", reason="there the compiled step goes on")
def test_unfreezing_without_compiling_again_is_refused_before_the_first_step():
    trained = partly_frozen(True)
    before = trained.get_weights()
    with pytest.raises(ValueError, match="This optimizer belongs to other variables"):
        trained.fit(*data(), verbose=0)
    for now, then in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_training_can_be_finished_for_variables_that_the_optimizer_does_not_have():
    variable, other = (keras.Variable([1.0], dtype="float32") for _ in range(2))
    optimizer = adadelta.Adadelta(1.0, gradient_accumulation_steps=2)
    optimizer.apply([keras.ops.ones(1)], [variable])
    optimizer.finalize_variable_values([other])
    assert driver.numpy(other)[0] == 1
    assert driver.numpy(variable)[0] < 1
    assert int(driver.numpy(optimizer.iterations)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"use_ema": True},
        {
            "use_ema": True,
            "ema_overwrite_frequency": 2,
            "gradient_accumulation_steps": 2,
            "global_clipnorm": 0.1,
            "loss_scale_factor": "dynamic",
        },
    ],
    ids=["average", "everything"],
)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.skipif(driver.BACKEND == "torch", reason="torch has no XLA")
def test_training_compiled_by_xla_is_as_without(arguments, fused):
    def trained(jit_compile):
        keras.utils.set_random_seed(0)
        its = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(1)])
        its.compile(
            adadelta.Adadelta(1.0, fused=fused, **arguments), "mse", jit_compile=jit_compile
        )
        its.fit(*data(), batch_size=16, epochs=2, verbose=0, shuffle=False)
        return its.get_weights()

    for ours, right in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)


def of_several(**arguments):
    """Return a model with two of our optimizers, each of which trains one layer."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(2, "tanh", name="first"), keras.layers.Dense(1, name="second")]
    trained = keras.Sequential([keras.layers.Input((5,)), *layers])
    optimizers = keras.optimizers.OptimizerMap(
        adadelta.Adadelta(1.0, **arguments), {".*first/.*": adadelta.Adadelta(0.1, **arguments)}
    )
    trained.compile(keras.optimizers.MultiOptimizer(optimizers), "mse")
    return trained


def test_in_a_multi_optimizer_each_steps_as_alone():
    generator = np.random.default_rng(0)
    pairs = [[keras.Variable([1.0, 2.0], name=name) for name in ("a", "b")] for _ in range(2)]
    rates = {"a": 1.0, "b": 0.1}
    several = keras.optimizers.MultiOptimizer(lambda it: of_name[it.name])
    of_name = {name: adadelta.Adadelta(rate, weight_decay=0.1) for name, rate in rates.items()}
    alone = [adadelta.Adadelta(rate, weight_decay=0.1) for rate in rates.values()]
    for _ in range(3):
        gradients = [keras.ops.convert_to_tensor(generator.normal(size=2), "float32") for _ in "ab"]
        several.apply(gradients, pairs[0])
        for gradient, variable, optimizer in zip(gradients, pairs[1], alone, strict=True):
            optimizer.apply([gradient], [variable])
    for ours, right in zip(*pairs, strict=True):
        np.testing.assert_array_equal(driver.numpy(ours), driver.numpy(right))


@pytest.mark.parametrize("arguments", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_multi_optimizer_trains_and_is_saved(arguments, tmp_path, monkeypatch):
    arguments = {it: value for it, value in arguments.items() if it != "loss_scale_factor"}
    trained = of_several(**arguments)
    before = trained.get_weights()
    losses = trained.fit(*data(), epochs=3, shuffle=False, verbose=0).history["loss"]
    assert losses[2] < losses[0]
    for now, then in zip(trained.get_weights(), before, strict=True):
        assert np.any(now != then)
    trained.save(tmp_path / "model.keras")
    # Keras also loads all variables by position, which would hide those that ours leaves out.
    monkeypatch.setattr(
        keras.optimizers.MultiOptimizer, "load_own_variables", lambda *_: None, raising=False
    )
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for its in (trained, loaded):
        its.fit(*data(), shuffle=False, verbose=0)
    for ours, right in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-6, atol=1e-7)


@pytest.mark.skipif(driver.BACKEND != "jax", reason="JAX passes values without their variables")
def test_an_optimizer_in_a_multi_optimizer_belongs_to_one_model():
    trained, other = of_several(), of_several()
    trained.fit(*data(), verbose=0)
    other.compile(trained.optimizer, "mse")
    before = other.get_weights()
    # The end of Keras' trainer runs also after an error, and raises another error.
    with pytest.raises(KeyError) as raised:
        other.fit(*data(), verbose=0)
    assert "belongs to other variables" in str(raised.value.__context__)
    for now, then in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
