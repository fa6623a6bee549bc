"""What a kernel does beside the numbers: as the rule does, and without being noticed."""

import keras
import numpy as np
import pytest

import adadelta
from driver import BACKEND, MODES, Driver, numpy

FUSED = [None, False]


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_overflows_when_it_is_unscaled_is_skipped(mode, fused):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, loss_scale_factor=0.5, skip_nonfinite=True, fused=fused)
    run = Driver(optimizer, [variable], mode)
    run.call([np.array([3e38, 1.0])])
    assert optimizer.skipped == 1
    np.testing.assert_array_equal(numpy(variable), [1.0, 2.0])


@pytest.mark.skipif(BACKEND != "torch", reason="only torch keeps a graph of what was computed")
@pytest.mark.parametrize("fused", FUSED)
def test_autograd_refuses_a_backward_pass_over_weights_that_have_changed(fused):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, fused=fused)
    loss = (variable.value**2).sum()
    loss.backward(retain_graph=True)
    optimizer.apply([variable.value.grad], [variable])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_kernels_that_are_asked_for_and_are_not_there_are_refused(monkeypatch):
    from adadelta._keras import fused

    monkeypatch.setattr(fused.choose, "reason_against", lambda kernel: "it is not there")
    variable = keras.Variable([1.0], dtype="float32")
    with pytest.raises(ValueError, match="`fused` can't be True here: it is not there"):
        adadelta.Adadelta(fused=True).build([variable])
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([keras.ops.ones(1)], [variable])
    assert numpy(variable)[0] < 1
