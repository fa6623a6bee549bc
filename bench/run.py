"""Run the measurements on every backend and write bench/results.md."""

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BACKENDS = ("jax", "tensorflow", "torch")
PACKAGES = ("keras", "jax", "tensorflow", "torch", "numpy")


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def import_seconds():
    """The median time that `import adadelta` takes a new Python, without starting that Python."""
    code = "import time; t = time.perf_counter(); import adadelta; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(7)]
    return statistics.median(float(run.stdout) for run in runs)


def main():
    lines = [
        "# Results",
        "",
        f"Measured {datetime.date.today()} on {processor()}, {os.cpu_count()} cores, with "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
        + ". Made by `make bench`.",
        "",
        f"`import adadelta` takes {import_seconds() * 1e3:.0f} ms; it imports no framework.",
        "",
        "## One step, as a ratio to Keras' own Adadelta in the same run",
        "",
        "Medians of turns in one process; below 1 is faster than Keras.",
        "",
        "| backend | mode | tensors | options | ratio | ours, ms | Keras', ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend in BACKENDS:
        environment = dict(os.environ, KERAS_BACKEND=backend)
        result = subprocess.run(
            [sys.executable, HERE / "keras_step.py"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(result.stdout, end="", flush=True)
        lines += [line for line in result.stdout.splitlines() if line.startswith("|")]
    (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
