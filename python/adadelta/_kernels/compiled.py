"""Machine code of this folder's numba functions: compiled once per machine, then read from a file.

Numba takes seconds to compile a kernel, and half a second to load one from its own cache; the
object code alone is loaded by llvmlite in a tenth of that. The file's name has in it everything
that the code depends on. A folder that can't be written is no error: the code is then compiled
in every process.
"""

import contextlib
import functools
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llvmlite import binding

from adadelta._kernels import compiler

_lock = threading.RLock()
_addresses: dict[Any, int] = {}
# What owns the code: it lives as long as the process.
_code: list[Any] = []


def folder() -> Path:
    """Return where compiled kernels are kept."""
    chosen = os.environ.get("ADADELTA_KERNEL_CACHE")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "adadelta" / "kernels"


def addresses(*functions: tuple[str, str]) -> list[int]:
    """Return the addresses of numba functions that take int64 and return one.

    Args:
        functions: The module in this folder and the name of each.

    """
    with _lock:
        unknown = [function for function in functions if function not in _addresses]
        paths = {key: folder() / f"{'-'.join(key)}-{_fingerprint(key)}.o" for key in unknown}
        codes = {key: code for key, path in paths.items() if (code := _read(path)) is not None}
        compiled = compiler.object_codes([key for key in unknown if key not in codes])
        for key, code in compiled.items():
            _write(paths[key], code)
        for key, code in (codes | compiled).items():
            _addresses[key] = _link(code)
        return [_addresses[function] for function in functions]


def has_half_precision() -> bool:
    """Whether the processor converts float16, as all but the oldest do; else C's library must."""
    features = binding.get_host_cpu_features()
    return "f16c" not in features or bool(features["f16c"])


def bound(function: int, known: int) -> int:
    """Return the address of a function of one argument that calls another with `known` after it."""
    text = f"""
define i64 @{compiler.ENTRY}(i64 %argument) {{
  %function = inttoptr i64 {function} to ptr
  %value = call i64 %function(i64 %argument, i64 {known})
  ret i64 %value
}}
"""
    return _assemble(text)


def of_one_argument(function: int) -> int:
    """Return the address of a function of where the two arguments of another lie, that calls it."""
    return _assemble(f"""
define void @{compiler.ENTRY}(ptr %arguments) {{
  %function = inttoptr i64 {function} to ptr
  %first = load i64, ptr %arguments
  %place = getelementptr i64, ptr %arguments, i64 1
  %second = load i64, ptr %place
  %ignored = call i64 %function(i64 %first, i64 %second)
  ret void
}}
""")


def call(place: int, arguments: int) -> Callable[..., int]:
    """Return the function at an address for Python, which releases Python's lock."""
    import ctypes

    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(place)


@functools.cache
def _engine() -> Any:
    return binding.create_lljit_compiler(compiler.target())


def _assemble(text: str) -> int:
    """Return the address of the function ENTRY of LLVM's assembly."""
    with _lock:
        return _link(compiler.target().emit_object(binding.parse_assembly(text)))


def _fingerprint(key: Any) -> str:
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    machine = (compiler.target().triple, binding.get_host_cpu_name())
    versions = [version(package) for package in ("numba", "llvmlite")]
    features = binding.get_host_cpu_features().flatten()
    parts = [*sources, repr((key, machine, versions, features)).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:32]


def _link(code: bytes) -> int:
    builder = binding.JITLibraryBuilder()
    builder.add_object_img(code).export_symbol(compiler.ENTRY).add_current_process()
    library = builder.link(_engine(), f"adadelta-{uuid.uuid4().hex}")
    _code.append(library)
    return library[compiler.ENTRY]


def _read(path: Path) -> bytes | None:
    """Return the code in a file, or None when there is none or it is damaged."""
    try:
        return compiler.unpacked(path.read_bytes())
    except OSError:
        return None


def _write(path: Path, code: bytes) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(compiler.packed(code))
        os.replace(beside, path)
