"""Run all checks that need an NVIDIA GPU, in one run of some minutes, and print one report.

    python bench/gpu.py         # on a machine with an NVIDIA GPU
    python bench/gpu.py --dry   # the same on the processor, with small sizes

It needs Linux, an NVIDIA driver, and a Python with torch for CUDA, Triton, jax[cuda12], Keras and
pytest. If this Python lacks one of them, the script creates a separate environment and downloads
them, some gigabytes, into ~/.cache/adadelta/gpu. If a part fails, the others still run, and the
exit status is 1.

With --dry the Triton kernels run in Triton's interpreter and JAX on the processor. That shows that
this script works. It shows nothing about the speed or the numbers of a GPU.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(
    os.environ.get("ADADELTA_ENVIRONMENTS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adadelta"
)
# The modules that are needed, with their names for pip.
NEEDED = {
    "torch": "torch",
    "triton": "triton",
    "jax": "jax[cuda12]",
    "jax_cuda12_plugin": "jax[cuda12]",
    "keras": "keras",
    "numba": "numba",
    "safetensors": "safetensors",
    "ml_dtypes": "ml-dtypes",
    "pytest": "pytest",
}
ONLY_ON_A_GPU = ("jax_cuda12_plugin",)


class Part(NamedTuple):
    """A part of the check: its name, its command, its settings, and its time limit."""

    what: str
    command: tuple[str, ...]
    settings: dict[str, str]
    seconds: int


def parts(python, is_dry):
    interpreter = {"TRITON_INTERPRET": "1"} if is_dry else {}
    pytest = (
        "-m",
        "pytest",
        "tests/kernels/test_cuda.py",
        "-q",
        "--rootdir=.",
        "-p",
        "no:cacheprovider",
    )
    # The tests of faults are for the interpreter: on a GPU each would be compiled several times.
    chosen = "TestNumbers" if is_dry else "TestNumbers or TestTable or vectors or as_it_is"
    keras = {"KERAS_BACKEND": "jax"}
    # Otherwise Keras takes most of a GPU's memory, which other parts need.
    keras["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if is_dry:
        keras |= {"JAX_PLATFORMS": "cpu", "ADADELTA_BENCH_SCALE": "0.01"}
    return [
        Part("the machine", (python, "-c", MACHINE), {}, 60),
        Part(
            f"the tests of torch's kernel, {'interpreted' if is_dry else 'compiled'}",
            (python, *pytest, "--config-file=python/pyproject.toml", "-k", chosen),
            {} if is_dry else {"ADADELTA_TEST_GPU": "1"},
            180,
        ),
        Part(
            "training with adadelta.torch",
            (python, "-c", TRAINING.replace("DEVICE", "cpu" if is_dry else "cuda")),
            {},
            60,
        ),
        Part(
            "a step beside torch's foreach and torch.compile",
            (python, "bench/cuda_step.py", *(["20000"] if is_dry else [])),
            interpreter,
            180,
        ),
        Part(
            "a step of Keras on JAX beside Keras' own",
            (python, "bench/cuda_keras.py", *(["20000"] if is_dry else [])),
            keras,
            120,
        ),
        Part("fit() of Keras on JAX beside Keras' own", (python, "bench/fit.py"), keras, 120),
    ]


MACHINE = """
import jax, torch
print("torch", torch.__version__, "for CUDA", torch.version.cuda)
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
print("jax", jax.__version__, jax.devices())
import adadelta
print(adadelta.kernel_info())
"""

# The losses differ by float32 rounding, which grows from step to step: by 0.2 % on the
# processor.
TRAINING = """
import torch
import adadelta, adadelta.torch

def trained(cls, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    model = model.to("DEVICE")
    optimizer = cls(model.parameters(), lr=1.0, **options)
    x = torch.sin(torch.arange(800.0)).reshape(100, 8).to("DEVICE")
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
    return loss.item(), optimizer

ours, optimizer = trained(adadelta.torch.Adadelta)
theirs, _ = trained(torch.optim.Adadelta)
print(f"loss after 200 steps: {ours:.6g}, with torch's own {theirs:.6g}")
print(adadelta.kernel_info(optimizer))
assert abs(ours - theirs) <= 0.05 * theirs, "they differ by more than 5 %"
"""


def find_python(is_dry):
    """Return a Python that has all modules: this one, or that of a new environment."""
    needed = [name for name in NEEDED if not (is_dry and name in ONLY_ON_A_GPU)]
    if not any(importlib.util.find_spec(name) is None for name in needed):
        return sys.executable
    if is_dry:
        missing = ", ".join(name for name in needed if importlib.util.find_spec(name) is None)
        raise SystemExit(f"This Python lacks {missing}.")
    home = ENVIRONMENTS / "gpu"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        print(f"Downloading torch, JAX and Keras for CUDA, some gigabytes, into {home}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "-q", *dict.fromkeys(NEEDED.values())]
        subprocess.run(pip, check=True)
        (home / "complete").touch()
    return str(python)


def run(part):
    """Run a part and show its output; return how it ended."""
    settings = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", **part.settings)
    settings["PYTHONPATH"] = str(ROOT / "python")
    print(f"\n## {part.what}\n", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run(
            part.command, cwd=ROOT, env=settings, stderr=subprocess.STDOUT, timeout=part.seconds
        )
        ending = "passed" if done.returncode == 0 else f"FAILED, exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        ending = f"FAILED, stopped after {part.seconds} s"
    except OSError as error:
        ending = f"FAILED, {error}"
    return f"{ending} ({time.monotonic() - start:.0f} s)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="on the processor, with small sizes")
    is_dry = parser.parse_args().dry
    if not is_dry and shutil.which("nvidia-smi") is None:
        raise SystemExit("There is no NVIDIA GPU: nvidia-smi is not found. See --dry.")
    label = "DRY RUN ON THE PROCESSOR: it shows nothing about a GPU and nothing about speed."
    if is_dry:
        print(label)
    endings = {part.what: run(part) for part in parts(find_python(is_dry), is_dry)}
    print("\n## Report\n")
    if is_dry:
        print(label)
    for what, ending in endings.items():
        print(f"- {what}: {ending}")
    return any(not ending.startswith("passed") for ending in endings.values())


if __name__ == "__main__":
    sys.exit(main())
