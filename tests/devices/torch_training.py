"""Train a small model in one process or in several, and return all parameters and their state."""

import functools
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
)

import adadelta.torch

STEPS = 30
# The step whose gradient is not finite, if a case has one.
BAD_STEP = 7
# Divisible by 2, 3 and 4, the numbers of processes.
BATCH = 12


def model(dtype):
    """Return a model whose shards on two or four processes are uneven, and some empty."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))
    return made.to(dtype)


def global_batch(step, dtype):
    """Return the inputs and targets of a step, for all processes together."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(BATCH, 5, generator=generator, dtype=dtype)
    return inputs, inputs.sum(1, keepdim=True)


def ddp(made):
    return nn.parallel.DistributedDataParallel(made)


def fsdp1(made):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(made, use_orig_params=True, device_id=torch.device("cpu"))


def fsdp1_flat(made):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(made, device_id=torch.device("cpu"))


def fsdp2(made, mesh=None):
    from torch.distributed.fsdp import fully_shard

    fully_shard(made[0], mesh=mesh)
    return fully_shard(made, mesh=mesh)


def tensor_parallel(made, mesh=None):
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    # The last layer stays plain, so that DTensors and plain tensors are mixed.
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(made, _mesh(dist.get_world_size()) if mesh is None else mesh, plan)


def hybrid(made):
    """Return the model sharded over two processes, and replicated on as many others."""
    return fsdp2(made, _mesh(dist.get_world_size() // 2, 2))


def two_dimensions(made):
    """Return the model tensor-parallel over two processes, and sharded over as many others."""
    mesh = _mesh(dist.get_world_size() // 2, 2)
    return fsdp2(tensor_parallel(made, mesh["b"]), mesh["a"])


@functools.cache
def _mesh(*sizes):
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", sizes, mesh_dim_names=("a", "b")[: len(sizes)])


ENGINES = {
    "ddp": ddp,
    "zero": ddp,
    "fsdp1": fsdp1,
    "fsdp1_flat": fsdp1_flat,
    "fsdp2": fsdp2,
    "tensor_parallel": tensor_parallel,
    "hybrid": hybrid,
    "two_dimensions": two_dimensions,
}


class Training:
    """A model and its optimizer, in one process or as one of several.

    Args:
        engine: One of `ENGINES`, which distribute the work, or None in one process.
        options: Options of the optimizer; "dtype" and "clip" are options of the training.

    """

    def __init__(self, engine=None, options=None):
        options = dict(options or {})
        self.engine, self.clip = engine, options.pop("clip", None)
        dtype = getattr(torch, options.pop("dtype", "float64"))
        if options.pop("rate_is_tensor", False):
            options["lr"] = torch.tensor(options["lr"], dtype=dtype)
        self.sign = -1 if options.get("maximize") else 1
        self.dtype = dtype
        with torch.random.fork_rng():
            self.model = made = model(dtype)
        if engine:
            self.model = ENGINES[engine](made)
        if engine == "zero":
            from torch.distributed.optim import ZeroRedundancyOptimizer

            self.optimizer = ZeroRedundancyOptimizer(
                made.parameters(), optimizer_class=adadelta.torch.Adadelta, **options
            )
        else:
            self.optimizer = adadelta.torch.Adadelta(self.model.parameters(), **options)
        self.step = 0

    @property
    def own(self):
        """Return the optimizer that makes the step."""
        return self.optimizer.optim if self.engine == "zero" else self.optimizer

    def train(self, steps=STEPS, bad=False):
        """Train on this process' share of the batch."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            inputs, targets = self._batch()
            loss = (self.model(inputs) - targets).square().mean()
            (self.sign * loss).backward()
            if bad and self.step == BAD_STEP:
                self._spoil()
            if self.clip:
                clip = nn.utils.clip_grad_norm_
                if self.engine in ("fsdp1", "fsdp1_flat"):
                    self.model.clip_grad_norm_(self.clip)
                else:
                    clip(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.step += 1
        return self

    def _batch(self):
        inputs, targets = global_batch(self.step, self.dtype)
        if self.engine in (None, "tensor_parallel"):
            return inputs, targets
        parts, part = dist.get_world_size(), dist.get_rank()
        if self.engine == "two_dimensions":
            parts, part = parts // 2, part // 2
        share = slice(part * BATCH // parts, (part + 1) * BATCH // parts)
        return inputs[share], targets[share]

    def _spoil(self):
        """Make one element of the gradient infinite; with shards, in the first process only."""
        if self.engine in (None, "ddp", "zero") or dist.get_rank() == 0:
            gradient = next(it.grad for it in self.model.parameters() if it.grad is not None)
            with torch.no_grad():
                getattr(gradient, "_local_tensor", gradient).view(-1)[0] = float("inf")

    def result(self):
        """Return the numbers of steps made and skipped, and each parameter with its averages."""
        params, state = self._whole()
        if dist.is_initialized() and dist.get_rank():
            return {"skipped": self.own.skipped}
        arrays = {
            name: [
                it.detach().numpy().copy()
                for it in (params[name], state[name]["square_avg"], state[name]["acc_delta"])
            ]
            for name in state
        }
        step = {float(its_state["step"]) for its_state in state.values()}
        return {"arrays": arrays, "step": step, "skipped": self.own.skipped}

    def _whole(self):
        """Return parameters and their state by name; in the first process, as whole tensors."""
        if self.engine is None or self.engine == "zero":
            plain = self.model if self.engine is None else self.model.module
            if self.engine == "zero":
                self.optimizer.consolidate_state_dict(to=0)
                if dist.get_rank():
                    return None, None
            saved = self.optimizer.state_dict()["state"]
            named = dict(plain.named_parameters())
            return named, {name: saved[place] for place, name in enumerate(named)}
        # No `cpu_offload`: with it, torch 2.13 crashes if FSDP1 runs on the processor.
        options = StateDictOptions(full_state_dict=True)
        # FSDP1 is deprecated.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            params = get_model_state_dict(self.model, options=options)
            state = get_optimizer_state_dict(self.model, self.optimizer, options=options)
        return params, state.get("state")


def trained(rank, engine, options, bad=False):
    """Return the result of a whole training."""
    return Training(engine, options).train(bad=bad).result()
