"""Measure contenders in turns, in one process, each compared with the limit."""

import os
import random
import statistics
import time
from operator import truediv

from limit import Limit

# The share of the full sizes that is measured. Small shares give no results: they only show, in
# little time, that everything runs.
SCALE = float(os.environ.get("ADADELTA_BENCH_SCALE", "1"))
# Short steps take turns for at least this long.
SECONDS = 2 * SCALE


def scaled(count):
    """Return a number of elements or images, smaller if ADADELTA_BENCH_SCALE is below 1."""
    return max(1, round(count * SCALE))


def measure(contenders, rounds=7, warm=2):
    """Return the seconds of each contender, and of the limit per byte, from interleaved rounds.

    `contenders` are functions by name that each make one step and wait for it, in a new order in
    each round. There are more than `rounds` if these take less than SECONDS.
    """
    generator = random.Random(0)
    limit = Limit(scaled(20_000_000))
    times = {name: [] for name in contenders}
    per_byte = []
    turn, end = -warm, 0.0
    while turn < rounds or time.perf_counter() < end:
        if turn == 0:
            end = time.perf_counter() + SECONDS
        for name in generator.sample(list(contenders), len(contenders)):
            seconds = limit.seconds_per_byte()
            start = time.perf_counter()
            contenders[name]()
            elapsed = time.perf_counter() - start
            if turn >= 0:
                times[name].append(elapsed)
                per_byte.append(seconds)
        turn += 1
    return times, statistics.median(per_byte)


def spread(values):
    """Return the interquartile range, as a share of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def milliseconds(seconds):
    """Format the time, with at least three digits where compare.py must detect 5 %."""
    return f"{seconds * 1e3:.{1 if seconds >= 0.01 else 3}f}"


def multiple(ratio):
    return f"{ratio:.{2 if ratio >= 0.1 else 3}f}"


def row(what, seconds, limit_seconds, reference=None):
    """Return one line of the table: the time, its spread, and multiples of the limit and a peer.

    The multiple of a peer is the median over the turns, since what slows the machine down for a
    while slows down both. The targets are in targets.py.
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
