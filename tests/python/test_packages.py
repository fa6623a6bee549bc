"""The packages that each extra installs, and behavior without a package or a backend."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import adadelta
from adadelta._core import backend
from adadelta._core.packages import is_installed

ROOT = Path(adadelta.__file__).resolve().parents[1]
PROJECT = Path(__file__).resolve().parents[2] / "python" / "pyproject.toml"
FRAMEWORKS = {"keras", "jax", "tensorflow", "torch", "tf-keras", "brainpy", "optax", "scipy"}
# Packages that make steps fast and save states.
COMPANIONS = {"numba", "safetensors"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(PROJECT.read_text())["project"]


def names_in(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def brought_by(project, extra):
    """Return the packages that an extra installs, also through other extras of this package."""
    found = set()
    for requirement in project["optional-dependencies"][extra]:
        inner = re.fullmatch(r"adadelta\[([\w,-]+)\]", requirement)
        if inner:
            found |= set().union(*(brought_by(project, it) for it in inner[1].split(",")))
        else:
            found |= names_in([requirement])
    return found


def test_each_extra_brings_its_framework_and_no_other(project):
    assert names_in(project["dependencies"]) == {"numpy"}
    brings = {extra: brought_by(project, extra) for extra in project["optional-dependencies"]}
    with_keras = {
        "keras": {"keras"},
        "jax": {"keras", "jax"},
        "tensorflow": {"keras", "tensorflow"},
    }
    for extra in FRAMEWORKS - {"scipy"}:
        assert brings[extra] == COMPANIONS | with_keras.get(extra, {extra}), extra
    assert brings["scipy"] == {"scipy"}
    assert brings["kernel"] | brings["state"] == COMPANIONS


@pytest.fixture
def site(tmp_path):
    """Return a folder that makes pip take this package for an installed one."""
    folder = tmp_path / "site" / "adadelta-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: adadelta\nVersion: 1.0\n")
    return folder.parent


# The first lines of a program that can't import some packages.
BLOCK = "import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"


def output_of(code, blocked=(), site="", **settings):
    """Return the output of a program that can't import the packages `blocked`."""
    path = os.pathsep.join([str(ROOT), str(site)])
    environment = {**os.environ, "PYTHONPATH": path, "COVERAGE_PROCESS_START": "", **settings}
    result = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code],
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


ASK = """
import adadelta
try:
    {code}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("code", "name", "missing", "extra"),
    [
        ("adadelta.Adadelta", "adadelta.Adadelta", "keras", "jax"),
        ("import adadelta.keras", "adadelta.Adadelta", "keras", "jax"),
        ("adadelta.Monitor", "adadelta.Monitor", "keras", "jax"),
        ("import adadelta.torch", "adadelta.torch", "torch", "torch"),
        ("adadelta.torch", "adadelta.torch", "torch", "torch"),
        ("adadelta.brainpy", "adadelta.brainpy", "brainpy", "brainpy"),
        ("adadelta.optax", "adadelta.optax", "jax", "optax"),
        ("adadelta.tf1", "adadelta.tf1", "tensorflow", "tensorflow"),
        ("adadelta.tf_keras", "adadelta.tf_keras", "tensorflow", "tf-keras"),
        ("adadelta.scipy", "adadelta.scipy", "scipy", "scipy"),
        ("adadelta.state.read_state(r'{file}')", "A file of a state", "safetensors", "state"),
        (
            "from adadelta._watch.plot import plot; plot([])",
            "Monitor.plot()",
            "matplotlib",
            "plot",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    project, tmp_path, site, code, name, missing, extra
):
    if missing == "brainpy":
        pytest.importorskip("jax")
    state = adadelta.OptimizerState(step=1, update=1, hyperparameters={}, parameters={})
    adadelta.state.write_state(state, tmp_path / "file")
    code = ASK.format(code=code.format(file=tmp_path / "file"))
    said = output_of(code, blocked=[missing], site=site)
    assert said == [
        f'{name} needs {missing}, which is not installed: pip install "adadelta[{extra}]"'
    ]
    distribution = {"tensorflow": extra, "jax": extra}.get(missing, missing)
    assert distribution in brought_by(project, extra)


def test_a_package_that_another_one_lacks_is_named_too(site):
    (said,) = output_of(ASK.format(code="adadelta.Adadelta"), blocked=["rich"], site=site)
    assert (
        said == 'adadelta.Adadelta needs rich, which is not installed: pip install "adadelta[jax]"'
    )


def test_the_extra_of_each_package_that_info_lists(project):
    from adadelta.__main__ import _PACKAGES

    for package, (_, extra) in _PACKAGES.items():
        assert extra is None or package.replace("_", "-") in brought_by(project, extra), package


# ------------------------------------------------------------------ the backend of Keras

SHOW = "import adadelta, os; optimizer = adadelta.Adadelta(); import keras; print({shown})"


def test_the_backend_that_is_there_is_taken_where_nobody_chose(tmp_path):
    """Keras alone would fail with "No module named 'tensorflow'"."""
    (there,) = [it for it in ("jax", "torch") if is_installed(it)][:1]
    code = SHOW.format(shown="keras.config.backend(), os.environ['KERAS_BACKEND']")
    settings = {"KERAS_BACKEND": None, "KERAS_HOME": str(tmp_path)}
    lines = output_of(code, blocked=["tensorflow"], **settings)
    assert lines == [f"{there} {there}"]
    # By now Keras has written its settings file; the user has not chosen anything.
    assert output_of(code, blocked=["tensorflow"], **settings) == lines
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    assert output_of(code, blocked=["tensorflow"], **settings) == lines


@pytest.mark.skipif(not is_installed("tensorflow"), reason="TensorFlow is not installed")
def test_the_backend_of_keras_stays_where_it_is_installed(tmp_path):
    code = "import adadelta.keras, os; print(os.environ.get('KERAS_BACKEND'))"
    lines = output_of(code, KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    assert lines == ["None"]


def test_a_chosen_backend_that_is_missing_is_named_with_one_that_is_there(site):
    there, missing = ("jax", "torch") if is_installed("jax") else ("torch", "jax")
    code = ASK.format(code="adadelta.Adadelta")
    (said,) = output_of(code, blocked=[missing], site=site, KERAS_BACKEND=missing)
    assert said == (
        f'Keras is to compute with "{missing}", which is not installed: set KERAS_BACKEND={there} '
        f'before Keras is imported or pip install "adadelta[{missing}]"'
    )


def test_without_any_backend_one_is_to_be_installed(monkeypatch, site):
    monkeypatch.setattr(backend, "installed_backends", list)
    monkeypatch.syspath_prepend(site)
    with (
        pytest.raises(ModuleNotFoundError, match=r'not installed: pip install "adadelta\[jax\]"$'),
        backend.keras_needed_by("adadelta.Adadelta"),
    ):
        raise ModuleNotFoundError(name="jax")
