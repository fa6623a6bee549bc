"""Random arguments of the tf_keras front end."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from adadelta.tf_keras import Adadelta
from argument_sets import (
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
    Candidate,
    Way,
    failures,
    is_beyond,
    set_each,
)

CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
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


def symbolic():
    with tf.Graph().as_default():
        return tf.constant(0.5)


TENSORS = [
    Candidate("symbolic tensor", symbolic),
    Candidate("text tensor", lambda: tf.constant("0.5")),
    Candidate("tensor of two", lambda: tf.constant([0.5, 0.5])),
    Candidate("tf.Variable of two", lambda: tf.Variable([0.5, 0.5])),
    Candidate("ragged tensor", lambda: tf.ragged.constant([[0.5], []])),
    Candidate("sparse tensor", lambda: tf.sparse.from_dense([0.5, 0.0])),
    Candidate("complex tensor", lambda: tf.constant(1j)),
]


def config_of(optimizer):
    left_out = ("learning_rate", "name", "jit_compile")
    return {it: value for it, value in optimizer.get_config().items() if it not in left_out}


def constructed(values):
    kept = config_of(Adadelta(**values))
    return {it: value for it, value in kept.items() if not (it == "epsilon" and value == 1e-7)}


def set_later(values):
    optimizer = Adadelta()
    return set_each(optimizer, values, lambda: config_of(optimizer))


def used(values):
    variable = tf.Variable(np.ones(2))
    optimizer = Adadelta(**values)
    optimizer.apply_gradients([(tf.ones(2, tf.float64), variable)])
    assert not np.isnan(variable.numpy()).any()
    return {}


beyond_float64 = functools.partial(is_beyond, names=("epsilon", *CLIPS), dtype="float64")


def test_tf_keras():
    settable = {
        it: ARGUMENTS[it] for it in ARGUMENTS if it not in ("name", "jit_compile", "epsilon")
    }
    settable["learning_rate"] = RATE
    ways = [
        Way("Adadelta", ARGUMENTS, constructed, exclusive=CLIPS),
        Way("set", {**settable, "epsilon": EPSILON}, set_later, exclusive=CLIPS),
        Way("step", ARGUMENTS, used, exclusive=CLIPS, may_refuse=beyond_float64),
    ]
    assert not failures("tf_keras", ways, TENSORS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", 1e-50), ("epsilon", 1e39), ("rho", 1 - 1e-9), *((it, 1e-50) for it in CLIPS)],
)
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """It would be 0, infinite or 1 there."""
    variable = tf.Variable(tf.ones(2, dtype))
    optimizer = Adadelta(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype {dtype}"):
        optimizer.apply_gradients([(tf.ones(2, dtype), variable)])
    assert not optimizer.built
    assert np.array_equal(variable.numpy(), np.ones(2))
