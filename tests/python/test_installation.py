"""What is installed or missing: each cause with its remedy, from one source for R and Python."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from adadelta import installation
from adadelta._core import backend, packages

SUBJECTS = ["Python", "NumPy", "Keras", "backend", "kernel", "saved state"]


@pytest.fixture
def installed(monkeypatch):
    """Return a function that pretends that only the given packages are installed."""

    def only(settings=None, **packages):
        def version(name):
            if packages.get(name) is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return packages[name]

        for module in (installation, backend):
            monkeypatch.setattr(module, "is_installed", packages.__contains__)
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(backend, "running_backend", lambda: None)
        monkeypatch.setattr(backend, "_configured_backend", lambda: None)
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if settings:
            monkeypatch.setenv("KERAS_BACKEND", settings)

    return only


def check(subject):
    return next(it for it in installation.checks() if it.subject == subject)


def test_all_that_is_here_is_found():
    checks = installation.checks()
    assert [it.subject for it in checks] == SUBJECTS
    assert [it.needed for it in checks] == [True] * 4 + [False] * 2
    assert all(it.problem is None for it in checks[:4])
    assert os.path.expanduser(checks[0].found.split(" at ")[1]) == sys.executable
    assert checks[1].found == importlib.metadata.version("numpy")
    assert checks[2].found == importlib.metadata.version("keras")
    assert installation.problem() is None and installation.problem_without_keras() is None


@pytest.mark.skipif(os.name != "posix", reason="~ is another folder in R there")
@pytest.mark.parametrize(
    ("home", "shown"),
    [
        ("/home/ann", "~/env/bin/python"),
        ("/home/ann/", "~/env/bin/python"),
        ("/home/an", "/home/ann/env/bin/python"),
        ("/", "/home/ann/env/bin/python"),
    ],
)
def test_the_home_folder_is_shown_as_a_tilde(monkeypatch, home, shown):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(sys, "executable", "/home/ann/env/bin/python")
    assert check("Python").found.endswith(f" at {shown}")


def test_each_thing_that_is_missing_has_its_cure(installed):
    here = sys.executable
    install = f"Call install_adadelta(), or in a terminal: {here} -m pip install"
    installed()
    assert check("NumPy").packages == "numpy"
    keras = f'"keras>={installation.KERAS_MINIMUM}"'
    assert check("Keras").packages == f"{keras} jax numba safetensors"
    assert check("saved state").packages == "safetensors"
    assert check("kernel").problem is None or check("kernel").packages == "numba"
    assert installation.problem_without_keras() == [
        f"NumPy is not installed in {here}.",
        f"{install} numpy",
    ]

    installed(torch="2.0")
    assert check("Keras").packages == f"{keras} numba safetensors"
    installed(keras="99.0")
    assert check("backend").packages == "jax"
    assert installation.problem()[0].startswith("Keras has nothing to compute with")
    installed("torch", keras="99.0", jax="1.0")
    cause = f'Keras is to compute with "torch", which is not installed in {here}.'
    choice = "Set KERAS_BACKEND=jax, or install torch."
    assert check("backend")[3:] == (cause, choice, "torch")
    assert installation.problem() == [cause, f"{choice} {install} torch"]
    assert installation.missing_backend("torch") == [cause, f"{install} torch"]
    assert installation.missing_backend("jax") is None
    # A backend that we do not support is left to Keras.
    assert installation.missing_backend("numpy") is None


def test_where_pip_refuses_a_virtual_environment_is_named(installed, monkeypatch, tmp_path):
    """Debian 12's own Python is such a place."""
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(installation.os, "__file__", str(tmp_path / "os.py"))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    installed()
    _, cure = installation.problem_without_keras()
    assert cure.startswith("Call install_adadelta(), or in a terminal: ")
    assert "-m venv" in cure and "RETICULATE_PYTHON=~/" in cure
    assert f"{sys.executable} -m pip" not in cure
    assert "-m venv" in installation.pip_install("numpy")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert installation.pip_install("numpy") == f"{sys.executable} -m pip install numpy"
    assert installation.problem_without_keras()[1].endswith(" -m pip install numpy")


def test_an_extra_is_named_where_pip_can_find_the_package(installed):
    installed()
    assert packages.requirement("torch", "torch") == "torch"
    installed(adadelta="1.0")
    assert packages.requirement("torch", "torch") == '"adadelta[torch]"'


def test_a_keras_that_is_too_old_or_says_nothing_of_itself(installed):
    installed(keras="2.15.0", jax="1.0")
    assert check("Keras").found == "2.15.0"
    assert "Keras 2.15.0 is too old" in installation.problem()[0]
    installed(keras=None, jax="1.0", numpy=None)
    assert check("Keras").found == check("NumPy").found == "of unknown version"
    assert installation.problem() is None


def test_the_oldest_keras_is_the_one_that_the_package_asks_for(installed):
    project = Path(__file__).parents[2] / "python" / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    assert f"keras>={installation.KERAS_MINIMUM}" in extras["keras"]
    installed(keras=installation.KERAS_MINIMUM, jax="1.0")
    assert check("Keras").problem is None
    installed(keras="3.9.2", jax="1.0")
    assert "Keras 3.9.2 is too old" in check("Keras").problem


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(installation, "PYTHON_MINIMUM", "99.0")
    cause, cure = installation.problem()
    assert "99.0 or newer is needed" in cause and "RETICULATE_PYTHON" in cure
    assert installation.problem_without_keras() == [cause, cure]
    assert check("kernel").problem == "Kernels need Python 99.0 or newer."


def test_who_chose_the_backend(installed, monkeypatch):
    installed(keras="99.0", jax="1.0", torch="2.0")
    advice = "set KERAS_BACKEND=jax if you import Keras before adadelta.Adadelta"
    assert check("backend").found == f"jax 1.0 (the first that is installed; {advice}); also torch"
    monkeypatch.setattr(backend, "_configured_backend", lambda: "torch")
    assert check("backend").found == "torch 2.0 (by Keras' settings); also jax"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert check("backend").found == "jax 1.0 (by KERAS_BACKEND); also torch"
    monkeypatch.setattr(backend, "running_backend", lambda: "torch")
    assert check("backend").found == "torch 2.0 (in use); also jax"


def test_a_backend_in_the_settings_of_keras_may_be_missing(installed, monkeypatch):
    installed(keras="99.0", jax="1.0")
    monkeypatch.setattr(backend, "_configured_backend", lambda: "torch")
    assert check("backend").problem.startswith('Keras is to compute with "torch", which is not')


def test_keras_takes_its_default_where_it_is_installed_and_r_the_first(installed):
    installed(keras="99.0", jax="1.0", tensorflow="2.0")
    assert check("backend").found == "tensorflow 2.0 (Keras' default); also jax"
    (line,) = [it for it in installation.checks_in_lines() if it.startswith("backend")]
    assert "jax 1.0 (the first that is installed); also tensorflow" in line


def test_a_kernel_that_does_not_serve(monkeypatch):
    import adadelta
    from adadelta._kernels import choose

    kernel = choose.FOR_KERAS[backend.backend_and_reason()[0]]
    found = {kernel: {"serves": False, "reason": "no luck", "for": "all"}}
    monkeypatch.setattr(adadelta, "kernel_info", lambda: found, raising=False)
    assert check("kernel").found == "none"
    assert check("kernel").problem == "Steps are slower than they could be: no luck."

    def broken():
        raise OSError("libdevice is missing")

    monkeypatch.setattr(adadelta, "kernel_info", broken, raising=False)
    assert "OSError: libdevice is missing" in check("kernel").problem


def test_a_kernel_that_is_not_kept(monkeypatch):
    import adadelta
    from adadelta._kernels import choose

    kernel = choose.FOR_KERAS[backend.backend_and_reason()[0]]
    found = {"serves": True, "reason": None, "cache": None, "cache_reason": "/here is not safe"}
    monkeypatch.setattr(adadelta, "kernel_info", lambda: {kernel: found}, raising=False)
    assert check("kernel").found == kernel
    said = "The first step takes seconds longer than it could: /here is not safe."
    assert check("kernel").problem == said
    found |= {"cache": "/here", "cache_reason": None}
    assert check("kernel").problem is None


def test_the_backend_that_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    assert installation.running_backend() is None
    # A Keras that failed while it was loaded.
    monkeypatch.setitem(sys.modules, "keras", types.ModuleType("keras"))
    assert installation.running_backend() is None
    monkeypatch.undo()
    import keras

    assert installation.running_backend() == keras.config.backend()


def test_a_backend_is_chosen_only_where_nobody_chose(installed, monkeypatch, tmp_path):
    configured = backend._configured_backend
    installed(jax="1.0", torch="2.0")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    assert installation.choose_backend() == "jax" == os.environ["KERAS_BACKEND"]
    assert installation.choose_backend() is None
    installed()
    assert installation.choose_backend() is None
    installed(jax="1.0")
    monkeypatch.setattr(backend, "_configured_backend", lambda: "torch")
    assert installation.choose_backend() is None

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert configured() is None
    for text, expected in (
        ('{"backend": "torch"}', "torch"),
        # Keras writes this by itself, so it is not the user's choice.
        ('{"backend": "tensorflow"}', None),
        ("{", None),
        ("[]", None),
    ):
        Path(tmp_path, "keras.json").write_text(text)
        assert configured() == expected


def test_what_can_not_be_a_module_is_not_installed():
    assert not installation.is_installed("no_such_module")
    assert not installation.is_installed("no_such_package.module")
    assert installation.version("no-such-package") is None


def test_r_gets_the_same_in_lines():
    fields = [line.split("\t") for line in installation.checks_in_lines()]
    for row, found in zip(fields, installation.checks(), strict=True):
        assert row == [
            found.subject,
            found.found,
            "True" if found.needed else "",
            found.problem or "",
            installation._cure_in_r(found),
            "end",
        ]


def test_the_cure_for_r_stands_in_one_line(installed):
    installed("torch", keras="99.0", jax="1.0", numpy="2.0")
    (line,) = [it for it in installation.checks_in_lines() if it.startswith("backend")]
    *_, problem, cure, end = line.split("\t")
    assert problem.startswith("Keras is to compute with") and end == "end"
    assert cure.startswith("Set KERAS_BACKEND=jax, or install torch. Call install_adadelta(), or")
    assert cure.endswith("-m pip install torch")


def test_it_needs_no_more_than_the_standard_library_of_an_old_python():
    """R asks even unsuitable Pythons, which must accept its syntax, annotations and imports."""
    folder = Path(installation.__file__).parent
    code = (
        "import sys; before = set(sys.modules)\n"
        "from adadelta import installation; installation.problem()\n"
        "new = set(sys.modules) - before\n"
        "print(*(getattr(sys.modules[name], '__file__', None) or '' for name in new), sep='\\n')\n"
        "print(*{name.split('.')[0] for name in new} - set(sys.stdlib_module_names))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder.parent), "COVERAGE_PROCESS_START": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    *files, outside = result.stdout.splitlines()
    assert outside == "adadelta"
    own = [Path(file) for file in files if Path(file).is_relative_to(folder)]
    assert folder / "installation.py" in own
    for path in own:
        tree = ast.parse(path.read_text(), str(path), feature_version=(3, 8))
        if not tree.body[1:]:  # a docstring
            continue
        # Without this, `str | None` fails on Python before 3.10.
        futures = [it for it in tree.body if isinstance(it, ast.ImportFrom)]
        assert any(it.module == "__future__" for it in futures), path
