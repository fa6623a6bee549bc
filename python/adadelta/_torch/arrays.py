"""The functions that `_core/step.py` needs for torch tensors, and the dtypes of their state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adadelta._core import precision
from adadelta._core.step import Row
from adadelta._kernels import layout

sqrt, clip, where, zeros_like = torch.sqrt, torch.clamp, torch.where, torch.zeros_like


_NAMES = ("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128")
# For each dtype of parameters, the real dtype in which their averages are computed.
_STATE = {getattr(torch, name): getattr(torch, precision.state_dtype(name)) for name in _NAMES}
_STATE_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def real_state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype in which the averages of parameters of `dtype` are computed."""
    # All other dtypes have 8 bits or fewer.
    return _STATE.get(dtype, torch.float32)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the averages in a torch optimizer: complex for complex parameters."""
    real = real_state_dtype(dtype)
    return real.to_complex() if dtype.is_complex else real


def arrays_of(row: Row) -> Sequence[Any]:
    """Return the arrays of a row, in their order."""
    return row[: layout.COLUMNS]


def as_real(tensor: Tensor) -> Tensor:
    """Return a real view of a complex tensor, with a last axis of two, or a real tensor itself."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def number(number: Any, like: Tensor) -> Any:
    """See `adadelta._core.step.Arrays`, as for all functions below."""
    return number.to(like.dtype) if isinstance(number, Tensor) else number


def to_state(value: Tensor, like: Tensor) -> Tensor:
    """See there; the state of a complex parameter may have a last axis of two."""
    if value.is_complex() and not like.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    return value.to(like.dtype)


def from_state(value: Tensor, like: Tensor) -> Tensor:
    """See there."""
    if like.is_complex() and not value.is_complex():
        value = torch.view_as_complex(value.contiguous())
    return value.to(like.dtype)


def largest_gradient(epsilon: float, like: Tensor) -> float:
    """See there."""
    return precision.largest_gradient(epsilon, _STATE_NAMES[like.dtype])
