"""The file of a state: safetensors, with the rest as JSON in its metadata, and a checksum.

The file is opened here and not by safetensors, which hangs on a FIFO, maps the file into memory (so
that the process dies if the file is cut off meanwhile), and keeps only the last of two tensors
with the same name.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from io import BufferedReader
from typing import Any

import numpy as np

from adadelta._core import hyperparameters
from adadelta._core.hyperparameters import LONGEST_MESSAGE, shortened, shortened_path
from adadelta._core.messages import Message
from adadelta._core.packages import needed_by
from adadelta._state import atomic
from adadelta._state.record import AVERAGES, SLOTS, OptimizerState

FORMAT = "adadelta-optimizer-state"
VERSION = 1

_DTYPES = {"F32": "<f4", "F64": "<f8"}
# The limit of safetensors, so that a sparse file can't make us allocate more memory than that.
_LARGEST_HEADER = 100_000_000
_LARGEST_COUNT = 2**63 - 1


class StateFileError(ValueError):
    """A file from which no state can be read."""


def write(state: OptimizerState, path: str | os.PathLike[str]) -> None:
    """Write a state to a file, replacing an existing one."""
    with needed_by("A file of a state", extra="state"):
        import safetensors.numpy

    # A state that can't be read again must not replace one that can.
    state = replace(state)
    problem = _problem_with(state)
    if problem:
        text = f"The state can't be saved, and no file was changed: {problem}"
        raise ValueError(shortened(text, LONGEST_MESSAGE))
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
    try:
        header = json.dumps(about)
    except RecursionError:
        raise TypeError("the hyperparameters of the state are nested too deeply for JSON") from None
    metadata = {"format": FORMAT, "version": str(VERSION), "header": header}
    metadata["sha256"] = _checksum(header, tensors)
    content = safetensors.numpy.save(tensors, metadata)
    if int.from_bytes(content[:8], "little") > _LARGEST_HEADER:
        raise ValueError(f"The state has too many parameters for one file: {len(state.parameters)}")
    with atomic.replaced(path) as beside:
        beside.write_bytes(content)


def read(path: str | os.PathLike[str]) -> OptimizerState:
    """Read a state, or raise an error that says what is wrong with the file."""
    with needed_by("A file of a state", extra="state"):
        import safetensors

    with opened(path) as file:
        try:
            metadata, tensors = _content(file)
            header = metadata.get("header", "")
            if not _is_text(header) or metadata.get("sha256") != _checksum(header, tensors):
                raise ValueError("its content does not agree with its checksum")
            return _state_of(_json(header), tensors)
        except _UnreadableError as error:
            text = f"{shortened_path(path)} {error}"
            if error.is_of_others:
                fields = {
                    "file": shortened_path(path),
                    "alternative": error.alternative,
                }
                text = Message(text, "other_file", **fields)
            raise StateFileError(text) from None
        except (safetensors.SafetensorError, TypeError, ValueError, OverflowError) as error:
            # Also bytes that are no text, integers of thousands of digits, and a shape that no
            # array can have.
            text = f"{shortened_path(path)} is damaged: {error}"
            text = shortened(text, LONGEST_MESSAGE)
            raise StateFileError(text) from None


class _UnreadableError(Exception):
    """A file can't be read, and may be undamaged; the text follows its name in the message.

    Args:
        text: What is wrong.
        is_of_others: Whether it was not written with `save_state()`.
        alternative: What else it may be then: "cut off", "damaged", or None.

    """

    def __init__(
        self, text: str, is_of_others: bool = False, alternative: str | None = None
    ) -> None:
        super().__init__(text)
        self.is_of_others, self.alternative = is_of_others, alternative


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open a regular file, but nothing that could make the reader wait."""
    # Checked before opening too, since opening a device can be enough to start it.
    _refuse_other_kinds(path, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with open(descriptor, "rb") as file:
        _refuse_other_kinds(path, os.fstat(descriptor).st_mode)
        yield file


_BINARY: int = getattr(os, "O_BINARY", 0)


def _refuse_other_kinds(path: str | os.PathLike[str], mode: int) -> None:
    kind = atomic.kind_of(path, mode)
    if kind is not None:
        raise StateFileError(f"{shortened_path(path)} is {kind} and not a regular file")


def _content(file: BufferedReader) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the metadata and the tensors of a safetensors file of this format."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if not start:
        raise _UnreadableError("is empty")
    if start[8:] != b"{":
        # It is too short to tell, or it lacks what every safetensors file begins with.
        alternative = "cut off" if size < 9 else "damaged"
        text = f"is {alternative}, or is no file written with save_state()"
        raise _UnreadableError(text, True, alternative)
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _LARGEST_HEADER):
        raise _UnreadableError("is cut off or damaged")
    content = start + file.read(length - 1)
    metadata = _json(content[8:].decode()).get("__metadata__")
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        metadata = {}
    _refuse_other_formats(metadata)
    try:
        return metadata, _tensors(content + file.read())
    except MemoryError:
        raise _UnreadableError("is larger than the memory at hand") from None


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    import safetensors

    tensors = {}
    for name, about in safetensors.deserialize(content):
        if about["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is of the dtype {about['dtype']}")
        array = np.frombuffer(about["data"], _DTYPES[about["dtype"]])
        tensors[name] = array.reshape(about["shape"])
    return tensors


def _json(text: str) -> dict[str, Any]:
    """Return the object that a JSON text describes."""
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("its header is no object")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return value


def _state_of(about: dict[str, Any], tensors: dict[str, np.ndarray]) -> OptimizerState:
    """Return the state that a header and tensors describe."""
    if about.keys() != {field.name for field in fields(OptimizerState)}:
        raise ValueError("its header has not the fields of a state")
    names, with_gradients = about["parameters"], about["window_gradients"]
    for values in (names, with_gradients):
        if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
            raise ValueError("its header has no list of names")
        if len(set(values)) != len(values):
            raise ValueError("a name occurs twice in its header")
    if not isinstance(about["hyperparameters"], dict):
        raise ValueError("its header has no hyperparameters")
    about["parameters"] = {
        name: {slot: tensors.pop(key) for slot in SLOTS if (key := f"{name}|{slot}") in tensors}
        for name in names
    }
    if tensors:
        raise ValueError(f"{next(iter(tensors))} belongs to no parameter")
    state = OptimizerState(**about)
    problem = _problem_with(state)
    if problem:
        raise ValueError(problem)
    return state


def _problem_with(state: OptimizerState) -> str | None:
    """Return why training can't resume from a state, or None: in memory it may have changed."""
    unknown = [name for name in state.window_gradients if name not in state.parameters]
    if unknown:
        return f"`window_gradients` has {unknown[0]!r}, which is no parameter"
    for name, value in state.counters().items():
        if isinstance(value, int) and value > _LARGEST_COUNT:
            return hyperparameters.refusal(name, f"at most {_LARGEST_COUNT}", value)
    scale = state.loss_scale
    if scale is not None and not 0 < scale < math.inf:
        return hyperparameters.refusal("loss_scale", "a finite number greater than 0", scale)
    for name, slots in state.parameters.items():
        if not _is_text(name):
            return f"the name {name!r} has half of a character"
        if len({array.shape for array in slots.values()}) > 1:
            return f"the arrays of {name} have different shapes"
        for slot in AVERAGES:
            # In other implementations squares overflow to infinity, which does no harm.
            if slot in slots and not np.all(slots[slot] >= 0):
                what = "NaN" if np.any(np.isnan(slots[slot])) else "negative numbers"
                return f"the {slot} of {name} has {what}, as no average of squares has"
    return None


def _is_text(text: str) -> bool:
    # JSON can contain half of a surrogate pair, which can't be written to a file.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse_other_formats(metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        text = "is a safetensors file with something else: it was not written with save_state()"
        raise _UnreadableError(text, True)
    version = metadata.get("version", "")
    if version.isdecimal() and len(version) < 9 and int(version) > VERSION:
        raise _UnreadableError(
            f"was written by a newer adadelta: its format is {version}, and this adadelta reads "
            f"{VERSION}; install a newer one"
        )
    if version != str(VERSION):
        raise ValueError("it has no version")


def _plain(array: np.ndarray) -> np.ndarray:
    # safetensors writes raw memory, which must be in C order and this machine's byte order.
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _checksum(header: str, tensors: dict[str, np.ndarray]) -> str:
    checksum = hashlib.sha256(f"{FORMAT} {VERSION} {len(header.encode())} {header}".encode())
    for name, array in sorted(tensors.items()):
        about = json.dumps([name, array.dtype.name, list(array.shape)])
        checksum.update(about.encode())
        little: Any = array.astype(array.dtype.newbyteorder("<"), copy=False)
        checksum.update(memoryview(little.reshape(-1)).cast("B") if little.size else b"")
    return checksum.hexdigest()
