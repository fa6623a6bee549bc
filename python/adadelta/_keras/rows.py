"""The variables of an optimizer, in the rows that an engine accepts."""

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from adadelta._core.step import UPDATE, Columns, Row
from adadelta._keras.engines import array_of

_value = operator.attrgetter("value")
_own_value = operator.attrgetter("_value")
# The properties of gradients that are compared. TensorFlow has tensors of strings, too.
_LOOKS: list[Callable[[Any], Any]] = [type, operator.attrgetter("shape")]
if keras.config.backend() == "tensorflow":
    _LOOKS.append(operator.attrgetter("dtype"))
if keras.config.backend() == "torch":
    from adadelta._kernels import torch_memory


class Rows:
    """Variables with their state and settings, by the index of the variable.

    Args:
        parameters: The variables.
        state: For each kind of state, in the order of `Row`, a variable for each parameter, or None
            if the optimizer lacks this kind.
        decays: The weight decay of each variable.

    Attributes:
        decays: See the argument.
        reasons: By index, why the kernel did not update a row in its last step, or None.

    """

    def __init__(
        self,
        parameters: Sequence[Any],
        state: Sequence[Sequence[Any] | None],
        decays: Sequence[float],
    ) -> None:
        self._parameters = parameters
        self._columns = [parameters, None, *state]
        self.decays = decays
        self._constraints = [variable.constraint for variable in parameters]
        self._are_keras = all(isinstance(variable, keras.Variable) for variable in parameters)
        self.reasons: dict[int, str | None] = {}
        self._last_reasons: Sequence[str | None] = ()
        self._last_indices: Iterable[int] = ()
        # The variables of the last call, and a check for gradients like its own.
        self._variables: list[Any] = []
        self._indices: list[int] = []
        self._are_alike: Callable[[Sequence[Any]], bool] | None = None
        self._are_all = False

    def __getstate__(self) -> dict[str, Any]:
        # The check of torch's gradients can't be copied.
        return {**self.__dict__, "_are_alike": None}

    def note_reasons(self, indices: Iterable[int], reasons: Sequence[str | None]) -> None:
        """Note why the kernel did not update the rows of a step."""
        if reasons is not self._last_reasons or indices is not self._last_indices:
            self._last_reasons, self._last_indices = reasons, indices
            self.reasons |= zip(indices, reasons, strict=True)

    def variables_of(self, index: int) -> list[Any]:
        """Return the variables of a row, in the order of its fields."""
        return [None if column is None else column[index] for column in self._columns]

    def row(self, index: int, gradient: Any, action: Any = UPDATE) -> Row:
        """Return one row."""
        row: Row = self.rows([index], [gradient], action)[0]
        return row

    def rows(
        self, indices: Sequence[int], gradients: Sequence[Any], action: Any = UPDATE
    ) -> Columns:
        """Return the rows of these indices."""
        size = len(indices)
        are_all = self._are_all if indices is self._indices else self._has_all(indices)

        def of(column: Sequence[Any]) -> Sequence[Any]:
            return column if are_all else [column[index] for index in indices]

        _, _, *state = self._columns
        read = self._reader()
        nothing = [None] * size
        return Columns(
            [
                list(map(read, of(self._parameters))),
                gradients,
                *(nothing if column is None else list(map(read, of(column))) for column in state),
                of(self.decays),
                [action] * size,
                of(self._constraints),
            ]
        )

    def _has_all(self, indices: Sequence[int]) -> bool:
        return len(indices) == len(self.decays) and all(
            map(operator.eq, indices, itertools.count())
        )

    def _reader(self) -> Callable[[Any], Any]:
        """Return the function that reads the arrays of variables.

        For 2,000 variables, Keras' property takes 6 ms, and the attribute behind it 0.3.
        """
        if not self._are_keras or not self._parameters:
            return array_of
        first = self._parameters[0]
        # In a stateless scope, and under Keras' autocast, the property returns something else.
        return _own_value if first.value is first._value else _value

    def indices_again(
        self, variables: Sequence[Any] | None, gradients: Sequence[Any]
    ) -> list[int] | None:
        """Return the indices of the last call if this one is for the same variables, else None.

        The gradients must be like those of the last call, so that they need no check.
        """
        known = self._variables
        given = self._parameters if variables is None else variables
        if not known or not len(gradients) == len(given) == len(known):
            return None
        if self._are_alike is None or not all(map(operator.is_, given, known)):
            return None
        return self._indices if self._are_alike(gradients) else None

    def note(self, variables: Sequence[Any], gradients: Sequence[Any], indices: list[int]) -> None:
        """Note the variables of a call whose gradients fit them."""
        self._are_alike = _like(gradients)
        if self._are_alike is not None:
            self._variables, self._indices = list(variables), indices
            self._are_all = self._has_all(indices)


def _like(gradients: Sequence[Any]) -> Callable[[Sequence[Any]], bool] | None:
    """Return a check for others of these types and shapes, or None if a gradient is missing."""
    kinds = _kinds_of(gradients)
    if kinds is None:
        return None
    # 200 gradients take 11 us, and 27 if their types and shapes are compared. A sparse one would
    # crash the process.
    if keras.config.backend() == "torch" and not any(
        torch_memory.reason_against(gradient, "the gradient", gradient.dtype)
        for gradient in gradients
    ):
        look = torch_memory.look(*gradients)
        if look is not None:
            return lambda others: bool(look.check(*others))
    return lambda others: _kinds_of(others) == kinds


def _kinds_of(gradients: Sequence[Any]) -> list[Any] | None:
    try:
        return [list(map(look, gradients)) for look in _LOOKS]
    except AttributeError:
        return None
