"""The optax front end accepts or cleanly refuses random numbers and random schedule values."""

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
    Way,
    beyond_float32,
    failures,
)
from framework_candidates import of_jax

ARGUMENTS = {"learning_rate": RATE, "rho": RHO, "eps": EPSILON, "weight_decay": DECAY}
PARAMS = {"w": jnp.ones(2)}
# An empty list is a pytree, which does not fit the parameters if they decay.
MASK = Argument((True, False, None), flag=True, optional=True, also=("empty list", "array of True"))


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


def test_optax():
    schedules = {name: ARGUMENTS[name] for name in ("learning_rate", "weight_decay")}
    masked = {**ARGUMENTS, "weight_decay_mask": MASK}
    way = functools.partial(Way, dtype="float32")
    ways = [
        way("adadelta", ARGUMENTS, updated),
        way("adadelta", masked, updated, may_refuse=lambda given: "weight_decay_mask" in given),
        way("fused_adadelta", ARGUMENTS, applied),
        way("schedules", schedules, scheduled),
    ]
    assert not failures("optax", ways, of_jax())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(("name", "value"), beyond_float32("eps"))
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """In float32 such a number would become 0, infinity or 1, and the step NaN or 0."""
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
