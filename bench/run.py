"""Run the measurements on every backend and write bench/results.md.

    python bench/run.py

It needs no network: `fit()` is measured on random images unless ADADELTA_MNIST names a file with
MNIST. With ADADELTA_BENCH_SCALE=0.001 sizes are a thousandth and results.md stays as it is: that
shows in little time that everything runs.
"""

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import digits
from measure import SCALE
from targets import Marker

HERE = Path(__file__).resolve().parent
BACKENDS = ("jax", "tensorflow", "torch")
PACKAGES = ("keras", "jax", "tensorflow", "torch", "numpy")
# BrainPy compiles only with the newest JAX.
LATEST = (HERE.parent / "environments" / "use.sh", "latest", "python")


class Measurement(NamedTuple):
    """A script, its argument, and the backend of Keras that it runs on."""

    script: str
    framework: str = ""
    backend: str = ""

    def command(self, folder):
        program = (sys.executable,)
        if self.script.endswith(".R"):
            program = ("Rscript",)
        elif self.framework == "brainpy":
            program = LATEST
        return [*program, folder / self.script, *filter(None, [self.framework])]

    def output(self, folder=HERE, marker=None, **settings):
        """Return its output; with a marker its lines are marked, and printed as they arrive."""
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", **settings)
        if self.backend:
            environment["KERAS_BACKEND"] = self.backend
        command = self.command(folder)
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        lines = []
        for line in process.stdout:
            if marker is not None:
                line = marker.marked(line)
                print(line, end="", flush=True)
            lines.append(line)
        if process.wait():
            raise FailedError(f"{' '.join(map(str, command))} failed")
        return "".join(lines)


class FailedError(SystemExit):
    """A measurement ended with an error."""


MEASUREMENTS = [
    Measurement("numpy_step.py"),
    *(
        Measurement(script, backend=backend)
        for script in ("keras_step.py", "fit.py", "monitor.py", "memory.py", "first_step.py")
        for backend in BACKENDS
    ),
    Measurement("jax_devices.py", backend="jax"),
    *(
        Measurement(script, framework)
        for script in ("frameworks_step.py", "frameworks_training.py")
        for framework in ("torch", "tf_keras", "optax", "brainpy")
    ),
    Measurement("sparse_step.py", "torch"),
    Measurement("sparse_step.py", "tensorflow", backend="tensorflow"),
    Measurement("devices_step.py"),
    Measurement("from_r.R", backend="jax"),
]


def check_what_is_needed():
    """Print what `fit()` is measured on, and stop if something is missing that shows only later."""
    missing = []
    if digits.PATH:
        # Measurements run in another folder.
        os.environ["ADADELTA_MNIST"] = str(Path(digits.PATH).resolve())
        if not Path(digits.PATH).is_file():
            missing.append(f"MNIST at {digits.PATH}, which ADADELTA_MNIST names and is not there")
    r_code = "quit(status = !requireNamespace('adadelta', quietly = TRUE))"
    if not succeeds("Rscript", "-e", r_code):
        missing.append("the R package adadelta (make install)")
    python_code = "import importlib.metadata; importlib.metadata.version('brainpy')"
    if not succeeds(*LATEST, "-c", python_code):
        missing.append("BrainPy in the environment `latest` (environments/setup.sh latest test)")
    if missing:
        raise SystemExit(f"The measurements need {', and '.join(missing)}.")
    choice = "" if digits.PATH else "; to use MNIST, set ADADELTA_MNIST to the path of mnist.npz"
    print(f"fit() is measured on {digits.NAME}{choice}.")
    if SCALE != 1:
        print(f"Sizes are {SCALE:g} times those that the lines name, and nothing is written.")
    sys.stdout.flush()


def succeeds(*command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def import_seconds():
    """Return the median time of `import adadelta` in a new Python, without Python's own start."""
    code = "import time; t = time.perf_counter(); import adadelta; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(7)]
    return statistics.median(float(run.stdout) for run in runs)


def main():
    check_what_is_needed()
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    head = f"""# Results

Measured {datetime.date.today()} on {processor()}, {os.cpu_count()} cores, with {packages}. Made by
`make bench`.

Times are medians of turns in one process, with the distance between the quartiles as their
spread. The limit is the time that a plain loop takes in the same turns to stream the bytes that a
step must read and write (28 for each float32 parameter, 40 with all options, 12 inside an
accumulation window, 56 in float64, 22 in half precision). All options are `global_clipnorm`,
`weight_decay`, `use_ema` and `loss_scale_factor`. The peer is Keras' own Adadelta where no other
is named. `fit()` is measured on {digits.NAME}.

Each line with a target (`targets.py`) says whether it is reached, or missed and why. The other
lines are what those are measured beside.

`import adadelta` takes {import_seconds() * 1e3:.0f} ms; it imports no framework.
"""
    notes = (HERE / "notes.md").read_text()
    texts = []
    marker = Marker()
    for measurement in MEASUREMENTS:
        texts.append(measurement.output(marker=marker))
        # Written after each measurement, so that a run that is stopped keeps its results.
        if SCALE == 1:
            text = head + "".join([*texts, *not_measured(marker)])
            (HERE / "results.md").write_text(f"{text}\n{notes}")
    print("".join(not_measured(marker)), end="")


def not_measured(marker):
    missing = marker.not_measured()
    return ["\n### Not measured\n\n", *missing] if missing else []


if __name__ == "__main__":
    main()
