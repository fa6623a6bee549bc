"""Time a fused step on an NVIDIA GPU, beside torch's Adadelta (also compiled) and memory speed.

    python bench/cuda_step.py [number of parameters, 200 million unless given]
    TRITON_INTERPRET=1 python bench/cuda_step.py 10000

A step of float32 parameters must read the parameter, gradient and both averages and write all but
the gradient: 28 bytes for each. The limit is the time of a copy of as many bytes on the device. All
take turns in one process; times are medians, measured by the device's own clock. Each parameter
needs 84 bytes of the GPU's memory, plus what torch's Adadelta needs temporarily. In Triton's
interpreter the script runs on the processor, where its times say nothing about a GPU.
"""

import importlib.metadata
import math
import os
import statistics
import sys
import time

import torch

from adadelta._core import rule
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import cuda

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
ROUNDS = 3 if IS_INTERPRETED else 30
WARM_UP = 1 if IS_INTERPRETED else 5
# Read: parameter, gradient, square_avg, acc_delta. Written: all but the gradient.
BYTES = 4 * (4 + 3)
OPTIONS = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
TOLD = Call(OPTIONS["lr"]), Options(OPTIONS["rho"], OPTIONS["eps"])


def rows_of(sizes, device):
    """Return parameters, gradients and averages of these sizes, as the kernel takes them."""
    return [
        Row(
            torch.randn(size, device=device),
            torch.randn(size, device=device),
            torch.zeros(size, device=device),
            torch.zeros(size, device=device),
        )
        for size in sizes
    ]


def torch_own(rows, compiled=False):
    """Return a step of torch.optim.Adadelta, on copies of the parameters."""
    parameters = [torch.nn.Parameter(row[0].clone()) for row in rows]
    for parameter, row in zip(parameters, rows, strict=True):
        parameter.grad = row[1]
    step = torch.optim.Adadelta(parameters, foreach=True, **OPTIONS).step
    return torch.compile(step) if compiled else step


def copy_of(count, device):
    """Return a copy that reads and writes, in total, the bytes of a step."""
    source = torch.randn(count * BYTES // 2 // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def seconds(function):
    if IS_INTERPRETED:
        began = time.perf_counter()
        function()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def medians(functions):
    """Return the median seconds of each function, in turns; NaN for one that failed."""
    times = {name: [] for name in functions}
    failed = {}
    for turn in range(WARM_UP + ROUNDS):
        for name, function in functions.items():
            if name in failed:
                continue
            try:
                taken = seconds(function)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            if turn >= WARM_UP:
                times[name].append(taken)
    for name, reason in failed.items():
        print(f"{name} failed: {reason[:300]}")
    return {
        name: statistics.median(taken) if taken and name not in failed else math.nan
        for name, taken in times.items()
    }


def check_the_same():
    """Compare one step of the kernel with the rule in torch's operators on this device."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        count = 10_003 if IS_INTERPRETED else 1_000_003
        row = [torch.rand(count, dtype=dtype, device=DEVICE) for _ in range(4)]
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
    reason = None if IS_INTERPRETED else cuda.reason_against_dtype("float32")
    if reason is not None:
        raise SystemExit(f"Nothing was measured: {reason}.")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000_000
    where = "Triton's interpreter" if IS_INTERPRETED else torch.cuda.get_device_name()
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "triton"))
    print(f"{where}, {', '.join(versions)}\n")
    check_the_same()
    columns = ["tensors", "ours, ms", "foreach, ms", "compiled, ms", "copy, ms"]
    columns += ["ours / copy", "foreach / ours", "compiled / ours"]
    print(f"\n| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for tensors in (1, 10 if IS_INTERPRETED else 1000):
        rows = rows_of([count // tensors] * tensors, DEVICE)
        times = medians(
            {
                "ours": lambda rows=rows: cuda.step(rows, *TOLD),
                "foreach": torch_own(rows),
                "compiled": torch_own(rows, compiled=True),
                "copy": copy_of(count, DEVICE),
            }
        )
        ours = times["ours"]
        cells = [f"{tensors} of {count // tensors:,}"]
        cells += [f"{seconds * 1e3:.2f}" for seconds in times.values()]
        ratios = ours / times["copy"], times["foreach"] / ours, times["compiled"] / ours
        print(f"| {' | '.join([*cells, *(f'{ratio:.2f}' for ratio in ratios)])} |", flush=True)
        del rows
        if not IS_INTERPRETED:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
