"""DTensors: each process makes the step on its own shard, so that nothing is gathered.

The rule is elementwise, so a shard is updated like any other tensor. DTensor's own functions are
only used to get the shard, and to redistribute a gradient in the way of its parameter.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from adadelta._kernels.torch_memory import PLAIN


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor."""
    # Importing the module takes 0.3 s; if nobody has imported it, there is no DTensor.
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def among(tensors: Sequence[Any]) -> bool:
    """Whether any of these tensors is a DTensor."""
    if "torch.distributed.tensor" not in sys.modules or set(map(type, tensors)) <= set(PLAIN):
        return False
    return any(map(is_sharded, tensors))


def local(columns: list[list[Tensor]]) -> list[list[Tensor]]:
    """Return parameters, gradients and averages with each DTensor replaced by its local shard.

    Args:
        columns: Parameters, their gradients, and columns of their state. A gradient that is
            distributed in another way than its parameter is redistributed, so all processes of
            its mesh must call this together.

    Raises:
        ValueError: A tensor is not distributed like its parameter, or a parameter is partial.

    """
    if not among(columns[0]):
        return columns
    params, gradients, *states = columns
    for param in filter(is_sharded, params):
        if any(placement.is_partial() for placement in param.placements):
            raise ValueError(
                "a parameter can't be a DTensor whose value is spread over processes as a sum "
                f"(Partial); received {param.placements}"
            )
    gradients = [
        _placed(gradient, param) if is_sharded(param) else gradient
        for param, gradient in zip(params, gradients, strict=True)
    ]
    for state in states:
        for param, average in zip(params, state, strict=True):
            if is_sharded(param) and not _lies_as(average, param):
                raise ValueError(_refusal("an average", average, param))
    return [list(map(shard, column)) for column in (params, gradients, *states)]


def shard(tensor: Tensor) -> Tensor:
    """Return this process' shard of a DTensor, or any other tensor as it is."""
    if not is_sharded(tensor):
        return tensor
    if torch.compiler.is_compiling():
        return tensor.to_local()
    # `to_local()` makes a new tensor of a parameter's shard in each call, and a step checks less
    # if it gets the same tensors as before.
    found: Any = tensor._local_tensor
    # An asynchronous operation may not have finished its communication.
    return found if type(found) in PLAIN or not hasattr(found, "wait") else found.wait()


def whole(tensor: Tensor) -> Tensor:
    """Return a DTensor gathered from all processes of its mesh, or any other tensor as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def reason_against(value: Any, param: Tensor) -> str | None:
    """Return why `like` can't take a tensor, or None when it can."""
    if is_sharded(param) and is_sharded(value) and value.device_mesh != param.device_mesh:
        return _refusal("an average", value, param)
    return None


def like(value: Tensor, param: Any) -> Tensor:
    """Return a tensor distributed like a parameter.

    A plain tensor, which every process has as a whole, needs no communication: each process takes
    its own part.
    """
    if not is_sharded(param):
        return whole(value)
    if is_sharded(value):
        return _placed(value, param)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, param.device_mesh, param.placements, src_data_rank=None)


def meshes(tensors: Iterable[Any]) -> list[Any]:
    """Return the device meshes of DTensors."""
    return list(dict.fromkeys(tensor.device_mesh for tensor in tensors if is_sharded(tensor)))


def mark_changed(params: Sequence[Tensor]) -> None:
    """Tell autograd that the shards of DTensors have changed."""
    if among(params):
        torch.autograd.graph.increment_version(filter(is_sharded, params))


def _placed(tensor: Any, param: Any) -> Tensor:
    if _lies_as(tensor, param):
        return tensor
    if not is_sharded(tensor) or tensor.device_mesh != param.device_mesh:
        raise ValueError(_refusal("the gradient", tensor, param))
    return tensor.redistribute(placements=param.placements)


def _lies_as(tensor: Any, param: Any) -> bool:
    return (
        is_sharded(tensor)
        and tensor.placements == param.placements
        and tensor.device_mesh == param.device_mesh
    )


def _refusal(what: str, tensor: Any, param: Any) -> str:
    received = "a tensor that is not distributed"
    if is_sharded(tensor):
        received = f"one with {tensor.placements} on {tensor.device_mesh}"
    return (
        f"{what} of a DTensor must be a DTensor with {param.placements} on {param.device_mesh}; "
        f"received {received}"
    )
