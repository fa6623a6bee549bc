"""The BrainPy front end accepts or cleanly refuses random arguments."""

import brainpy.math as bm
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
    attributes,
    beyond_float32,
    failures,
    made,
    set_later,
)
from brainpy_tools import needs_compiling
from framework_candidates import of_jax

ARGUMENTS = {
    "lr": RATE,
    "rho": RHO,
    "epsilon": EPSILON,
    "weight_decay": Argument((None, 0.01), PROBABILITY.accepts, optional=True),
}
read = attributes("rho", "epsilon", "weight_decay")


def optimizer_of(values):
    x = bm.TrainVar(bm.ones(2))
    return Adadelta(train_vars={"x": x}, **values), x


def with_variable():
    return optimizer_of({})[0]


def stepped(values):
    optimizer, x = optimizer_of(values)
    optimizer.update({"x": bm.ones(2)})
    assert not np.isnan(np.asarray(x)).any()
    return read(optimizer)


def set_rate(values):
    with_variable().lr.set_value(values["lr"])
    return {}


def test_brainpy():
    settable = {name: it for name, it in ARGUMENTS.items() if name != "lr"}
    # BrainPy's own messages refuse names that are in use and names that are not identifiers.
    name = Argument((None,), NAME.accepts, optional=True, text=True)
    rate = {"lr": RATE}
    ways = [
        Way("Adadelta", ARGUMENTS, stepped, dtype="float32"),
        Way("set", settable, set_later(with_variable, read), dtype="float32"),
        Way("set_value", rate, set_rate),
        Way("set lr", rate, set_later(with_variable, lambda it: {"lr": it.lr.lr.number()})),
        Way("name", {"name": name}, made(Adadelta, attributes()), may_refuse=lambda given: True),
    ]
    two = Candidate("bm.asarray of two", lambda: bm.asarray([0.5, 0.5]))
    assert not failures("brainpy", ways, [*of_jax(), two])


@pytest.mark.parametrize(("name", "value"), beyond_float32("epsilon"))
def test_a_number_that_the_averages_cant_hold_is_refused(name, value):
    """In float32 such a number would become 0, infinity or 1."""
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
