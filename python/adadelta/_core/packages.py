"""Packages that may be missing, and the extra of this package that installs each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


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
        message = f'{name} needs {package}, which is not installed: pip install "adadelta[{extra}]"'
        raise ModuleNotFoundError(message, name=package) from None
