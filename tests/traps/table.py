"""The table of traps, and the function that runs one."""

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

ALL = ("jax", "tensorflow", "torch")


class Trapped(Exception):  # noqa: N818 (an event, not an error)
    """The class fell into the trap; the text says how."""


@dataclasses.dataclass(frozen=True)
class Trap:
    """One way to go wrong.

    `backends` are those where it is run, `falls` those where Keras' own class goes wrong, and
    `depends` those where the result depends on the processor.
    """

    number: int
    words: str
    run: Callable[[type], str | None]
    backends: tuple[str, ...]
    falls: tuple[str, ...]
    depends: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The file that contains the trap."""
        return self.run.__module__.rpartition(".")[2]

    @property
    def slug(self) -> str:
        """The words as part of a test's name."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.number} {self.words}".lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a class in a trap."""

    holds: bool
    text: str


TRAPS: list[Trap] = []


def trap(
    number: int,
    words: str,
    *,
    backends: tuple[str, ...] = ALL,
    falls: tuple[str, ...] | None = None,
    depends: tuple[str, ...] = (),
) -> Callable[[Callable[[type], str | None]], Callable[[type], str | None]]:
    """Add a function to the table; by default Keras' own class falls on all of `backends`."""

    def add(function: Callable[[type], str | None]) -> Callable[[type], str | None]:
        where = backends if falls is None else falls
        assert set(where) <= set(backends)
        TRAPS.append(Trap(number, words, function, backends, where, depends))
        return function

    return add


def run(entry: Trap, cls: type) -> Outcome:
    """Run a trap on a class; any error that the trap does not expect is a fall."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = entry.run(cls)
        except Trapped as fall:
            return Outcome(False, _short(str(fall)))
        except Exception as error:
            return Outcome(False, _short(f"{type(error).__name__}: {error}"))
    return Outcome(True, _short(text or "right"))


def _short(text: Any, length: int = 160) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= length else text[: length - 3] + "..."
