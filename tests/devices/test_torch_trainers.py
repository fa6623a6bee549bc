"""adadelta.torch with Accelerate and Lightning: two processes, saved and continued by two and one.

Both are in an environment of their own, on top of the one that runs the tests.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_trainers import CLIP, OPTIONS
from torch_training import STEPS, trained

import adadelta

HERE = Path(__file__).resolve().parent
PACKAGE = Path(adadelta.__file__).resolve().parent.parent
PYTHON = Path(sys.prefix, "trainers", "bin", "python")
# Two processes need 10 seconds. When torchrun is terminated, it gives its processes 30 seconds
# before it kills them; they are not in its process group.
TIME_LIMIT, GRACE = 240, 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason="no Accelerate and Lightning here: environments/setup.sh stock trainers",
    ),
]


def accelerate(verb, folder, processes):
    program = [HERE / "torch_accelerate.py", verb, folder]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone"]
        program = [*torchrun, f"--nproc-per-node={processes}", *program]
    launch(program)


def lightning(verb, folder, processes):
    launch([HERE / "torch_lightning.py", verb, folder, str(processes)])


def launch(arguments):
    """Run a program with the trainers' Python; at the time limit, end it and its processes."""
    process = subprocess.Popen(
        [PYTHON, *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"It took more than {TIME_LIMIT} seconds:\n{output[-5000:]}")
    assert process.returncode == 0, output[-5000:]


@pytest.mark.parametrize("trainer", [accelerate, lightning])
def test_two_processes_are_continued_by_two_and_by_one(trainer, tmp_path):
    trainer("save", tmp_path, 2)
    expected = trained(0, None, {**OPTIONS, "clip": CLIP}, bad=True)
    for processes in (2, 1):
        trainer("continue", tmp_path, processes)
        results = [
            torch.load(tmp_path / f"{processes}-{rank}.pt", weights_only=False)
            for rank in range(processes)
        ]
        assert {it["skipped"] for it in results} == {expected["skipped"]} == {1}
        assert results[0]["step"] == expected["step"] == {STEPS - 1}
        for name, arrays in expected["arrays"].items():
            for found, array in zip(results[0]["arrays"][name], arrays, strict=True):
                # Processes are summed in a different order.
                np.testing.assert_allclose(found, array, rtol=1e-12, atol=1e-12, err_msg=name)
