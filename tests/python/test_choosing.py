"""The comparison of optimizers in vignettes/choosing.json: the program, its runs, and the pages."""

import importlib.util
import math
import statistics
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("diamonds", "digits", "sentences")


def loaded():
    path = ROOT / "vignettes" / "choosing.py"
    spec = importlib.util.spec_from_file_location("choosing", path)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look up their module in `sys.modules`.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "choosing", module)
        spec.loader.exec_module(module)
    return module


choosing = loaded()
RUNS = choosing.read()


def keys(runs):
    return sorted(map(repr, {choosing.key(run) for run in runs}))


def test_every_optimizer_had_the_same_effort():
    assert len({len(rates) for rates in choosing.RATES.values()}) == 1


def test_all_runs_are_kept_once_and_the_best_of_the_validation_split_were_tested():
    wanted = []
    for task in TASKS:
        wanted += [*choosing.tuning(task), *choosing.testing(task, RUNS), *choosing.varying(task)]
    assert keys(RUNS) == keys(wanted)
    assert len(keys(RUNS)) == len(RUNS)


def test_no_chosen_rate_is_at_the_end_of_its_grid():
    """Otherwise a better rate could lie beyond the grid."""
    for task in TASKS:
        for optimizer, rates in choosing.RATES.items():
            assert choosing.chosen(RUNS, task, optimizer)["rate"] in rates[1:-1], (task, optimizer)


def test_the_python_page_has_the_numbers_of_the_runs():
    page = (ROOT / "python" / "guides" / "choosing.md").read_text("utf-8")
    assert choosing.table(RUNS) in page


def test_the_python_page_says_what_came_out():
    page = " ".join((ROOT / "python" / "guides" / "choosing.md").read_text("utf-8").split())
    apart, slowest = [], []
    for task in TASKS:
        assert choosing.chosen(RUNS, task, "Adadelta")["rate"] == 10
        scores = {name: [] for name in choosing.RATES}
        for run in choosing.testing(task, RUNS):
            (kept,) = (it for it in RUNS if choosing.key(it) == choosing.key(run))
            scores[run["optimizer"]].append(kept["scores"][-1])
        means = {name: statistics.mean(values) for name, values in scores.items()}
        slowest.append(max(means, key=means.get))
        adaptive = [mean for name, mean in means.items() if name != "SGD with momentum"]
        apart.append(max(adaptive) / min(adaptive) - 1)
    assert f"within {math.ceil(100 * max(apart))} percent of each other on each task" in page
    assert slowest.count("SGD with momentum") == 2
    assert "SGD with momentum was last on two of the three" in page
    assert "10 was the best rate for Adadelta on all three tasks" in page


def test_a_run_that_diverged_is_never_chosen():
    runs = [run for run in choosing.tuning("digits") if run["optimizer"] == "Adam"]
    for i, run in enumerate(runs):
        run["scores"] = [None if i < 2 else 9.0 - i]
    assert choosing.chosen(runs, "digits", "Adam") is runs[-1]
    runs = [{**run, "scores": [None]} if run is runs[-1] else run for run in runs]
    assert choosing.chosen(runs, "digits", "Adam") is runs[-2]


def small_task():
    random = np.random.default_rng(1)
    x = random.normal(size=(60, 3)).astype("float32")
    part = (x, x.sum(axis=1, keepdims=True))
    return choosing.Task(
        parts={"train": part, "validation": part, "test": (x, part[1] + 100)},
        layers=lambda: [keras.layers.Input((3,)), keras.layers.Dense(1)],
        loss="mse",
        score=lambda predicted, truth: float(np.abs(predicted - truth).mean()),
        batch=20,
        epochs=8,
    )


def test_a_run_trains_and_its_seed_its_rate_and_its_stage_decide_what_comes_out():
    task = small_task()

    def scores(stage="tune", rate=0.02, falling=False, seed=1, optimizer="SGD with momentum"):
        run = choosing.run_of("digits", stage, optimizer, rate, falling, seed)
        return choosing.execute(task, run)["scores"]

    first = scores()
    assert first == scores() and len(first) == task.epochs
    assert first[-1] < first[0] / 2
    assert first != scores(seed=2)
    # The first epoch has the full learning rate, the others a lower one.
    falling = scores(falling=True)
    assert falling[0] == first[0] and falling[1] != first[1]
    assert scores("test")[-1] == pytest.approx(100, rel=0.1)
    assert scores(rate=1e30)[-1] is None


def test_the_arguments_of_a_run_reach_adadelta():
    run = next(it for it in choosing.varying("digits") if it["rho"] == 0.5)
    optimizer = choosing.make_optimizer("Adadelta", run["rate"], rho=run["rho"], epsilon=1e-3)
    assert (optimizer.rho, optimizer.epsilon) == (0.5, 1e-3)
    adamw = choosing.make_optimizer("AdamW", 0.01)
    assert isinstance(adamw, keras.optimizers.AdamW)
    assert adamw.get_config()["learning_rate"] == pytest.approx(0.01)


def test_a_missing_file_of_mnist_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ADADELTA_MNIST", str(tmp_path / "none.npz"))
    with pytest.raises(SystemExit, match=r"none\.npz\. Name a file mnist\.npz in ADADELTA_MNIST"):
        choosing.mnist_path(None)
