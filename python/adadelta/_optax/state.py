"""The state of Adadelta between steps."""

from typing import Any, NamedTuple


class AdadeltaState(NamedTuple):
    """The state of `adadelta.optax.adadelta`, with optax' names.

    Attributes:
        count: The number of steps so far, an int32 scalar.
        e_g: The average of squared gradients of each parameter, of the parameter's shape; float32
            for half-precision parameters.
        e_x: Likewise the average of squared steps, before the learning rate is applied.

    """

    count: Any
    e_g: Any
    e_x: Any


def name_of(path: Any) -> str:
    """Return the name of a parameter from its path in the tree, such as "dense/kernel"."""
    parts = []
    for key in path:
        kinds = (getattr(key, kind, None) for kind in ("key", "idx", "name"))
        parts.append(str(next((part for part in kinds if part is not None), key)))
    # If the parameters are a single array, the path is empty.
    return "/".join(parts) or "params"
