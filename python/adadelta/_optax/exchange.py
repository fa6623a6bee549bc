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
    """See `adadelta.optax.export_state`."""
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
    """See `adadelta.optax.import_state`."""
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
