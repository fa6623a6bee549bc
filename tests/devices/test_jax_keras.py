"""Keras on JAX under `keras.distribution`, beside one device: parameters and state."""

import itertools

import jax
import jax_layouts as layouts
import keras
import numpy as np
import pytest

import adadelta

# Each of these takes a decision for all devices, so they are tested in pairs as well.
DECIDING = ("global_clipnorm", "skipping", "dynamic scale", "accumulation", "overwriting")
SINGLE = [(name,) for name in layouts.TABLE]
PAIRS = list(itertools.combinations(DECIDING, 2))
TOGETHER = [
    ("decoupled decay", "schedule", *DECIDING[:1], *DECIDING[2:]),
    ("coupled decay", "clipnorm", "skipping", "accumulation", "average", "loss scale"),
]


def check(options, names=tuple(layouts.LAYOUTS)):
    wanted = layouts.trained(options, layouts.one)
    for name in names:
        model = layouts.trained(options, layouts.LAYOUTS[name])
        layouts.assert_same(model, wanted)
        layouts.assert_placed(model)
    return wanted


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize("options", TOGETHER, ids=",".join)
def test_many_options_are_those_of_one_device(options):
    assert check(options).optimizer.skipped == len(layouts.NONFINITE)


@pytest.mark.slow
@pytest.mark.parametrize("options", SINGLE, ids=",".join)
def test_each_option_is_that_of_one_device(options):
    check(options, ("copies", "shards"))


@pytest.mark.slow
@pytest.mark.parametrize("options", PAIRS, ids=",".join)
def test_options_that_decide_for_all_go_together(options):
    check(options, ("shards", "columns"))


