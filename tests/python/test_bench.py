"""The scripts in bench/: the data that `fit()` is timed on, and how two checkouts are compared."""

import importlib
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
if not BENCH.exists():
    pytest.skip("bench/ is not here", allow_module_level=True)


@pytest.fixture
def script(monkeypatch):
    """Return a function that imports a script by its name."""
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.delenv("ADADELTA_MNIST", raising=False)
    return lambda name: importlib.reload(importlib.import_module(name))


def test_there_are_images_without_mnist(script):
    digits = script("digits")
    images, labels = digits.load()
    assert images.shape == (60_000, 784) and images.dtype == "float32"
    assert images.min() == 0 and images.max() == 1
    assert set(labels.tolist()) == set(range(10))
    assert digits.NAME == "random images of MNIST's shape"


def test_images_are_those_of_the_file_that_is_named(script, monkeypatch, tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=np.full((3, 28, 28), 51, "uint8"), y_train=np.array([1, 2, 3]))
    monkeypatch.setenv("ADADELTA_MNIST", str(path))
    digits = script("digits")
    images, labels = digits.load()
    np.testing.assert_array_equal(images, np.full((3, 784), 0.2, "float32"))
    assert labels.tolist() == [1, 2, 3]
    assert digits.NAME == "MNIST"


def test_the_limit_reads_memory(script):
    """An array that was never written shares one page of zeros, which stays in the cache."""
    parts = script("limit").Limit(5000).parts
    assert all(array.all() for part in parts for array in part)


def test_lines_of_all_tables_are_read(script):
    measure, compare = script("measure"), script("compare")
    text = "\n".join([
        *("### One", "", *measure.HEADER),
        measure.row("ours", [0.0012345] * 3, None, [0.003] * 3),
        measure.row("Keras' own", [1.25] * 3, 0.5),
        *("", "### Memory", "", "A sentence of 2 | 3.", "", "### Two", "", *measure.HEADER),
        measure.row("ours", [0.05] * 3, None),
    ])  # fmt: skip
    assert compare.lines(text) == {
        ("One", "ours"): 1.234,
        ("One", "Keras' own"): 1250,
        ("Two", "ours"): 50,
    }
    marker = script("targets").Marker()
    assert compare.lines("\n".join(map(marker.marked, text.splitlines()))) == compare.lines(text)


@pytest.mark.parametrize(
    ("target", "found", "mark"),
    [
        ({"limit": 1.3}, (10, 1.3, None), "reached"),
        ({"limit": 1.3}, (10, 1.31, 0.1), "missed: the reason is not known"),
        ({"limit": 1.3, "peer": 0.2, "reason": "why"}, (10, 1.2, 0.21), "missed: why"),
        ({"peer": 1}, (10, 1.2, None), "missed: the reason is not known"),
        ({"ms": 10}, (10, None, None), "reached"),
        ({"ms": 10}, (10.1, None, None), "missed: the reason is not known"),
        ({"more_ms": 200}, (300, None, 2.9), "reached"),
        ({"more_ms": 200}, (300, None, 3.1), "missed: the reason is not known"),
    ],
)
def test_a_line_reaches_its_target_or_misses_it(script, target, found, mark):
    assert script("targets").Target(**target).mark(*found) == mark


def test_each_line_with_a_target_is_marked_and_the_others_are_listed(script):
    targets, measure = script("targets"), script("measure")
    marker = targets.Marker()
    *_, head, rule, kernel, own, sentence = map(
        marker.marked,
        [
            "### NumPy",
            *measure.HEADER,
            measure.row("20 M float32: the kernel", [0.01] * 3, 0.005) + "\n",
            measure.row("20 M float32: the rule", [0.1] * 3, 0.01),
            "A sentence | of | 5 | cells | of | text.",
        ],
    )
    assert head.endswith("| x peer | at most | target |") and rule.count("---") == 7
    assert kernel.endswith("| 2.00 |  | 1.3 x limit | missed: the reason is not known |\n")
    assert own.endswith("| 10.00 |  |  |  |")
    assert sentence == "A sentence | of | 5 | cells | of | text."
    others = ["| parameters | a | b | c | d |", "|---|---|---|---|---|", "| 1 | 2 | 3 | 4 | 5 |"]
    assert list(map(marker.marked, others)) == others
    missing = marker.not_measured()
    count = sum(map(len, targets.TARGETS.values()))
    assert len(missing) == count - 1 and not any("NumPy" in line for line in missing)
    assert "- From R: optimizer_adadelta(), after the first: at most 10 ms\n" in missing


def test_a_measurement_runs_in_small_and_is_marked(script, monkeypatch, capsys):
    monkeypatch.setenv("ADADELTA_BENCH_SCALE", "0.001")
    run, targets = script("run"), script("targets")
    text = run.Measurement("numpy_step.py").output(marker=targets.Marker())
    assert text == capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if ": the kernel" in line]
    assert line.endswith(("| reached |", "| missed: the reason is not known |"))


class Checkout:
    """Report these milliseconds, and append its name to `calls`."""

    def __init__(self, name, milliseconds, calls):
        self.name, self.milliseconds, self.calls = name, iter(milliseconds), calls

    def times(self, _measurement):
        self.calls.append(self.name)
        return {("One", "ours"): next(self.milliseconds)}


@pytest.mark.parametrize(
    ("after", "remark"),
    [
        ([1.04, 2.08, 4.16], ""),
        ([1.06, 2.12, 4.24], "slower"),
        ([1.02, 2.12, 4.44], ""),  # within its spread
        ([0.5, 1, 2], ""),
    ],
)
def test_checkouts_take_turns_and_are_compared_in_each(script, capsys, after, remark):
    compare = script("compare")
    calls = []
    times = {"before": [1, 2, 4], "after": after}
    checkouts = {name: Checkout(name, of_each, calls) for name, of_each in times.items()}
    complaints = compare.report(compare.turns_of(None, checkouts, 3))
    assert calls == ["before", "after", "after", "before", "before", "after"]
    assert complaints == ([f"One: ours: {remark}"] if remark else [])
    cells = capsys.readouterr().out.splitlines()[-1].split("|")
    assert float(cells[4]) == pytest.approx(after[1] / 2, abs=0.006)
    assert cells[6].strip() == remark


def test_a_line_that_is_in_one_checkout_only_is_a_complaint(script):
    report = script("compare").report
    assert report({("One", "new"): {"after": [1.0, 1.0]}}) == ["One: new: not there before"]
    assert report({("One", "old"): {"before": [1.0, 1.0]}}) == ["One: old: not there after"]


@pytest.fixture
def gpu(script, monkeypatch):
    gpu = script("gpu")
    monkeypatch.setattr(gpu.sys, "argv", ["gpu.py", "--dry"])
    return gpu


def test_the_check_of_a_gpu_goes_on_after_a_part_that_fails(gpu, monkeypatch, capfd):
    python = gpu.sys.executable
    commands = {
        "crashes": (python, "-c", "import os; os.abort()"),
        "hangs": (python, "-c", "import time; time.sleep(60)"),
        "is not there": ("/nowhere/python",),
        "works": (python, "-c", "print('it works')"),
    }
    made = [gpu.Part(what, command, {}, 2) for what, command in commands.items()]
    monkeypatch.setattr(gpu, "parts", lambda *_: made)
    monkeypatch.setattr(gpu, "find_python", lambda _: python)
    assert gpu.main()
    out = capfd.readouterr().out
    assert "it works\n" in out
    _, _, report = out.partition("## Report\n")
    assert "DRY RUN ON THE PROCESSOR" in report
    assert "- crashes: FAILED, exit status -6" in report
    assert "- hangs: FAILED, stopped after 2 s" in report
    assert "- is not there: FAILED, " in report
    assert "- works: passed" in report
    monkeypatch.setattr(gpu, "parts", lambda *_: made[-1:])
    assert not gpu.main()


def test_the_check_of_a_gpu_stops_where_there_is_none(gpu, monkeypatch):
    monkeypatch.setattr(gpu.sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="There is no NVIDIA GPU"):
        gpu.main()


@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "torch" or not (find_spec("jax") and find_spec("triton")),
    reason="it takes 40 s, so one backend is enough: torch, whose suite is the shortest",
)
def test_the_check_of_a_gpu_runs_dry(gpu, capfd):
    assert not gpu.main(), capfd.readouterr().out
