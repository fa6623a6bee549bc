"""The fused step on Python's threads and on torch's own."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
from kernel_tools import arguments, assert_same, tensors
from test_cpu import run

from adadelta._kernels import layout, threads
from adadelta._kernels.threads import PythonThreads


def torch_threads(count):
    import torch

    from adadelta._kernels import torch_threads

    torch.set_num_threads(count)
    return torch_threads.threads()


KINDS = [
    PythonThreads,
    pytest.param(
        torch_threads,
        marks=pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
    ),
]
SIZES = [200_003, 5, 70_000]


@pytest.fixture(autouse=True)
def _threads_of_torch_as_before():
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def stepped(threads):
    settings, own = arguments("float32", {})
    rows = tensors("float32", SIZES, {}, np.random.default_rng(4))
    run("float32", rows, settings, own, threads)
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_does_not_matter(kind):
    wanted = stepped(PythonThreads(1))
    for count in (1, 2, 3, 64):
        assert_same(stepped(kind(count)), wanted)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch may have other threads")
def test_torch_steps_on_its_own_threads():
    threads = torch_threads(3)
    assert type(threads).__name__ == "TorchThreads"
    assert threads.number == 3


@pytest.mark.parametrize("kind", KINDS)
def test_several_threads_may_call_at_once(kind):
    wanted = stepped(PythonThreads(1))
    threads = kind(2)
    results = []

    def call():
        for _ in range(20):
            results.append(stepped(threads))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 80
    for rows in results:
        assert_same(rows, wanted)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("fork", ["os.fork()", "ctypes.CDLL(None).fork()"])
def test_the_first_step_may_be_that_of_a_child(fork):
    """Torch's threads belong to the parent, and none of our code was told of the fork."""
    code = f"""
import ctypes, os
import torch
import adadelta.torch
weights = [torch.ones(1000, requires_grad=True) for _ in range(100)]
for weight in weights:
    # As large as torch itself takes one thread for.
    weight.grad = torch.ones(1000)
optimizer = adadelta.torch.Adadelta(weights)
(torch.ones(4_000_000) + 1).sum()
if {fork} == 0:
    optimizer.step()
    print("changed" if weights[0][0] < 1 else "unchanged", flush=True)
    os._exit(0)
os.wait()
"""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "changed"


def _interrupt_main(thread):
    signal.pthread_kill(thread, signal.SIGINT)


def _raise_into(thread):
    error = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


@pytest.fixture
def interruptible():
    """Let SIGINT raise KeyboardInterrupt, which a shell disables in background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
@pytest.mark.parametrize("interrupt", [_interrupt_main, _raise_into])
@pytest.mark.usefixtures("interruptible")
def test_nobody_writes_after_an_interrupted_step(interrupt):
    """Use Python's threads, none of which the caller waits for in C."""
    settings, own = arguments("float32", {})
    generator = np.random.default_rng(4)
    size = 2_000_000
    row = [generator.normal(size=size).astype("float32") for _ in range(2)]
    row += [generator.random(size).astype("float32") for _ in range(2)]
    rows = [[*row, None, None]]
    thread = threading.get_ident()
    hits = 0
    for call in range(40):
        before, after = row[0].copy(), None
        timer = threading.Timer(0.0003 * call, interrupt, [thread])
        try:
            timer.start()
            try:
                run("float32", rows, settings, own, PythonThreads(4))
            finally:
                after = row[0].copy()
            timer.join()
            for _ in range(1000):
                pass
        except KeyboardInterrupt:
            hits += 1
        if after is not None:
            time.sleep(0.002)
            np.testing.assert_array_equal(row[0], after)
            changed = (after != before).mean()
            assert changed == 0 or changed > 0.9
    assert hits > 10


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_step_waits_for_slow_helpers(monkeypatch):
    lock, written = threading.Lock(), []

    def slow(control):
        shared = (ctypes.c_int64 * layout.CONTROL).from_address(control)
        while True:
            with lock:
                piece = shared[layout.TAKEN]
                shared[layout.TAKEN] += 1
            if piece >= shared[layout.PIECES]:
                return
            time.sleep(0.02)
            with lock:
                written.append(piece)
                shared[layout.DONE] += 1

    monkeypatch.setattr(threads, "worker", lambda kernel: slow)
    settings, own = arguments("float32", {})
    rows = tensors("float32", [9 * layout.PIECE], {}, np.random.default_rng(4))
    timer = threading.Timer(0.01, _interrupt_main, [threading.get_ident()])
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        run("float32", rows, settings, own, PythonThreads(3))
    assert len(written) == 9
    time.sleep(0.05)
    assert len(written) == 9


def test_where_no_thread_can_be_started_the_caller_does_it_alone(monkeypatch):
    class Full:
        def submit(self, work):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", Full)
    wanted = stepped(PythonThreads(1))
    assert_same(stepped(PythonThreads(3)), wanted)


def _in_child(kind, queue):
    queue.put(stepped(kind(2))[0][0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_child_of_fork_can_step_too(kind):
    # The parent has started threads, of either kind, which the child does not have.
    wanted = stepped(kind(2))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(kind, queue))
    child.start()
    try:
        assert np.array_equal(queue.get(timeout=60), wanted[0][0])
    finally:
        child.kill()
        child.join()
