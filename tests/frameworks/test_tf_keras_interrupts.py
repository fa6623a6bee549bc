"""An interrupted step has updated either all variables or none."""

import numpy as np
import pytest
import tensorflow as tf
from interrupting import after, at_every_line, interruptible  # noqa: F401

import adadelta.tf_keras


@pytest.mark.parametrize("options", [{}, {"use_ema": True, "skip_nonfinite": True}])
def test_all_variables_and_counters_are_of_the_same_step(options):
    variables = [tf.Variable([1.0], dtype=it) for it in ("float32", "float64", "float32")]
    optimizer = adadelta.tf_keras.Adadelta(1.0, rho=0.0, epsilon=1.0, **options)
    optimizer.build(variables)
    pairs = [(tf.ones_like(it), it) for it in variables]
    averages = optimizer._accumulated_grads, optimizer._accumulated_delta_vars
    counts = []

    def check():
        calls = int(optimizer.iterations)
        counts.append(calls)
        weight, acc_delta = after(calls)
        for variable, square_avg, own_acc_delta in zip(variables, *averages, strict=True):
            np.testing.assert_allclose(variable.numpy(), weight, atol=0.1)
            np.testing.assert_array_equal(square_avg.numpy(), calls > 0)
            np.testing.assert_allclose(own_acc_delta.numpy(), acc_delta, rtol=1e-5)

    assert at_every_line(lambda: optimizer.apply_gradients(pairs), check, stride=7) > 10
    assert len(set(counts)) > 3
