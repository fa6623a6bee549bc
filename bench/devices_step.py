"""Time a step on several processes with FSDP2, beside torch's foreach Adadelta; and its memory.

    python bench/devices_step.py

Each process has its shards of the parameters, on one thread, and all run on the same machine. A
time is that of the slowest process. The memory of a process is the peak resident memory that a
step adds to parameters and gradients: the state, and what the step needs temporarily.
"""

import multiprocessing
import tempfile
import time

from measure import HEADER, row, scaled

PROCESSES = 2
ROUNDS = 15
SIZES = (scaled(8_000_000), scaled(64_000_000))
WIDTH = 2000


def optimizers():
    import torch

    import adadelta.torch

    return {
        "ours": lambda params: adadelta.torch.Adadelta(params),
        "ours, skip_nonfinite": lambda params: adadelta.torch.Adadelta(params, skip_nonfinite=True),
        "torch's foreach": lambda params: torch.optim.Adadelta(params, foreach=True),
    }


def model(elements):
    """Return a model of square layers, sharded, with a gradient for each parameter."""
    import torch
    from torch.distributed.fsdp import fully_shard

    rows = max(PROCESSES, elements // (4 * WIDTH))
    made = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, rows, bias=False) for _ in range(4)))
    for layer in made:
        fully_shard(layer)
    fully_shard(made)
    for param in made.parameters():
        param.grad = torch.ones_like(param.detach())
    return made


def times(elements):
    """Return the seconds of each step, with the contenders in turns."""
    import torch.distributed as dist

    steps = {}
    for name, make in optimizers().items():
        held = model(elements)
        steps[name] = make(held.parameters()).step
    found = {name: [] for name in steps}
    for turn in range(ROUNDS + 2):
        for name, step in steps.items():
            dist.barrier()
            start = time.perf_counter()
            step()
            if turn >= 2:
                found[name].append(time.perf_counter() - start)
    return found


def memory(name, elements):
    """Return the MiB of this process' parameters and state, and by how much two steps grow it."""
    # What the first step loads does not belong to the tensors.
    optimizers()[name](model(1).parameters()).step()
    held = model(elements)
    optimizer = optimizers()[name](held.parameters())
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    optimizer.step()
    optimizer.step()
    growth = resident("VmHWM") - before
    params = [param.to_local() for param in held.parameters()]
    state = [
        its_state[slot].to_local()
        for its_state in optimizer.state.values()
        for slot in ("square_avg", "acc_delta")
    ]
    return *(sum(it.nbytes for it in them) / 2**20 for them in (params, state)), growth


def resident(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024


def work(rank, path, function, arguments, results):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=PROCESSES)
    results.put(function(*arguments))
    dist.barrier()
    dist.destroy_process_group()


def of_all(function, *arguments):
    """Return what a function returns in each of the processes."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(
                target=work, args=(rank, f"{folder}/store", function, arguments, results)
            )
            for rank in range(PROCESSES)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a process ended with status {process.exitcode}")
        return [results.get() for _ in started]


def main():
    elements = SIZES[0]
    found = of_all(times, elements)
    slowest = {name: list(map(max, *(it[name] for it in found))) for name in found[0]}
    peer = slowest["torch's foreach"]
    print(f"\n### torch, FSDP2 on {PROCESSES} processes: {elements:,} float32 parameters\n")
    print("\n".join(HEADER))
    for name, seconds in slowest.items():
        print(row(name, seconds, None, None if seconds is peer else peer))
    print(f"\n### torch, FSDP2 on {PROCESSES} processes: MiB of the largest process\n")
    print("| parameters | optimizer | its parameters | its state | growth in two steps |")
    print("|---|---|---|---|---|")
    for elements in SIZES:
        for name in optimizers():
            sizes = [f"{max(it):.0f}" for it in zip(*of_all(memory, name, elements), strict=True)]
            print(f"| {elements:,} | {name} | {' | '.join(sizes)} |", flush=True)


if __name__ == "__main__":
    main()
