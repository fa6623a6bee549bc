"""The step of `_core/step.py` by torch's own operations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adadelta._core import clipping
from adadelta._core import step as steps
from adadelta._core.clipping import Factors
from adadelta._core.step import Call, Options, Row
from adadelta._torch import arrays, pieces
from adadelta._torch.arrays import real_state_dtype
from adadelta._torch.lazy import check_rows

# The arrays of a row that a step changes.
_WRITTEN = ("parameter", "square_avg", "acc_delta", "average", "window")


def with_dense_gradient(row: Row) -> Row:
    """Return a row whose gradient is a dense tensor; repeated rows of a sparse one are summed."""
    gradient = row.gradient
    if gradient is None:
        return row
    if not isinstance(gradient, Tensor):
        gradient = torch.as_tensor(gradient, device=row.parameter.device)
    if gradient.layout != torch.strided:
        if gradient.is_sparse:
            check_rows(gradient)
        gradient = gradient.to_dense()
    # Making a new row takes longer than everything above.
    return row if gradient is row.gradient else row._replace(gradient=gradient)


def real(row: Row) -> Row:
    """Return a row with real views of complex arrays, which have a last axis of two.

    If the row has a constraint, it and the moving average are left out, since `finish` does both.
    """
    gradient = row.gradient
    if row.parameter.is_complex():
        if gradient is not None:
            gradient = arrays.as_real(gradient.to(row.parameter.dtype).resolve_conj())
        its_arrays = [None if array is None else arrays.as_real(array) for array in _arrays(row)]
        row = _with_arrays(row._replace(gradient=gradient), its_arrays)
    return row if row.constraint is None else row._replace(constraint=None, average=None)


def kind_of(row: Row) -> Any:
    """Return the properties that all rows of a `Group` share."""
    parameter, gradient, _, _, average, window, decay, *_ = row
    present = gradient is None, average is None, window is None
    return parameter.device, parameter.dtype, decay, present


class Group:
    """Rows that are updated together; see `adadelta._core.engine.Group`.

    Args:
        rows: Rows of the same kind, returned by `real`.
        call: The arguments of this call, such as the rate.
        options: The options of the optimizer.
        proceed: Whether to make the update, as a tensor whose value can't be read here.

    """

    def __init__(
        self, rows: Sequence[Row], call: Call, options: Options, proceed: Tensor | None
    ) -> None:
        self.rows, self._call, self._options, self._proceed = rows, call, options, proceed
        self.dtype = str(real_state_dtype(rows[0].parameter.dtype)).removeprefix("torch.")

    def norms(self, together: bool, wide: bool) -> Factors:
        """See there."""
        gradients = [steps.mean(in_dtype(row), self._call, arrays) for row in self.rows]
        gradients = [gradient.double() if wide else gradient for gradient in gradients]
        parts = [gradients] if together else [[gradient] for gradient in gradients]
        scales, norms = zip(*map(_norm, parts), strict=True)
        return np.concatenate(scales), np.concatenate(norms)

    def step(self, factors: Factors | None) -> None:
        """See there. Arrays are changed in place and in pieces; they must share no memory."""
        template = self.rows[0]
        written = [name for name in _WRITTEN if getattr(template, name) is not None]
        has_gradient = template.gradient is not None

        def function(read: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
            arrays_of_row: dict[str, Any] = dict(zip(written, old, strict=True))
            gradient = read[0] if has_gradient else None
            row = template._replace(gradient=gradient, **arrays_of_row)
            new = self._updated(row, (read[-2], read[-1]) if factors is not None else None)
            return [getattr(new, name) for name in written]

        pieces.update(
            function,
            [
                [*([row.gradient] if has_gradient else []), *_spread(pair, row)]
                for row, pair in zip(self.rows, self._pairs(factors), strict=True)
            ],
            [[getattr(row, name) for name in written] for row in self.rows],
        )

    def _pairs(self, factors: Factors | None) -> Sequence[Factors | None]:
        """Return the factors of each row."""
        size = len(self.rows)
        if factors is None:
            return [None] * size
        return list(
            zip(*(np.broadcast_to(factor, size).tolist() for factor in factors), strict=True)
        )

    def _updated(self, row: Row, factors: Factors | None) -> Row:
        """Return a row after an update."""
        new = steps.step(in_dtype(row), self._call, self._options, arrays, factors)
        if self._proceed is None:
            return new
        chosen = self._proceed.to(row.parameter.device)
        return _with_arrays(
            new,
            [
                None if old is None else torch.where(chosen, value, old)
                for old, value in zip(_arrays(row), _arrays(new), strict=True)
            ],
        )


class Alone(Group):
    """Rows that are updated one after another; for the other arguments see `Group`.

    Args:
        differentiable: Whether gradients flow through the step.

    """

    def __init__(
        self,
        rows: Sequence[Row],
        call: Call,
        options: Options,
        proceed: Tensor | None,
        differentiable: bool,
    ) -> None:
        super().__init__(rows, call, options, proceed)
        self._differentiable = differentiable

    def step(self, factors: Factors | None) -> None:
        """See there."""
        for old, pair in zip(self.rows, self._pairs(factors), strict=True):
            row = old
            if self._differentiable:
                # The backward pass needs the old values, which are overwritten.
                row = row._replace(
                    parameter=row.parameter.clone(),
                    square_avg=row.square_avg.clone(),
                    acc_delta=row.acc_delta.clone(),
                )
            new = self._updated(row, pair)
            for array, value in zip(_arrays(old), _arrays(new), strict=True):
                if array is not None:
                    array.copy_(value)


def _spread(factors: Factors | None, row: Row) -> list[Tensor]:
    """Return factors for each element, so that joined tensors keep their own factors."""
    if factors is None:
        return []
    like = row.square_avg
    dtype = real_state_dtype(row.parameter.dtype)
    return [
        torch.full((), factor, dtype=dtype, device=like.device).expand(like.shape)
        for factor in factors
    ]


def collect(row: Row, call: Call) -> None:
    """Add a gradient to the sum of accumulated gradients, in place."""
    if row.window is not None:
        row.window.copy_(steps.collect(in_dtype(row), call, arrays).window)


def finish(row: Row, call: Call, options: Options) -> None:
    """Apply the constraint of a row after an update, and then `follow`, in place."""
    row.parameter.copy_(steps.constrain(row).parameter)
    follow(row, call, options)


def follow(row: Row, call: Call, options: Options) -> None:
    """Update the moving average, and the parameter where the average replaces it, in place."""
    new = steps.follow(in_dtype(row), call, options, arrays)
    for name in ("average", "parameter"):
        array, value = getattr(row, name), getattr(new, name)
        if value is not array:
            array.copy_(value)


def in_dtype(row: Row) -> Row:
    """Return a row with state of the right dtype, since the user may have changed it."""
    dtype = arrays.real_state_dtype(row.parameter.dtype)
    parameter, *state = _arrays(row)
    return _with_arrays(
        row, [parameter, *(None if average is None else average.to(dtype) for average in state)]
    )


def _arrays(row: Row) -> list[Any]:
    return [row.parameter, row.square_avg, row.acc_delta, row.average, row.window]


def _with_arrays(row: Row, values: list[Any]) -> Row:
    return row._replace(**dict(zip(_WRITTEN, values, strict=True)))


def _norm(gradients: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    filled = [gradient for gradient in gradients if gradient.numel()]
    if not filled:
        dtype = str(gradients[0].dtype).removeprefix("torch.")
        return np.ones(1, dtype), np.zeros(1, dtype)
    scale, norm = clipping.scaled_norm(filled, torch, _choose)
    return scale.cpu().numpy().reshape(1), norm.cpu().numpy().reshape(1)


def _choose(predicate: Tensor, if_true: Any, if_false: Any) -> Any:
    return (if_true if bool(predicate) else if_false)()
