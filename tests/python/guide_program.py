"""Run the Python blocks of a guide from top to bottom, in this process: guide_program.py FILE.

In a guide, lines that begin with `#> ` show what the block that they stand in prints, warnings and
the error that ends it included. Blocks that are marked `py` instead of `python` are only shown. The
last line that this program writes is JSON: for each block that shows something, the number of its
line in the file, what it shows, and what it has printed.
"""

import contextlib
import io
import json
import re
import sys
import warnings
from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.M | re.S)
SHOWN = "#>"


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
