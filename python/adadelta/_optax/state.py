"""What Adadelta knows between steps."""

from typing import Any, NamedTuple


class AdadeltaState(NamedTuple):
    """The state of `adadelta.optax.adadelta`, with optax' names.

    Attributes:
        count: How many steps there were, an int32 scalar.
        e_g: For each parameter the average of its squared gradients, of the parameter's shape;
            float32 for half-precision parameters.
        e_x: Likewise the average of its squared steps, before the learning rate.

    """

    count: Any
    e_g: Any
    e_x: Any


def name_of(path: Any) -> str:
    """The name of a parameter from where it is in its tree, such as "dense/kernel"."""
    parts = []
    for key in path:
        kinds = (getattr(key, kind, None) for kind in ("key", "idx", "name"))
        parts.append(str(next((part for part in kinds if part is not None), key)))
    # Parameters that are a single array have no path.
    return "/".join(parts) or "params"
