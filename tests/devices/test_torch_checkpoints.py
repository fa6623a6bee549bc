"""adadelta.torch: saved by some processes and continued by others, as if without interruption."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch_processes import run
from torch_training import STEPS, Training, trained

import adadelta

OPTIONS = {"weight_decay": 0.1, "skip_nonfinite": True}
HALF = STEPS // 2


def save(rank, engine, folder):
    """Train the first half, and save it with torch.distributed.checkpoint."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    training = Training(engine, OPTIONS).train(HALF, bad=True)
    model, optimizer = get_state_dict(training.model, training.optimizer)
    dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)


def load(rank, engine, folder):
    """Continue with the second half; return its result and whether the state is in its place."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    training = Training(engine, OPTIONS)
    model, optimizer = get_state_dict(training.model, training.optimizer)
    state = {"model": model, "optimizer": optimizer}
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(
        training.model,
        training.optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    training.step = HALF
    return training.train(HALF).result(), lies_as_parameters(training.own)


def lies_as_parameters(optimizer):
    return all(
        getattr(state[slot], "placements", None) == getattr(param, "placements", None)
        for param, state in optimizer.state.items()
        for slot in ("square_avg", "acc_delta")
    )


def save_zero(rank, folder):
    training = Training("zero", OPTIONS).train(HALF, bad=True)
    training.optimizer.consolidate_state_dict(to=0)
    if rank == 0:
        state = {"model": training.model.module.state_dict()}
        state["optimizer"] = training.optimizer.state_dict()
        torch.save(state, f"{folder}/state.pt")


def load_zero(rank, folder):
    state = torch.load(f"{folder}/state.pt", weights_only=True)
    training = Training("zero", OPTIONS)
    training.model.module.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.step = HALF
    return training.train(HALF).result(), True


def export(rank, engine):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    training = Training(engine, OPTIONS).train(HALF, bad=True)
    whole = get_model_state_dict(training.model, options=StateDictOptions(full_state_dict=True))
    return {name: it.numpy() for name, it in whole.items()}, adadelta.export_state(training.own)


def import_(rank, engine, model, state):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    training = Training(engine, OPTIONS)
    set_model_state_dict(
        training.model,
        {name: torch.from_numpy(it) for name, it in model.items()},
        options=StateDictOptions(full_state_dict=True),
    )
    adadelta.import_state(training.own, state)
    training.step = HALF
    return training.train(HALF).result(), lies_as_parameters(training.own)


@functools.cache
def uninterrupted():
    return trained(0, None, OPTIONS, bad=True)


def check(results):
    (found, _), *_ = results
    expected = uninterrupted()
    assert all(lies for _, lies in results)
    assert {it["skipped"] for it, _ in results} == {1}
    assert found["step"] == expected["step"]
    for name, arrays in expected["arrays"].items():
        for own, array in zip(found["arrays"][name], arrays, strict=True):
            # Processes are summed in a different order.
            np.testing.assert_allclose(own, array, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("engine", "count", "other_engine", "other_count"),
    [
        ("fsdp2", 2, "fsdp2", 2),
        ("ddp", 2, "fsdp2", 2),
        ("fsdp2", 2, "tensor_parallel", 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("fsdp2", 2, "fsdp2", 3),
                ("fsdp2", 2, "fsdp2", 4),
                ("fsdp2", 4, "fsdp2", 3),
                ("fsdp2", 2, "ddp", 3),
                ("ddp", 2, "ddp", 3),
                ("fsdp2", 2, "hybrid", 4),
            )
        ),
    ],
)
def test_distributed_checkpoint(tmp_path, engine, count, other_engine, other_count):
    run(count, save, engine, str(tmp_path))
    check(run(other_count, load, other_engine, str(tmp_path)))


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_consolidated_state_of_zero(tmp_path, count):
    run(2, save_zero, str(tmp_path))
    check(run(count, load_zero, str(tmp_path)))


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engines", [("fsdp2", "fsdp2"), ("ddp", "fsdp2"), ("fsdp2", "ddp")])
def test_exported_state(engines, count):
    first, *others = run(2, export, engines[0])
    model, state = first
    for _, other in others:
        assert other.skipped == state.skipped == 1
        for name, arrays in state.parameters.items():
            for slot, array in arrays.items():
                np.testing.assert_array_equal(other.parameters[name][slot], array)
    check(run(count, import_, engines[1], model, state))


def test_a_whole_state_dict_is_taken_in_parts():
    for found, lies in run(2, from_whole_state):
        assert found
        assert lies


def from_whole_state(rank):
    """Return whether shards equal those of the whole, and hold no more memory than they need."""
    training = Training("fsdp2", OPTIONS).train(3)
    saved = copy.deepcopy(training.optimizer.state_dict())
    for state in saved["state"].values():
        for slot in ("square_avg", "acc_delta"):
            state[slot] = state[slot].full_tensor()
    other = Training("fsdp2", OPTIONS)
    other.optimizer.load_state_dict(saved)
    same = [
        torch.equal(mine["square_avg"].to_local(), its["square_avg"].to_local())
        and mine["square_avg"].to_local().untyped_storage().nbytes()
        <= its["square_avg"].to_local().untyped_storage().nbytes()
        for mine, its in zip(
            other.optimizer.state.values(), training.optimizer.state.values(), strict=True
        )
    ]
    dist.barrier()
    return all(same), lies_as_parameters(other.optimizer)
