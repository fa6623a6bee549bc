"""Packages that may be missing, and the extra of this package that installs each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def requirement(extra: str, packages: str) -> str:
    """Return what to give to `pip install` for an extra of this package.

    Args:
        extra: The extra in pyproject.toml.
        packages: What pip can install instead if this package is not installed itself, as in R.

    """
    # For an installed package, pip reads the extras from the package and needs no index. For one
    # that is not installed, pip would look in the index, where a stranger's may have its name.
    try:
        importlib.metadata.version("adadelta")
    except importlib.metadata.PackageNotFoundError:
        return packages
    return f'"adadelta[{extra}]"'


@contextmanager
def needed_by(name: str, extra: str) -> Iterator[None]:
    """Import packages in this block; if one is missing, the error says how to install it.

    Args:
        name: What needs the packages, for the error message.
        extra: The extra in pyproject.toml that installs all packages of the block.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        install = f"pip install {requirement(extra, package)}"
        message = f"{name} needs {package}, which is not installed: {install}"
        raise ModuleNotFoundError(message, name=package) from None
