"""Finite gradients of any size and dtype, clipped by norm, give the correct, finite step."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from extremes import EPSILON, WIDEST, check, clipped, first_step, gradients_of, samples
from tf_keras_steps import Steps

import adadelta.tf_keras

LIMITS = [
    ("one state", "global_clipnorm", 0.5),
    ("two states", "clipnorm", 0.5),
    ("two states", "global_clipnorm", 0.5),
    ("two states", "global_clipnorm", 2e-38),
]


@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize(("states", "option", "limit"), LIMITS)
def test_a_norm_of_any_finite_gradients_is_finite(states, option, limit, mode):
    dtypes = WIDEST[states]
    variables = [tf.Variable(np.zeros(3), dtype=dtype) for dtype in dtypes]
    optimizer = adadelta.tf_keras.Adadelta(
        1.0, rho=0.0, epsilon=EPSILON, skip_nonfinite=True, **{option: limit}
    )
    run = Steps(optimizer, variables, mode)
    start = optimizer.get_weights()

    def step(gradients):
        for variable in variables:
            variable.assign(tf.zeros_like(variable))
        optimizer.set_weights(start)
        run.call([tf.constant(it, dtype) for it, dtype in zip(gradients, dtypes, strict=True)])
        return [-tf.cast(it, tf.float64).numpy() for it in variables]

    for sizes in samples(dtypes):
        gradients = gradients_of(sizes, dtypes)
        found = step(gradients)
        assert int(optimizer.skipped) == 0, sizes
        exact = [first_step(it) for it in clipped(gradients, option, limit)]
        check(found, exact, dtypes, sizes)
    for place, value in itertools.product(range(len(dtypes)), (np.nan, np.inf)):
        gradients = gradients_of([1.0] * len(dtypes), dtypes)
        gradients[place][1] = value
        assert not np.any(step(gradients))
        assert int(optimizer.skipped) == 1
