"""Random arguments of the optax front end: numbers, and what schedules return."""

import functools

import jax
import jax.numpy as jnp
import pytest

from adadelta.optax import adadelta, fused_adadelta
from argument_sets import (
    DECAY,
    EPSILON,
    RATE,
    RHO,
    Argument,
    Candidate,
    Way,
    failures,
    is_beyond,
)

ARGUMENTS = {"learning_rate": RATE, "rho": RHO, "eps": EPSILON, "weight_decay": DECAY}
PARAMS = {"w": jnp.ones(2)}
# An empty list is a tree, which does not fit the parameters when these decay.
MASK = Argument((True, False, None), flag=True, optional=True, also=("empty list",))

ARRAYS = [
    Candidate("array", lambda: jnp.array(0.5), number=0.5),
    Candidate("bfloat16", lambda: jnp.array(0.5, jnp.bfloat16), number=0.5),
    Candidate("negative array", lambda: jnp.array(-0.5), number=-0.5),
    Candidate("array of two", lambda: jnp.array([0.5, 0.5])),
    Candidate("array of True", lambda: jnp.array(True), flag=True),
    Candidate("key", lambda: jax.random.key(0)),
    Candidate("keys", lambda: jax.random.split(jax.random.key(0))),
    Candidate("shape", lambda: jax.ShapeDtypeStruct((), jnp.float32)),
]


def updated(values):
    transformation = adadelta(**values)
    updates, _ = transformation.update(PARAMS, transformation.init(PARAMS), PARAMS)
    assert not jnp.isnan(updates["w"]).any()
    kept = vars(transformation.init.__self__)
    return {name: kept[name] for name in values if name != "weight_decay_mask"}


def applied(values):
    optimizer = fused_adadelta(**values)
    params, _ = optimizer.apply(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert not jnp.isnan(params["w"]).any()
    return {}


def scheduled(values):
    transformation = adadelta(**{name: lambda step, it=it: it for name, it in values.items()})
    transformation.update(PARAMS, transformation.init(PARAMS), PARAMS)
    return {}


beyond_float32 = functools.partial(is_beyond, names=("eps",), dtype="float32")


def is_odd(given):
    return beyond_float32(given) or "weight_decay_mask" in given


def test_optax():
    numbers = {**ARGUMENTS, "weight_decay_mask": MASK}
    schedules = {name: ARGUMENTS[name] for name in ("learning_rate", "weight_decay")}
    way = functools.partial(Way, may_refuse=beyond_float32)
    ways = [
        way("adadelta", ARGUMENTS, updated),
        Way("adadelta", numbers, updated, may_refuse=is_odd),
        way("fused_adadelta", ARGUMENTS, applied),
        way("schedules", schedules, scheduled),
    ]
    assert not failures("optax", ways, ARRAYS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(("name", "value"), [("eps", 1e-50), ("eps", 1e39), ("rho", 1 - 1e-9)])
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """It would be 0, infinite or 1 there, and the step NaN or nothing."""
    params = {"w": jnp.ones(2, dtype)}
    state = adadelta().init(params)
    for make in (adadelta, fused_adadelta):
        with pytest.raises(ValueError, match=f"`{name}` must be .* for averages of dtype"):
            make(**{name: value}).init(params)
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        adadelta(**{name: value}).update(params, state, params)
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        jax.jit(fused_adadelta(**{name: value}).apply)(params, state, params)


def test_a_weight_decay_beyond_float32_is_refused():
    with pytest.raises(ValueError, match=r"`weight_decay` must be at most 3\.40282e"):
        adadelta(weight_decay=1e308)
