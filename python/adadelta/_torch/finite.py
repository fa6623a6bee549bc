"""Check whether gradients are finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adadelta._torch.arrays import real_state_dtype


def all_finite(pairs: Iterable[tuple[Tensor, Tensor]], loss_scale: Any = None) -> Tensor | None:
    """Return whether no gradient contains NaN or infinity, or None if there are no elements.

    Args:
        pairs: Parameters and their gradients, of any layout.
        loss_scale: Gradients are divided by this number in the dtype of the state, or None.

    """
    alike: dict[Any, list[Tensor]] = {}
    for parameter, gradient in pairs:
        values = _values_of(gradient)
        dtype = real_state_dtype(parameter.dtype)
        if not values.is_floating_point():
            values = values.to(dtype)
        if values.numel() and not values.is_meta:
            alike.setdefault((values.device, values.dtype, dtype), []).append(values)
    # The largest magnitude is finite if all elements are, and NaN if one is; also after unscaling.
    largest = [
        torch.stack(torch._foreach_norm(values, torch.inf)).to(dtype)
        for (_, _, dtype), values in alike.items()
    ]
    scaled = largest if loss_scale is None else [magnitude / loss_scale for magnitude in largest]
    found = [magnitude.isfinite().all() for magnitude in scaled]
    return torch.stack([answer.to(found[0].device) for answer in found]).all() if found else None


def _values_of(gradient: Tensor) -> Tensor:
    if gradient.layout == torch.sparse_coo:
        # This sums repeated rows.
        gradient = gradient.coalesce()
    if gradient.layout == torch._mkldnn:
        gradient = gradient.to_dense()
    values = gradient if gradient.layout == torch.strided else gradient.values()
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
