"""The kernels' machine code is made by other processes, kept in files, and found again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import arguments, assert_same, table_of, tensors

from adadelta._kernels import compiled, compiler, cpu
from adadelta._kernels.threads import PythonThreads


def stepped():
    (row,) = rows = tensors("float32", [100], {}, np.random.default_rng(1))
    settings, own = arguments("float32", {})
    cpu.step("float32", table_of(rows), np.array([100]), settings, own[None], PythonThreads(1))
    return [row]


@pytest.fixture(scope="module")
def expected():
    return stepped()


@pytest.fixture
def cache(expected, monkeypatch, tmp_path):
    """An empty folder, for a process that knows no machine code yet."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv("ADADELTA_KERNEL_CACHE", str(folder))
    monkeypatch.setattr(compiled, "_addresses", {})
    return folder


def test_what_is_compiled_is_kept_and_read(cache, expected, monkeypatch):
    assert_same(stepped(), expected)
    (file,) = cache.iterdir()
    assert file.name.startswith("fused-float32-")

    def only_nothing(functions):
        assert not functions
        return {}

    monkeypatch.setattr(compiled, "_addresses", {})
    monkeypatch.setattr(compiler, "object_codes", only_nothing)
    assert_same(stepped(), expected)


DAMAGES = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-1],
    "one bit": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_again(cache, expected, monkeypatch, damage):
    stepped()
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert compiler.unpacked(file.read_bytes()) is None
    monkeypatch.setattr(compiled, "_addresses", {})
    assert_same(stepped(), expected)
    assert list(cache.iterdir()) == [file] and compiler.unpacked(file.read_bytes())


def test_a_folder_that_cannot_be_written_is_no_error(cache, expected, monkeypatch):
    monkeypatch.setenv("ADADELTA_KERNEL_CACHE", os.path.join(os.devnull, "kernels"))
    assert_same(stepped(), expected)


EXECUTABLES = {
    "unknown": None,
    "empty": "",
    "missing": "/no/such/python",
    "no program": os.devnull,
    "fails": "/bin/false",
    "says something else": "/bin/echo",
}


@pytest.mark.parametrize("executable", EXECUTABLES.values(), ids=EXECUTABLES)
def test_without_another_python_this_one_compiles(cache, expected, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert_same(stepped(), expected)
    assert len(list(cache.iterdir())) == 1


def test_a_frozen_application_is_not_started_again(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command[0]))
    assert compiler.object_codes([("xla_handler", "task")])
    assert started == [""]


def test_functions_of_several_modules_at_once(cache):
    functions = [("xla_handler", "task"), ("fused", "float64"), ("xla_handler", "step")]
    places = compiled.addresses(*functions)
    assert len(set(places)) == 3
    assert compiled.addresses(*reversed(functions)) == list(reversed(places))
    assert len(list(cache.iterdir())) == 3


def test_the_caller_needs_no_numba_and_its_folders_no_care(cache, tmp_path):
    # R has the package in no folder of `sys.path`, and another may be there. And a module of the
    # standard library's name beside the caller is not the other process's.
    (tmp_path / "random.py").write_text("raise SystemExit(1)")
    other = tmp_path / "other" / "adadelta"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit(1)")
    code = (
        "import sys; root, other = sys.argv[1:]; sys.path.insert(0, root); import adadelta;"
        "sys.path[0] = other; from adadelta._kernels import compiled;"
        "compiled.addresses(('fused', 'float32')); assert 'numba' not in sys.modules"
    )
    root = Path(compiler.__file__).parents[2]
    environment = {name: it for name, it in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", code, str(root), str(other.parent)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(list(cache.iterdir())) == 1
