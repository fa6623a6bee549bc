"""Measure contenders in turns, in one process, each beside the limit."""

import os
import statistics
import time
from operator import truediv

from limit import Limit

# A share of the sizes that are measured. What a small one prints is no result: it shows in little
# time that everything runs.
SCALE = float(os.environ.get("ADADELTA_BENCH_SCALE", "1"))


def scaled(count):
    """A number of elements or images, smaller when ADADELTA_BENCH_SCALE is below 1."""
    return max(1, round(count * SCALE))


def measure(contenders, rounds=7, warm=2):
    """Return the seconds of each contender, and of the limit per byte, from interleaved rounds.

    `contenders` are functions by name that each make one step and wait for it.
    """
    limit = Limit(scaled(20_000_000))
    times = {name: [] for name in contenders}
    per_byte = []
    for turn in range(rounds + warm):
        for name, step in contenders.items():
            seconds = limit.seconds_per_byte()
            start = time.perf_counter()
            step()
            elapsed = time.perf_counter() - start
            if turn >= warm:
                times[name].append(elapsed)
                per_byte.append(seconds)
    return times, statistics.median(per_byte)


def spread(values):
    """The distance between the quartiles, as a share of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def milliseconds(seconds):
    """The time, with at least three digits where compare.py must tell 5 % from nothing."""
    return f"{seconds * 1e3:.{1 if seconds >= 0.01 else 3}f}"


def multiple(ratio):
    return f"{ratio:.{2 if ratio >= 0.1 else 3}f}"


def row(what, seconds, limit_seconds, reference=None):
    """One line of the table: the time, its spread, in multiples of the limit and of a peer.

    The multiple of a peer is the median over the turns: what slows the machine down for a while
    slows down both. What a line is to reach stands in targets.py.
    """
    middle = statistics.median(seconds)
    cells = [
        what,
        milliseconds(middle),
        f"{spread(seconds) * 100:.0f} %",
        multiple(middle / limit_seconds) if limit_seconds else "",
        multiple(statistics.median(map(truediv, seconds, reference))) if reference else "",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = [
    "| what | ms | spread | x limit | x peer |",
    "|---|---|---|---|---|",
]
