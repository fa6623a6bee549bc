"""Machine code of this folder's numba functions: compiled once per machine, then read from a file.

Numba takes seconds to compile a kernel, and half a second to load one from its own cache; llvmlite
loads the object code alone in a tenth of that. The name of a file and its checksum depend on
everything that the code depends on. Without a folder for the files (see `cache.py`), every process
compiles the code.
"""

import ctypes
import functools
import hashlib
import platform
import sys
import uuid
from importlib.metadata import version
from pathlib import Path

from llvmlite import binding

from adadelta._kernels import cache, compiler
from adadelta._kernels.locks import Lock

_lock = Lock()
_addresses: dict[tuple[str, str], int] = {}
# The libraries that own the code: kept as long as the process lives.
_code: list[object] = []
# LLVM takes 1.2 MB of address space to load code, and aborts the process if it gets no memory.
_ROOM = 2**23


def addresses(*functions: tuple[str, str]) -> list[int]:
    """Return the addresses of compiled numba functions that take and return int64.

    Args:
        functions: The module in this folder and the name of each.

    Raises:
        MemoryError, OSError, RuntimeError: The functions can't be compiled or loaded.

    """
    if not all(function in _addresses for function in functions):
        with _lock.held():
            _load([function for function in functions if function not in _addresses])
    return [_addresses[function] for function in functions]


def _load(unknown: list[tuple[str, str]]) -> None:
    identities = {key: _identity(key) for key in unknown}
    names = {key: f"{'-'.join(key)}-{identities[key][:32]}.o" for key in unknown}
    folder = cache.folder()
    read = {key: cache.read(folder, names[key], identities[key]) for key in unknown if folder}
    codes = {key: code for key, code in read.items() if code is not None}
    made = compiler.object_codes([key for key in unknown if key not in codes])
    for key, code in made.items():
        if folder:
            cache.write(folder, names[key], identities[key], code)
    for key, code in (codes | made).items():
        _addresses[key] = _link(code)


def has_half_precision() -> bool:
    """Whether the processor converts float16, as all but the oldest do, without the C library."""
    with compiler.llvm.held():
        features = binding.get_host_cpu_features()
    return "f16c" not in features or bool(features["f16c"])


def bound(function: int, known: int) -> int:
    """Return the address of a function of one argument that passes it and `known` to another."""
    assembly = f"""
define i64 @{compiler.ENTRY}(i64 %argument) {{
  %function = inttoptr i64 {function} to ptr
  %value = call i64 %function(i64 %argument, i64 {known})
  ret i64 %value
}}
"""
    compiler.check_room(_ROOM)
    with compiler.llvm.held():
        return _link(compiler.target().emit_object(binding.parse_assembly(assembly)))


def call(place: int, arguments: int) -> "ctypes._CFunctionType":
    """Return the function at an address as a Python callable that releases the GIL."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(place)


@functools.cache
def _engine() -> "binding.LLJIT":
    return binding.create_lljit_compiler(compiler.target())


def _identity(key: tuple[str, str]) -> str:
    """Return a hash of the name of a function and of everything that its code depends on."""
    return hashlib.sha256(_surroundings() + repr(key).encode()).hexdigest()


@functools.cache
def _surroundings() -> bytes:
    """Return what the code of all functions depends on: the processor, versions and sources."""
    with compiler.llvm.held():
        machine = (
            compiler.target().triple,
            binding.get_host_cpu_name(),
            binding.get_host_cpu_features().flatten(),
        )
    versions = [version(package) for package in ("numba", "llvmlite")]
    # A single-file application contains no sources: there the package's version must be enough.
    own = (platform.python_version(), sys.modules["adadelta"].__version__)
    files = sorted(file for file in Path(__file__).parent.glob("*.py*") if file.is_file())
    described = repr((machine, versions, own)).encode()
    return b"".join((described, *(file.read_bytes() for file in files)))


def _link(code: bytes) -> int:
    compiler.check_room(_ROOM)
    with compiler.llvm.held():
        builder = binding.JITLibraryBuilder()
        builder.add_object_img(code).export_symbol(compiler.ENTRY).add_current_process()
        library = builder.link(_engine(), f"adadelta-{uuid.uuid4().hex}")
    _code.append(library)
    address: int = library[compiler.ENTRY]
    return address
