"""Other processes compile the kernels' machine code, which is kept in files and found again."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import arguments, assert_same, table_of, tensors

from adadelta._kernels import compiled, compiler, cpu
from adadelta._kernels.threads import PythonThreads


def stepped():
    (row,) = rows = tensors("float32", [100], {}, np.random.default_rng(1))
    settings, own = arguments("float32", {})
    work = cpu.Work("float32", table_of(rows), np.array([100]))
    work.step(settings, own[None], PythonThreads(1))
    return [row]


@pytest.fixture(scope="module")
def expected():
    return stepped()


@pytest.fixture
def cache(expected, monkeypatch, tmp_path):
    """Return an empty folder, for a process that has no machine code yet."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv("ADADELTA_KERNEL_CACHE", str(folder))
    monkeypatch.setattr(compiled, "_addresses", {})
    return folder


@pytest.fixture(scope="module")
def code():
    return compiler.object_codes([("fused", "float32")])["fused", "float32"]


@pytest.fixture
def known_code(code, monkeypatch):
    """Reuse the machine code of another test, to save the seconds of compiling it."""
    monkeypatch.setattr(compiler, "object_codes", lambda functions: dict.fromkeys(functions, code))


def test_what_is_compiled_is_kept_and_read(cache, expected, monkeypatch):
    assert_same(stepped(), expected)
    (file,) = cache.iterdir()
    assert file.name.startswith("fused-float32-")

    def only_nothing(functions):
        assert not functions
        return {}

    monkeypatch.setattr(compiled, "_addresses", {})
    monkeypatch.setattr(compiler, "object_codes", only_nothing)
    assert_same(stepped(), expected)


DAMAGES = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-1],
    "one bit": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.usefixtures("known_code")
def test_a_damaged_file_is_made_again(cache, expected, monkeypatch, damage):
    stepped()
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    monkeypatch.setattr(compiled, "_addresses", {})
    assert_same(stepped(), expected)
    assert list(cache.iterdir()) == [file] and file.read_bytes() == whole


@pytest.mark.usefixtures("known_code")
def test_a_folder_that_cannot_be_written_is_no_error(cache, expected, monkeypatch):
    monkeypatch.setenv("ADADELTA_KERNEL_CACHE", os.path.join(os.devnull, "kernels"))
    assert_same(stepped(), expected)


EXECUTABLES = {
    "unknown": None,
    "empty": "",
    "missing": "/no/such/python",
    "no program": os.devnull,
    "fails": "/bin/false",
    "says something else": "/bin/echo",
}


@pytest.mark.parametrize("executable", EXECUTABLES.values(), ids=EXECUTABLES)
def test_without_another_python_this_one_compiles(cache, expected, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert_same(stepped(), expected)
    assert len(list(cache.iterdir())) == 1


def test_a_frozen_application_is_not_started_again(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command[0]))
    assert compiler.object_codes([("xla_handler", "task")])
    assert started == [""]


def test_functions_of_several_modules_at_once(cache):
    functions = [("xla_handler", "task"), ("fused", "float64"), ("xla_handler", "step")]
    places = compiled.addresses(*functions)
    assert len(set(places)) == 3
    assert compiled.addresses(*reversed(functions)) == list(reversed(places))
    assert len(list(cache.iterdir())) == 3


def test_the_caller_needs_no_numba_and_its_folders_no_care(cache, tmp_path):
    # R has the package in no folder of `sys.path`, and another package may be there. The other
    # process must not import a module beside the caller that has a name of the standard library.
    (tmp_path / "random.py").write_text("raise SystemExit(1)")
    other = tmp_path / "other" / "adadelta"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit(1)")
    code = (
        "import sys; root, other = sys.argv[1:]; sys.path.insert(0, root); import adadelta;"
        "sys.path[0] = other; from adadelta._kernels import compiled;"
        "compiled.addresses(('fused', 'float32')); assert 'numba' not in sys.modules"
    )
    root = Path(compiler.__file__).parents[2]
    environment = {name: it for name, it in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", code, str(root), str(other.parent)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(list(cache.iterdir())) == 1


# ------------------------------------------------------------------ processes that go wrong


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Replace Python by a shell script; nothing is really compiled in this process."""
    monkeypatch.setattr(compiler, "object_code", lambda module, name: name.encode())

    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


def ended(pid):
    """Whether a process ends within seconds; a zombie counts as ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# The second process is started by the first, and inherits its output.
NEVER_ENDING = "sleep 600 & echo $! >second; echo $$ >first; wait"
FUNCTIONS = [("fused", "float32"), ("xla_handler", "task")]
posix = pytest.mark.skipif(os.name != "posix", reason="a shell script, and /proc")


@posix
def test_a_process_that_never_ends_is_not_waited_for(program, monkeypatch, tmp_path):
    program(NEVER_ENDING)
    monkeypatch.setattr(compiler, "_SECONDS", 1.0)
    start = time.monotonic()
    assert compiler.object_codes(FUNCTIONS) == {it: it[1].encode() for it in FUNCTIONS}
    assert time.monotonic() - start < 30
    for name in ("first", "second"):
        assert ended((tmp_path / name).read_text().strip())


@posix
def test_an_interrupt_ends_the_processes(program, tmp_path):
    program(NEVER_ENDING)

    def interrupt(*_):
        if (tmp_path / "first").exists():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiler.object_codes(FUNCTIONS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for name in ("first", "second"):
        assert ended((tmp_path / name).read_text().strip())


@posix
def test_what_ended_one_process_is_not_tried_in_this_one(program, cache, monkeypatch):
    # LLVM, or the system, ends the process like this when there is no memory.
    program("kill -ABRT $$")

    def never(module, name):
        raise AssertionError("compiled here")

    monkeypatch.setattr(compiler, "object_code", never)
    with pytest.raises(RuntimeError, match="compiling was ended by signal 6"):
        cpu.reason_against_dtype("float32")


@posix
def test_the_process_works_in_no_directory_of_the_caller(program, monkeypatch, tmp_path):
    # Numba reads settings from a file in the working directory.
    program('echo "$OLDPWD" >place')
    monkeypatch.chdir(tmp_path)
    compiler.object_codes(FUNCTIONS[:1])
    assert (tmp_path / "place").read_text().strip() == str(Path(compiler.__file__).parents[2])


def test_flags_of_this_python_are_those_of_the_other(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    monkeypatch.setattr(compiler, "object_code", lambda module, name: b"")
    compiler.object_codes(FUNCTIONS[:1])
    assert started[0][1:3] == ["-P", "-c"]
    flags = types.SimpleNamespace(isolated=1, ignore_environment=1, no_user_site=1, no_site=0)
    monkeypatch.setattr(sys, "flags", flags)
    compiler.object_codes(FUNCTIONS[:1])
    assert started[1][1:6] == ["-P", "-I", "-E", "-s", "-c"]


FORKS = {"Python": "os.fork()", "C": "ctypes.PyDLL(None).fork()"}
FORKED = """
import ctypes, os, signal, sys, threading, time

from adadelta._kernels import compiled, compiler

def forked(work):
    child = {fork}
    if not child:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert not status, status
"""


def run_forked(fork, code):
    code = FORKED.format(fork=fork) + code
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@posix
@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
@pytest.mark.usefixtures("known_code")
def test_a_fork_while_another_thread_compiles(cache, fork):
    stepped()
    run_forked(
        fork,
        """
real, waits = compiler.object_codes, threading.Event()

def endless(functions):
    waits.set()
    time.sleep(600)

compiler.object_codes = endless
arguments = ("fused", "float64"),
threading.Thread(target=compiled.addresses, args=arguments, daemon=True).start()
assert waits.wait(20)
compiler.object_codes = real
forked(lambda: compiled.addresses(("fused", "float32")))
""",
    )


@posix
def test_forks_while_another_thread_uses_llvm():
    run_forked(
        FORKS["Python"],
        """
function = compiled.bound(0, 1)

def assemble():
    while True:
        compiled.bound(function, 1)

threading.Thread(target=assemble, daemon=True).start()
for _ in range(20):
    forked(lambda: compiled.bound(function, 1))
""",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the address space is Linux's")
def test_with_too_little_memory_this_process_does_not_compile(cache):
    # Otherwise LLVM would end it.
    code = """
import resource, sys
from adadelta._kernels import choose, cpu
sys.executable = None
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 50 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert "MB of address space are left" in choose.reason_against("cpu")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
