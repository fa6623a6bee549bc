"""adadelta.torch in several processes: what all decide together, and what a shard does alone."""

import os
import signal
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch_processes import Processes, run
from torch_training import Training

import adadelta
import adadelta.torch


def parameter(value, gradient):
    made = nn.Parameter(torch.full((4,), value))
    made.grad = None if gradient is None else torch.full((4,), gradient)
    return made


def distributed(placement, gradient_placement=None):
    """Return a parameter of 5 rows that is distributed over all processes, with its gradient."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(0)
    values, gradient = torch.randn(2, 5, 3, generator=generator)
    made = nn.Parameter(distribute_tensor(values, mesh, [placement]))
    placement = gradient_placement or placement
    if placement.is_partial():
        gradient = DTensor.from_local(gradient / mesh.size(), mesh, [placement])
    else:
        gradient = distribute_tensor(gradient, mesh, [placement])
    made.grad = gradient
    return made


def reductions(step):
    """Return the number of reductions over processes in a step."""
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduce:
        step()
    return reduce.call_count


def without_parameters(rank):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    only = parameter(1.0, float("inf"))
    optimizer = ZeroRedundancyOptimizer(
        [only], optimizer_class=adadelta.torch.Adadelta, skip_nonfinite=True
    )
    optimizer.step()
    before = only.tolist()
    only.grad = torch.ones(4)
    optimizer.step()
    of_rank = sum(len(group["params"]) for group in optimizer.optim.param_groups)
    return of_rank, before, only.tolist(), optimizer.optim.skipped


def test_a_process_without_parameters_takes_part():
    first, second = run(2, without_parameters)
    assert [first[0], second[0]] == [1, 0]
    assert first[1:] == second[1:]
    assert first[1] == [1.0] * 4 != first[2]
    assert first[3] == 1


def without_gradients(rank):
    optimizer = adadelta.torch.Adadelta(
        [parameter(1.0, float("nan") if rank == 0 else None)], skip_nonfinite=True
    )
    count = reductions(optimizer.step)
    return count, optimizer.skipped


def test_a_process_without_gradients_takes_part():
    assert run(2, without_gradients) == [(1, 1), (1, 1)]


def of_groups(rank):
    alone, _ = dist.new_subgroups(group_size=1)
    found = []
    for group in (None, dist.group.WORLD, alone):
        held = parameter(1.0, float("nan") if rank == 0 else 1.0)
        optimizer = adadelta.torch.Adadelta([held], skip_nonfinite=True, process_group=group)
        found.append((reductions(optimizer.step), optimizer.skipped))
    optimizer = adadelta.torch.Adadelta([parameter(1.0, float("nan"))])
    return [*found, reductions(optimizer.step)]


def test_the_group_that_decides_can_be_named():
    # Without `skip_nonfinite` there is no reduction.
    assert run(2, of_groups) == [
        [(1, 1), (1, 1), (0, 1), 0],
        [(1, 1), (1, 1), (0, 0), 0],
    ]


def mixed(rank):
    from torch.distributed.tensor import Shard

    sharded = distributed(Shard(0))
    plain = parameter(1.0, 1.0 if rank == 0 else float("inf"))
    optimizer = adadelta.torch.Adadelta([plain, sharded], skip_nonfinite=True)
    before = sharded.full_tensor().tolist()
    count = reductions(optimizer.step)
    return count, optimizer.skipped, sharded.full_tensor().tolist() == before, plain.tolist()


def test_dtensors_and_plain_parameters_decide_together():
    assert run(2, mixed) == [(1, 1, True, [1.0] * 4)] * 2


def placed(rank, options):
    """Return how far steps are from those of one process, for each pair of placements."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    places = (Shard(0), Shard(1), Replicate())
    found = {}
    for place in places:
        for of_gradient in (*places, Partial()):
            held = distributed(place, of_gradient)
            if options.get("differentiable"):
                gradient, held = held.grad, held.clone()
                held.grad = gradient
            one = nn.Parameter(held.full_tensor().detach().clone())
            one.grad = distributed(place, of_gradient).grad.full_tensor()
            ours = adadelta.torch.Adadelta([held], **options)
            other = adadelta.torch.Adadelta([one], foreach=False)
            for _ in range(3):
                ours.step()
                other.step()
            state = ours.state[held]
            distances = [
                (held.full_tensor() - one).abs().max().item(),
                *(
                    (state[slot].full_tensor() - other.state[one][slot]).abs().max().item()
                    for slot in ("square_avg", "acc_delta")
                ),
            ]
            lies = all(
                state[it].placements == held.placements for it in ("square_avg", "acc_delta")
            )
            found[str((place, of_gradient))] = (max(distances), lies)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"fused": True},
        {"fused": False},
        {"foreach": False},
        {"skip_nonfinite": True},
        {"skip_nonfinite": True, "capturable": True},
        {"differentiable": True},
    ],
    ids=str,
)
def test_gradients_may_be_placed_otherwise_than_parameters(options):
    for of_rank in run(2, placed, options):
        for places, (distance, lies) in of_rank.items():
            # The sum of a Partial gradient is rounded in float32.
            assert distance < 1e-6, places
            assert lies, places


def of_a_shard(rank):
    from torch.distributed.tensor.debug import CommDebugMode

    # With `fused=True`, a step without the kernel would be an error.
    Training("fsdp2", {"fused": True}).train(3)
    training = Training("fsdp2").train(3)
    held = next(training.model.parameters())
    version = held._version
    # This mode intercepts each operation of torch, so the kernel does not make this step.
    with CommDebugMode() as communication:
        training.optimizer.step()
    training.optimizer.step()
    served = adadelta.kernel_info(training.optimizer)
    refused = adadelta.torch.Adadelta(training.model.parameters(), fused=False)
    return {
        "communication": communication.get_total_counts(),
        "shapes": [row["shape"] for row in served],
        "engines": {(row["engine"], row["reason"]) for row in served},
        "without": {(row["engine"], row["reason"]) for row in adadelta.kernel_info(refused)},
        "version": held._version - version,
        "shards": [param.to_local().numel() for param in training.model.parameters()],
    }


def test_the_kernel_takes_shards_and_nothing_is_communicated():
    first, second = run(2, of_a_shard)
    assert first["shards"] != second["shards"]
    assert 0 in second["shards"]
    for found in (first, second):
        assert found["communication"] == 0
        assert found["shapes"] == [(8, 5), (8,), (6, 8), (6,), (1, 6), (1,)]
        assert found["engines"] == {("cpu", None)}
        assert found["without"] == {("operators of torch", "`fused` is False")}
        # The version tells autograd that the parameter has changed.
        assert found["version"] >= 1


def refusals(rank):
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    def message(function):
        try:
            function()
        except (TypeError, ValueError) as error:
            return str(error)

    held = distributed(Shard(0))
    optimizer = adadelta.torch.Adadelta([held])
    optimizer.step()
    state = optimizer.state[held]
    state["acc_delta"] = state["acc_delta"].redistribute(placements=[Replicate()])
    before = held.to_local().tolist()
    found = [message(optimizer.step)]
    state["acc_delta"] = state["acc_delta"].full_tensor()
    found.append(message(optimizer.step))
    spread = nn.Parameter(DTensor.from_local(torch.ones(3), held.device_mesh, [Partial()]))
    spread.grad = spread.detach().clone()
    found.append(message(adadelta.torch.Adadelta([spread]).step))
    return found, held.to_local().tolist() == before


def test_what_is_not_distributed_as_its_parameter_is_refused():
    for (other, whole, spread), unchanged in run(2, refusals):
        assert "an average of a DTensor must be a DTensor with (Shard(dim=0),)" in other
        assert "received one with (Replicate(),)" in other
        assert "received a tensor that is not distributed" in whole
        assert "a parameter can't be a DTensor whose value is spread" in spread
        assert unchanged


@pytest.mark.parametrize("group", [3, "nccl"])
def test_a_process_group_that_is_none_is_refused(group):
    with pytest.raises(TypeError, match="`process_group` must be None or"):
        adadelta.torch.Adadelta([parameter(1.0, 1.0)], process_group=group)


def compiled(rank):
    from torch.distributed.tensor import Shard

    found = []
    for sharded in (True, False):
        held = distributed(Shard(0)) if sharded else parameter(1.0, 1.0)
        optimizer = adadelta.torch.Adadelta([held], skip_nonfinite=True)
        step = torch.compile(optimizer.step, backend="aot_eager")
        local = held.to_local() if sharded else held
        values = [local.tolist()]
        step()
        values.append(local.tolist())
        if rank == 1:
            gradient = held.grad.to_local() if sharded else held.grad
            gradient.fill_(float("inf"))
        step()
        found.append((values[0] != values[1], local.tolist() == values[1], optimizer.skipped))
    return found


@pytest.mark.slow
def test_a_compiled_step_is_decided_for_all():
    assert run(2, compiled) == [[(True, True, 1)] * 2] * 2


def in_one_process(rank):
    optimizer = adadelta.torch.Adadelta([parameter(1.0, float("inf"))], skip_nonfinite=True)
    return reductions(optimizer.step), optimizer.skipped


@pytest.mark.slow
def test_nothing_is_reduced_in_one_process():
    assert run(1, in_one_process) == [(0, 1)]


def until_one_is_killed(rank, engine):
    training = Training(engine, {"skip_nonfinite": True}).train(3)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    training.train()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero", "fsdp2"])
def test_a_killed_process_ends_the_others_with_an_error(engine):
    with pytest.raises(AssertionError) as caught:
        Processes(2).run(until_one_is_killed, (engine,))
    text = str(caught.value)
    assert "process 1:\nit ended" in text
    assert "process 0:\nTraceback" in text
    assert "had no result: []" in text
