"""Adadelta (Zeiler 2012), one implementation for R and Python.

`adadelta.Adadelta` is a Keras 3 optimizer. Importing this package imports no framework: Keras
is imported when `Adadelta` is first used. The guides are in the folder `python/guides` of the
repository; begin with `quickstart.md`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

# The module that defines each public name.
_HOMES = {
    "Adadelta": "adadelta.keras",
    "KernelInfo": "adadelta._kernels.report",
    "Monitor": "adadelta._watch.monitor",
    "OptimizerState": "adadelta.state",
    "StateWarning": "adadelta.state",
    "Summary": "adadelta._state.summary",
    "conventions": "adadelta._core.conventions",
    "convert_state": "adadelta.state",
    "export_state": "adadelta.state",
    "import_state": "adadelta.state",
    "kernel_info": "adadelta._kernels.report",
    "load_keras_adadelta": "adadelta.state",
    "load_state": "adadelta.state",
    "save_model": "adadelta.state",
    "save_state": "adadelta.state",
    "translate": "adadelta._core.conventions",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    # Front ends are modules, and each needs its own framework.
    if not name.startswith("_") and find_spec(f"adadelta.{name}"):
        return import_module(f"adadelta.{name}")
    raise AttributeError(f"module 'adadelta' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
