"""Machine code of this folder's numba functions: compiled once per machine, then read from a file.

Numba takes seconds to compile a kernel, and half a second to load one from its own cache; the
object code alone is loaded by llvmlite in a tenth of that. The file's name has in it everything
that the code depends on. A folder that can't be written is no error: the code is then compiled
in every process.
"""

import contextlib
import functools
import hashlib
import importlib
import os
import re
import threading
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llvmlite import binding

ENTRY = "adadelta_entry"
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


def address(module: str, name: str) -> int:
    """Return the address of a numba function of this folder that takes int64 and returns one.

    Args:
        module: The module of the function, in this folder.
        name: Its name.

    """
    key = (module, name)
    with _lock:
        if key not in _addresses:
            path = folder() / f"{module}-{name}-{_fingerprint(key)}.o"
            code = _read(path)
            if code is None:
                code = _compile(module, name)
                _write(path, code)
            _addresses[key] = _link(code)
        return _addresses[key]


def has_half_precision() -> bool:
    """Whether the processor converts float16, as all but the oldest do; else C's library must."""
    features = binding.get_host_cpu_features()
    return "f16c" not in features or bool(features["f16c"])


def bound(function: int, known: int) -> int:
    """Return the address of a function of one argument that calls another with `known` after it."""
    text = f"""
define i64 @{ENTRY}(i64 %argument) {{
  %function = inttoptr i64 {function} to ptr
  %value = call i64 %function(i64 %argument, i64 {known})
  ret i64 %value
}}
"""
    return _assemble(text)


def of_one_argument(function: int) -> int:
    """Return the address of a function of where the two arguments of another lie, that calls it."""
    return _assemble(f"""
define void @{ENTRY}(ptr %arguments) {{
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
def _target() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )


@functools.cache
def _engine() -> Any:
    return binding.create_lljit_compiler(_target())


def _assemble(text: str) -> int:
    """Return the address of the function ENTRY of LLVM's assembly."""
    with _lock:
        return _link(_target().emit_object(binding.parse_assembly(text)))


def _fingerprint(key: Any) -> str:
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    machine = (_target().triple, binding.get_host_cpu_name())
    versions = [version(package) for package in ("numba", "llvmlite")]
    features = binding.get_host_cpu_features().flatten()
    parts = [*sources, repr((key, machine, versions, features)).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:32]


def _compile(module: str, name: str) -> bytes:
    """Return the object code of a function, under the name ENTRY and C's calling convention."""
    from numba import njit, types

    source = importlib.import_module(f"adadelta._kernels.{module}")
    function = getattr(source, name)
    count = function.__code__.co_argcount
    compiled = njit((types.int64,) * count, error_model="numpy", no_cpython_wrapper=True)(function)
    (text,) = compiled.inspect_llvm().values()
    # Numba's convention has the places of the result and of an exception before the arguments.
    (mangled,) = re.findall(rf'define [^@]*@("?[^(]*{len(name)}{name}[^(]*)\(', text)[:1]
    named = ", ".join(f"i64 %a{i}" for i in range(count))
    text += f"""
define i64 @{ENTRY}({named}) {{
  %result = alloca i64
  %exception = alloca ptr
  store i64 0, ptr %result
  %status = call i32 @{mangled}(ptr %result, ptr %exception, {named})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""
    parsed = binding.parse_assembly(text)
    for defined in parsed.functions:
        if not defined.is_declaration and defined.name != ENTRY:
            defined.linkage = "internal"
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(
        parsed, binding.create_pass_builder(_target(), binding.create_pipeline_tuning_options())
    )
    return _target().emit_object(parsed)


def _link(code: bytes) -> int:
    builder = binding.JITLibraryBuilder()
    builder.add_object_img(code).export_symbol(ENTRY).add_current_process()
    library = builder.link(_engine(), f"adadelta-{uuid.uuid4().hex}")
    _code.append(library)
    return library[ENTRY]


def _read(path: Path) -> bytes | None:
    """Return the code in a file, or None when there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    checksum, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _write(path: Path, code: bytes) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(beside, path)
