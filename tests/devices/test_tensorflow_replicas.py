"""Keras and tf_keras under `MirroredStrategy`, compared with one device."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

# Imported first, because it creates the virtual devices.
import tensorflow_training as training
from tensorflow_training import OPTIONS, STEPS

import adadelta

HERE = Path(__file__).resolve().parent
CASES = [(front, option) for front, options in OPTIONS.items() for option in options]


def mirrored(replicas=2):
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


@functools.cache
def on_one_device(front, option, how):
    model, data = training.make_model(front, option), training.examples(front, option)
    if how == "fit":
        training.fit(model, data)
    else:
        training.train_in_a_loop(model, data, tf.distribute.get_strategy())
    return training.record(model)


def on_two(front, option, how):
    strategy, data = mirrored(), training.examples(front, option)
    with strategy.scope():
        model = training.make_model(front, option)
        if how == "fit":
            training.fit(model, data)
    if how != "fit":
        training.train_in_a_loop(model, data, strategy, compiled=how == "in a loop")
    return training.record(model)


def run_alone(code):
    """Run a function of this file in a separate process.

    TensorFlow numbers the reductions of each program from the start, and confuses them if a
    process has some that are not compiled, or some of sparse gradients.
    """
    result = subprocess.run(
        [sys.executable, "-c", f"from test_tensorflow_replicas import *; {code}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE, *sys.path]))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def check_eager_steps(front, option):
    training.assert_same(on_two(front, option, "eagerly"), on_one_device(front, option, "fit"))


@pytest.mark.parametrize(("front", "option"), CASES)
def test_fit_gives_what_one_device_gives(front, option):
    training.assert_same(on_two(front, option, "fit"), on_one_device(front, option, "fit"))


@pytest.mark.slow
@pytest.mark.parametrize(("front", "option"), CASES)
def test_a_loop_gives_what_one_device_gives(front, option):
    training.assert_same(on_two(front, option, "in a loop"), on_one_device(front, option, "fit"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("front", "option"), [("keras", "everything"), ("tf_keras", "skipping, norm, average")]
)
def test_steps_that_are_not_compiled_give_what_one_device_gives(front, option):
    run_alone(f"check_eager_steps({front!r}, {option!r})")


def test_replicas_skip_together():
    state = on_two("keras", "skipping", "fit").state
    assert (state.step, state.update, state.skipped) == (STEPS, STEPS - 4, 4)


@pytest.mark.parametrize("options", [{}, {"skip_nonfinite": True, "global_clipnorm": 0.5}])
def test_sparse_gradients_are_summed_over_replicas(options):
    run_alone(f"check_sparse_gradients({options})")


def check_sparse_gradients(options):
    words = np.array([[1, 2, 2, 5], [2, 3, 0, 1]], "int32")

    def train(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            table = keras.layers.Embedding(6, 3, name="table")
            table.build()
            optimizer = adadelta.Adadelta(1.0, epsilon=1e-4, **options)
            optimizer.build(table.trainable_variables)
        own = words.reshape(strategy.num_replicas_in_sync, -1)

        def replica(ids):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.cast(ids, "float32")[:, None] * table(ids) ** 2)
            (gradient,) = tape.gradient(loss, table.trainable_variables)
            assert isinstance(gradient, tf.IndexedSlices)
            optimizer.apply([gradient], table.trainable_variables)

        @tf.function
        def step(ids):
            strategy.run(replica, args=(ids,))

        for _ in range(STEPS):
            step(
                strategy.experimental_distribute_values_from_function(
                    lambda context: tf.constant(own[context.replica_id_in_sync_group])
                )
            )
        return table.get_weights()[0], adadelta.export_state(optimizer).parameters

    one, state = train(tf.distribute.get_strategy())
    two, its_state = train(mirrored())
    # Numbers below 1 in float32, after 30 steps.
    np.testing.assert_allclose(two, one, atol=2e-6)
    for name, slots in state.items():
        for slot, value in slots.items():
            np.testing.assert_allclose(its_state[name][slot], value, rtol=1e-5, atol=1e-9)


# An unfinished accumulation, a changed loss scale, and averages in the middle of a run.
MOVED = ["everything", "dynamic scale, norm, accumulation", "accumulation, skipping, average"]
MIDDLE = 14


def strategy_of(replicas):
    return mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()


def train_to_the_middle(option, replicas, folder):
    strategy = strategy_of(replicas)
    with strategy.scope():
        model = training.make_model("keras", option)
    data = training.examples("keras", option)
    training.train_in_a_loop(model, data, strategy, last=MIDDLE, finish=False)
    model.save(f"{folder}/model.keras")
    adadelta.save_state(model.optimizer, f"{folder}/state.safetensors")
    np.savez(f"{folder}/weights.npz", *model.get_weights())


def check_the_rest(option, replicas, way, folder):
    strategy = strategy_of(replicas)
    # Registers our class with Keras.
    training.host("keras")
    with strategy.scope():
        if way == "model":
            path = f"{folder}/model.keras"
            model = keras.models.load_model(path, custom_objects={"rate": training.rate})
        else:
            model = training.make_model("keras", option)
            model.optimizer.build(model.trainable_variables)
            model.set_weights(list(np.load(f"{folder}/weights.npz").values()))
            adadelta.load_state(model.optimizer, f"{folder}/state.safetensors")
    data = training.examples("keras", option)
    training.train_in_a_loop(model, data, strategy, first=MIDDLE)
    training.assert_same(training.record(model), on_one_device("keras", option, "fit"))


@pytest.mark.parametrize("option", MOVED)
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("way", ["model", pytest.param("state", marks=pytest.mark.slow)])
def test_training_goes_on_with_other_replicas(option, before, after, way, tmp_path):
    train_to_the_middle(option, before, tmp_path)
    check_the_rest(option, after, way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["model", "state"])
def test_training_goes_on_with_more_replicas(way, tmp_path):
    # In two processes: in one, TensorFlow gives the second strategy the devices of the first.
    run_alone(f"train_to_the_middle('everything', 2, {str(tmp_path)!r})")
    run_alone(f"check_the_rest('everything', 4, {way!r}, {str(tmp_path)!r})")
