"""Every command and example of README.md exists and runs; names in CONTRIBUTING.md exist.

Examples in R run in tests/testthat.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def test_there_are_examples_in_three_languages():
    assert all(blocks(language) for language in ("sh", "r", "python"))


def needs_another_framework(code):
    """Whether an example needs a framework that only tests/frameworks uses."""
    return re.search(r"import adadelta\.\w", code) is not None


@pytest.mark.parametrize("code", [it for it in blocks("python") if not needs_another_framework(it)])
def test_python_examples_run(code):
    exec(compile(code, "README.md", "exec"), {})


def test_make_targets_exist():
    used = re.findall(r"^make ([a-z-]+)", "\n".join(blocks("sh")), flags=re.M)
    assert used and set(used) <= set(TARGETS)
    named = re.findall(r"(?:^|`)make ([a-z-]+)", CONTRIBUTING, flags=re.M)
    assert named and set(named) <= set(TARGETS)


@pytest.mark.parametrize("target", ["bench", "choosing", "paper", "site"])
def test_long_commands_say_what_they_need_before_they_begin(target, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # Inside `make test`, another make would print its directory and inherit the flags.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    planned = subprocess.run(
        ["make", "-n", target],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert planned.stdout.splitlines()[0] == f"tests/tools/needs.sh {target}"
    result = subprocess.run(
        [ROOT / "tests" / "tools" / "needs.sh", target],
        env={**os.environ, "ADADELTA_MNIST": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert f"make {target} takes" in result.stdout
    complaint = f"ADADELTA_MNIST names no file that can be read: {tmp_path / 'none'}"
    assert (result.returncode, complaint in result.stderr) == ((0, False), (1, True))[
        target != "site"
    ]


def test_the_extras_of_the_readme_are_there():
    project = tomllib.loads((ROOT / "python" / "pyproject.toml").read_text())["project"]
    table = README.partition("| extra | for |")[2].partition("\n\n")[0]
    named = {
        name for names in re.findall(r"^\| `([\w,-]+)`", table, re.M) for name in names.split(",")
    }
    # The remaining extras are parts of these, and `test` is for contributors.
    parts = {"kernel", "state", "keras-files", "plot", "test"}
    assert named == set(project["optional-dependencies"]) - parts


def test_the_count_of_cases_is_right():
    import vectors

    count = sum(len(vectors.load(name)) for name in vectors.NAMES)
    assert f"{count} cases" in README


def test_the_oldest_keras_is_stated_once_more_correctly():
    project = (ROOT / "python" / "pyproject.toml").read_text()
    (oldest,) = re.findall(r'"keras>=([\d.]+)"', project)
    assert f"keras {oldest} or newer" in README
    assert f"keras (>= {oldest})" in (ROOT / "DESCRIPTION").read_text()


def test_pip_install_gives_a_working_package(tmp_path):
    """Run `pip install ./python`, without dependencies that the environment already has."""
    # From a copy, since building leaves files in the folder.
    shutil.copytree(ROOT / "python", tmp_path / "source")
    arguments = ["install", "-q", "--no-deps", "--target", tmp_path, tmp_path / "source"]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, cwd=tmp_path)
    code = "import adadelta; print(adadelta.__file__, adadelta.Adadelta(1.0).get_config()['rho'])"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert str(tmp_path) in result.stdout and result.stdout.strip().endswith("0.95")


def test_folders_of_the_map_exist():
    _, _, rest = CONTRIBUTING.partition("## What is where")
    paths = re.findall(r"`([\w./]+/[\w./]*)`", rest.partition("\n## ")[0])
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_folder_of_the_package_is_in_the_map():
    folders = [path.parent for path in (ROOT / "python" / "adadelta").glob("*/__init__.py")]
    assert len(folders) > 10
    for folder in folders:
        assert f"`{folder.relative_to(ROOT)}/`" in CONTRIBUTING
