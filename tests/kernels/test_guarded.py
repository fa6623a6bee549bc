"""Kernels and handlers touch only the memory that they were given."""

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_tools import DTYPES

import adadelta

pytestmark = pytest.mark.skipif(
    not hasattr(mmap, "PROT_READ"), reason="memory is guarded by mprotect, as POSIX has it"
)
HERE = Path(__file__).parent
# Split evenly over the dtypes; 20,000 tables take about four minutes of one processor.
TABLES = int(os.environ.get("ADADELTA_GUARDED_TABLES", "2000")) // len(DTYPES)


def run(dtype, count, **environment):
    """Run random tables in a process that may crash."""
    return subprocess.run(
        [sys.executable, str(HERE / "random_tables.py"), dtype, "0", str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(done):
    return f"exit status {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-40:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_tables_stay_in_their_memory_and_get_the_numbers_of_the_rule(dtype):
    """Run random tables through every kernel and handler, beside inaccessible memory.

    The environment variable ADADELTA_GUARDED_TABLES is the number of tables for all dtypes
    together, 2,000 by default. After a failure, `random_tables.py DTYPE NUMBER 1` repeats the
    last table that is named in the output.
    """
    done = run(dtype, TABLES)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), end_of(done)


# Deliberate faults: the dtype in which each shows, and its replacements by file.
FAULTS = {
    "scratch by elements": (
        "float32",
        (
            "xla_target.py",
            "layout.number_of_squares(len(rows), elements)",
            "layout.number_of_squares(len(rows), elements) if elements else 0",
        ),
        # Otherwise the handler refuses the call.
        ("xla_handler.py", "elements >= size", "elements >= 0"),
    ),
    "one element too many": (
        "float32",
        (
            "fused.py",
            "    for i in range(size):\n        value = load_parameter(gradient, i)\n",
            "    for i in range(size + 1):\n        value = load_parameter(gradient, i)\n",
        ),
    ),
    "state of half precision as wide as float64": (
        "bfloat16",
        ("fused.py", "store_bfloat16, False, 4)", "store_bfloat16, False, 8)"),
    ),
    "the place behind that of a sum": (
        "float64",
        ("fused.py", "_segment(call, piece + row, row,", "_segment(call, piece + row + 1, row,"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_random_tables_find_what_is_broken(name, tmp_path):
    dtype, *edits = FAULTS[name]
    package = tmp_path / "adadelta"
    shutil.copytree(
        Path(adadelta.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for file, before, after in edits:
        source = (package / "_kernels" / file).read_text()
        assert source.count(before) == 1
        (package / "_kernels" / file).write_text(source.replace(before, after))
    cache = str(tmp_path / "kernels")
    done = run(dtype, 100, PYTHONPATH=str(tmp_path), ADADELTA_KERNEL_CACHE=cache)
    assert f"{dtype} 0\n" in done.stdout, end_of(done)
    assert done.returncode and "done" not in done.stdout, end_of(done)
