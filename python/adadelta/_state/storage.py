"""The file of a state: safetensors, with the rest as JSON in its metadata, and a checksum."""

import hashlib
import json
import os
from typing import Any

import numpy as np

from adadelta._state import atomic
from adadelta._state.record import SLOTS, OptimizerState

FORMAT = "adadelta-optimizer-state"
VERSION = 1


class StateFileError(ValueError):
    """A file that no state can be read from."""


def write(state: OptimizerState, path: str | os.PathLike[str]) -> None:
    """Write a state, in the place of the file that is there."""
    import safetensors.numpy

    tensors = {
        f"{name}|{slot}": _plain(array)
        for name, slots in state.parameters.items()
        for slot, array in slots.items()
    }
    about = {
        **state.counters(),
        "hyperparameters": state.hyperparameters,
        "parameters": list(state.parameters),  # in their order, which safetensors does not keep
    }
    header = json.dumps(about)
    metadata = {"format": FORMAT, "version": str(VERSION), "header": header}
    metadata["sha256"] = _checksum(header, tensors)
    content = safetensors.numpy.save(tensors, metadata)
    with atomic.replaced(path) as beside:
        beside.write_bytes(content)


def read(path: str | os.PathLike[str]) -> OptimizerState:
    """Read a state, or raise with what is wrong with the file."""
    import safetensors

    _refuse_other_kinds(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _refuse_other_formats(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (StateFileError, OSError, MemoryError):
        raise
    except Exception as error:
        raise StateFileError(f"{_shown(path)} is damaged: {error}") from error
    if metadata.get("sha256") != _checksum(metadata.get("header", ""), tensors):
        raise StateFileError(
            f"{_shown(path)} is damaged: its content does not agree with its checksum"
        )
    about = json.loads(metadata["header"])
    about["parameters"] = {
        name: {slot: tensors[key] for slot in SLOTS if (key := f"{name}|{slot}") in tensors}
        for name in about["parameters"]
    }
    return OptimizerState(**about)


def _refuse_other_kinds(path: str | os.PathLike[str]) -> None:
    with open(path, "rb") as file:
        start = file.read(9)
        size = file.seek(0, os.SEEK_END)
    if not start:
        raise StateFileError(f"{_shown(path)} is empty")
    if start[8:] != b"{":
        # Too short to tell, or not what every safetensors file begins with.
        what = "is cut off, or" if size < 9 else "is damaged, or"
        raise StateFileError(f"{_shown(path)} {what} is no file written with save_state()")
    if 8 + int.from_bytes(start[:8], "little") > size:
        raise StateFileError(f"{_shown(path)} is cut off or damaged")


def _refuse_other_formats(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise StateFileError(
            f"{_shown(path)} is a safetensors file with something else: it was not written with "
            "save_state()"
        )
    version = metadata.get("version", "")
    if version.isdecimal() and int(version) > VERSION:
        raise StateFileError(
            f"{_shown(path)} was written by a newer adadelta: it has version {version} of the "
            f"format, and this one reads version {VERSION}; install a newer adadelta"
        )
    if version != str(VERSION):
        raise StateFileError(f"{_shown(path)} is damaged: it has no version")


def _plain(array: np.ndarray) -> np.ndarray:
    # safetensors writes memory as it lies: it must be in C order and this machine's byte order.
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _checksum(header: str, tensors: dict[str, np.ndarray]) -> str:
    checksum = hashlib.sha256(f"{FORMAT} {VERSION} {len(header.encode())} {header}".encode())
    for name, array in sorted(tensors.items()):
        about = json.dumps([name, array.dtype.name, list(array.shape)])
        checksum.update(about.encode())
        little: Any = array.astype(array.dtype.newbyteorder("<"), copy=False)
        checksum.update(memoryview(little.reshape(-1)).cast("B") if little.size else b"")
    return checksum.hexdigest()


def _shown(path: str | os.PathLike[str]) -> str:
    return f'"{os.fspath(path)}"'
