"""Random arguments of the BrainPy front end."""

import functools

import brainpy.math as bm
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adadelta.brainpy import Adadelta
from argument_sets import (
    EPSILON,
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
from brainpy_tools import needs_compiling

ARGUMENTS = {
    "lr": RATE,
    "rho": RHO,
    "epsilon": EPSILON,
    "weight_decay": Argument((None, 0.01), PROBABILITY.accepts, optional=True),
}
ARRAYS = [
    Candidate("array", lambda: jnp.array(0.5), number=0.5),
    Candidate("array of two", lambda: bm.asarray([0.5, 0.5])),
    Candidate("key", lambda: jax.random.key(0)),
    Candidate("complex array", lambda: jnp.array(1j)),
]
PARTS = ("rho", "epsilon", "weight_decay")


def optimizer_of(values):
    x = bm.TrainVar(bm.ones(2))
    return Adadelta(train_vars={"x": x}, **values), x


def stepped(values):
    optimizer, x = optimizer_of(values)
    optimizer.update({"x": bm.ones(2)})
    assert not np.isnan(np.asarray(x)).any()
    return {name: getattr(optimizer, name) for name in PARTS}


def set_later(values):
    optimizer, _ = optimizer_of({})
    return set_each(optimizer, values, lambda: {name: getattr(optimizer, name) for name in PARTS})


def set_rate(values):
    optimizer, _ = optimizer_of({})
    optimizer.lr.set_value(values["lr"])
    return {}


def assigned_rate(values):
    optimizer, _ = optimizer_of({})
    return set_each(optimizer, values, lambda: {"lr": optimizer.lr.lr.number()})


def named(values):
    Adadelta(**values)
    return {}


beyond_float32 = functools.partial(is_beyond, names=("epsilon",), dtype="float32")


def test_brainpy():
    settable = {name: ARGUMENTS[name] for name in PARTS}
    # BrainPy refuses names that are in use, and what is no identifier, in its own words.
    name = Argument((None,), NAME.accepts, optional=True, text=True)
    ways = [
        Way("Adadelta", ARGUMENTS, stepped, may_refuse=beyond_float32),
        Way("set", settable, set_later, may_refuse=beyond_float32),
        Way("set_value", {"lr": RATE}, set_rate),
        Way("set lr", {"lr": RATE}, assigned_rate),
        Way("name", {"name": name}, named, may_refuse=lambda given: True),
    ]
    assert not failures("brainpy", ways, ARRAYS)


@pytest.mark.parametrize(
    ("name", "value"), [("epsilon", 1e-50), ("epsilon", 1e39), ("rho", 1 - 1e-9)]
)
def test_a_number_that_the_averages_cant_hold_is_refused(name, value):
    """It would be 0, infinite or 1 there."""
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype float32"):
        optimizer_of({name: value})
    optimizer, _ = optimizer_of({})
    before = getattr(optimizer, name)
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype float32"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    later = Adadelta(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype float32"):
        later.register_train_vars({"x": bm.TrainVar(bm.ones(2))})
    assert not later.vars_to_train


@needs_compiling
def test_a_rate_that_is_assigned_is_seen_by_compiled_functions():
    optimizer, x = optimizer_of({})
    step = bm.jit(lambda: optimizer.update({"x": bm.ones(2)}))
    step()
    before = np.asarray(x).tolist()
    optimizer.lr = 0
    step()
    assert np.asarray(x).tolist() == before
    with pytest.raises(ValueError, match="`lr` can't be replaced"):
        optimizer.lr = lambda: 0.5


def test_a_rate_that_is_assigned_is_that_of_the_next_step():
    optimizer, x = optimizer_of({})
    optimizer.lr = 0
    optimizer.update({"x": bm.ones(2)})
    assert np.asarray(x).tolist() == [1.0, 1.0]
    optimizer.lr = lambda: 0.5
    optimizer.update({"x": bm.ones(2)})
    assert np.asarray(x)[0] < 1
