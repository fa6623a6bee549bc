"""Random sets of arguments for the front ends: valid values, edge numbers, broken objects.

A front end gets its arguments in several ways (its constructor, attributes set later, ...). It must
either keep each value unchanged, or raise a TypeError or ValueError of at most 200 characters that
names the argument, and then nothing may have changed.

ADADELTA_FUZZ is the number of sets for all front ends together, ADADELTA_FUZZ_SEED the seed.
"""

import decimal
import enum
import fractions
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TOTAL = int(os.environ.get("ADADELTA_FUZZ", "2000"))
SEED = int(os.environ.get("ADADELTA_FUZZ_SEED", "1"))
# The share of all sets that each front end gets. Those of Keras run on each of three backends.
SHARES = {
    "keras": 0.13,
    "core": 0.08,
    "command": 0.03,
    "torch": 0.15,
    "tf_keras": 0.1,
    "tf1": 0.05,
    "brainpy": 0.06,
    "optax": 0.1,
    "scipy": 0.04,
}
FLOAT32 = float(np.finfo(np.float32).max)


# ------------------------------------------------------------------ what is given


@dataclass(frozen=True)
class Candidate:
    """A value: how it is made, and the number, flag or text that it stands for, if any."""

    label: str
    make: Callable[[], Any]
    number: Any = None
    flag: bool | None = None
    text: str | None = None
    is_none: bool = False
    is_function: bool = False


def _raise(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this object is broken, at such length that nobody would read it " * 20)


def _broken(*names: str, base: type = object, **more: Any) -> Callable[[], Any]:
    body = {name: _raise if name.startswith("__") else property(_raise) for name in names}
    if "__class__" in body:
        body["__class__"] = property(_raise)
    kind = type("Broken", (base,), {**body, **more})
    return lambda: kind() if base is object else kind(1)


class _Number(enum.Enum):
    ONE = 1.0


class _Whole(enum.IntEnum):
    ONE = 1


def _nested() -> list[Any]:
    inside: list[Any] = []
    for _ in range(100_000):
        inside = [inside]
    return inside


def _number(value: Any, make: Callable[[], Any] | None = None, label: str = "") -> Candidate:
    return Candidate(label or repr(value), make or (lambda: value), number=value)


_PLAIN_NUMBERS = [
    *(0, 1, 2, 3, 4, -1, 0.0, -0.0, 0.1, 0.5, 0.95, 1.0, 1.5, 2.0, -0.5, 1e-7, 1e-3, 100.0),
    *(5e-324, 1e-320, 1e-50, 1e-40, 1e-38, 1.2e-38, 1e38, 3.4e38, 1e39, 1e308),
    *(math.inf, -math.inf, math.nan, 1 - 2.0**-53, 1 - 1e-9, 1 + 2.0**-52),
    *(2**31 - 1, 2**31, 2.0**31, 2**53 + 1, 2**63, 2**64),
]
NUMBERS = [
    *map(_number, _PLAIN_NUMBERS),
    _number(0.5, lambda: np.float16(0.5), "float16(0.5)"),
    _number(0.5, lambda: np.float32(0.5), "float32(0.5)"),
    _number(0.5, lambda: np.longdouble(0.5), "longdouble(0.5)"),
    _number(math.inf, lambda: np.longdouble("1e400"), "longdouble(1e400)"),
    _number(0.0, lambda: np.longdouble("1e-4000"), "longdouble(1e-4000)"),
    _number(1, lambda: np.int8(1), "int8(1)"),
    _number(2**63, lambda: np.uint64(2**63), "uint64(2**63)"),
    _number(0.5, lambda: np.array(0.5), "array(0.5)"),
    _number(0.5, lambda: np.ma.array(0.5), "ma.array(0.5)"),
    _number(0.5, lambda: np.array(0.5, dtype=object), "array(0.5, object)"),
    _number(1, lambda: _Whole.ONE, "IntEnum"),
    _number(0.5, lambda: fractions.Fraction(1, 2), "Fraction(1, 2)"),
    _number(0.0, lambda: fractions.Fraction(1, 10**400), "Fraction(1, 10**400)"),
    _number(math.inf, lambda: fractions.Fraction(10**400), "Fraction(10**400)"),
    _number(-math.inf, lambda: fractions.Fraction(-(10**5000)), "Fraction(-10**5000)"),
    _number(10**400, lambda: 10**400, "10**400"),
    _number(10**5000, lambda: 10**5000, "10**5000"),
    _number(-(10**5000), lambda: -(10**5000), "-10**5000"),
]
FLAGS = [
    Candidate("True", lambda: True, flag=True),
    Candidate("False", lambda: False, flag=False),
    Candidate("bool_(True)", lambda: np.bool_(True), flag=True),
]
NONE = Candidate("None", lambda: None, is_none=True)
TEXTS = [
    Candidate('"mine"', lambda: "mine", text="mine"),
    Candidate('"dynamic"', lambda: "dynamic", text="dynamic"),
    Candidate('""', str, text=""),
    Candidate('"0.1"', lambda: "0.1", text="0.1"),
    Candidate('"a/b"', lambda: "a/b", text="a/b"),
    Candidate("a long text", lambda: "long" * 30_000, text="long" * 30_000),
    Candidate(
        "broken text",
        _broken("__eq__", "__hash__", "__len__", "__repr__", "__str__", base=str),
        text="1",
    ),
]
OTHERS = {
    "complex": lambda: 1j,
    "complex64": lambda: np.complex64(1),
    "Decimal": lambda: decimal.Decimal("0.5"),
    "Decimal(sNaN)": lambda: decimal.Decimal("sNaN"),
    "Decimal(1e999999)": lambda: decimal.Decimal("1e999999"),
    "Enum": lambda: _Number.ONE,
    "timedelta64": lambda: np.timedelta64(1, "ns"),
    "timedelta64(NaT)": lambda: np.timedelta64("NaT"),
    "datetime64": lambda: np.datetime64("2020-01-01"),
    "masked": lambda: np.ma.masked,
    "masked array": lambda: np.ma.array(0.5, mask=True),
    "array of one": lambda: np.array([0.5]),
    "array of none": lambda: np.array([]),
    "array of two": lambda: np.array([0.5, 0.5]),
    "large array": lambda: np.zeros((50, 50)),
    "array(object)": lambda: np.array(object()),
    "array(None)": lambda: np.array(None),
    "array of text": lambda: np.array("0.5"),
    "array of complex": lambda: np.array(1j),
    "void": lambda: np.void(b"abc"),
    "bytes": lambda: b"0.5",
    "bytearray": lambda: bytearray(b"0.5"),
    "list": lambda: [0.5],
    "empty list": list,
    "tuple": lambda: (0.5, 0.5),
    "dict": lambda: {"learning_rate": 0.5},
    "set": lambda: {0.5},
    "range": lambda: range(3),
    "generator": lambda: (it for it in (0.5,)),
    "deep list": _nested,
    "list of 10**5000": lambda: [10**5000],
    "class": lambda: float,
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "object": object,
    "broken repr": _broken("__repr__", "__str__"),
    "broken comparison": _broken("__eq__", "__ne__", "__lt__", "__gt__", "__le__", "__ge__"),
    "broken truth": _broken("__bool__", "__len__"),
    "broken number": _broken("__float__", "__int__", "__index__", "__array__", "__trunc__"),
    "broken class": _broken("__class__"),
    "broken attributes": _broken("__getattr__", "__getattribute__"),
    "broken shape": _broken("shape", "dtype", "item"),
    "broken item": _broken("item", shape=()),
    "item is text": _broken(shape=(), item=lambda self: "0.5"),
    "item is complex": _broken(shape=(), item=lambda self: 1j),
    "broken mask": _broken("mask", shape=(), item=lambda self: 0.5),
    "broken float": _broken("__float__", "__repr__", "__le__", "__lt__", base=float),
    "broken int": _broken("__int__", "__index__", "__repr__", "__trunc__", base=int),
    "all is broken": _broken(
        *("__repr__", "__str__", "__eq__", "__hash__", "__bool__", "__len__", "__iter__"),
        *("__float__", "__int__", "__index__", "__class__", "shape", "dtype", "item", "mask"),
        *("numpy", "assign", "__array__", "__getitem__", "name", "path"),
    ),
}


def half() -> float:
    return 0.5


FUNCTIONS = [Candidate("a function", lambda: half, is_function=True)]


def others(made: dict[str, Callable[[], Any]]) -> list[Candidate]:
    """Return candidates that are neither numbers, flags nor text."""
    return [Candidate(label, make) for label, make in made.items()]


CANDIDATES = [*NUMBERS, *FLAGS, NONE, *TEXTS, *others(OTHERS)]


# ------------------------------------------------------------------ what must come of it


@dataclass(frozen=True)
class Argument:
    """The values that an argument accepts, stated here independently of the package."""

    values: tuple[Any, ...]
    accepts: Callable[[Any], bool] | None = None
    flag: bool = False
    text: bool = False
    optional: bool = False
    words: tuple[str, ...] = ()
    functions: bool = False
    # Labels of values that are accepted in addition to those above.
    also: tuple[str, ...] = ()

    def takes(self, candidate: Candidate) -> bool:
        """Whether a candidate must be accepted; otherwise it must be refused."""
        if candidate.label in self.also:
            return True
        if candidate.is_none:
            return self.optional
        if candidate.text is not None:
            fits = bool(candidate.text) and "/" not in candidate.text
            return candidate.text in self.words or (self.text and fits)
        if candidate.flag is not None and self.flag:
            return True
        if candidate.is_function and self.functions:
            return True
        is_number = candidate.number is not None and self.accepts is not None
        return is_number and bool(self.accepts(candidate.number))

    def drawn(self, rng: random.Random, extra: list[Candidate]) -> Candidate:
        """Draw a candidate, often a valid one, so that the rest of its set is tested too."""
        if rng.random() < 0.3:
            value = rng.choice(self.values)
            kind = "flag" if isinstance(value, bool) else "text"
            kind = kind if isinstance(value, bool | str) else "number"
            known = {"is_none": True} if value is None else {kind: value}
            return Candidate(repr(value), lambda: value, **known)
        return rng.choice([*CANDIDATES, *extra, *(FUNCTIONS if self.functions else ())])


def whole(low: int, high: float, number: Any) -> bool:
    return low <= number <= high and number != math.inf and number == math.floor(number)


RATE = Argument((0.001, 0, 1.0), lambda it: 0 <= it <= FLOAT32)
RHO = Argument((0.95, 0), lambda it: 0 <= it < 1)
EPSILON = Argument((1e-7, 1), lambda it: 0 < it < math.inf and it < 2**1024)
DECAY = Argument((0.01, 0, None), lambda it: 0 <= it <= FLOAT32, optional=True)
LIMIT = Argument(
    (None, 1.0, math.inf), lambda it: it > 0 and (it == math.inf or it < 2**1024), optional=True
)
FLAG = Argument((True, False), flag=True)
NAME = Argument(("mine", None), text=True, optional=True)
COUNT = Argument((None, 1, 3), lambda it: whole(1, 2**31 - 1, it), optional=True)
PROBABILITY = Argument((0.99, 0, 1), lambda it: 0 <= it <= 1)


@dataclass(frozen=True)
class Way:
    """One way to give a front end its arguments.

    `act` is called with values by name, and returns the values that can be read afterwards.
    """

    label: str
    arguments: dict[str, Argument]
    act: Callable[[dict[str, Any]], dict[str, Any]]
    # The dtype of the averages, if there are any: a number that it can't hold may be refused.
    dtype: str | None = None
    longest: int = 200
    # Whether other sets of candidates, by name, may be refused.
    may_refuse: Callable[[dict[str, Candidate]], bool] = lambda given: False

    def may_be_odd(self, given: dict[str, Candidate]) -> bool:
        """Whether values that are valid by themselves may be refused together."""
        return self.may_refuse(given) or (self.dtype is not None and is_beyond(given, self.dtype))


# At most one of these can be given.
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
# The numbers that a step converts to the dtype of the averages, besides `rho`.
SMALL = ("epsilon", "eps", *CLIPS, "loss_scale_factor")


def is_beyond(given: dict[str, Candidate], dtype: str) -> bool:
    """Whether the dtype can't hold one of the numbers, or rounds `rho` to 1."""
    numbers = [given[name].number for name in SMALL if name in given]
    limits = np.finfo(dtype)
    low, high = float(limits.tiny), float(limits.max)
    rho = given["rho"].number if "rho" in given else None
    return any(0 < it < low or high < it < math.inf for it in numbers if it is not None) or (
        rho is not None and 1 - float(limits.epsneg) / 2 <= rho < 1
    )


def beyond_float32(*names: str) -> list[tuple[str, float]]:
    """Return arguments with numbers that would be 0, infinite or 1 in float32 averages."""
    return [*((name, it) for name in names for it in (1e-50, 1e39)), ("rho", 1 - 1e-9)]


def same(kept: Any, candidate: Candidate) -> bool:
    """Whether a value that was kept is the one that was given."""
    if candidate.is_none:
        return kept is None
    if candidate.text is not None:
        return kept == candidate.text
    if candidate.flag is not None:
        return kept is candidate.flag
    if type(kept) is float:
        return kept == float(candidate.number)
    return type(kept) is int and kept == candidate.number


class ChangedError(Exception):
    """A value was refused, but something changed."""


def attributes(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that reads these attributes."""
    return lambda target: {name: getattr(target, name) for name in names}


def made(make: Callable[..., Any], read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an `act` that passes the values to a constructor."""
    return lambda values: read(make(**values))


def set_later(make: Callable[[], Any], read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an `act` that sets attributes and checks that a refused value changes nothing."""

    def act(values: dict[str, Any]) -> Any:
        target = make()
        for name, value in values.items():
            before = read(target)
            try:
                setattr(target, name, value)
            except Exception as error:
                if read(target) != before:
                    raise ChangedError(name) from error
                raise
        return read(target)

    return act


def problem(way: Way, given: dict[str, Candidate]) -> str | None:
    """Return what is wrong with the response to a set of arguments, or None."""
    exclusive = [it for it in CLIPS if it in given and not given[it].is_none]
    refused = [name for name, it in given.items() if not way.arguments[name].takes(it)]
    may_be_odd = way.may_be_odd(given)
    may_refuse = bool(refused) or len(exclusive) > 1 or may_be_odd
    try:
        kept = way.act({name: it.make() for name, it in given.items()})
    except (TypeError, ValueError) as error:
        message = str(error)
        names = [*refused, *(exclusive if len(exclusive) > 1 else ())]
        names = list(given) if may_be_odd or not names else names
        if not may_refuse:
            return f"refused: {message[:300]}"
        if not any(name in message for name in names):
            return f"names no argument: {type(error).__name__}: {message[:300]}"
        if len(message) > way.longest:
            return f"{len(message)} characters: {message[:300]}"
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    if refused:
        return f"taken: {refused}"
    for name, value in kept.items():
        is_readable = name in given and not given[name].is_function
        if is_readable and way.arguments[name].takes(given[name]) and not same(value, given[name]):
            return f"{name} became {value!r}"
    return None


def failures(front_end: str, ways: list[Way], extra: list[Candidate] = ()) -> list[str]:
    """Test a front end with its share of all sets; return each failure and how to repeat it."""
    found = []
    for index in range(max(1, round(TOTAL * SHARES[front_end]))):
        rng = random.Random(f"{SEED} {front_end} {index}")
        way = rng.choice(ways)
        names = rng.sample(sorted(way.arguments), min(len(way.arguments), rng.choice((1, 1, 2, 3))))
        given = {name: way.arguments[name].drawn(rng, list(extra)) for name in names}
        what = problem(way, given)
        if what is not None:
            shown = ", ".join(f"{name}={it.label}" for name, it in given.items())
            found.append(f"{front_end} {index}, {way.label}({shown}): {what}")
    return found
