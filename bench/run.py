"""Run the measurements on every backend and write bench/results.md."""

import datetime
import importlib.metadata
import os
import platform
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


def main():
    lines = [
        "# Results",
        "",
        f"Measured {datetime.date.today()} on {processor()}, {os.cpu_count()} cores, with "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
        + ". Made by `make bench`.",
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
