"""Keras on JAX under `keras.distribution`, compared with one device: parameters and state."""

import itertools

import jax
import numpy as np
import pytest

import adadelta
import jax_layouts as layouts

# Each of these options decides for all devices, so they are tested in pairs as well.
DECIDING = ("global_clipnorm", "skipping", "dynamic scale", "accumulation", "overwriting")
SINGLE = [(name,) for name in layouts.TABLE]
PAIRS = list(itertools.combinations(DECIDING, 2))
TOGETHER = [
    ("decoupled decay", "schedule", *DECIDING[:1], *DECIDING[2:]),
    (
        *("coupled decay", "clipnorm", "skipping", "accumulation", "average", "loss scale"),
        *("constraint", "maximize"),
    ),
]


def check(options, names=layouts.LAYOUTS):
    wanted = layouts.trained(options, layouts.one)
    for name in names:
        model = layouts.trained(options, layouts.LAYOUTS[name])
        layouts.assert_same(model, wanted)
        layouts.assert_placed(model)
        assert len(model.trainable_variables[0].value.sharding.device_set) == 8
    return wanted


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize("options", TOGETHER, ids=",".join)
def test_many_options_are_those_of_one_device(options):
    assert check(options).optimizer.skipped == len(layouts.NONFINITE)


@pytest.mark.slow
@pytest.mark.parametrize("options", SINGLE, ids=",".join)
def test_each_option_is_that_of_one_device(options):
    check(options, ["shards"])


@pytest.mark.slow
@pytest.mark.parametrize("options", PAIRS, ids=",".join)
def test_options_that_decide_for_all_go_together(options):
    check(options, ["shards"])


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_kernel_that_is_required_is_missed_before_training(name):
    with layouts.LAYOUTS[name]():
        model = layouts.model_of((), fused=True)
        before = [np.asarray(it.value) for it in model.trainable_variables]
        with pytest.raises(RuntimeError, match="it lies on 8 devices, where XLA itself makes"):
            layouts.fit(model, *layouts.data(calls=2))
        for variable, value in zip(model.trainable_variables, before, strict=True):
            np.testing.assert_array_equal(variable.value, value)


def test_who_makes_the_step_is_told():
    with layouts.shards():
        model = layouts.model_of(())
        model.optimizer.build(model.trainable_variables)
    for row in adadelta.kernel_info(model.optimizer):
        assert row["reason"] == "it lies on 8 devices, where XLA itself makes the step"
        assert row["engine"] == "operators of JAX" and row["device"].count(",") == 7
