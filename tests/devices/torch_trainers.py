"""Shared by the programs with Accelerate and Lightning: options, and half of the examples."""

import torch
from torch.utils.data import TensorDataset
from torch_training import BAD_STEP, BATCH, STEPS, Training, global_batch

HALF = STEPS // 2
OPTIONS = {"weight_decay": 0.1, "skip_nonfinite": True}
CLIP = 0.5


def start():
    """Return a training in this process, whose model and optimizer a trainer can use."""
    torch.set_num_threads(1)
    return Training(None, OPTIONS)


def examples(first):
    """Return the examples of half of the steps; in `BAD_STEP`, one process has an infinite one."""
    batches = [global_batch(step, torch.float64) for step in range(first, first + HALF)]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if first <= BAD_STEP < first + HALF:
        inputs[(BAD_STEP - first) * BATCH] = torch.inf
    return TensorDataset(inputs, targets)
