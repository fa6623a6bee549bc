"""The arguments of the optimizer: their accepted values, defaults, checks and messages.

A value of the wrong type raises a TypeError, one out of range a ValueError. The messages are of
class `Message`: R makes its own from the same data.
"""

import difflib
import math
import numbers
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adadelta._core.messages import Message

Check = Callable[[str, Any], Any]


# Messages are read in terminals and logs: a longer one hides what is wrong.
LONGEST_MESSAGE = 200
_LONGEST_VALUE = 80

_MISSING = object()


def is_a(value: Any, kinds: Any) -> bool:
    """Whether `value` is an instance of `kinds`; an object whose `__class__` raises is not."""
    try:
        return isinstance(value, kinds)
    except Exception:
        return False


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of any object, or `default` if it can't be read."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def has(value: Any, name: str) -> bool:
    """Whether an object has an attribute that can be read."""
    return attribute(value, name, _MISSING) is not _MISSING


def as_text(value: Any) -> str | None:
    """Return a string as a plain `str`, whatever its class overrides, or None if it is none."""
    return str.__str__(value) if issubclass(type(value), str) else None


def shortened(text: str, most: int = _LONGEST_VALUE) -> str:
    """Return a text on one line, cut off if it is longer than `most`."""
    # Only the beginning is read: the text may be a gigabyte long.
    words = " ".join(text[: 2 * most].split())
    line = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in words
    )
    is_whole = len(text) <= 2 * most and len(line) <= most
    return line if is_whole else line[: most - 3] + "..."


def first_of(names: Sequence[str], room: int = 60) -> str:
    """Return the names that there is room for, at least one, and how many others there are."""
    if len(names) > 1:
        room -= len(f" and {len(names)} more")
    text, others = shortened(names[0], room), list(names[1:])
    while others and len(text) + len(others[0]) + 2 <= room:
        text += f", {others.pop(0)}"
    return text + (f" and {len(others)} more" if others else "")


def shortened_path(path: Any, most: int = _LONGEST_VALUE) -> str:
    """Return the path of a file in quotes, or only its end if it is longer than `most`."""
    text = os.fsdecode(path)
    end = text if len(text) <= most else f"...{text[3 - most :]}"
    return f'"{shortened(end, most)}"'


def with_problems(start: str, problems: Sequence[str]) -> str:
    """Append all problems to the start of a message, or only the first if they don't fit.

    The error with this message has all of them in its attribute `problems`.
    """
    text = f"{start}: {'; '.join(problems)}"
    if len(text) <= LONGEST_MESSAGE:
        return text
    first, *others = problems
    end = f"; {len(others)} more" if others else ""
    end += " (all are in `problems` of this error)"
    room = LONGEST_MESSAGE - len(f"{start}: {end}")
    return f"{start}: {in_brief(first, room)}{end}"


class Listing(str):
    """A problem and all items that have it; a short message shows the first of them."""

    label: str
    items: Sequence[str]


def in_brief(problem: str, room: int) -> str:
    """Return one problem, shortened to the room that there is."""
    if isinstance(problem, Listing):
        label = f"{problem.label} "
        return label + first_of(problem.items, room - len(label))
    return shortened(problem, room)


def received(value: Any, most: int = _LONGEST_VALUE) -> str:
    """Return a value as error messages show it: short, on one line, strings in quotes.

    This works for any object, even one whose `repr()` fails.
    """
    try:
        return shortened(_shown(value, most), most)
    except Exception:
        return shortened(f"an object of class {attribute(type(value), '__name__', '?')}", most)


def _shown(value: Any, most: int) -> str:
    text = as_text(value)
    if text is not None:
        return '"' + text[: 2 * most].replace('"', '\\"') + '"'
    if _is_time(value):
        return repr(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        digits = int(number.bit_length() * math.log10(2)) + 1
        # Python refuses to write integers of more than 4300 digits.
        return str(number) if digits < 1000 else f"an integer of about {digits} digits"
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return repr(float(value))
        except OverflowError:
            return f"a {type(value).__name__} beyond the range of float64"
    return repr(value)


# What an argument must be: in words, or as several alternatives. Each of these is in words or is
# True, False or None, which every language writes in its own way.
Requirement = str | tuple[str | bool | None, ...]


def refusal(argument: str, requirement: Requirement, value: Any) -> Message:
    """Return the message about a bad argument, in the one form that all such messages have."""
    return Message(
        with_received(f"`{argument}` must be {in_words(requirement)}", value),
        "argument",
        argument=argument,
        requirement=requirement,
        received=value,
    )


def with_received(text: str, value: Any) -> str:
    """Append the received value to a text, as far as a message has room for it."""
    start = f"{text}; received "
    return start + received(value, max(20, min(_LONGEST_VALUE, LONGEST_MESSAGE - len(start))))


def in_words(requirement: Requirement) -> str:
    """Return what an argument must be, as Python writes it."""
    alternatives = (requirement,) if isinstance(requirement, str) else requirement
    *others, last = (
        alternative if isinstance(alternative, str) else repr(alternative)
        for alternative in alternatives
    )
    # Single words take no comma before the last.
    comma = "," if isinstance(alternatives[0], str) else ""
    return f"{', '.join(others)}{comma} or {last}" if others else last


def as_number(value: Any) -> int | float | None:
    """Return `value`, which may be a NumPy scalar, as a Python number, or None if it is none.

    This works for any object: one that raises an error when it is read is no number.
    """
    if type(value) is float or type(value) is int:
        return value
    try:
        return _as_number(value)
    except Exception:
        return None


def _as_number(value: Any) -> int | float | None:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        # A time difference would lose its unit, and a masked value is missing.
        if _is_time(value) or bool(getattr(value, "mask", False)):
            return None
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    number: Any = value
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _is_time(value: Any) -> bool:
    # NumPy's time differences call themselves integers.
    return attribute(attribute(value, "dtype"), "kind") in ("m", "M")


@dataclass(frozen=True)
class Number:
    """A number in a range; `whole` numbers are returned as int, all others as float.

    `requirement` says in words what `accepts` accepts. The strings in `words` are accepted too, and
    None if the number is `optional`. `smallest` and `largest` are the limits, each with its name,
    that result from how the number is stored. Infinity is not stored: `accepts` alone decides
    whether it is accepted.
    """

    requirement: str
    accepts: Callable[[float], bool]
    whole: bool = False
    optional: bool = False
    words: tuple[str, ...] = ()
    smallest: tuple[float, str] | None = None
    largest: tuple[float, str] | None = None

    @property
    def alternatives(self) -> Requirement:
        """Everything that is accepted."""
        words = [f'"{word}"' for word in self.words]
        return (self.requirement, *words, *([None] if self.optional else []))

    def __call__(self, argument: str, value: Any) -> Any:
        """Return the value as the optimizer keeps it, or raise."""
        if value is None and self.optional:
            return None
        if self.words and as_text(value) in self.words:
            return as_text(value)
        number = as_number(value)
        if number is None:
            raise TypeError(refusal(argument, self.alternatives, value))
        if not self.accepts(number) or (self.whole and number != math.floor(number)):
            raise ValueError(refusal(argument, self.alternatives, value))
        if self.smallest is not None and number < self.smallest[0]:
            raise ValueError(refusal(argument, f"at least {self.smallest[1]}", value))
        if self.largest is not None and self.largest[0] < number < math.inf:
            raise ValueError(refusal(argument, f"at most {self.largest[1]}", value))
        if self.whole:
            return int(number)
        try:
            return float(number)
        except OverflowError:
            raise ValueError(refusal(argument, self.alternatives, value)) from None


@dataclass(frozen=True)
class Flag:
    """True or False, and None if that is one of the alternatives."""

    requirement: Requirement = (True, False)

    @property
    def optional(self) -> bool:
        """Whether None is accepted."""
        return not isinstance(self.requirement, str) and None in self.requirement

    def __call__(self, argument: str, value: Any) -> bool | None:
        """Return the value as bool, or raise."""
        if value is None and self.optional:
            return None
        kind = type(value)
        if kind is bool:
            return bool(value)
        module, name = attribute(kind, "__module__"), attribute(kind, "__name__")
        if module == "numpy" and name in ("bool_", "bool"):
            return bool(value)
        raise TypeError(refusal(argument, self.requirement, value))


def _name(argument: str, value: Any) -> str | None:
    """Return a string that frameworks can use in the path of a variable, or None, or raise."""
    requirement = ("a string that is not empty and has no `/`", None)
    text = as_text(value)
    if text is None and value is not None:
        raise TypeError(refusal(argument, requirement, value))
    if text is not None and (not text or "/" in text):
        raise ValueError(refusal(argument, requirement, value))
    return text


# The limits of what frameworks keep in float32 and in int32.
_FLOAT32 = ((2 - 2.0**-23) * 2.0**127, "3.40282e+38, the largest number of float32")
_INT32 = (2**31 - 1, "2147483647, the largest number of int32")

_NOT_NEGATIVE = Number("a finite number of at least 0", lambda value: 0 <= value < math.inf)
_POSITIVE = Number("a finite number greater than 0", lambda value: 0 < value < math.inf)
_SHARE = Number("a number of at least 0 and at most 1", lambda value: 0 <= value <= 1)
_COUNT = Number("a whole number of at least 1", lambda value: 1 <= value < math.inf, whole=True)
_COUNT_OR_NONE = replace(_COUNT, optional=True)
_LIMIT = Number(
    "a number greater than 0 (infinity means no clipping)",
    lambda value: value > 0,
    optional=True,
)

# Arguments that only some front ends have.
FIXED_RATE = replace(_NOT_NEGATIVE, largest=_FLOAT32)
# Decay that the learning rate does not scale: above 1 it would change the sign of a weight.
UNSCALED_WEIGHT_DECAY = replace(_SHARE, optional=True)

# What each argument must be, in the order of the constructor. Front ends use the names of their
# framework and pass the arguments to `check` under these names.
ARGUMENTS: Mapping[str, Check] = {
    "learning_rate": replace(
        FIXED_RATE,
        requirement=f"{FIXED_RATE.requirement}, a schedule, or a function that returns such "
        "a number",
    ),
    "rho": Number("a number of at least 0 and less than 1", lambda value: 0 <= value < 1),
    "epsilon": _POSITIVE,
    "weight_decay": replace(FIXED_RATE, optional=True),
    "clipnorm": _LIMIT,
    "clipvalue": _LIMIT,
    "global_clipnorm": _LIMIT,
    "use_ema": Flag(),
    "ema_momentum": _SHARE,
    "ema_overwrite_frequency": replace(_COUNT_OR_NONE, largest=_INT32),
    "loss_scale_factor": replace(_POSITIVE, optional=True, words=("dynamic",)),
    "gradient_accumulation_steps": replace(_COUNT_OR_NONE, largest=_INT32),
    "name": _name,
    "maximize": Flag(),
    "decoupled_weight_decay": Flag(),
    "skip_nonfinite": Flag(),
    "fused": Flag((True, False, None)),
}

# The arguments of minimizing a function, under the names of `minimization`. Front ends use the
# names of their host.
MINIMIZATION: Mapping[str, Check] = {
    "gtol": _NOT_NEGATIVE,
    "xtol": _NOT_NEGATIVE,
    "ftol": _NOT_NEGATIVE,
    "f_target": Number("a number, not NaN", lambda value: value == value),
    "maxiter": Number(
        "a whole number of at least 0", lambda value: 0 <= value < math.inf, whole=True
    ),
    "maxfev": _COUNT_OR_NONE,
    # The function is computed in float64: a relative step below its precision has no effect.
    "finite_diff_rel_step": replace(
        _POSITIVE,
        optional=True,
        smallest=(sys.float_info.epsilon, "2.22e-16, the precision of float64"),
    ),
    "reduce": Flag(),
    "rho": ARGUMENTS["rho"],
    "epsilon": replace(
        _POSITIVE, smallest=(sys.float_info.min, "2.23e-308, the smallest number of float64")
    ),
}

# The arguments of `Monitor`.
MONITOR: Mapping[str, Check] = {"every": _COUNT, "sample": _COUNT}

_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def check(argument: str, value: Any) -> Any:
    """Return `value` as the optimizer keeps it, or raise with the reason."""
    return ARGUMENTS[argument](argument, value)


def check_clips(arguments: Mapping[str, Any]) -> None:
    """Refuse two kinds of clipping at once, of those that the front end has."""
    ways = [name for name in _CLIPS if name in arguments]
    given = {name: arguments[name] for name in ways if arguments[name] is not None}
    if len(given) > 1:
        names = [f"`{name}`" for name in ways]
        shown = ", ".join(f"{name}={received(value, 20)}" for name, value in given.items())
        text = f"Only one of {', '.join(names[:-1])} and {names[-1]} can be given; received {shown}"
        raise ValueError(Message(text, "together", arguments=ways, given=given))


def refuse_unknown(
    unknown: Mapping[str, Any], owner: str, known: Collection[str] = ARGUMENTS
) -> None:
    """Refuse arguments that do not exist, and say what to write instead if that is known.

    Args:
        unknown: The arguments.
        owner: What does not have these arguments.
        known: The arguments that exist.

    """
    for argument, value in unknown.items():
        if argument == "decay":
            rate = received(value, 16)
            text = (
                f"`decay` is not an argument of {owner}; pass the schedule "
                "keras.optimizers.schedules.InverseTimeDecay(learning_rate, decay_steps=1, "
                f"decay_rate={rate}) as `learning_rate`"
            )
            raise TypeError(Message(text, "decay", owner=owner, received=value))
        near = {"lr": "learning_rate", "learning_rate": "lr"}.get(argument)
        raise unknown_argument(argument, owner, known, near if near in known else None)


def unknown_argument(
    argument: str, owner: str, known: Collection[str], near: str | None = None
) -> TypeError:
    """Return the error about an argument that does not exist.

    It names the argument that was probably meant, or else the first of those that exist.

    Args:
        argument: The argument.
        owner: What does not have this argument.
        known: The arguments that exist.
        near: The argument that is meant, if that is known; else it is the most similar one.

    """
    shown = shortened(argument, 60)
    for guess in difflib.get_close_matches(argument, known, n=1):
        near = near or guess
    text = f"`{shown}` is not an argument of {owner}"
    if near:
        text += f" (did you mean `{near}`?)"
    else:
        first = [f"`{name}`" for name in known][:4]
        others = len(known) - len(first)
        text += f"; it takes {', '.join(first)}" + (f" and {others} others" if others > 0 else "")
    return TypeError(
        Message(text, "unknown", argument=shown, owner=owner, near=near, known=list(known))
    )


@dataclass(frozen=True)
class Convention:
    """Adadelta in one framework: its arguments, their defaults and its weight decay.

    `weight_decay_mode` is "coupled" (added to the gradient, so it enters the accumulators),
    "decoupled" (x - learning_rate * weight_decay * x), "unscaled" (x - weight_decay * x), or
    None if the framework's class has no weight decay. An `epsilon` of None means
    `keras.config.epsilon()`.

    `names` maps those of our arguments that the framework has to its names for them, in its order.
    `others` maps the arguments that only it has to the reason why they can't be translated, or to
    None if they say how a step is computed without changing it.
    """

    learning_rate: float
    rho: float
    epsilon: float | None
    weight_decay: float | None
    weight_decay_mode: str | None
    names: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str | None] = field(default_factory=dict)


def _own_names(*arguments: str, **renamed: str) -> Mapping[str, str]:
    """Return names of arguments in their order: our own, except for those that are renamed."""
    return {argument: renamed.get(argument, argument) for argument in arguments}


_RULE = ("learning_rate", "rho", "epsilon")
_AVERAGE = ("use_ema", "ema_momentum", "ema_overwrite_frequency")

# Read from each framework's own signature: Keras 3.15, tf_keras 2.21, TensorFlow 1.13,
# BrainPy 2.8, torch 2.13, optax 0.2.8; "paper" is Zeiler 2012, section 4.1. "keras" has Keras'
# arguments and our own. The learning rate of "optax" is ours: with its own, None, it ascends.
CONVENTIONS: Mapping[str, Convention] = {
    "keras": Convention(0.001, 0.95, 1e-7, None, "decoupled", _own_names(*ARGUMENTS)),
    "tf_keras": Convention(
        0.001,
        0.95,
        1e-7,
        None,
        "decoupled",
        _own_names(*_RULE, "weight_decay", *_CLIPS, *_AVERAGE, "name"),
        {"jit_compile": None},
    ),
    "tf1": Convention(
        1.0,
        0.95,
        None,
        None,
        None,
        _own_names(*_RULE, "clipnorm", "clipvalue", learning_rate="lr"),
        {"decay": "the rate falls as lr / (1 + decay * step), which elsewhere takes a schedule"},
    ),
    "brainpy": Convention(
        1.0,
        0.95,
        1e-6,
        None,
        "unscaled",
        _own_names("learning_rate", "weight_decay", "epsilon", "rho", "name", learning_rate="lr"),
        {"train_vars": "every framework is given its parameters in its own way"},
    ),
    "torch": Convention(
        1.0,
        0.9,
        1e-6,
        0.0,
        "coupled",
        _own_names(*_RULE, "weight_decay", "maximize", learning_rate="lr", epsilon="eps"),
        {
            "params": "every framework is given its parameters in its own way",
            "foreach": None,
            "capturable": None,
            "differentiable": None,
        },
    ),
    "optax": Convention(
        1.0,
        0.9,
        1e-6,
        0.0,
        "coupled",
        _own_names(*_RULE, "weight_decay", epsilon="eps"),
        {"weight_decay_mask": "every framework excludes parameters from weight decay in its way"},
    ),
    "paper": Convention(1.0, 0.95, 1e-6, None, None, _own_names(*_RULE)),
}

# The defaults of the constructor for Keras.
DEFAULTS: Mapping[str, Any] = {
    **dict.fromkeys(ARGUMENTS),
    **{name: getattr(CONVENTIONS["keras"], name) for name in _RULE},
    "use_ema": False,
    "ema_momentum": 0.99,
    "maximize": False,
    "decoupled_weight_decay": True,
    "skip_nonfinite": False,
}
