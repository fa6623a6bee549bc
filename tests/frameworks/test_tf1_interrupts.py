"""An interrupted step has updated either all variables or none."""

import numpy as np
import tensorflow as tf
from interrupting import after, at_every_line, interruptible  # noqa: F401

import adadelta.tf1


def test_all_variables_and_the_counter_are_of_the_same_step():
    variables = [tf.Variable([1.0], dtype=it) for it in ("float32", "float64", "float32")]
    optimizer = adadelta.tf1.Adadelta(lr=1.0, rho=0.0, epsilon=1.0)
    optimizer.build(variables)
    counts = []

    def loss():
        return tf.add_n([tf.cast(tf.reduce_sum(it), "float64") for it in variables])

    def check():
        calls = int(optimizer.iterations)
        counts.append(calls)
        weight, acc_delta = after(calls)
        averages = zip(optimizer.weights[:3], optimizer.weights[3:], strict=True)
        for variable, (square_avg, own_acc_delta) in zip(variables, averages, strict=True):
            np.testing.assert_allclose(variable.numpy(), weight, atol=0.1)
            np.testing.assert_array_equal(square_avg.numpy(), calls > 0)
            np.testing.assert_allclose(own_acc_delta.numpy(), acc_delta, rtol=1e-5)

    assert at_every_line(lambda: optimizer.get_updates(loss, variables), check, stride=3) > 10
    assert len(set(counts)) > 3
