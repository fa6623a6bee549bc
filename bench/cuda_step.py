"""One fused step on an NVIDIA GPU, against torch's own Adadelta and against the speed of memory.

    python bench/cuda_step.py [number of parameters, 200 million unless given]

A step of float32 parameters must read the parameter, gradient and both averages and write all but
the gradient: 28 bytes for each. The limit is the time of a copy on the device that moves as many.
All three take turns in one process; times are medians, taken by the device's own clock. For each
parameter it needs 56 bytes of the GPU's memory, and what torch's Adadelta needs in between.
"""

import importlib.metadata
import statistics
import sys

import torch

from adadelta._core import rule
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import cuda

ROUNDS = 30
WARM_UP = 5
# Read: parameter, gradient, square_avg, acc_delta. Written: all but the gradient.
BYTES = 4 * (4 + 3)
OPTIONS = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
TOLD = Call(OPTIONS["lr"]), Options(OPTIONS["rho"], OPTIONS["eps"])


def rows_of(sizes, device):
    """Parameters, gradients and averages of these sizes, as the kernel takes them."""
    return [
        Row(
            torch.randn(size, device=device),
            torch.randn(size, device=device),
            torch.zeros(size, device=device),
            torch.zeros(size, device=device),
        )
        for size in sizes
    ]


def torch_own(rows):
    """A step of torch.optim.Adadelta with foreach, on copies of the parameters."""
    parameters = [torch.nn.Parameter(row[0].clone()) for row in rows]
    for parameter, row in zip(parameters, rows, strict=True):
        parameter.grad = row[1]
    return torch.optim.Adadelta(parameters, foreach=True, **OPTIONS).step, parameters


def copy_of(count, device):
    """A copy that reads and writes, together, the bytes of a step."""
    source = torch.randn(count * BYTES // 2 // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def seconds(function):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def medians(functions):
    times = {name: [] for name in functions}
    for turn in range(WARM_UP + ROUNDS):
        for name, function in functions.items():
            taken = seconds(function)
            if turn >= WARM_UP:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def check_the_same(device):
    """How one step of the kernel compares with the rule on this GPU; tests can't show it."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        row = [torch.rand(1_000_003, dtype=dtype, device=device) for _ in range(4)]
        change, *averages = rule.update(
            *(row[1], row[2], row[3]), OPTIONS["rho"], OPTIONS["eps"], torch.sqrt
        )
        expected = row[0] - OPTIONS["lr"] * change, *averages
        cuda.step([Row(*row)], *TOLD)
        found = row[0], row[2], row[3]
        same = [torch.mean((a == b).double()) for a, b in zip(found, expected, strict=True)]
        furthest = [
            torch.max((a - b).abs() / b.abs().clamp_min(1e-30))
            for a, b in zip(found, expected, strict=True)
        ]
        print(
            f"{dtype}: {float(min(same)):.6%} of the numbers are the rule's bit for bit; "
            f"the furthest is off by {float(max(furthest)):.1e}"
        )


def main():
    reason = cuda.reason_against_dtype("float32")
    if reason is not None:
        raise SystemExit(f"Nothing was measured: {reason}.")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000_000
    device = torch.device("cuda")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "triton"))
    print(f"{torch.cuda.get_device_name()}, {', '.join(versions)}\n")
    check_the_same(device)
    print("\n| tensors | ours, ms | foreach, ms | copy, ms | ours / copy | foreach / ours |")
    print("|---|---|---|---|---|---|")
    for tensors in (1, 1000):
        rows = rows_of([count // tensors] * tensors, device)
        theirs, _parameters = torch_own(rows)
        times = medians(
            {
                "ours": lambda rows=rows: cuda.step(rows, *TOLD),
                "theirs": theirs,
                "copy": copy_of(count, device),
            }
        )
        ours, foreach, copy = times["ours"], times["theirs"], times["copy"]
        row = [f"{tensors} of {count // tensors:,}"]
        row += [f"{time * 1e3:.2f}" for time in (ours, foreach, copy)]
        print(f"| {' | '.join([*row, f'{ours / copy:.2f}', f'{foreach / ours:.2f}'])} |")
        del rows, theirs, _parameters
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
