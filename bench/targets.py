"""The targets of all lines of the results, and how lines are marked: the one table of targets.

A line is found by the start of its heading and by its first cell. Lines without a target are the
peers of others.
"""

from typing import NamedTuple


class Target(NamedTuple):
    """The most that a line may take; everything that is given must hold.

    Args:
        limit: As a multiple of the time that the bytes of a step need.
        peer: As a multiple of the peer's time.
        ms: In milliseconds.
        more_ms: In milliseconds beyond the peer's.
        reason: Why the target is missed, if that is known.

    """

    limit: float | None = None
    peer: float | None = None
    ms: float | None = None
    more_ms: float | None = None
    reason: str = ""

    def words(self):
        parts = [
            (self.limit, "{:g} x limit"),
            (self.peer, "{:g} x peer"),
            (self.ms, "{:g} ms"),
            (self.more_ms, "peer + {:g} ms"),
        ]
        return " and ".join(words.format(most) for most, words in parts if most is not None)

    def mark(self, ms, limit, peer):
        """Return "reached", or "missed" with the reason, for the numbers of a line."""
        beyond_peer = ms - ms / peer if peer else None
        pairs = [
            (self.limit, limit),
            (self.peer, peer),
            (self.ms, ms),
            (self.more_ms, beyond_peer),
        ]
        if all(found is not None and found <= most for most, found in pairs if most is not None):
            return "reached"
        return f"missed: {self.reason or 'the reason is not known'}"


_CALL = "TensorFlow's call takes 0.9 ms without the kernel's work (tensorflow_parts.py)"
_MORE_BYTES = "Adadelta moves 28 bytes for each parameter and SGD 12; see the line below"
_COMPILED = "numba compiles the kernel in 1.7 to 2 s"
_QUANTILES = "NumPy's quantiles take a third of it"
_INSPECTED = "Python inspects four tensors for each parameter, which have left the caches"
_SMALL = "small variables take the plain operations, as those of Keras' own do"
_DTYPES = ("float32", "float64", "float16", "bfloat16")


def _of_keras(million, reasons, window=1.4):
    """Return the targets of a step on one backend, with the reasons why some are missed."""
    targets = {
        "20 M float32": million,
        "20 M, all options": Target(limit=1.4),
        "20 M, a call inside a window": Target(limit=window),
        "20 M float64": Target(limit=1.4),
        "20 M float16": Target(limit=1.4),
        "20 M bfloat16": Target(limit=1.4),
        **{
            f"{what}{options}": Target(peer=1)
            for what in ("784-2000-2000-10", "200 tensors of 1,000")
            for options in ("", ", all options")
        },
    }
    return {
        f"{what}: ours": target._replace(reason=reasons.get(what, ""))
        for what, target in targets.items()
    }


_JAX = _of_keras(
    Target(limit=1.3, peer=0.17),
    {
        "20 M float32": "1/6 of Keras' own time is the speed of memory where Keras takes 6 limits",
        "200 tensors of 1,000": "most of it is passing 800 arrays to a program and back, in both; "
        "runs give 0.87 to 1.07",
    },
)
del _JAX["20 M float64: ours"]  # JAX has it only if it is allowed before JAX starts.

TARGETS = {
    "NumPy": {"20 M float32: the kernel": Target(limit=1.3)},
    "Keras on jax, jit": _JAX,
    "Keras on tensorflow, graph": _of_keras(
        Target(limit=1.3, peer=0.33),
        {
            **dict.fromkeys((f"20 M {dtype}" for dtype in _DTYPES), _CALL),
            "20 M, all options": _CALL,
            "20 M, a call inside a window": f"{_CALL}, a plain loop 1.3 to 1.4 limits",
            "200 tensors of 1,000": _SMALL,
            "200 tensors of 1,000, all options": _SMALL,
        },
        window=1.5,
    ),
    "Keras on tensorflow, XLA": {
        **{
            f"{what}{options}: ours": Target(peer=1)
            for what in ("20 M float32", "200 tensors of 1,000")
            for options in ("", ", all options")
        },
        "200 tensors of 1,000: ours": Target(peer=1, reason=_SMALL),
        "200 tensors of 1,000, all options: ours": Target(peer=1, reason=_SMALL),
    },
    "Keras on torch, eager": {
        **_of_keras(Target(limit=1.3, peer=0.17), {}),
        "2,000 tensors of 1,000: ours": Target(
            peer=1.5, reason="Python looks at 4,000 tensors, which takes longer than the kernel"
        ),
    },
    **{
        f"An epoch of fit() on {backend}": {
            "ours": Target(peer=1.05, reason=_MORE_BYTES),
            # Two runs differ by up to 3 %.
            "ours; the peer is SGD that moves as many bytes": Target(peer=1.03),
        }
        for backend in ("jax", "tensorflow", "torch")
    },
    **{
        f"Watching fit() on {backend}": {
            f"{network}: the monitor itself": Target(peer=0.03, reason=_QUANTILES)
            for network in ("784-2000-2000-10", "784-64-10")
        }
        for backend in ("jax", "tensorflow", "torch")
    },
    **{
        f"The first step on {backend}": {
            "first step, kernel not cached": Target(more_ms=2000, reason=_COMPILED),
            "first step, kernel cached": Target(more_ms=200),
        }
        for backend in ("jax", "tensorflow", "torch")
    },
    "Keras on jax, 8 devices": {
        f"8 M, {options}: ours": Target(peer=1.1)
        for options in (
            "no options",
            "clipnorm",
            "global_clipnorm",
            "global_clipnorm and accumulation",
        )
    },
    "torch: one tensor": {
        "ours": Target(limit=1.3),
        "ours; the peer is torch's, one by one (the default)": Target(
            peer=0.06, reason="a step can't be faster than memory"
        ),
        "ours; the peer is torch's foreach": Target(peer=0.2),
        "ours; the peer is torch's, compiled": Target(
            peer=1, reason="both move as many bytes, at the speed of memory"
        ),
    },
    "torch: tensors of other sizes": {
        "four tensors of 10: ours": Target(
            peer=1.3, reason="checks, counters and torch's wrapper take 0.7 x, Python the rest"
        ),
        "one tensor of 2 M: ours": Target(
            peer=1, reason="the kernel takes 0.9 x; after it, Python's code has left the caches"
        ),
        "2,000 tensors of 1,000: ours": Target(peer=0.6, reason=_INSPECTED),
        "10,000 tensors of 100: ours": Target(peer=0.4, reason=_INSPECTED),
    },
    "optax: one tensor": {"ours, fused_adadelta; the peer is optax'": Target(peer=0.2)},
    "brainpy: one tensor": {
        # `bm.jit` donates no buffers, so that no optimizer can be faster than the host's there.
        "ours, parameters as arguments; the peer is BrainPy's, bm.jit": Target(peer=0.2)
    },
    "Sparse gradients on torch": {
        "1,000,000 rows: ours; the peer is torch.optim.SparseAdam": Target(peer=2),
        "1,000,000 rows: ours; the peer is ours with 10,000 rows": Target(peer=1.5),
    },
    **{
        f"Sparse gradients on Keras with TensorFlow, {kind}": {
            **{
                f"{rows} rows: ours; the peer is Keras' Adagrad": Target(peer=1)
                for rows in ("10,000", "100,000", "1,000,000")
            },
            "1,000,000 rows: ours; the peer is ours with 10,000 rows": Target(peer=1.5),
        }
        for kind in ("eagerly", "in a tf.function", "compiled by XLA")
    },
    "torch, FSDP2": {"ours": Target(peer=0.4)},
    "From R": {
        "optimizer_adadelta(), after the first": Target(ms=10),
        "an epoch of fit() from R; the peer is Python": Target(peer=1.05),
    },
}


class Marker:
    """Marks the table lines that it is given, and keeps track of those that are missing."""

    def __init__(self):
        self._heading = ""
        self._has_times = False  # whether the current table is one of times
        self._waiting = {
            (heading, what): target
            for heading, lines in TARGETS.items()
            for what, target in lines.items()
        }

    def marked(self, line):
        """Return a table line with its target and whether it is reached; others as they are."""
        if line.startswith("### "):
            self._heading = line.removeprefix("### ")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        self._has_times = len(cells) == 5 and (self._has_times or cells[1] == "ms")
        if not self._has_times:
            return line
        if cells[1] in ("ms", "---"):
            more = ["at most", "target"] if cells[1] == "ms" else ["---"] * 2
        elif (target := self._taken(cells[0])) is not None:
            ms, limit, peer = (float(cells[it]) if cells[it] else None for it in (1, 3, 4))
            more = [target.words(), target.mark(ms, limit, peer)]
        else:
            more = ["", ""]
        return f"| {' | '.join([*cells, *more])} |{line[len(line.rstrip()) :]}"

    def _taken(self, what):
        for key in self._waiting:
            if self._heading.startswith(key[0]) and key[1] == what:
                return self._waiting.pop(key)
        return None

    def not_measured(self):
        """Return a list of the targets whose lines were not measured."""
        return [
            f"- {heading}: {what}: at most {target.words()}\n"
            for (heading, what), target in self._waiting.items()
        ]
