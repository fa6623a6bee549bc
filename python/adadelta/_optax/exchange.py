"""Export and import Adadelta's state, however deep it is inside other states."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adadelta._jax import precision
from adadelta._optax.state import AdadeltaState, name_of
from adadelta._state import exchange
from adadelta._state.record import OptimizerState, StateMismatchError, refuse_no_state


def export_state(state: Any) -> OptimizerState:
    """Return the state of Adadelta as NumPy arrays by parameter name.

    Parameters are named by their path in the tree: `{"dense": {"kernel": ...}}` contains
    "dense/kernel". To continue in another framework, pass the result to `adadelta.import_state()`;
    to write it to a file, use `adadelta.state.write_state()`.

    The state of other transformations in a chain is not included, such as the mean gradients of
    `MultiSteps` or the count of a schedule outside Adadelta.

    Args:
        state: The state of `adadelta` or `fused_adadelta`, or a state that contains it.

    Raises:
        TypeError: `state` contains no state of this package's Adadelta.
        StateMismatchError: `state` contains several that do not fit together: two parameters have
            the same name, or the numbers of steps differ.

    Example:
        >>> import jax.numpy as jnp, adadelta.optax
        >>> state = adadelta.optax.adadelta().init({"w": jnp.array([1.0, 2.0])})
        >>> adadelta.optax.export_state(state)
        OptimizerState(step=0, update=0, 1 parameter, slots: square_avg, acc_delta)

    """
    found = _found(state)
    counts = {int(own.count) for own in found}
    if len(counts) > 1:
        raise StateMismatchError(
            "the states of Adadelta in `state` have made different numbers of steps: "
            + ", ".join(map(str, sorted(counts)))
        )
    arrays = exchange.mapped(precision.to_record, _slots(found))
    return exchange.state_of(arrays, {"step": counts.pop()})


def import_state(state: Any, exported: OptimizerState) -> Any:
    """Return a state like `state` with the values in `exported`.

    Everything is checked first. `state` itself does not change.

    Args:
        state: What `init(params)` returned for the parameters to train.
        exported: What `export_state()`, `adadelta.export_state()` or
            `adadelta.state.read_state()` returned.

    Raises:
        TypeError: `state` has no state of this package's Adadelta, or `exported` is not a state.
        StateMismatchError: Parameters are missing, unknown, or of another shape or dtype, or
            `exported` needs an option that is missing. The error's `problems` lists them all.

    Example:
        >>> import jax.numpy as jnp, adadelta.optax
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> transformation = adadelta.optax.adadelta()
        >>> _, state = transformation.update(params, transformation.init(params))
        >>> exported = adadelta.optax.export_state(state)
        >>> again = adadelta.optax.import_state(transformation.init(params), exported)
        >>> int(again.count)
        1

    """
    refuse_no_state("exported", exported)
    found = _found(state)
    likes = exchange.mapped(precision.like_record, _slots(found))
    smallest = min((own.count.dtype for own in found), key=lambda dtype: jnp.iinfo(dtype).max)
    names = exchange.fit(exported, likes, {"step": smallest}, numbering=None)

    def taken(own: AdadeltaState) -> AdadeltaState:
        def of(slot: str) -> Callable[[Any, Any], Any]:
            return lambda path, like: precision.from_record(
                exported.parameters[names[name_of(path)]][slot], like
            )

        count = precision.from_record(np.asarray(exported.step), own.count)
        with_path = jax.tree_util.tree_map_with_path
        return AdadeltaState(
            count, with_path(of("square_avg"), own.e_g), with_path(of("acc_delta"), own.e_x)
        )

    return jax.tree_util.tree_map(
        lambda leaf: taken(leaf) if _is_state(leaf) else leaf, state, is_leaf=_is_state
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, AdadeltaState)


def _found(state: Any) -> list[AdadeltaState]:
    found = [
        leaf for leaf in jax.tree_util.tree_leaves(state, is_leaf=_is_state) if _is_state(leaf)
    ]
    if not found:
        raise TypeError(
            "`state` must be what init() of this package's Adadelta returned, or have it inside; "
            f"received {type(state).__name__}"
        )
    return found


def _slots(found: list[AdadeltaState]) -> dict[str, dict[str, Any]]:
    """Return the averages by parameter and slot."""
    slots: dict[str, dict[str, Any]] = {}
    for state in found:
        with_paths, _ = jax.tree_util.tree_flatten_with_path(state.e_g)
        for (path, e_g), e_x in zip(with_paths, jax.tree_util.tree_leaves(state.e_x), strict=True):
            name = name_of(path)
            if name in slots:
                raise StateMismatchError(f"two parameters in `state` have the name {name}")
            slots[name] = {"square_avg": e_g, "acc_delta": e_x}
    return slots
