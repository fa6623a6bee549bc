"""Run the Python blocks of a guide from top to bottom, in this process: guide_program.py FILE.

In a guide, lines that begin with `#> ` show what the block that they stand in prints, warnings and
the error that ends it included. A block whose first line is a comment with the name of a file, such
as `# in_torch.py`, is a program of its own. Blocks marked `py` instead of `python` are only shown.
The last line that this program writes is JSON: for each block that shows something, the number of
its line in the file, what it shows, and what it has printed.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.M | re.S)
FILE = re.compile(r"# [\w-]+\.py\n")
SHOWN = "#>"


def output_of(program):
    """Run a program in a process of its own: not all frameworks can be loaded together."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(guide):
    text = Path(guide).read_text("utf-8")
    warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}")
    names = {"__name__": "__main__"}
    answer = []
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        lines = block[1].splitlines()
        shown = [each[len(SHOWN) :].strip() for each in lines if each.startswith(SHOWN)]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                if FILE.match(block[1]):
                    print(output_of(block[1]))
                else:
                    # Errors of Python are to name the line in the guide.
                    exec(compile("\n" * line + block[1], guide, "exec"), names)
            except Exception as error:
                if not shown:
                    raise
                print(f"{type(error).__name__}: {error}")
        if shown:
            answer.append([line, "\n".join(shown), printed.getvalue()])
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
