"""The tf_keras front end accepts or cleanly refuses random arguments."""

import numpy as np
import pytest
import tensorflow as tf

from adadelta.tf_keras import Adadelta
from argument_sets import (
    CLIPS,
    COUNT,
    DECAY,
    EPSILON,
    FLAG,
    LIMIT,
    NAME,
    PROBABILITY,
    RATE,
    RHO,
    Argument,
    Way,
    beyond_float32,
    failures,
    made,
    set_later,
)
from framework_candidates import of_tensorflow

ARGUMENTS = {
    "learning_rate": Argument(RATE.values, RATE.accepts, functions=True),
    "rho": RHO,
    "epsilon": Argument((None, 1e-7), EPSILON.accepts, optional=True),
    "weight_decay": DECAY,
    **dict.fromkeys(CLIPS, LIMIT),
    "use_ema": FLAG,
    "ema_momentum": PROBABILITY,
    "ema_overwrite_frequency": COUNT,
    "jit_compile": FLAG,
    "name": NAME,
    "maximize": FLAG,
    "decoupled_weight_decay": FLAG,
    "skip_nonfinite": FLAG,
}


def config_of(optimizer):
    left_out = ("learning_rate", "name", "jit_compile")
    return {it: value for it, value in optimizer.get_config().items() if it not in left_out}


def without_default(optimizer):
    kept = config_of(optimizer)
    return {it: value for it, value in kept.items() if not (it == "epsilon" and value == 1e-7)}


def used(values):
    variable = tf.Variable(np.ones(2))
    optimizer = Adadelta(**values)
    optimizer.apply_gradients([(tf.ones(2, tf.float64), variable)])
    assert not np.isnan(variable.numpy()).any()
    return {}


def test_tf_keras():
    settable = {it: ARGUMENTS[it] for it in ARGUMENTS if it not in ("name", "jit_compile")}
    settable.update(learning_rate=RATE, epsilon=EPSILON)
    ways = [
        Way("Adadelta", ARGUMENTS, made(Adadelta, without_default)),
        Way("set", settable, set_later(Adadelta, config_of)),
        Way("step", ARGUMENTS, used, dtype="float64"),
    ]
    assert not failures("tf_keras", ways, of_tensorflow())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(("name", "value"), beyond_float32("epsilon", *CLIPS))
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """In float32 such a number would become 0, infinity or 1."""
    variable = tf.Variable(tf.ones(2, dtype))
    optimizer = Adadelta(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype {dtype}"):
        optimizer.apply_gradients([(tf.ones(2, dtype), variable)])
    assert not optimizer.built
    assert np.array_equal(variable.numpy(), np.ones(2))
