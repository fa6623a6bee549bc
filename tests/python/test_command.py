"""The command line: what it prints, its exit status, and no traceback for bad input."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import adadelta
from adadelta import __main__ as command
from adadelta import installation
from adadelta.state import OptimizerState, read_state, write_state

ROOT = Path(adadelta.__file__).resolve().parent.parent


@pytest.fixture
def run(capsys):
    def run(*arguments):
        try:
            status = command.main(arguments)
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return run


@pytest.fixture
def saved(tmp_path):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    state = OptimizerState(
        step=5,
        update=5,
        hyperparameters={"rho": 0.9},
        parameters={
            "dense/kernel": {"square_avg": array, "acc_delta": array},
            "dense/bias": {"square_avg": array[0], "acc_delta": array[0]},
        },
    )
    write_state(state, tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


def in_a_process(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "adadelta", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        timeout=120,
    )


def test_it_runs_as_a_module_and_imports_no_framework():
    result = in_a_process("-h")
    assert result.returncode == 0 and "usage: adadelta" in result.stdout
    code = (
        "import sys; from adadelta.__main__ import main; main(['conventions']);"
        "main(['translate', 'torch', 'keras']);"
        "sys.exit(any(it in sys.modules for it in ('keras', 'jax', 'tensorflow', 'torch')))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(os.name != "posix", reason="other systems have other pipes")
def test_who_reads_may_stop_before_the_end():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "adadelta", "conventions"]
    result = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


HELPS = [
    [],
    ["info"],
    ["conventions"],
    ["translate"],
    ["state"],
    *(["state", it] for it in ("show", "convert")),
]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_the_example_of_a_help_page_runs(run, saved, monkeypatch, words):
    monkeypatch.chdir(saved.parent)
    for name in ("state", "from_keras"):
        shutil.copy(saved, f"{name}.safetensors")
    status, out, _ = run(*words, "--help")
    assert status == 0 and all(len(line) <= 85 for line in out.splitlines())
    # A command and what it does are in one line.
    assert not re.search(r"^ {4}\S+$", out, re.MULTILINE)
    _, _, example = out.partition("\nexample:\n  python -m adadelta ")
    assert example and run(*shlex.split(example.replace("\\\n", "")))[0] == 0


@pytest.mark.parametrize(
    "words",
    [["translate", "torch", "keras", "x" * 5000], ["x" * 5000], ["state", "show", "x" * 5000]],
)
def test_an_error_is_one_short_line(run, words):
    status, out, err = run(*words)
    assert status in (1, 2) and out == ""
    assert err.startswith("adadelta") and err.endswith("\n")
    assert len(err.splitlines()) == 1 and len(err) <= 201


def test_only_what_is_missing_is_asked_for(run):
    assert "required: TO;" in run("translate", "torch")[2]


def test_info_says_what_there_is(run):
    status, out, err = run("info")
    assert status == 0 and err == ""
    assert adadelta.__version__ in out
    assert sys.executable in map(os.path.expanduser, out.split())
    versions = {line.split()[0]: line.split()[1] for line in out.splitlines() if line[:1].islower()}
    assert versions["numpy"] == np.__version__
    assert "keras" in versions


def test_info_says_which_kernels_serve(run, monkeypatch):
    found = {"cpu": {"serves": False, "reason": "no luck", "for": "all tensors"}}
    monkeypatch.setattr(adadelta, "kernel_info", lambda: found, raising=False)
    out = run("info")[1]
    assert "cpu: all tensors\n  not here: no luck\n" in out
    found["cpu"] |= {"serves": True, "reason": None, "cache": "/here", "cache_reason": None}
    assert "cpu: all tensors\n  compiled once, and kept in /here\n" in run("info")[1]
    found["cpu"] |= {"cache": None, "cache_reason": "/here is not safe"}
    again = "compiled again in each process: /here is not safe"
    assert f"cpu: all tensors\n  {again}\n" in run("info")[1]
    monkeypatch.undo()
    out = run("info")[1]
    for name, kernel in adadelta.kernel_info().items():
        assert f"{name}: {kernel['for']}" in out
        assert kernel["serves"] or f"  not here: {kernel['reason']}" in out


def test_info_says_what_is_missing_and_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(command._PACKAGES, "no-such-package", ("nothing", "one"))
    monkeypatch.setitem(command._PACKAGES, "no-other-package", ("nothing", "two"))
    monkeypatch.setitem(command._PACKAGES, "not-to-be-installed", ("nothing", None))
    monkeypatch.setattr(command, "requirement", lambda extra, package: f"{package}[{extra}]")
    status, out, _ = run("info")
    assert status == 0
    (row,) = [line for line in out.splitlines() if line.startswith("no-such-package")]
    assert row.split()[1:] == ["missing", "nothing", "pip", "install", "no-such-package[one]"]
    assert re.search(r"^not-to-be-installed +missing +nothing$", out, re.MULTILINE)
    # One of them as an example, and never all in one command.
    installs = [line for line in out.splitlines() if "-m pip install" in line and "[" in line]
    assert len(installs) == 1 and len(re.findall(r"\[", installs[0])) == 1
    assert "Only NumPy is always needed." in out


def test_info_is_for_users_of_python(run, monkeypatch):
    missing = [
        installation.Check("backend", "", problem="No backend.", packages="jax"),
        installation.Check("saved state", "", False, "Not alone.", packages="safetensors"),
    ]
    monkeypatch.setattr(installation, "checks", lambda: missing)
    out = run("info")[1]
    assert "install_adadelta()" not in out
    for packages in ("jax", "safetensors"):
        assert f" {installation.pip_install(packages)}\n" in out
    # Without Keras nothing has to be done about its backend.
    monkeypatch.setattr(installation, "is_installed", lambda module: module != "keras")
    out = run("info")[1]
    assert "backend      missing; only adadelta.Adadelta needs it\nsaved state  missing\n" in out
    assert "No backend." not in out and "Not alone." in out


def test_info_says_why_keras_can_not_work():
    result = in_a_process("info", KERAS_BACKEND="torch", PYTHONNOUSERSITE="1")
    assert result.returncode == 0 and "KERAS_BACKEND torch" in result.stdout
    import importlib.util

    complaint = 'Keras is to compute with "torch", which is not installed'
    assert (complaint in result.stdout) == (importlib.util.find_spec("torch") is None)


def test_conventions_are_the_table(run):
    assert run("conventions") == (0, repr(adadelta.conventions()) + "\n", "")


def test_translate(run):
    status, out, _ = run("translate", "torch", "keras", "lr=0.5", "weight_decay=0.01")
    assert status == 0
    assert out.splitlines() == [
        "learning_rate=0.5",
        "rho=0.9",
        "epsilon=1e-06",
        "weight_decay=0.01",
        "decoupled_weight_decay=False",
    ]
    assert "name='mine'" in run("translate", "brainpy", "keras", "name=mine")[1]
    assert "clipnorm=None" in run("translate", "keras", "tf1", "clipnorm=None")[1]


def test_translate_refuses(run):
    status, out, err = run("translate", "torch", "brainpy", "weight_decay=0.01")
    assert (status, out) == (1, "") and err.startswith("adadelta: `weight_decay` of torch has no")
    assert (
        "`decoupled_weight_decay=True`" in run("translate", "keras", "torch", "weight_decay=1")[2]
    )
    status, _, err = run("translate", "torch", "nowhere")
    assert status == 1 and err.startswith("adadelta: `TO` must be one of ")
    assert run("translate", "torch", "keras", "lr=fast")[0] == 1
    status, _, err = run("translate", "torch", "keras", "lr=1", "lr=2")
    assert status == 1 and "lr is given more than once" in err
    status, _, err = run("translate", "torch", "keras", "lr")
    assert status == 2 and "'lr' is not two parts with = between them" in err


def test_state_show(run, saved):
    status, out, _ = run("state", "show", str(saved))
    assert status == 0
    for text in (repr(read_state(saved)), "rho = 0.9", "dense/kernel", "acc_delta: (2, 3) float32"):
        assert text in out


def test_state_convert(run, saved, tmp_path):
    out_path = tmp_path / "out.safetensors"
    status, out, _ = run(
        *("state", "convert", str(saved), str(out_path), "--rename", "dense/kernel=0.weight"),
        *("--rename", "dense/bias=0.bias", "--transpose", "dense/kernel"),
    )
    assert status == 0 and str(out_path) in out
    expected = adadelta.convert_state(
        read_state(saved), {"dense/kernel": ("0.weight", np.transpose), "dense/bias": "0.bias"}
    )
    assert read_state(out_path) == expected


def test_state_convert_with_axes_and_others(run, saved, tmp_path):
    out_path = tmp_path / "out.safetensors"
    arguments = ("state", "convert", str(saved), str(out_path), "--transpose", "dense/kernel=1,0")
    status, _, err = run(*arguments)
    assert status == 1 and "not in the mapping: dense/bias" in err and not out_path.exists()
    assert run(*arguments, "--keep-others")[0] == 0
    assert read_state(out_path).parameters["dense/kernel"]["acc_delta"].shape == (3, 2)


def test_state_refuses(run, saved, tmp_path):
    def convert(*arguments):
        return run("state", "convert", str(saved), str(tmp_path / "out"), *arguments)

    status, _, err = run("state", "show", str(tmp_path / "nothing"))
    nothing = str(tmp_path / "nothing")[-77:]
    assert status == 1 and err.endswith(f'{nothing}": there is no such file or folder\n')
    assert "Errno" not in err
    (tmp_path / "other").write_text("text, and no state")
    assert run("state", "show", str(tmp_path / "other"))[0] == 1
    assert run("state", "show", str(tmp_path))[0] == 1
    assert convert("--rename", "dense/kernel")[0] == 2
    assert convert("--transpose", "dense/kernel=a,b")[0] == 2
    status, _, err = convert("--transpose", "dense/kernel=0,1,2", "--keep-others")
    assert status == 1 and "the function for dense/kernel (square_avg) failed" in err
    status, _, err = convert("--rename", "dense/kernl=a", "--keep-others")
    assert status == 1 and "did you mean dense/kernel?" in err
    assert not (tmp_path / "out").exists()
    nowhere = str(tmp_path / "nowhere" / "out")
    assert run("state", "convert", str(saved), nowhere, "--keep-others")[0] == 1


def test_names_that_the_terminal_lacks_are_shown_in_ascii(saved):
    out = saved.with_name("größe")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    words = (str(saved), str(out), "--keep-others", "--rename", "dense/bias=größe")
    result = in_a_process("state", "convert", *words, **ascii_only)
    assert (result.returncode, result.stderr) == (0, "")
    assert "gr\\xf6\\xdfe: OptimizerState" in result.stdout
    result = in_a_process("state", "show", str(out), **ascii_only)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\ngr\\xf6\\xdfe\n" in result.stdout


def test_without_a_standard_output(monkeypatch, saved):
    monkeypatch.setattr(sys, "stdout", None)
    assert command.main(["state", "show", str(saved)]) == 0


def test_a_package_that_is_missing_is_named(run, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    out = str(saved.with_name("out"))
    install = f"{installation.pip_install('safetensors')}\n"
    for words in (["convert", str(saved), out, "--keep-others"], ["show", str(saved)]):
        status, _, err = run("state", *words)
        said = "adadelta: this command needs safetensors, which is not installed: "
        assert status == 1 and err == said + install


def test_a_command_line_that_is_none(run):
    for arguments in ([], ["nonsense"], ["state"], ["translate", "torch"]):
        status, _, err = run(*arguments)
        assert status == 2 and err.endswith(" --help\n")
        assert len(err.splitlines()) == 1 and len(err) <= 201
    assert run("--version") == (0, f"adadelta {adadelta.__version__}\n", "")
