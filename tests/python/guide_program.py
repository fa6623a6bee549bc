"""Run the Python blocks of a guide from top to bottom, in this process: guide_program.py FILE.

In a guide, lines that begin with `#> ` show what their block prints, including warnings and the
error that ends it. A block whose first line is a comment with a file name, such as `# in_torch.py`,
is a separate program. Blocks marked `py` instead of `python` are only shown, not run. The last line
that this program writes is JSON: for each block that shows output, its line number in the file,
the output shown, and the output printed.
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
    """Run a program in a separate process: not all frameworks can be loaded together."""
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
                    # Python's error messages should name the line in the guide.
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
