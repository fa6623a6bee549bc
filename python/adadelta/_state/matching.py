"""Which saved arrays belong to which parameters: by name, and everything that is wrong at once."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from adadelta._state.record import SLOTS, OptimizerState, StateMismatchError

_Slots = Mapping[str, Mapping[str, Any]]


def fit(state: OptimizerState, slots: _Slots, numbered: bool) -> tuple[dict[str, str], list[str]]:
    """Match a state to an optimizer.

    Args:
        state: The state.
        slots: For each parameter of the optimizer what has the `shape` and `dtype` of each slot.
        numbered: Whether names may differ in the numbers that Keras gives, see `paired`.

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

    names = paired(state.parameters, slots, numbered)
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


def refuse(problems: Iterable[str]) -> None:
    """Raise when there are problems, with all of them."""
    problems = list(problems)
    if problems:
        raise StateMismatchError(
            "The saved optimizer state does not fit this optimizer, which was left as it is: "
            + "; ".join(problems)
        )


def paired(saved: Iterable[str], own: Iterable[str], numbered: bool) -> dict[str, str]:
    """Return the saved name for each own one that has one.

    Keras numbers layers as they are made, so the same model made twice in one process has other
    numbers: `sequential/dense_1/kernel` becomes `sequential_1/dense_4/kernel`. And a loaded
    `Sequential` has lost its name from the paths of what is inside: `dense_1/kernel`. When
    `numbered`, names may differ in this if, in their order, all do: if the last parts of each two
    are equal without numbers, and the numbers of equal parts all differ by the same amount.
    """
    saved, own = list(saved), list(own)
    names = {name: name for name in own if name in set(saved)}
    if numbered and not len(names) == len(own) == len(saved) and _alike(saved, own):
        return dict(zip(own, saved, strict=True))
    return names


def _alike(saved: list[str], own: list[str]) -> bool:
    shifts: dict[str, int] = {}
    for theirs, mine in zip(map(_parts, saved), map(_parts, own), strict=False):
        for (base, number), (other, other_number) in zip(theirs, mine, strict=False):
            shift = other_number - number
            if base != other or shifts.setdefault(base, shift) != shift:
                return False
    return len(saved) == len(own)


def _parts(name: str) -> list[tuple[str, int]]:
    """The parts of a path and their numbers, from the last one: "dense" is 0 of its kind."""
    parts = []
    # Repeated paths end in #2 and so on. In Keras' files | stands in the place of /.
    for part in reversed(re.split(r"[/|]", re.sub(r"#\d+$", "", name))):
        found = re.search(r"_([1-9]\d*)$", part)
        parts.append((part[: found.start()], int(found[1])) if found else (part, 0))
    return parts
