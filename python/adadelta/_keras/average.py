"""The exponential moving average of the weights."""

from collections.abc import Iterable
from typing import Any

from keras import ops

from adadelta._keras import precision

Pairs = Iterable[tuple[Any, Any]]


def value_of(variable: Any) -> Any:
    """The value of a parameter in the dtype and shape of its average."""
    return precision.to_state(precision.tensor_of(variable), precision.dtype_of(variable))


def start(pairs: Pairs) -> None:
    """Set each average to its parameter, as the first update does."""
    for variable, average in pairs:
        average.assign(ops.copy(value_of(variable)))


def move(pairs: Pairs, momentum: float) -> None:
    """Move each average towards its parameter, as every later update does."""
    for variable, average in pairs:
        old = precision.tensor_of(average)
        average.assign(momentum * old + (1 - momentum) * value_of(variable))


def overwrite(pairs: Pairs) -> None:
    """Set each parameter to its average."""
    for variable, average in pairs:
        value = precision.tensor_of(average)
        # A copy: compiled training on JAX gives buffers away, each only once.
        variable.assign(ops.copy(precision.from_state(value, precision.dtype_of(variable))))
