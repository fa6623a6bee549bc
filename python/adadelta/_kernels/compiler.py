"""Numba's functions of this folder as machine code, compiled by other processes.

There, those of several modules are compiled at once, numba's optimization of every function that
they call can be left out, and the caller does not import numba: on two cores the first step of a
network takes half as long (`bench/notes.md`).
"""

import functools
import hashlib
import importlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llvmlite import binding

# The name of a function in its object code.
ENTRY = "adadelta_entry"
_CHECKSUM = hashlib.sha256().digest_size
# This package is the caller's, wherever that found it: R has it in no folder of `sys.path`.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import adadelta
del sys.path[0]
from adadelta._kernels import compiler
compiler.main(*sys.argv[1:])
"""


@functools.cache
def target() -> Any:
    """Return the processor that LLVM makes code for: this one."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )


def packed(code: bytes) -> bytes:
    """Return object code behind its checksum."""
    return hashlib.sha256(code).digest() + code


def unpacked(data: bytes) -> bytes | None:
    """Return the object code, or None when it is not whole."""
    checksum, code = data[:_CHECKSUM], data[_CHECKSUM:]
    return code if hashlib.sha256(code).digest() == checksum else None


def object_codes(functions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the object code of functions, those of each module compiled beside the others.

    Args:
        functions: The module in this folder and the name of each. They take int64 and return one.

    """
    names: dict[str, list[str]] = {}
    for module, name in functions:
        names.setdefault(module, []).append(name)
    processes = {module: _start(module, *names[module]) for module in names}
    codes = {}
    for module, process in processes.items():
        data = unpacked(process.communicate()[0]) if process else None
        # Where no other Python can be started, or says something else, this one compiles.
        made = pickle.loads(data) if data else [object_code(module, it) for it in names[module]]
        codes.update({(module, it): code for it, code in zip(names[module], made, strict=True)})
    return codes


def _start(*arguments: str) -> subprocess.Popen[bytes] | None:
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
        PYTHONSAFEPATH="1",
        # Optimized once, at the end: what numba does in between takes a third of the time.
        NUMBA_OPT="0",
        NUMBA_DISABLE_JIT="0",
    )
    # The executable of a frozen application is the application.
    executable = None if getattr(sys, "frozen", False) else sys.executable
    try:
        return subprocess.Popen(
            [executable or "", "-c", _PROGRAM, str(Path(__file__).parents[2]), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def object_code(module: str, name: str) -> bytes:
    """Return the object code of a function, under the name ENTRY and C's calling convention."""
    from numba import njit, types

    function = getattr(importlib.import_module(f"adadelta._kernels.{module}"), name)
    count = function.__code__.co_argcount
    compiled = njit(
        (types.int64,) * count,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(function)
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
    builder = binding.create_pass_builder(
        target(), binding.create_pipeline_tuning_options(speed_level=3)
    )
    builder.getModulePassManager().run(parsed, builder)
    return target().emit_object(parsed)


def main(module: str, *names: str) -> None:
    """Write the object code of functions to the output of this process."""
    sys.stdout.buffer.write(packed(pickle.dumps([object_code(module, name) for name in names])))
