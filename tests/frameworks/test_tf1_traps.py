"""Where TF 1.13's class, as it lives on today, goes wrong and ours does not; shown on both."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.optimizers import optimizer_v1

import adadelta.tf1

OURS = adadelta.tf1.Adadelta
HOST = optimizer_v1.Adadelta
LEGACY = tf_keras.optimizers.legacy.Adadelta
V1 = tf.compat.v1


def in_a_graph(cls, function, **options):
    """Return the value of a function of an optimizer and a session."""
    with tf.Graph().as_default(), V1.Session() as session:
        return function(cls(**options), session)


# 39


@pytest.mark.parametrize("name", ["get_updates", "get_gradients", "get_weights", "set_weights"])
def test_the_api_of_tf_1_13_is_there(name):
    assert callable(getattr(OURS, name))
    import keras

    assert not hasattr(keras.optimizers.Adadelta, "get_updates")


# 42


def test_two_clips_at_once_are_refused():
    with pytest.raises(ValueError, match="Only one of `clipnorm` and `clipvalue` can be given"):
        OURS(clipnorm=1.0, clipvalue=0.5)
    # The host applies both, one after the other.
    assert (
        in_a_graph(
            HOST, lambda own, session: own.get_config()["clipvalue"], clipnorm=1.0, clipvalue=0.5
        )
        == 0.5
    )


# 43, 46


def test_the_config_keeps_the_numbers_that_were_given():
    def config(optimizer, session):
        return json.loads(json.dumps(optimizer.get_config()))["lr"]

    assert in_a_graph(OURS, config, lr=0.1) == 0.1
    assert in_a_graph(HOST, config, lr=0.1) != 0.1


def test_float64_weights_get_the_numbers_that_were_given():
    def off(cls):
        def last(optimizer, session):
            x = V1.Variable(0.0, dtype=tf.float64, use_resource=True)
            updates = optimizer.get_updates(2 * x, [x])
            session.run(V1.global_variables_initializer())
            session.run(updates)
            return session.run(x)

        exact = -0.1 * np.sqrt(1e-7) / np.sqrt(0.05 * 4 + 1e-7) * 2
        return abs(in_a_graph(cls, last, lr=0.1) / exact - 1)

    assert off(OURS) < 1e-14
    before = tf_keras.backend.floatx()
    try:
        tf_keras.backend.set_floatx("float64")
        assert off(HOST) < 1e-14
        tf_keras.backend.set_floatx("float32")
        with pytest.raises((TypeError, ValueError)):
            off(HOST)  # whose state is float32
    finally:
        tf_keras.backend.set_floatx(before)


# 47


def test_rho_keeps_its_value_for_half_precision():
    def square_avg(optimizer):
        x = tf.Variable([0.0], dtype="bfloat16")
        if isinstance(optimizer, OURS):
            optimizer.get_updates(lambda: 2 * x[0], [x])
            return float(optimizer.get_weights()[0][0])
        optimizer.apply_gradients([(tf.constant([2.0], "bfloat16"), x)])
        return float(optimizer.get_weights()[1][0])

    assert square_avg(OURS(rho=0.999)) == pytest.approx(0.004)
    assert square_avg(LEGACY(rho=0.999)) == 0


# 48


def test_epsilon_0_is_refused():
    with pytest.raises(ValueError, match="`epsilon` must be a finite number greater than 0"):
        OURS(epsilon=0)
    assert in_a_graph(HOST, lambda own, session: own.epsilon, epsilon=0) == 0
    assert LEGACY(epsilon=0).epsilon == 1e-7


# 45, 49


def rows_and_dense(cls, **options):
    def trained(sparse):
        def last(optimizer, session):
            x = V1.Variable(np.ones((4, 2), "float32"), use_resource=True)
            ids = V1.placeholder("int64", [3])
            taken = tf.gather(x, ids) if sparse else tf.one_hot(ids, 4) @ x
            updates = optimizer.get_updates(tf.reduce_sum(taken), [x])
            session.run(V1.global_variables_initializer())
            for each in ([0, 0, 1], [2, 1, 2], [0, 1, 1], [0, 0, 0]):
                session.run(updates, {ids: each})
            return session.run(x)

        return in_a_graph(cls, last, **options)

    return np.max(np.abs(trained(True) - trained(False)))


@pytest.mark.parametrize("options", [{}, {"clipvalue": 1.5}, {"clipnorm": 1.0}])
def test_rows_give_the_numbers_of_dense_gradients(options):
    assert rows_and_dense(OURS, **options) < 1e-7


def test_rows_are_clipped_before_they_are_summed_there():
    assert rows_and_dense(HOST) < 1e-7
    for options in ({"clipvalue": 1.5}, {"clipnorm": 1.0}):
        assert rows_and_dense(HOST, **options) > 1e-4


# 50


@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue"])
def test_a_clip_of_0_is_refused(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a number greater than 0"):
        OURS(**{argument: 0})

    def moved(optimizer, session):
        x = V1.Variable([1.0], use_resource=True)
        updates = optimizer.get_updates(2 * x[0], [x])
        session.run(V1.global_variables_initializer())
        session.run(updates)
        return float(session.run(x)[0])

    assert in_a_graph(HOST, moved, **{argument: 0.0}) == 1


# What ours does beyond the list


def test_a_second_call_goes_on_with_the_same_state():
    def count(optimizer, session):
        x = V1.Variable([1.0], use_resource=True)
        optimizer.get_updates(2 * x[0], [x])
        first = optimizer.weights[0]
        optimizer.get_updates(3 * x[0], [x])
        return first is optimizer.weights[0]

    assert in_a_graph(OURS, count)
    assert not in_a_graph(HOST, count)
