"""Who imports whom: _core <- _kernels <- front ends; importing the package imports no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import adadelta

ROOT = Path(adadelta.__file__).resolve().parent
FRAMEWORKS = (
    "keras",
    "jax",
    "tensorflow",
    "torch",
    "tf_keras",
    "brainpy",
    "optax",
    "numba",
    "triton",
)
FILES = sorted(ROOT.rglob("*.py"))
FRONT_ENDS = {path.stem for path in ROOT.glob("*.py")} - {
    "__init__",
    "__main__",
    "installation",
    "r",
    "state",
}
# What several front ends share.
SHARED = {"_core", "_kernels", "_state", "_jax", "_tensorflow"}


def imported(path, at_top_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """The front end or layer that the first part of a path is: "_keras" is a part of "keras"."""
    return name.lstrip("_") if name.lstrip("_") in FRONT_ENDS else name


def room(path):
    """The front end or layer that a file belongs to: "_core", "_kernels", "keras", "r"..."""
    return room_of(path.relative_to(ROOT).with_suffix("").parts[0])


def rooms_imported(path):
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "adadelta" and len(parts) > 1:
            yield room_of(parts[1])


def test_there_is_something_to_check():
    assert len(FILES) > 10


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    if room(path) == "_core":
        outside = {n.split(".")[0] for n in imported(path)} - sys.stdlib_module_names
        assert outside <= {"adadelta"} and set(rooms_imported(path)) <= {"_core"}
    elif room(path) == "_kernels":
        assert set(rooms_imported(path)) <= {"_core", "_kernels"}
    elif room(path) in SHARED:
        assert set(rooms_imported(path)) <= SHARED
    elif room(path) not in ("r", "state", "__init__"):
        assert not (FRONT_ENDS - {room(path)}) & set(rooms_imported(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_tests_or_bench(path):
    assert not {n.split(".")[0] for n in imported(path)} & {"tests", "bench", "driver", "vectors"}


def test_importing_the_package_imports_no_framework():
    code = f"import sys, adadelta; print([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "[]"


def test_front_ends_are_there_after_importing_the_package():
    code = (
        "import adadelta; adadelta.keras.Adadelta; adadelta.state.read_state\n"
        "print([hasattr(adadelta, name) for name in ('nothing', '_nothing', 'keras')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "[False, False, True]"


def test_r_names_public_python_only():
    """R files may name modules and attributes of the package that have no leading underscore."""
    folder = ROOT.parent.parent / "R"
    if not folder.exists():
        pytest.skip("the R sources are not here")
    for path in folder.glob("*.R"):
        assert "adadelta._" not in path.read_text(), path.name


def test_a_front_end_is_imported_when_it_is_first_used():
    code = "import sys, adadelta; adadelta.state.read_state; print('adadelta.state' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "True"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        adadelta.nothing  # noqa: B018
