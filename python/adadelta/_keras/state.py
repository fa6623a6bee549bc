"""The variables that hold an optimizer's state, and the names of its parameters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._keras import loss_scale, precision
from adadelta._keras.known import number_of
from adadelta._state import matching


def path_of(variable: Any) -> str:
    # A tf.Variable has a name and no path.
    return str(getattr(variable, "path", None) or variable.name)


def parameter_names(variables: Sequence[Any]) -> list[str]:
    """Return the name of each parameter: its path, with a number where paths repeat."""
    return matching.distinct(path_of(variable) for variable in variables)


@cache
def _largest(dtype: str) -> int:
    return int(np.iinfo(dtype).max)


def count(counter: Any, condition: Any = True) -> None:
    """Add 1 if a condition is true, but not to the largest integer, which would become negative.

    Args:
        counter: A Keras variable of integers.
        condition: A bool or a boolean scalar.

    """
    if condition is False:
        return
    value = counter.value
    adds = value < _largest(counter.dtype)
    if keras.config.backend() == "torch" and value is counter._value:
        # In place: Keras' operators and assign() take 90 us on a step that takes 150. Not in a
        # stateless scope, where another tensor stands for the variable's.
        value.add_(adds)
        return
    adds = adds if condition is True else ops.logical_and(adds, condition)
    counter.assign(value + ops.cast(adds, precision.dtype_of(counter)))


@dataclass
class State:
    """The variables of a built optimizer; None for a kind that it lacks.

    Attributes:
        parameters: The parameters.
        square_avg: The average of squared gradients of each parameter, or None.
        acc_delta: Likewise the average of squared updates.
        average: Likewise the moving average (EMA) of the parameter.
        window_sum: Likewise the sum of the accumulated gradients.
        step: Counts calls.
        update: Counts updates, if not every call is one.
        window: Counts the calls of the current accumulation.
        window_has_gradient: Whether the current accumulation has a gradient for each parameter.
        skipped: Counts skipped calls.
        loss_scale: The dynamic loss scale.
        finite_calls: Counts the finite calls since the loss scale changed.
        catch_up: `catch_up()` of the engine, which must be called before averages are read or set.

    """

    parameters: Sequence[Any]
    square_avg: Sequence[Any]
    acc_delta: Sequence[Any]
    average: Sequence[Any] | None
    window_sum: Sequence[Any] | None
    step: Any
    update: Any = None
    window: Any = None
    window_has_gradient: Any = None
    skipped: Any = None
    loss_scale: Any = None
    finite_calls: Any = None
    catch_up: Callable[[], None] = lambda: None

    @property
    def names(self) -> list[str]:
        """The name of each parameter."""
        return parameter_names(self.parameters)

    @property
    def updates(self) -> Any:
        """The variable that counts updates."""
        return self.step if self.update is None else self.update

    def updated(self) -> Iterator[tuple[str, int]]:
        """Yield name and index of each parameter that has averages."""
        for index, name in enumerate(self.names):
            if self.square_avg[index] is not None:
                yield name, index

    def slots(self) -> dict[str, dict[str, Any]]:
        """Return the state variables by the name of the parameter, then by slot."""
        columns = {
            "square_avg": self.square_avg,
            "acc_delta": self.acc_delta,
            "average": self.average,
            "window_sum": self.window_sum,
        }
        slots = {
            name: {
                slot: column[index]
                for slot, column in columns.items()
                if column is not None and column[index] is not None
            }
            for index, name in enumerate(self.names)
        }
        return {name: own for name, own in slots.items() if own}

    def counters(self) -> dict[str, Any]:
        """Return the counters and the loss scale, by their names in saved state."""
        names = ("step", "update", "skipped", "window", "loss_scale", "finite_calls")
        counters = {name: getattr(self, name) for name in names}
        return {name: variable for name, variable in counters.items() if variable is not None}

    def progress(self) -> tuple[int, int]:
        """Return the number of calls and the number of updates."""
        return number_of(self.step), number_of(self.updates)


def counters(
    add_variable: Callable[..., Any], parameters: int, accumulates: bool, skips: bool, scales: bool
) -> dict[str, Any]:
    """Create the counters besides Keras' own, and the loss scale, by their names in `State`.

    Args:
        add_variable: `add_variable()` of a Keras optimizer.
        parameters: How many parameters there are.
        accumulates: Whether gradients are accumulated.
        skips: Whether calls may be skipped.
        scales: Whether the loss scale is dynamic.

    """

    def counter(name: str, shape: tuple[int, ...] = ()) -> Any:
        return add_variable(shape, "zeros", "int32", aggregation="only_first_replica", name=name)

    made = {}
    if accumulates or skips:
        made["update"] = counter("update")
    if accumulates:
        made["window"] = counter("window")
        made["window_has_gradient"] = counter("window_has_gradient", (parameters,))
    if skips:
        made["skipped"] = counter("skipped")
    if scales:
        first = keras.initializers.Constant(loss_scale.FIRST)
        made["loss_scale"] = add_variable((), first, "float32", name="loss_scale")
        made["finite_calls"] = counter("finite_calls")
    return made
