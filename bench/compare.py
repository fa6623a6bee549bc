"""Compare this checkout with another one: has a line of the results become slower?

    python bench/compare.py CHECKOUT [--turns 3] [--only SCRIPT ...]
    make compare WITH=CHECKOUT ARGUMENTS="--turns 5 --only fit.py"

Each measurement of run.py is taken in turns, each time in a new process: once with the package of
CHECKOUT ("before") and once with the one here ("after"), and in the next turn in reverse order. So
both are measured on the same machine by the same scripts, those of this checkout; only scripts
that import internals of the package are each checkout's own.

The ratio of a line is the median of after / before over the turns, and its spread is their
interquartile range, as a share of that median. A line is slower if its ratio exceeds 1.05 by more
than its spread. Lines of peers, which are the same in both checkouts, show the noise of the
machine. The exit status is 1 if a line is slower or could not be measured.

It takes 6 times as long as `make bench`. Memory and the time of the import are not compared.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from measure import spread
from run import HERE, MEASUREMENTS, FailedError, check_what_is_needed

ALLOWED = 0.05
USES_INTERNALS = {"numpy_step.py"}
WITHOUT_TIMES = {"memory.py"}


class Checkout:
    """One of the two checkouts; its R package is installed in a temporary folder."""

    def __init__(self, path, library):
        self.bench = path / "bench"
        self.settings = {
            "PYTHONPATH": str(path / "python"),
            "R_LIBS": os.pathsep.join(filter(None, [str(library), os.environ.get("R_LIBS")])),
        }
        library.mkdir()
        subprocess.run(
            ["R", "CMD", "INSTALL", f"--library={library}", path], check=True, capture_output=True
        )

    def times(self, measurement):
        folder = self.bench if measurement.script in USES_INTERNALS else HERE
        return lines(measurement.output(folder, **self.settings))


def lines(text):
    """Return the milliseconds of each table line in a text, by its heading and its first cell."""
    found = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("### "):
            heading = line.removeprefix("### ")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        # The two lines at the head of a table have no number.
        if len(cells) > 1 and cells[1].replace(".", "").isdigit():
            found[heading, cells[0]] = float(cells[1])
    return found


def turns_of(measurement, checkouts, turns):
    """Return the times of each line: lists by checkout, with one number for each turn."""
    times = {}
    for turn in range(turns):
        for name in reversed(checkouts) if turn % 2 else checkouts:
            for line, milliseconds in checkouts[name].times(measurement).items():
                times.setdefault(line, {}).setdefault(name, []).append(milliseconds)
    return times


def verdict(times):
    """Return the ratio of a line, its spread, and the verdict on it."""
    before, after = times["before"], times["after"]
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    ratio, between = statistics.median(ratios), spread(ratios)
    return ratio, between, "slower" if ratio > 1 + ALLOWED + between else ""


def report(times):
    """Print a table for each heading, and return the lines that are slower or not in both."""
    complaints = []
    last = None
    for (heading, what), of_each in times.items():
        if heading != last:
            print(f"\n### {heading}\n\n| what | before, ms | after, ms | ratio | spread | |")
            print("|---|---|---|---|---|---|")
            last = heading
        cells = [
            f"{statistics.median(of_each[name]):g}" if name in of_each else ""
            for name in ("before", "after")
        ]
        if len(of_each) == 2:
            ratio, between, remark = verdict(of_each)
            cells += [f"{ratio:.2f}", f"{between * 100:.0f} %", remark]
        else:
            remark = f"not there {'after' if 'before' in of_each else 'before'}"
            cells += ["", "", remark]
        print(f"| {' | '.join([what, *cells])} |", flush=True)
        if remark:
            complaints.append(f"{heading}: {what}: {remark}")
    return complaints


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="the folder of another checkout")
    parser.add_argument("--turns", type=int, default=3, help="3 unless given; at least 2")
    scripts = {it.script: None for it in MEASUREMENTS if it.script not in WITHOUT_TIMES}
    parser.add_argument("--only", nargs="+", choices=scripts, default=scripts, metavar="SCRIPT")
    given = parser.parse_args()
    if not (given.checkout / "python" / "adadelta").is_dir():
        parser.error(f"there is no checkout of adadelta at {given.checkout}")
    if given.turns < 2:
        parser.error("a spread needs at least 2 turns")
    return given


def main():
    given = arguments()
    check_what_is_needed()
    complaints = []
    with tempfile.TemporaryDirectory() as libraries:
        checkouts = {
            name: Checkout(path.resolve(), Path(libraries) / name)
            for name, path in {"before": given.checkout, "after": HERE.parent}.items()
        }
        for measurement in MEASUREMENTS:
            if measurement.script in given.only:
                try:
                    complaints += report(turns_of(measurement, checkouts, given.turns))
                except FailedError as error:
                    complaints.append(str(error))
                    print(f"\n{error}", flush=True)
    if complaints:
        raise SystemExit("\nSlower, or not measured:\n- " + "\n- ".join(complaints))
    print("\nNo line is more than 5 % slower beyond its spread.")


if __name__ == "__main__":
    main()
