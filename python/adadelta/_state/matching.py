"""Match saved arrays to parameters by name, and report all problems at once."""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adadelta._core import hyperparameters
from adadelta._core.messages import Message
from adadelta._state.record import StateMismatchError, StateWarning

_Fits = Callable[[str, str], bool]


@dataclass(frozen=True)
class Numbering:
    """How a framework numbers the objects that it names.

    `separator` matches what is between the parts of a name, and `number` the number in a part.
    With `except_last`, the last part is the user's own word.
    """

    separator: str
    number: str
    except_last: bool = False


# Keras' files have | in place of /.
KERAS = Numbering(r"[/|]", r"_([1-9]\d*)$")


def listed(label: str, items: Sequence[str]) -> list[str]:
    """Return the problem that these parameters have, or none if there are no parameters."""
    if not items:
        return []
    problem = hyperparameters.Listing(f"{label} {', '.join(items)}")
    problem.label, problem.items = label, items
    return [problem]


def unpaired(missing: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return the problems of parameters without a counterpart in the state or the optimizer."""
    return [*listed("missing:", missing), *listed("not in this optimizer:", extra)]


def refuse(problems: Iterable[str]) -> None:
    """Raise an error if there are problems, with all of them in its `problems`."""
    problems = tuple(problems)
    if problems:
        start = "The state does not fit this optimizer, which was left as it is"
        text = hyperparameters.with_problems(start, problems)
        raise StateMismatchError(Message(text, "not_fitting", problems=problems), problems)


def warn_left_out(reason: Exception | str, outcome: str, advice: str) -> None:
    """Warn that a model's optimizer state was not loaded with it.

    Args:
        reason: The reason, or the error that strict loading would have raised. The warning shows
            the first of its problems.
        outcome: What the optimizer does now, such as "starts anew".
        advice: How to load the state strictly; empty if that is impossible.

    """
    caller = sys._getframe(1)
    while caller.f_back is not None and str(caller.f_globals.get("__name__")).startswith(
        _LIBRARIES
    ):
        caller = caller.f_back
    start, end = "The optimizer's state was left out (", f"); the optimizer {outcome}. {advice}"
    room = hyperparameters.LONGEST_MESSAGE - len(start) - len(end)
    # Shown each time, so that two models loaded by the same line are both reported.
    warnings.warn_explicit(
        f"{start}{_in_brief(reason, room)}{end}".rstrip(),
        StateWarning,
        caller.f_code.co_filename,
        caller.f_lineno,
    )


# Modules that are not the caller. TensorFlow runs traced code from modules that it generates.
_LIBRARIES = (
    "adadelta.",
    "brainpy.",
    "contextlib",
    "keras.",
    "tensorflow.",
    "tf_keras.",
    "__autograph_",
)


def _in_brief(reason: Exception | str, room: int) -> str:
    """Return the first of the problems, and how many more there are."""
    first, *others = getattr(reason, "problems", ()) or (str(reason),)
    more = f"; {len(others)} more problem{'s' * (len(others) > 1)}" if others else ""
    return hyperparameters.in_brief(first, room - len(more)) + more


def distinct(paths: Iterable[str]) -> list[str]:
    """Return a name for each parameter: its path, with a number where paths repeat."""
    counts: dict[str, int] = {}
    names = []
    for path in paths:
        # Saved files write "|" for "/", so "a/b" and "a|b" are the same name there.
        key = path.replace("/", "|")
        counts[key] = counts.get(key, 0) + 1
        names.append(path if counts[key] == 1 else f"{path}#{counts[key]}")
    return names


def paired(
    saved: Iterable[str],
    own: Iterable[str],
    numbering: Numbering | None = KERAS,
    fits: _Fits = lambda saved, own: True,
) -> dict[str, str]:
    """Return the saved name for each of the optimizer's names that has a counterpart.

    Keras numbers layers as they are created, so the same model has other numbers when it is created
    again: `sequential/dense_1/kernel` becomes `sequential_1/dense_4/kernel`. A loaded model has
    also lost the names of layers that were not being built while their parts were:
    `dense_1/kernel`. Names may differ in these ways if the two models have the same structure: as
    many parameters, in the same order, with the same words in their names, and the parts of a layer
    of one model are parts of a single layer of the other.

    Args:
        saved: The saved names, in their order.
        own: The optimizer's names, in their order.
        numbering: How the framework numbers names; `None` if they must be the same.
        fits: Whether the arrays of a saved and an own name can belong to the same parameter.

    """
    saved, own = list(saved), list(own)
    names = {name: name for name in own if name in set(saved)}
    if numbering is None:
        return names
    if len(names) == len(own) == len(saved) and all(map(fits, names.values(), names)):
        return names
    theirs = [(_parts(name, numbering), name) for name in saved]
    mine = [(_parts(name, numbering), name) for name in own]
    shortened = _without_lost_parents(theirs, mine)
    # First only pairs whose arrays fit; else any, so that the message can say what does not fit.
    for condition in (fits, lambda saved, own: True):
        found = _matched(theirs, mine, condition, by_name=True)
        if found is None and shortened is not None:
            # The order decides, which is no guess: only loading loses parents, and Keras builds
            # the layers of a file in the order in which the saved ones were built. The numbers of
            # layers with different parents would be a guess, since they are unrelated.
            found = _matched(*shortened, condition, by_name=False)
        if found is not None:
            return found
    return names


class _Part(NamedTuple):
    """A part of a path: "dense_1" is number 1 of the kind "dense", and "dense" number 0."""

    text: str
    # The word, and whether it is the last one of the path.
    kind: tuple[str, bool]
    number: int


# The rest of a path, and the whole name.
_Entry = tuple[tuple[_Part, ...], str]


def _parts(name: str, numbering: Numbering) -> tuple[_Part, ...]:
    # Repeated paths end in #2 and so on.
    texts = re.split(numbering.separator, re.sub(r"#\d+$", "", name))
    parts = []
    for place, text in enumerate(texts, 1):
        is_last = place == len(texts)
        found = re.search(numbering.number, text)
        if found is None or (is_last and numbering.except_last):
            parts.append(_Part(text, (text, is_last), 0))
        else:
            parts.append(_Part(text, (text[: found.start()], is_last), int(found[1])))
    return tuple(parts)


def _kinds(parts: Iterable[_Part]) -> list[tuple[str, bool]]:
    return [part.kind for part in parts]


def _matched(
    saved: list[_Entry], own: list[_Entry], fits: _Fits, by_name: bool
) -> dict[str, str] | None:
    """Match the names below one layer; `None` if the two sides differ in more than numbers."""
    if len(saved) != len(own):
        return None
    if any(parts for parts, _ in own):
        theirs, mine = _children(saved), _children(own)
        for keys in _pairings(list(theirs), list(mine), by_name):
            found: dict[str, str] = {}
            for key, their_key in keys.items():
                below = _matched(theirs[their_key], mine[key], fits, by_name)
                if below is None:
                    break
                found |= below
            else:
                return found
        if not (_has_repeated(saved) or _has_repeated(own)):
            return None
    # Here paths end, or two layers with the same name look like one: a layer from the file may
    # have the name that another one gets by its number.
    in_order = list(zip(saved, own, strict=True))
    if all(
        _kinds(parts) == _kinds(own_parts) and fits(name, own_name)
        for (parts, name), (own_parts, own_name) in in_order
    ):
        return {own_name: name for (_, name), (_, own_name) in in_order}
    return None


def _children(entries: list[_Entry]) -> dict[_Part, list[_Entry]]:
    children: dict[_Part, list[_Entry]] = {}
    for parts, name in entries:
        children.setdefault(parts[0], []).append((parts[1:], name))
    return children


def _has_repeated(entries: list[_Entry]) -> bool:
    return len({parts for parts, _ in entries}) < len(entries)


def _pairings(saved: list[_Part], own: list[_Part], by_name: bool) -> list[dict[_Part, _Part]]:
    """Return the ways to match the layers of one parent, the most certain one first."""
    ways: list[dict[_Part, _Part]] = []
    if by_name and set(saved) == set(own):
        ways.append({key: key for key in own})
    if _kinds(saved) != _kinds(own):
        return ways
    if by_name:
        way: dict[_Part, _Part] = {}
        for kind in dict.fromkeys(_kinds(own)):
            theirs, mine = ([key for key in keys if key.kind == kind] for keys in (saved, own))
            is_same = set(theirs) == set(mine)
            if not is_same and _are_ambiguous(theirs, mine):
                return ways
            way.update(zip(mine, mine if is_same else theirs, strict=True))
        ways.append({key: way[key] for key in own})
    ways.append(dict(zip(own, saved, strict=True)))
    # Each way once: a mismatch far below would be tried again and again.
    return [way for i, way in enumerate(ways) if way not in ways[:i]]


def _are_ambiguous(saved: list[_Part], own: list[_Part]) -> bool:
    """Whether order and names contradict each other.

    Numbers rise as layers are created, so with the same code they rise in the same order in every
    program. If they don't, and a name is at another place on the other side, the user has chosen
    the names and swapped them.
    """
    numbers = [[key.number for key in keys] for keys in (saved, own)]
    ranks = [sorted(range(len(ordered)), key=ordered.__getitem__) for ordered in numbers]
    has_moved = any(key in saved and saved[place] != key for place, key in enumerate(own))
    return ranks[0] != ranks[1] and has_moved


def _without_lost_parents(
    saved: list[_Entry], own: list[_Entry]
) -> tuple[list[_Entry], list[_Entry]] | None:
    """Cut the longer path of each pair to the length of the other; `None` if none is longer."""
    pairs = list(zip(saved, own, strict=False))
    if len(saved) != len(own) or all(len(one[0]) == len(other[0]) for one, other in pairs):
        return None
    theirs, mine = [], []
    for (parts, name), (own_parts, own_name) in pairs:
        length = min(len(parts), len(own_parts))
        theirs.append((parts[-length:], name))
        mine.append((own_parts[-length:], own_name))
    return theirs, mine
