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


def output(command, **settings):
    """What a measurement prints; it is shown as it comes."""
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", **settings)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return "".join(lines)


def measurements():
    """What each script prints, in the order of the results."""
    yield output([sys.executable, "numpy_step.py"])
    for script in ("keras_step.py", "fit.py", "monitor.py", "memory.py", "first_step.py"):
        for backend in BACKENDS:
            yield output([sys.executable, script], KERAS_BACKEND=backend)
    for script in ("frameworks_step.py", "frameworks_training.py"):
        for framework in ("torch", "tf_keras", "optax"):
            yield output([sys.executable, script, framework])
        # BrainPy compiles only with the newest JAX.
        latest = [HERE.parent / "environments" / "use.sh", "latest", "python"]
        yield output([*latest, script, "brainpy"])
    yield output(["Rscript", "from_r.R"], KERAS_BACKEND="jax")


def main():
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    head = f"""# Results

Measured {datetime.date.today()} on {processor()}, {os.cpu_count()} cores, with {packages}. Made by
`make bench`.

Times are medians of turns in one process, with the distance between the quartiles as their
spread. The limit is the time that a plain loop takes in the same turns to stream the bytes that a
step must read and write (28 for each float32 parameter, 40 with all options, 12 inside an
accumulation window, 56 in float64, 22 in half precision). All options are `global_clipnorm`,
`weight_decay`, `use_ema` and `loss_scale_factor`. The peer is Keras' own Adadelta where no other
is named.

`import adadelta` takes {import_seconds() * 1e3:.0f} ms; it imports no framework.
"""
    notes = (HERE / "notes.md").read_text()
    texts = []
    # After each of them, so that a run that is stopped has not been for nothing.
    for text in measurements():
        texts.append(text)
        (HERE / "results.md").write_text(head + "".join(texts) + "\n" + notes)


if __name__ == "__main__":
    main()
