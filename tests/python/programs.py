"""Programs that tests run in a process of their own."""

import json
import os
import subprocess
import sys

import adadelta


def answer_of(program, *arguments):
    """Run a program, and return what its last line says in JSON."""
    result = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(adadelta.__file__))},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
