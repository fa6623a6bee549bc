"""The arguments of optax' Adadelta: numbers, schedules, and a mask of booleans."""

from typing import Any

import jax
import jax.numpy as jnp

from adadelta._core import hyperparameters
from adadelta._jax import precision

# The core's names for the arguments that have other names in optax.
_CORE_NAMES = {"eps": "epsilon"}


def is_none(value: Any) -> bool:
    """Whether a leaf is missing."""
    return value is None


def number(argument: str, value: Any, shown: str | None = None) -> Any:
    """Return a number as a float, or a traced one as it is, or raise.

    `optax.inject_hyperparams` passes arguments as arrays, in compiled functions too.
    """
    check = hyperparameters.ARGUMENTS[_CORE_NAMES.get(argument, argument)]
    if not precision.is_traced(value):
        return check(shown or argument, value)
    is_real = jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    if value.shape != () or not is_real:
        requirement = getattr(check, "requirement", "a number")
        raise ValueError(hyperparameters.refusal(shown or argument, requirement, value))
    return value


def number_or_schedule(argument: str, value: Any) -> Any:
    """Return a schedule as it is and anything else as `number` does."""
    if hyperparameters.is_a(value, type):
        raise TypeError(hyperparameters.refusal(argument, "an instance, not a class", value))
    return value if callable(value) else number(argument, value)


def at(argument: str, value: Any, count: Any) -> Any:
    """Return the value of a number or schedule at step `count`."""
    return number(argument, value(count), f"{argument}({count})") if callable(value) else value


def mask(value: Any) -> Any:
    """Return a weight decay mask, or raise if it is neither a tree of booleans nor a function."""
    if value is None or _is_function(value):
        return value
    try:
        leaves = jax.tree_util.tree_leaves(value)
    except Exception:
        # The tree is too deep, for example.
        requirement = _check_flag.requirement
        refusal = hyperparameters.refusal("weight_decay_mask", requirement, value)
        raise TypeError(refusal) from None
    for leaf in leaves:
        _flag(leaf)
    return value


def masked(value: Any, params: Any) -> list[bool]:
    """Return for each leaf of `params`, missing ones too, whether it decays."""
    if value is None:
        value = True
    tree = mask(value(params)) if _is_function(value) else value

    def spread(flag: Any, part: Any) -> Any:
        return jax.tree_util.tree_map(lambda leaf: _flag(flag), part, is_leaf=is_none)

    try:
        spread_tree = jax.tree_util.tree_map(spread, tree, params)
    except ValueError as error:
        raise ValueError(
            "`weight_decay_mask` must be a tree with the structure of the parameters, or of the "
            f"beginning of it: {hyperparameters.shortened(str(error))}"
        ) from error
    return [bool(flag) for flag in jax.tree_util.tree_leaves(spread_tree, is_leaf=is_none)]


def _is_function(value: Any) -> bool:
    # Models are callable too, but are trees. Classes are, but would convert the parameters.
    is_class = hyperparameters.is_a(value, type)
    return callable(value) and not is_class and jax.tree_util.all_leaves([value])


_check_flag = hyperparameters.Flag(
    "a tree of True and False, a function that makes one of the parameters, or None"
)


def _flag(value: Any) -> Any:
    flag = value
    if not precision.is_traced(value) and hyperparameters.attribute(value, "shape") == ():
        try:
            flag = value.item()
        except Exception:
            # A key of jax.random, for example, is not an array of numbers: the check reports it.
            flag = value
    return _check_flag("weight_decay_mask", flag)
