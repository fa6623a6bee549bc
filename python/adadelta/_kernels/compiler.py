"""Compile this folder's numba functions to machine code, in other processes.

Other processes can compile several modules in parallel and turn off numba's optimization of each
called function, and the caller does not import numba: on two cores the first step of a network
takes half as long (`bench/notes.md`).
"""

import contextlib
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from llvmlite import binding

from adadelta._kernels.locks import Lock

# The symbol of a function in its object code.
ENTRY = "adadelta_entry"
# Held while LLVM works in this process: in a forked process its own locks would stay locked.
llvm = Lock()
llvm.keep_through_forks(seconds=10)

# Timeout of the other processes, which take 2 to 4 seconds on two cores.
_SECONDS = 100.0
# Numba and the compilation of a kernel take 275 MB of address space. LLVM aborts the process if
# it gets no memory.
_ROOM = 2**29
# The other process imports this package from the caller's path, since in R it is in no folder of
# `sys.path`. Other packages are found where the caller finds them, except the current directory.
# Compiling takes about 2 s. Garbage collection and the normal end of the interpreter, which nothing
# needs here, would add 0.1 and 0.15 s.
_PROGRAM = """
import gc, os, sys
gc.disable()
root, module, names, *path = sys.argv[1:]
sys.path[:] = [root, *path]
import adadelta
del sys.path[0]
from adadelta._kernels import compiler
compiler.main(module, names.split(","))
sys.stdout.flush()
os._exit(0)
"""


@functools.cache
def target() -> "binding.TargetMachine":
    """Return LLVM's target machine for the processor of this machine."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )


def object_codes(functions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the object code of functions; the modules are compiled in parallel.

    Args:
        functions: The module in this folder and the name of each. They take and return int64.

    Raises:
        RuntimeError: A compiling process was killed by the system, for example because memory is
            short. Compiling in this process could kill it, too.
        MemoryError: There is too little address space to compile in this process.

    """
    names: dict[str, list[str]] = {}
    for module, name in functions:
        names.setdefault(module, []).append(name)
    codes = {}
    with contextlib.ExitStack() as running:
        processes = {}
        for module in names:
            process = processes[module] = _start(module, names[module])
            if process:
                running.callback(_end, process)
        end = time.monotonic() + _SECONDS
        for module, process in processes.items():
            made = _answer(process, end) if process else {}
            # If no other Python can be started or its answer is wrong, compile in this process.
            if list(made) != names[module]:
                check_room(_ROOM)
                made = {name: object_code(module, name) for name in names[module]}
            codes.update({(module, name): code for name, code in made.items()})
    return codes


def _start(module: str, names: Sequence[str]) -> subprocess.Popen[bytes] | None:
    # The code is optimized once, at the end: numba's own optimization takes a third of the time.
    environment = dict(os.environ, NUMBA_OPT="0", NUMBA_DISABLE_JIT="0")
    # The executable of a frozen application is the application itself, not Python.
    executable = None if getattr(sys, "frozen", False) else sys.executable
    given = {"-I": "isolated", "-E": "ignore_environment", "-s": "no_user_site", "-S": "no_site"}
    flags = [flag for flag, name in given.items() if getattr(sys.flags, name)]
    root = str(Path(__file__).parents[2])
    try:
        path = [
            os.path.abspath(folder) for folder in sys.path if folder and isinstance(folder, str)
        ]
        return subprocess.Popen(
            [executable or "", "-P", *flags, "-c", _PROGRAM, root, module, ",".join(names), *path],
            # Numba reads a settings file in the current directory, which another user may own.
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # So that the process can be killed together with its children.
            start_new_session=True,
        )
    except (OSError, ValueError, MemoryError):
        return None


def _answer(process: subprocess.Popen[bytes], end: float) -> dict[str, bytes]:
    """Return the code that `main` wrote, or nothing if it failed or took too long."""
    try:
        answer = process.communicate(timeout=max(0.0, end - time.monotonic()))[0]
        made = {name: bytes.fromhex(code) for name, code in json.loads(answer).items()}
    except Exception:
        made = {}
    if (process.returncode or 0) < 0:
        raise RuntimeError(f"compiling was ended by signal {-process.returncode}")
    return made


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children if it is still running."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    if process.stdout and os.name == "posix":
        # On Windows a thread may still read from it.
        process.stdout.close()


def check_room(needed: int) -> None:
    """Raise a MemoryError if the limit of the address space leaves less than `needed` (Linux)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    left = max(0, limit - pages * resource.getpagesize())
    if left < needed:
        raise MemoryError(
            f"{left >> 20} MB of address space are left, and LLVM needs {needed >> 20}"
        )


def object_code(module: str, name: str) -> bytes:
    """Return the object code of a function, with the symbol ENTRY and C's calling convention."""
    with llvm.held():
        return _object_code(module, name)


def _object_code(module: str, name: str) -> bytes:
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
    # In numba's convention, pointers to the result and an exception precede the arguments.
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
    code: bytes = target().emit_object(parsed)
    return code


def main(module: str, names: Sequence[str]) -> None:
    """Write the object code of functions to the standard output of this process."""
    json.dump({name: object_code(module, name).hex() for name in names}, sys.stdout)
