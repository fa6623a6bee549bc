"""Which saved arrays belong to which parameters: by name, and everything that is wrong at once."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adadelta._state.record import SLOTS, OptimizerState, StateMismatchError

_Slots = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Numbering:
    """How a framework numbers the objects that it names.

    `separator` is between the parts of a name, `number` finds the number in a part, and with
    `except_last` the last part is the user's own word.
    """

    separator: str
    number: str
    except_last: bool = False


# In Keras' files | stands in the place of /.
KERAS = Numbering(r"[/|]", r"_([1-9]\d*)$")


def fit(
    state: OptimizerState, slots: _Slots, numbered: bool, numbering: Numbering = KERAS
) -> tuple[dict[str, str], list[str]]:
    """Match a state to an optimizer.

    Args:
        state: The state.
        slots: For each parameter of the optimizer what has the `shape` and `dtype` of each slot.
        numbered: Whether names may differ in the numbers that frameworks give, see `paired`.
        numbering: How the optimizer's framework gives them.

    Returns:
        The state's name for each parameter of the optimizer, and what is wrong, in words. Only
        when nothing is wrong are the names complete.

    """
    problems = []
    wanted = {slot for it in slots.values() for slot in it}
    for slot, argument in SLOTS.items():
        if state.parameters and slot in wanted and slot not in state.slots:
            reason = f", which an optimizer with `{argument}` needs" if argument else ""
            problems.append(f"it has no {slot}{reason}")
        elif slots and slot in state.slots and slot not in wanted:
            reason = f" without `{argument}`" if argument else ""
            problems.append(f"it has {slot}, for which an optimizer{reason} has no place")
    both = [slot for slot in SLOTS if slot in wanted and slot in state.slots]

    names = paired(state.parameters, slots, numbered, numbering)
    missing = [name for name in slots if name not in names]
    extra = [name for name in state.parameters if name not in names.values()]
    shapes, dtypes, negative = [], [], []
    for name, own in names.items():
        saved = state.parameters[own]
        for slot in both:
            if (slot in saved) != (slot in slots[name]):
                (extra if slot in saved else missing).append(f"{name} ({slot})")
            elif slot in saved:
                array, like = saved[slot], slots[name][slot]
                if array.shape != tuple(like.shape):
                    shapes.append(f"{name} ({slot}) {array.shape} instead of {tuple(like.shape)}")
                elif not np.can_cast(array.dtype, like.dtype):
                    dtypes.append(f"{name} ({slot}) {array.dtype} instead of {like.dtype}")
                if slot in ("square_avg", "acc_delta") and np.any(array < 0):
                    negative.append(f"{name} ({slot})")
    problems += [
        f"{label} {', '.join(items)}"
        for label, items in (
            ("missing:", missing),
            ("not in this optimizer:", extra),
            ("of another shape:", shapes),
            ("of another dtype:", dtypes),
            ("negative, as no average of squares is:", negative),
        )
        if items
    ]
    return names, problems


def problems_with_counters(state: OptimizerState, largest: int) -> list[str]:
    """What is wrong with the counters, for an optimizer that only counts steps, up to `largest`."""
    problems = []
    if state.update != state.step:
        problems.append(
            f"it has {state.update} updates in {state.step} calls, and here every call is an update"
        )
    if state.window:
        problems.append(
            f"it has a window of {state.window} calls open, for which this optimizer has no place"
        )
    if state.loss_scale is not None:
        problems.append("it has a dynamic loss scale, for which this optimizer has no place")
    if state.step > largest:
        problems.append(f"`step` is {state.step}, and this optimizer counts up to {largest}")
    return problems


def refuse(problems: Iterable[str]) -> None:
    """Raise when there are problems, with all of them."""
    problems = list(problems)
    if problems:
        raise StateMismatchError(
            "The saved optimizer state does not fit this optimizer, which was left as it is: "
            + "; ".join(problems)
        )


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
    saved: Iterable[str], own: Iterable[str], numbered: bool, numbering: Numbering = KERAS
) -> dict[str, str]:
    """Return the saved name for each own one that has one.

    Keras numbers layers as they are made, so the same model made twice in one process has other
    numbers: `sequential/dense_1/kernel` becomes `sequential_1/dense_4/kernel`. And a loaded
    `Sequential` has lost its name from the paths of what is inside: `dense_1/kernel`. When
    `numbered`, names may differ in this if, in their order, all do: if the last parts of each two
    are equal without numbers, and the numbers of equal parts all differ by the same amount.
    """
    saved, own = list(saved), list(own)
    names = {name: name for name in own if name in set(saved)}
    if numbered and not len(names) == len(own) == len(saved) and _alike(saved, own, numbering):
        return dict(zip(own, saved, strict=True))
    return names


def _alike(saved: list[str], own: list[str], numbering: Numbering) -> bool:
    shifts: dict[str, int] = {}
    for name, other_name in zip(saved, own, strict=False):
        theirs, mine = _parts(name, numbering), _parts(other_name, numbering)
        for (base, number), (other, other_number) in zip(theirs, mine, strict=False):
            shift = other_number - number
            if base != other or shifts.setdefault(base, shift) != shift:
                return False
    return len(saved) == len(own)


def _parts(name: str, numbering: Numbering) -> list[tuple[str, int]]:
    """The parts of a path and their numbers, from the last one: "dense" is 0 of its kind."""
    parts: list[tuple[str, int]] = []
    # Repeated paths end in #2 and so on.
    for part in reversed(re.split(numbering.separator, re.sub(r"#\d+$", "", name))):
        is_own_word = numbering.except_last and not parts
        found = None if is_own_word else re.search(numbering.number, part)
        parts.append((part[: found.start()], int(found[1])) if found else (part, 0))
    return parts
