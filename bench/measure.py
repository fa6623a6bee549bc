"""Measure contenders in turns, in one process, each beside the limit."""

import statistics
import time

from limit import Limit


def measure(contenders, rounds=7, warm=2):
    """Return the seconds of each contender, and of the limit per byte, from interleaved rounds.

    `contenders` are functions by name that each make one step and wait for it.
    """
    limit = Limit(20_000_000)
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


def row(what, seconds, limit_seconds, reference=None, target=""):
    """One line of the table: the time, its spread, in multiples of the limit and of a peer."""
    middle = statistics.median(seconds)
    cells = [
        what,
        f"{middle * 1e3:.1f}",
        f"{spread(seconds) * 100:.0f} %",
        f"{middle / limit_seconds:.2f}" if limit_seconds else "",
        f"{middle / statistics.median(reference):.2f}" if reference else "",
        target,
    ]
    return f"| {' | '.join(cells)} |"


HEADER = [
    "| what | ms | spread | x limit | x peer | at most |",
    "|---|---|---|---|---|---|",
]
