"""Train for 30 steps on TensorFlow, with Keras or tf_keras, on one device or under a strategy."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

PROCESSOR = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(PROCESSOR, [tf.config.LogicalDeviceConfiguration()] * 4)

STEPS, BATCH = 30, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(STEPS * BATCH, 4)).astype("float32")
Y = np.tanh(X @ RNG.normal(size=(4, 1))).astype("float32")
# Only the first replica receives these examples, in 4 of the 30 steps.
BROKEN = X.copy()
BROKEN[np.array([4, 11, 12, 25]) * BATCH + 1] = np.inf


def rate():
    return 0.5


# For Keras and tf_keras. Names of schedules stand for a schedule of the front end.
SHARED = {
    "plain": {},
    "clipnorm": {"clipnorm": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.05},
    "weight_decay": {"weight_decay": 0.1},
    "coupled decay": {"weight_decay": 0.1, "decoupled_weight_decay": False},
    "maximize": {"maximize": True},
    "average": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7},
    "function": {"learning_rate": rate},
    "schedule": {"learning_rate": "schedule"},
    "skipping": {"skip_nonfinite": True},
    "skipping, norm, average": {
        "skip_nonfinite": True,
        "global_clipnorm": 0.1,
        "use_ema": True,
        "ema_momentum": 0.9,
    },
}
# 26 of the calls are finite: with accumulation over 4 or 3 of them, some are left at the end.
KERAS_ONLY = {
    "accumulation": {"gradient_accumulation_steps": 4},
    "scale": {"loss_scale_factor": 128.0},
    "dynamic scale": {"loss_scale_factor": "dynamic"},
    "accumulation, skipping, average": {
        "gradient_accumulation_steps": 3,
        "skip_nonfinite": True,
        "use_ema": True,
        "ema_momentum": 0.9,
    },
    "dynamic scale, norm, accumulation": {
        "loss_scale_factor": "dynamic",
        "global_clipnorm": 0.1,
        "gradient_accumulation_steps": 3,
    },
    "everything": {
        "learning_rate": rate,
        "loss_scale_factor": "dynamic",
        "clipnorm": 0.1,
        "weight_decay": 0.1,
        "use_ema": True,
        "ema_overwrite_frequency": 3,
        "gradient_accumulation_steps": 2,
    },
}
OPTIONS = {"keras": SHARED | KERAS_ONLY, "tf_keras": SHARED}


class Trained(NamedTuple):
    """The weights and the state after training."""

    weights: dict
    state: object


def host(front):
    """Return the Keras or tf_keras module of a front end, and our class."""
    if front == "keras":
        import keras

        import adadelta

        return keras, adadelta.Adadelta
    import tf_keras

    import adadelta.tf_keras

    return tf_keras, adadelta.tf_keras.Adadelta


def make_model(front, option):
    """Return a model with fixed weights, compiled with one of our options."""
    keras, ours = host(front)
    arguments = {"learning_rate": 1.0, "epsilon": 1e-4} | OPTIONS[front][option]
    if arguments["learning_rate"] == "schedule":
        schedule = keras.optimizers.schedules.ExponentialDecay
        arguments["learning_rate"] = schedule(1.0, 10, 0.5)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.InputLayer((4,)),
            layers.Dense(5, "tanh", name="first"),
            layers.Dense(1, name="second"),
        ],
        name="model",
    )
    model.compile(ours(**arguments), "mse")
    return model


def examples(front, option):
    """Return inputs and targets, with non-finite ones for an option that skips calls."""
    arguments = OPTIONS[front][option]
    skips = arguments.get("skip_nonfinite") or arguments.get("loss_scale_factor") == "dynamic"
    return BROKEN if skips else X, Y


def fit(model, data):
    model.fit(*data, batch_size=BATCH, shuffle=False, verbose=0)


def train_in_a_loop(model, data, strategy, first=0, last=STEPS, compiled=True, finish=True):
    """Train by `strategy.run()` from step `first` to `last`, each worker on its own examples."""
    optimizer, variables = model.optimizer, model.trainable_variables
    scale_loss = getattr(optimizer, "scale_loss", lambda loss: loss)
    replicas = strategy.num_replicas_in_sync

    def replica(x, y):
        with tf.GradientTape() as tape:
            loss = scale_loss(tf.reduce_sum((model(x, training=True) - y) ** 2) / BATCH)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def step(x, y):
        strategy.run(replica, args=(x, y))

    def of_replica(array, number):
        def value(context):
            start = number * BATCH + context.replica_id_in_sync_group * BATCH // replicas
            return tf.constant(array[start : start + BATCH // replicas])

        return strategy.experimental_distribute_values_from_function(value)

    with strategy.scope():
        optimizer.build(variables)
    step = tf.function(step) if compiled else step
    for number in range(first, last):
        step(*(of_replica(array, number) for array in data))
    if finish:
        with strategy.scope():
            optimizer.finalize_variable_values(variables)


def record(model):
    """Return weights and state, which must be the same in each replica."""
    variables = [*model.trainable_variables, *optimizer_variables(model.optimizer)]
    for variable in variables:
        inner = getattr(variable, "value", variable)
        inner = variable if callable(inner) else inner
        copies = [it.numpy() for it in getattr(inner, "values", [])]
        for other in copies[1:]:
            np.testing.assert_array_equal(copies[0], other)
    weights = {short(getattr(it, "path", it.name)): it.numpy() for it in model.trainable_variables}
    return Trained(weights, state_of(model.optimizer))


def state_of(optimizer):
    """Return the state of an optimizer, by names that a loaded model also has."""
    import adadelta

    state = adadelta.export_state(optimizer)
    return dataclasses.replace(
        state,
        parameters={short(name): slots for name, slots in state.parameters.items()},
        window_gradients=tuple(map(short, state.window_gradients)),
    )


def short(name):
    return name.removeprefix("model/").split(":")[0]


def optimizer_variables(optimizer):
    variables = optimizer.variables
    return variables() if callable(variables) else variables


def assert_same(got, expected):
    """Compare weights and state with those of one device."""

    def near(one, other, of):
        # Replicas are summed in a different order: up to 1.1e-6 of the largest was measured.
        tolerance = 5e-6 * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=of)

    assert got.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        near(got.weights[name], value, name)
    one, other = got.state, expected.state
    for counter in ("step", "update", "skipped", "window", "loss_scale", "finite_calls"):
        assert getattr(one, counter) == getattr(other, counter), counter
    assert one.window_gradients == other.window_gradients
    assert one.parameters.keys() == other.parameters.keys()
    for name, slots in other.parameters.items():
        assert one.parameters[name].keys() == slots.keys()
        for slot, value in slots.items():
            near(one.parameters[name][slot], value, f"{name}, {slot}")
