"""Programs that tests run in a separate process."""

import json
import os
import subprocess
import sys

import adadelta


def answer_of(program, *arguments):
    """Run a program, and return its last line, which is JSON."""
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
