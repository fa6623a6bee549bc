"""Write choosing.json: the results of four optimizers on three tasks, shown in choosing.Rmd.

    python vignettes/choosing.py [--minutes N] [--mnist FILE]

Each optimizer is tuned with the same effort: 7 learning rates, each held constant and decreasing,
on a validation split. The best of these 14 is then trained with five seeds and scored on a test
split. Adadelta is also run with one argument changed at a time. Finished runs are kept in the file
and not run again, so the program can be stopped at any time; `--minutes` stops it by itself.
"""

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

FILE = Path(__file__).resolve().parent / "choosing.json"
PACKAGES = ("keras", "jax", "numpy")

# Seven rates for each, a factor of about 3 apart, around its usual rate.
RATES = {
    "Adadelta": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    "Adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "AdamW": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "SGD with momentum": (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0),
}
TUNING_SEED = 0
TEST_SEEDS = (1, 2, 3, 4, 5)

# Changes to Adadelta, one at a time; otherwise the rate is a constant 1 and the rest the defaults.
VARIED: dict[str, tuple[float, ...]] = {
    "rate": (0.001, 0.01, 0.1, 1.0, 10.0),
    "rho": (0.5, 0.9, 0.95, 0.99, 0.999),
    "epsilon": (1e-9, 1e-7, 1e-5, 1e-3, 1e-1),
}
VARIED_SEEDS = (1, 2, 3)
BASE = {"rate": 1.0, "rho": 0.95, "epsilon": 1e-7}


def make_optimizer(name: str, rate: float, **arguments: float) -> Any:
    """Return an optimizer with the given arguments, and its defaults for the others."""
    import keras

    import adadelta

    if name == "Adadelta":
        return adadelta.Adadelta(rate, **arguments)
    if name == "SGD with momentum":
        return keras.optimizers.SGD(rate, momentum=0.9)
    return getattr(keras.optimizers, name)(rate)


# ------------------------------------------------------------------ the tasks


@dataclasses.dataclass
class Task:
    """A data set in three parts, a network for it, and a score for its predictions."""

    parts: dict[str, tuple[np.ndarray, np.ndarray]]  # train, validation and test
    layers: Callable[[], list[Any]]
    loss: Any
    score: Callable[[np.ndarray, np.ndarray], float]  # of predictions and truth; lower is better
    batch: int
    epochs: int


def from_r(code: str, needs: str) -> str:
    """Return what an R program writes to the file `path`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        result = subprocess.run(
            ["Rscript", "-e", f"path <- '{path}'; {code}"], capture_output=True, text=True
        )
        if result.returncode:
            sys.exit(f"This needs R with the package {needs}: {result.stderr.strip()}")
        return path.read_text("utf-8")


def cut(x: np.ndarray, y: np.ndarray, *sizes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return a train, a validation and a test part of these sizes, drawn at random."""
    order = np.random.default_rng(1).permutation(len(x))
    places = np.split(order, np.cumsum(sizes))
    return {
        part: (x[place], y[place])
        for part, place in zip(("train", "validation", "test"), places, strict=False)
    }


def diamonds() -> Task:
    """Predict the logarithm of a diamond's price from its size and quality. Score: dollars off."""
    from keras import layers

    text = from_r("write.csv(ggplot2::diamonds, path, row.names = FALSE)", "ggplot2")
    names, *rows = (line.replace('"', "").split(",") for line in text.splitlines())
    column = dict(zip(names, np.array(rows).T, strict=True))
    sizes = np.stack([column[name].astype(float) for name in ("carat", "x", "y", "z")], axis=1)
    measured = (sizes > 0).all(axis=1)  # 20 diamonds lack a measurement
    columns = [np.log(sizes[measured])]
    for name in ("cut", "color", "clarity"):
        values = column[name][measured]
        columns.append((values[:, None] == np.unique(values)).astype(float))
    x = np.concatenate(columns, axis=1)
    price = np.log(column["price"][measured].astype(float))[:, None]
    parts = cut(x, price, 12_000, 4_000, 10_000)
    x, y = parts["train"]
    middle, spread, center, width = x.mean(0), x.std(0), y.mean(), y.std()

    def dollars_off(predicted: np.ndarray, truth: np.ndarray) -> float:
        # A network that diverged can predict prices that overflow.
        with np.errstate(over="ignore"):
            apart = np.exp(predicted.astype(float) * width + center) - np.exp(
                truth * width + center
            )
        return float(np.abs(apart).mean())

    return Task(
        parts={
            name: (((x - middle) / spread).astype("float32"), (y - center) / width)
            for name, (x, y) in parts.items()
        },
        layers=lambda: [
            layers.Input((x.shape[1],)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
        ],
        loss="mse",
        score=dollars_off,
        batch=64,
        epochs=12,
    )


def digits(path: str) -> Task:
    """Recognize the digit in an image of MNIST. Score: percent of images with a wrong label."""
    from keras import layers

    with np.load(path) as arrays:
        x, y = (np.concatenate([arrays[f"{it}_train"], arrays[f"{it}_test"]]) for it in "xy")
    # The test images come from the 10,000 that MNIST keeps for testing.
    parts = cut(x[:60_000], y[:60_000], 10_000, 5_000)
    parts["test"] = x[60_000:], y[60_000:]
    return Task(
        parts={
            name: (x.reshape(len(x), -1).astype("float32") / 255, y.astype("int32"))
            for name, (x, y) in parts.items()
        },
        layers=lambda: [
            layers.Input((784,)),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        loss=from_logits(),
        score=lambda predicted, truth: float(100 * (predicted.argmax(-1) != truth).mean()),
        batch=100,
        epochs=10,
    )


def sentences() -> Task:
    """Predict the next character of an English sentence. Score: bits for each character."""
    from keras import layers

    text = from_r("writeLines(stringr::sentences, path, useBytes = TRUE)", "stringr")
    length = 48
    lines = [line.lower() for line in text.splitlines()]
    # 0 pads shorter sentences; a line feed begins and ends each.
    letters = {letter: i for i, letter in enumerate(sorted({*"\n", *"".join(lines)}), start=1)}
    ids = np.zeros((len(lines), length + 1), "int32")
    for row, line in zip(ids, lines, strict=True):
        known = [letters[letter] for letter in f"\n{line}\n"[: length + 1]]
        row[: len(known)] = known

    def bits(predicted: np.ndarray, truth: np.ndarray) -> float:
        predicted = predicted.astype(float)
        top = predicted.max(-1, keepdims=True)
        logarithms = predicted - top - np.log(np.exp(predicted - top).sum(-1, keepdims=True))
        chosen = np.take_along_axis(logarithms, truth[..., None], -1)[..., 0]
        return float(-chosen[truth > 0].mean() / math.log(2))

    return Task(
        parts=cut(ids[:, :-1], ids[:, 1:], 480, 120, 120),
        layers=lambda: [
            layers.Input((length,), dtype="int32"),
            layers.Embedding(len(letters) + 1, 16),
            layers.GRU(64, return_sequences=True),
            layers.Dense(len(letters) + 1),
        ],
        loss=from_logits(ignore_class=0),
        score=bits,
        batch=20,
        epochs=15,
    )


def from_logits(**arguments: Any) -> Any:
    """Return the cross-entropy of outputs before softmax."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)


def mnist_path(given: str | None) -> str:
    """Return the path of MNIST: the given file, or Keras' copy, downloaded if it is missing."""
    named = given or os.environ.get("ADADELTA_MNIST")
    if named is not None:
        if not os.access(named, os.R_OK):
            sys.exit(f"No file can be read at {named}. Name a file mnist.npz in ADADELTA_MNIST.")
        return named
    import keras

    try:
        keras.datasets.mnist.load_data()
    except Exception as error:
        sys.exit(f"MNIST can't be downloaded ({error}). Name a file mnist.npz in ADADELTA_MNIST.")
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return str(home / "datasets" / "mnist.npz")


# ------------------------------------------------------------------ the runs

Run = dict[str, Any]


def tuning(task: str) -> Iterator[Run]:
    """Yield every configuration that is tried on the validation split."""
    for name, rates in RATES.items():
        for rate, falling in itertools.product(rates, (False, True)):
            yield run_of(task, "tune", name, rate, falling, TUNING_SEED)


def testing(task: str, runs: list[Run]) -> Iterator[Run]:
    """Yield the best configuration of each optimizer with every seed."""
    for name in RATES:
        best = chosen(runs, task, name)
        for seed in TEST_SEEDS:
            yield run_of(task, "test", name, best["rate"], best["falling"], seed)


def varying(task: str) -> Iterator[Run]:
    """Yield Adadelta with one argument changed."""
    for argument, values in VARIED.items():
        for value, seed in itertools.product(values, VARIED_SEEDS):
            yield run_of(task, "vary", "Adadelta", **{**BASE, argument: value}, seed=seed)
    for seed in VARIED_SEEDS:
        yield run_of(task, "vary", "Adadelta", **{**BASE, "falling": True}, seed=seed)


def run_of(
    task: str,
    stage: str,
    optimizer: str,
    rate: float,
    falling: bool = False,
    seed: int = 0,
    rho: float | None = None,
    epsilon: float | None = None,
) -> Run:
    """Return the description of one run."""
    run = {"task": task, "stage": stage, "optimizer": optimizer, "rate": rate, "falling": falling}
    if rho is not None:
        run |= {"rho": rho, "epsilon": epsilon}
    return run | {"seed": seed}


def chosen(runs: list[Run], task: str, optimizer: str) -> Run:
    """Return the tuning run that ended with the lowest validation score."""
    tried = [it for it in runs if key(it)[:3] == (task, "tune", optimizer)]
    # A score of NaN, from a run that diverged, is stored as None.
    return min(tried, key=lambda it: math.inf if it["scores"][-1] is None else it["scores"][-1])


def key(run: Run) -> tuple[Any, ...]:
    """Return the key by which two runs are the same."""
    return tuple(value for name, value in run.items() if name not in ("scores", "seconds"))


def execute(task: Task, run: Run) -> Run:
    """Train once, and return the run with its score after each epoch."""
    import keras

    started = time.process_time()
    keras.utils.set_random_seed(run["seed"])
    arguments = {name: run[name] for name in ("rho", "epsilon") if name in run}
    model = keras.Sequential(task.layers())
    optimizer = make_optimizer(run["optimizer"], run["rate"], **arguments)
    model.compile(optimizer=optimizer, loss=task.loss)
    x, y = task.parts["test" if run["stage"] == "test" else "validation"]
    scores = []

    def rate(epoch: int, _: float) -> float:
        share = (1 + math.cos(math.pi * epoch / task.epochs)) / 2
        return run["rate"] * (share if run["falling"] else 1)

    def score(epoch: int, _: Any) -> None:
        value = task.score(np.asarray(model.predict_on_batch(x)), y)
        scores.append(float(f"{value:.4g}") if math.isfinite(value) else None)

    callbacks = [
        keras.callbacks.LearningRateScheduler(rate),
        keras.callbacks.LambdaCallback(on_epoch_end=score),
    ]
    model.fit(
        *task.parts["train"],
        batch_size=task.batch,
        epochs=task.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return {**run, "scores": scores, "seconds": round(time.process_time() - started, 1)}


# ------------------------------------------------------------------ the file


def read() -> list[Run]:
    """Return the stored runs."""
    return json.loads(FILE.read_text("ascii"))["runs"] if FILE.exists() else []


def write(runs: list[Run]) -> None:
    """Store the runs, one on each line."""
    head = {
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    lines = ",\n".join(json.dumps(run) for run in runs)
    text = f'{json.dumps(head)[:-1]},\n"runs": [\n{lines}\n]}}\n'
    temporary = FILE.with_suffix(".part")
    temporary.write_text(text, "ascii")
    temporary.replace(FILE)


def table(runs: list[Run]) -> str:
    """Return the test scores as the table of python/guides/choosing.md."""
    digits = {"diamonds": 0, "digits": 2, "sentences": 3}
    lines = ["| optimizer | " + " | ".join(digits) + " |", "|---|" + "---|" * len(digits)]
    for optimizer in RATES:
        cells = [optimizer]
        for task, places in digits.items():
            scores = [it["scores"][-1] for it in runs if key(it)[:3] == (task, "test", optimizer)]
            best = chosen(runs, task, optimizer)
            rate = f"{best['rate']:g}{' falling' if best['falling'] else ''}"
            mean, spread = statistics.mean(scores), statistics.stdev(scores)
            cells.append(f"{mean:.{places}f} ± {spread:.{places}f} ({rate})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the missing runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
    parser.add_argument("--mnist", help="the file mnist.npz, instead of ADADELTA_MNIST")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes

    import jax

    # These runs differ in numbers only, so that their common program is compiled once.
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        make_missing(mnist_path(options.mnist), until)


def make_missing(mnist: str, until: float) -> None:
    """Make the missing runs, and store each one when it is finished."""
    tasks = {"diamonds": diamonds, "digits": lambda: digits(mnist), "sentences": sentences}
    load = functools.cache(lambda name: tasks[name]())
    runs = read()
    stages = (tuning, lambda task: testing(task, runs), varying)
    for stage, name in itertools.product(stages, tasks):
        for run in stage(name):
            if key(run) in map(key, runs):
                continue
            if time.monotonic() > until:
                print("Time is up; the next call goes on from here.")
                return
            runs.append(execute(load(name), run))
            write(runs)
            print(*key(run), runs[-1]["scores"][-1], f"{runs[-1]['seconds']} s", flush=True)
    print("All runs are there. The table in python/guides/choosing.md:")
    print(table(runs))


if __name__ == "__main__":
    main()
