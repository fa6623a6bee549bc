"""The front end with the API of TF 1.13 accepts or cleanly refuses random arguments."""

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
    Way,
    attributes,
    beyond_float32,
    failures,
    made,
    set_later,
)
from framework_candidates import of_tensorflow

ARGUMENTS = {
    "lr": RATE,
    "rho": RHO,
    "epsilon": Argument((None, 1e-7), EPSILON.accepts, optional=True),
    "decay": Argument((0.0, 0.1), RATE.accepts),
    "clipnorm": LIMIT,
    "clipvalue": LIMIT,
}


def used(values):
    variable = tf.Variable(np.ones(2))
    Adadelta(**values).get_updates(loss=lambda: tf.reduce_sum(variable), params=[variable])
    assert not np.isnan(variable.numpy()).any()
    return {}


def test_tf1():
    arguments = {**ARGUMENTS, "epsilon": EPSILON}
    parts = ("rho", "clipnorm", "clipvalue")
    ways = [
        Way("Adadelta", ARGUMENTS, made(Adadelta, attributes(*parts))),
        Way("set", arguments, set_later(Adadelta, attributes(*parts, "epsilon"))),
        Way("step", ARGUMENTS, used, dtype="float64"),
    ]
    assert not failures("tf1", ways, of_tensorflow())


@pytest.mark.parametrize(("name", "value"), beyond_float32("epsilon", "clipnorm"))
def test_a_number_that_the_averages_cant_hold_is_refused(name, value):
    """In float32 such a number would become 0, infinity or 1."""
    variable = tf.Variable([1.0, 1.0])
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype float32"):
        Adadelta(**{name: value}).get_updates(lambda: tf.reduce_sum(variable), [variable])
    assert variable.numpy().tolist() == [1.0, 1.0]


def test_a_decay_beyond_float32_is_refused():
    """In its variable the decay would be infinite, and infinity times call number 0 is NaN."""
    with pytest.raises(ValueError, match=r"`decay` must be at most 3\.40282e"):
        Adadelta(decay=1e39)
