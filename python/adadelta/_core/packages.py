"""Packages that may be missing, and the extra of this one that brings each."""

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
    """Import packages in this block; where one is missing, the error says how to get it.

    Args:
        name: What the user asked for.
        extra: The extra in pyproject.toml that brings all packages of the block.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        message = f'{name} needs {package}, which is not installed: pip install "adadelta[{extra}]"'
        raise ModuleNotFoundError(message, name=package) from None
