"""One answer for all processes that share a step.

Each process sees the gradients of its own shards or parameters only. A step that some processes
skip and others do would let their parameters drift apart.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adadelta._core import hyperparameters
from adadelta._torch import shards


def checked(group: Any) -> Any:
    """Return a process group that a user names, or raise with the reason."""
    if group is not None and not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        requirement = "None or a torch.distributed.ProcessGroup that this process belongs to"
        raise TypeError(hyperparameters.refusal("process_group", requirement, group))
    return group


def groups(params: Iterable[Tensor], named: Any = None) -> list[Any]:
    """Return the process groups, of several processes each, whose processes share a step.

    Args:
        params: The parameters of the optimizer, also those without a gradient.
        named: The group that the user names, or None for those of the device meshes of DTensors,
            and for the default group where there are none.

    """
    if not (dist.is_available() and dist.is_initialized()):
        return []
    if named is not None:
        found = [named]
    else:
        meshes = shards.meshes(params)
        # A process outside of a mesh has none of its groups.
        own = [mesh for mesh in meshes if mesh.get_coordinate() is not None]
        # A mesh has a group for each of its dimensions; one after the other they reach all of it.
        found = [mesh.get_group(dim) for mesh in own for dim in range(mesh.ndim)]
        found = found if meshes else [dist.group.WORLD]
    # Meshes share groups, also as other objects.
    by_ranks = {tuple(dist.get_process_group_ranks(group)): group for group in found}
    return [group for ranks, group in by_ranks.items() if len(ranks) > 1]


def all_of(answers: Sequence[bool | Tensor], groups: Sequence[Any], waits: bool) -> bool | Tensor:
    """Return whether all answers of all processes are yes.

    Args:
        answers: What this process says; none, of one that has nothing to ask about, is yes.
        groups: The groups, in an order that all processes share. All must come here together.
        waits: Whether the answer is read on the host, so that it may be there.

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
    """Return where a group communicates, which is the same for a process without parameters."""
    # Such as "cpu:gloo,cuda:nccl".
    types = [entry.partition(":")[0] for entry in dist.get_backend_config(group).split(",")]
    on_host, others = "cpu" in types, [kind for kind in types if kind != "cpu"]
    # gloo names every device, those that are not there too.
    others = [
        kind
        for kind in others
        if getattr(torch, kind, None) and getattr(torch, kind).is_available()
    ]
    return torch.device("cpu" if on_host and (waits or not others) else others[0])
