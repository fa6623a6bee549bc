"""How often devices communicate in a step: never more often than with Keras' own class."""

import re

import jax
import keras
import numpy as np
import pytest

import adadelta
import jax_layouts as layouts

SHAPES = [("kernel", (16, 8)), ("bias", (8,)), ("kernel", (8, 24)), ("bias", (24,))]
NORM = {"global_clipnorm": 0.1}
ACCUMULATION = {"gradient_accumulation_steps": 3}
# By name: our arguments, those of Keras' own class, and whether that is wrapped in a
# LossScaleOptimizer, which is how Keras skips gradients that are not finite.
CASES = {
    "none": ({}, {}, False),
    "clipnorm": ({"clipnorm": 0.1}, {"clipnorm": 0.1}, False),
    "clipvalue": ({"clipvalue": 0.1}, {"clipvalue": 0.1}, False),
    "global_clipnorm": (NORM, NORM, False),
    "average": ({"use_ema": True}, {"use_ema": True}, False),
    "weight decay": ({"weight_decay": 0.1}, {"weight_decay": 0.1}, False),
    "accumulation": (ACCUMULATION, ACCUMULATION, False),
    "accumulation, norm": ({**ACCUMULATION, **NORM}, {**ACCUMULATION, **NORM}, False),
    "loss scale": ({"loss_scale_factor": 8.0, **NORM}, {"loss_scale_factor": 8.0, **NORM}, False),
    "skip_nonfinite": ({"skip_nonfinite": True}, {}, True),
    "dynamic scale, norm": ({"loss_scale_factor": "dynamic", **NORM}, NORM, True),
    "plain step": ({"fused": False, **NORM}, NORM, False),
}
COLLECTIVE = re.compile(
    r" = .* (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


def collectives(make):
    """Return the number of collective operations in a compiled step."""
    with layouts.shards():
        variables = [keras.Variable(np.ones(shape), name=name) for name, shape in SHAPES]
        optimizer = make()
        optimizer.build(variables)
    given = [it.value for it in variables], [it.value for it in optimizer.variables]

    def step(values, state, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    kept = jax.tree.map(lambda it: it.sharding, given)
    text = jax.jit(step, out_shardings=kept).lower(*given, given[0]).compile().as_text()
    return sum(COLLECTIVE.search(line) is not None for line in text.splitlines())


@pytest.mark.parametrize("case", CASES)
def test_devices_communicate_no_more_often_than_in_keras_own(case):
    arguments, own_arguments, is_scaled = CASES[case]

    def own():
        optimizer = keras.optimizers.Adadelta(**own_arguments)
        return keras.optimizers.LossScaleOptimizer(optimizer) if is_scaled else optimizer

    ours = collectives(lambda: adadelta.Adadelta(**arguments))
    assert ours <= collectives(own)
    # One for the norms of all gradients, one for whether all are finite.
    assert ours == ("norm" in case or "norm" in str(arguments)) + is_scaled
