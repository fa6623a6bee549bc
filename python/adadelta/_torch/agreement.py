"""Make all processes that share a step agree on whether to skip it.

Each process sees only the gradients of its own shards or parameters. If some processes skipped a
step and others made it, their parameters would diverge.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adadelta._core import hyperparameters
from adadelta._torch import shards


def checked(group: Any) -> Any:
    """Return a process group given by the user, or raise an error with the reason."""
    if group is not None and not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        requirement = "None or a torch.distributed.ProcessGroup that this process belongs to"
        raise TypeError(hyperparameters.refusal("process_group", requirement, group))
    return group


def groups(params: Iterable[Tensor], named: Any = None) -> list[Any]:
    """Return the process groups of more than one process whose processes share a step.

    Args:
        params: The parameters of the optimizer, including those without a gradient.
        named: The group given by the user, or None for the groups of the DTensors' device meshes,
            or the default group if there is no DTensor.

    """
    if not (dist.is_available() and dist.is_initialized()):
        return []
    if named is not None:
        found = [named]
    else:
        meshes = shards.meshes(params)
        # A process outside of a mesh belongs to none of its groups.
        own = [mesh for mesh in meshes if mesh.get_coordinate() is not None]
        # A mesh has a group for each dimension; one after the other they reach all its processes.
        found = [mesh.get_group(dim) for mesh in own for dim in range(mesh.ndim)]
        found = found if meshes else [dist.group.WORLD]
    # Meshes may share groups, also as different objects.
    by_ranks = {tuple(dist.get_process_group_ranks(group)): group for group in found}
    return [group for ranks, group in by_ranks.items() if len(ranks) > 1]


def all_of(answers: Sequence[bool | Tensor], groups: Sequence[Any], waits: bool) -> bool | Tensor:
    """Return whether all answers of all processes are True.

    Args:
        answers: The answers of this process. A process without any counts as True.
        groups: The groups, in an order that all processes share. All processes must call this
            together.
        waits: Whether the host reads the result, which may then be on the CPU.

    """
    unknown = [answer for answer in answers if isinstance(answer, Tensor)]
    known = all(answer for answer in answers if not isinstance(answer, Tensor))
    if not groups and not unknown:
        return known
    found = torch.tensor(known)
    for answer in unknown:
        found = found.to(answer.device).logical_and(answer)
    for group in groups:
        found = found.to(_device(group, waits), torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MIN, group=group)
    return found.bool()


def _device(group: Any, waits: bool) -> torch.device:
    """Return the device on which a group communicates, also in a process without parameters."""
    # Such as "cpu:gloo,cuda:nccl".
    types = [entry.partition(":")[0] for entry in dist.get_backend_config(group).split(",")]
    on_host, others = "cpu" in types, [kind for kind in types if kind != "cpu"]
    # gloo lists every device type, including those that are not available.
    others = [
        kind
        for kind in others
        if getattr(torch, kind, None) and getattr(torch, kind).is_available()
    ]
    return torch.device("cpu" if on_host and (waits or not others) else others[0])
