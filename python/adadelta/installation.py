"""What is installed, what is missing and how to get it, for `python -m adadelta info` and R.

The Python or the Keras at hand may be too old, so importing this module needs only the standard
library of Python 3.8 or newer.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from adadelta._core.backend import (
    BACKENDS,
    KERAS_DEFAULT,
    backend_and_reason,
    choose_backend,
    installed_backends,
    running_backend,
)
from adadelta._core.packages import is_installed

__all__ = [
    "Check",
    "checks",
    "checks_in_lines",
    "choose_backend",
    "is_installed",
    "missing_backend",
    "pip_install",
    "problem",
    "problem_of_python",
    "problem_without_keras",
    "running_backend",
    "version",
]

# R reads these lines as text, to know what to require before any Python runs.
PYTHON_MINIMUM = "3.11"
KERAS_MINIMUM = "3.10"
# For speed, and for saving the state. The optimizer works without them.
COMPANIONS = ("numba", "safetensors")


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        subject: What was checked: "Python", "NumPy", "Keras", "backend", "kernel" or
            "saved state".
        found: The version and where it is, or "" if it is missing.
        needed: Whether the optimizer needs it to work.
        problem: What does not work, or None.
        cure: What to do about it, or None.
        packages: What `pip_install()` has to install for it, or None.

    """

    subject: str
    found: str
    needed: bool = True
    problem: str | None = None
    cure: str | None = None
    packages: str | None = None


def checks(default: str | None = KERAS_DEFAULT) -> list[Check]:
    """Check everything that the optimizer needs in this Python, without importing Keras.

    Args:
        default: The backend to assume if the user chose none and it is installed, by default that
            of Keras. None assumes the first installed one, as in R.

    Returns:
        A `Check` for each subject. Without the last two the optimizer works, but is slower or
        can't save its state.

    Example:
        >>> from adadelta import installation
        >>> [check.subject for check in installation.checks()]
        ['Python', 'NumPy', 'Keras', 'backend', 'kernel', 'saved state']

    """
    backend = backend_and_reason(default)
    return [_python(), _numpy(), _keras(), _backend(*backend), _kernel(backend[0]), _saved_state()]


def checks_in_lines() -> list[str]:
    """Return the checks as lines for R to parse: fields between tabs, and "end" after the last."""
    return [
        "\t".join(
            " ".join(str(field or "").split()) for field in (*check[:4], _cure_in_r(check), "end")
        )
        for check in checks(default=None)
    ]


def problem_of_python() -> list[str] | None:
    """Return what is wrong with this Python itself: the cause and the cure for R users, or None."""
    return _first_problem(_python())


def problem_without_keras() -> list[str] | None:
    """Return why the parts that need no Keras can't work: cause and cure for R users, or None."""
    return _first_problem(_python(), _numpy())


def problem() -> list[str] | None:
    """Return why the optimizer can't work here: the cause and the cure for R users, or None."""
    return _first_problem(_python(), _keras(), _backend(*backend_and_reason()))


def _first_problem(*found: Check) -> list[str] | None:
    for check in found:
        if check.problem is not None:
            return [line for line in (check.problem, _cure_in_r(check)) if line]
    return None


def _cure_in_r(check: Check) -> str:
    cure = check.cure or ""
    if check.packages is not None:
        install = pip_install(check.packages)
        cure = f"{cure} Call install_adadelta(), or in a terminal: {install}".lstrip()
        if _is_externally_managed():
            cure += f" (then set RETICULATE_PYTHON={_ENVIRONMENT}/bin/python)"
    return cure


# ------------------------------------------------------------------ the checks


def _python() -> Check:
    own = sys.version.split()[0]
    found = f"{own} at {_with_tilde(_here())}"
    if sys.version_info < _numbers(PYTHON_MINIMUM):
        cause = f"{_here()} is Python {own}, and {PYTHON_MINIMUM} or newer is needed."
        cure = "Name a newer one in the environment variable RETICULATE_PYTHON, and start R again."
        return Check("Python", found, problem=cause, cure=cure)
    return Check("Python", found)


def _numpy() -> Check:
    if not is_installed("numpy"):
        cause = f"NumPy is not installed in {_here()}."
        return Check("NumPy", "", problem=cause, packages="numpy")
    return Check("NumPy", version("numpy") or "of unknown version")


def _keras() -> Check:
    here = _here()
    keras = f'"keras>={KERAS_MINIMUM}"'
    if not is_installed("keras"):
        cause = f"Keras is not installed in {here}."
        backend = "" if installed_backends() else f" {BACKENDS[0]}"
        packages = f"{keras}{backend} {' '.join(COMPANIONS)}"
        return Check("Keras", "", problem=cause, packages=packages)
    found = version("keras")
    if found is not None and _numbers(found) < _numbers(KERAS_MINIMUM):
        cause = f"Keras {found} is too old in {here}: "
        cause += f"{KERAS_MINIMUM} or newer is needed."
        return Check("Keras", found, problem=cause, packages=keras)
    return Check("Keras", found or "of unknown version")


def _backend(name: str, why: str) -> Check:
    installed = installed_backends()
    if not name:
        cause = f"Keras has nothing to compute with in {_here()}."
        return Check("backend", "", problem=cause, packages=BACKENDS[0])
    if _is_missing(name):
        choice = f"Set KERAS_BACKEND={installed[0]}, or install {name}." if installed else None
        return _without_backend(name, choice)
    others = [backend for backend in installed if backend != name]
    found = " ".join(filter(None, (name, version(name)))) + f" ({why})"
    return Check("backend", found + (f"; also {', '.join(others)}" if others else ""))


def _kernel(backend: str) -> Check:
    if sys.version_info < _numbers(PYTHON_MINIMUM):
        cause = f"Kernels need Python {PYTHON_MINIMUM} or newer."
        return Check("kernel", "none", False, cause)
    from adadelta import kernel_info
    from adadelta._kernels.choose import FOR_KERAS

    kernel = FOR_KERAS.get(backend)
    try:
        info = kernel_info()
        serving = [name for name, kernel in info.items() if kernel["serves"]]
        own = info[kernel] if kernel else {"reason": None}
        reason, why_not_kept = own["reason"], own.get("cache_reason")
    except Exception as error:  # numba or jax is broken
        serving, reason, why_not_kept = [], f"{type(error).__name__}: {error}", None
    found = ", ".join(serving) or "none"
    if reason is None and why_not_kept is None:
        return Check("kernel", found, False)
    if reason is None:
        cause = f"The first step takes seconds longer than it could: {why_not_kept}."
        return Check("kernel", found, False, cause)
    cause = f"Steps are slower than they could be: {reason}."
    packages = None if is_installed("numba") else "numba"
    return Check("kernel", found, False, cause, packages=packages)


def _saved_state() -> Check:
    if not is_installed("safetensors"):
        cause = "The state of an optimizer can't be saved alone without safetensors."
        return Check("saved state", "", False, cause, packages="safetensors")
    return Check("saved state", f"safetensors {version('safetensors') or ''}".strip(), False)


# ------------------------------------------------------------------ the backend


def missing_backend(name: str) -> list[str] | None:
    """Return why Keras can't use this backend: the cause and the cure for R users, or None."""
    return _first_problem(_without_backend(name)) if _is_missing(name) else None


def _is_missing(backend: str) -> bool:
    return backend in BACKENDS and not is_installed(backend)


def _without_backend(name: str, cure: str | None = None) -> Check:
    cause = f'Keras is to compute with "{name}", which is not installed in {_here()}.'
    return Check("backend", "", problem=cause, cure=cure, packages=name)


# ------------------------------------------------------------------ packages


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_install(packages: str) -> str:
    """Return the command that installs packages into this Python, or an environment of it."""
    if not _is_externally_managed():
        return f"{_here()} -m pip install {packages}"
    environment = f"{_here()} -m venv --system-site-packages {_ENVIRONMENT}"
    return f"{environment} && {_ENVIRONMENT}/bin/python -m pip install {packages}"


_ENVIRONMENT = "~/.virtualenvs/adadelta"


def _is_externally_managed() -> bool:
    """Whether pip refuses to install into this Python, as into that of Debian 12."""
    if sys.prefix != sys.base_prefix:
        return False
    # The folder of the standard library, for which `sysconfig` would import one more module.
    return Path(os.__file__).with_name("EXTERNALLY-MANAGED").exists()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _here() -> str:
    return sys.executable or "Python"


def _with_tilde(path: str) -> str:
    """Return a path with "~" for the home folder, so that users can show it to others."""
    home = os.path.expanduser("~").rstrip("/")
    # On Windows, "~" is another folder in R than in Python.
    is_inside = os.name == "posix" and home and path.startswith(f"{home}/")
    return f"~{path[len(home) :]}" if is_inside else path
