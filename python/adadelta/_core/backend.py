"""The backend of Keras: which one it uses or will use, and who chose it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adadelta._core.packages import is_installed, needed_by, requirement

# In the order in which R prefers them. R reads this line as text.
BACKENDS = ("jax", "tensorflow", "torch")

# The backend that Keras uses by default.
KERAS_DEFAULT = "tensorflow"


def running_backend() -> str | None:
    """Return the backend of Keras if Keras is loaded, else None."""
    keras: Any = sys.modules.get("keras")
    try:
        return str(keras.config.backend())
    except AttributeError:
        return None


def choose_backend() -> str | None:
    """Set KERAS_BACKEND to the first installed backend, unless the user has chosen one.

    Returns that backend, or None if the user has chosen one or none is installed.
    """
    if os.environ.get("KERAS_BACKEND") or "keras" in sys.modules or _configured_backend():
        return None
    backends = installed_backends()
    if not backends:
        return None
    os.environ["KERAS_BACKEND"] = backends[0]
    return backends[0]


def backend_and_reason(default: str | None = None) -> tuple[str, str]:
    """Return the backend that Keras uses or will use, and who chose it.

    Args:
        default: The backend to assume if the user chose none and it is installed. None assumes
            the first installed one.

    """
    running = running_backend()
    if running:
        return running, "in use"
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen, "by KERAS_BACKEND"
    configured = _configured_backend()
    if configured:
        return configured, "by Keras' settings"
    if default and is_installed(default):
        return default, "Keras' default"
    first = next(iter(installed_backends()), "")
    reason = "the first that is installed"
    if default:
        reason += f"; set KERAS_BACKEND={first} if you import Keras before adadelta.Adadelta"
    return first, reason


@contextmanager
def keras_needed_by(name: str) -> Iterator[None]:
    """Import Keras in this block, with an installed backend if the user chose none.

    Args:
        name: What needs Keras, for the error message.

    """
    # Keras' default stays if it is installed, so that the backend does not depend on import order.
    if not is_installed(KERAS_DEFAULT):
        choose_backend()
    try:
        with needed_by(name, "jax"):
            yield
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        raise ModuleNotFoundError(_without_backend(error.name), name=error.name) from None


def installed_backends() -> list[str]:
    """Return the installed backends, in R's order."""
    return [backend for backend in BACKENDS if is_installed(backend)]


def _without_backend(missing: str) -> str:
    install = f"pip install {requirement(missing, missing)}"
    others = [f"KERAS_BACKEND={backend}" for backend in installed_backends()]
    cure = " or ".join(
        [*(f"set {choice} before Keras is imported" for choice in others[:1]), install]
    )
    return f'Keras is to compute with "{missing}", which is not installed: {cure}'


def _configured_backend() -> str | None:
    """Return the backend in Keras' settings, but not the default, which Keras itself writes."""
    folder = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    try:
        settings = json.loads(Path(folder, "keras.json").read_text(encoding="utf-8"))
        backend = settings.get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return None if backend == KERAS_DEFAULT else backend
