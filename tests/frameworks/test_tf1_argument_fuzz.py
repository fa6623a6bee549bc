"""Random arguments of the front end with the API of TF 1.13."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from adadelta.tf1 import Adadelta
from argument_sets import (
    EPSILON,
    LIMIT,
    RATE,
    RHO,
    Argument,
    Candidate,
    Way,
    failures,
    is_beyond,
    set_each,
)

CLIPS = ("clipnorm", "clipvalue")
ARGUMENTS = {
    "lr": RATE,
    "rho": RHO,
    "epsilon": Argument((None, 1e-7), EPSILON.accepts, optional=True),
    "decay": Argument((0.0, 0.1), RATE.accepts),
    **dict.fromkeys(CLIPS, LIMIT),
}
TENSORS = [
    Candidate("tensor of two", lambda: tf.constant([0.5, 0.5])),
    Candidate("ragged tensor", lambda: tf.ragged.constant([[0.5], []])),
    Candidate("complex tensor", lambda: tf.constant(1j)),
]
PARTS = ("rho", "clipnorm", "clipvalue")


def constructed(values):
    optimizer = Adadelta(**values)
    return {name: getattr(optimizer, name) for name in PARTS}


def set_later(values):
    optimizer = Adadelta()
    names = (*PARTS, "epsilon")
    return set_each(optimizer, values, lambda: {name: getattr(optimizer, name) for name in names})


def used(values):
    variable = tf.Variable(np.ones(2))
    Adadelta(**values).get_updates(loss=lambda: tf.reduce_sum(variable), params=[variable])
    assert not np.isnan(variable.numpy()).any()
    return {}


beyond_float64 = functools.partial(is_beyond, names=("epsilon", *CLIPS), dtype="float64")


def test_tf1():
    ways = [
        Way("Adadelta", ARGUMENTS, constructed, exclusive=CLIPS),
        Way("set", {**ARGUMENTS, "epsilon": EPSILON}, set_later, exclusive=CLIPS),
        Way("step", ARGUMENTS, used, exclusive=CLIPS, may_refuse=beyond_float64),
    ]
    assert not failures("tf1", ways, TENSORS)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", 1e-50), ("epsilon", 1e39), ("rho", 1 - 1e-9), ("clipnorm", 1e-50)],
)
def test_a_number_that_the_averages_cant_hold_is_refused(name, value):
    """It would be 0, infinite or 1 there."""
    variable = tf.Variable([1.0, 1.0])
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype float32"):
        Adadelta(**{name: value}).get_updates(lambda: tf.reduce_sum(variable), [variable])
    assert variable.numpy().tolist() == [1.0, 1.0]


def test_a_decay_beyond_float32_is_refused():
    """Its variable would be infinite, and infinity times call 0 NaN."""
    with pytest.raises(ValueError, match=r"`decay` must be at most 3\.40282e"):
        Adadelta(decay=1e39)
