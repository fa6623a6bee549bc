"""The optimizer's part of a `.keras` or `.weights.h5` file: by name, checked before it is taken.

A file written with `keras.optimizers.Adadelta` holds the same variables by position only; its
order is known and it loads too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from adadelta._keras.state import COUNTERS
from adadelta._keras.step import Step


def matched(saved: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Match saved arrays to state variables by name, or raise with everything that is wrong.

    Keras numbers layers as they are made, so the same model made twice in one process has other
    numbers. Names that differ in these numbers alone match when all of them do, in order.
    """
    # The rate is a variable only while it is a number: it may come, or not, as it is now.
    if "learning_rate" not in state:
        saved = {name: array for name, array in saved.items() if name != "learning_rate"}
    if "learning_rate" not in saved:
        state = {name: variable for name, variable in state.items() if name != "learning_rate"}
    names = dict(zip(saved, saved, strict=True))
    if set(saved) != set(state):
        ours, theirs = list(map(_unnumbered, state)), list(map(_unnumbered, saved))
        if sorted(ours) == sorted(theirs):
            names = _in_order(saved, state)
    missing = [name for name in state if name not in names]
    extra = [name for name in names if name not in state]
    shapes = [
        f"{name}: {tuple(np.shape(saved[names[name]]))} instead of {tuple(variable.shape)}"
        for name, variable in state.items()
        if name in names and tuple(np.shape(saved[names[name]])) != tuple(variable.shape)
    ]
    problems = [
        f"{label} {', '.join(items)}"
        for label, items in (
            ("missing:", missing),
            ("not in this optimizer:", extra),
            ("of another shape:", shapes),
        )
        if items
    ]
    if problems:
        raise ValueError(
            "The saved optimizer state does not fit this optimizer, which was left as it is. "
            + "; ".join(problems)
        )
    return {name: saved[names[name]] for name in state}


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+(?=\||$)", "", name)


def _in_order(saved: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> dict[str, str]:
    # Among names that are equal without their numbers, creation order decides: the numbers grow.
    def grouped(names: Sequence[str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(_unnumbered(name), []).append(name)
        for group in groups.values():
            group.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        return groups

    theirs = grouped(list(saved))
    pairs: dict[str, str] = {}
    for key, group in grouped(list(state)).items():
        pairs.update(zip(group, theirs[key], strict=True))
    return pairs


def from_keras(
    saved: Mapping[str, np.ndarray], state: Mapping[str, Any], steps: int
) -> dict[str, np.ndarray]:
    """Name the arrays of a file written with `keras.optimizers.Adadelta`.

    `steps` is the number of calls per update, from which the counters that Keras lacks follow.

    Its variables are numbered: the counter, the rate when it is a number, the averages, the sums
    of the window, and then the two accumulators of each parameter in turn.
    """
    arrays = [np.asarray(saved[str(number)]) for number in range(len(saved))]
    order = [name for name in state if name not in COUNTERS]
    if len(arrays) == len(order) + 1 and "learning_rate" not in state:
        del arrays[1]
    elif len(arrays) == len(order) - 1 and "learning_rate" in state:
        order.remove("learning_rate")
    if len(arrays) != len(order):
        raise ValueError(
            f"The saved optimizer state has {len(arrays)} arrays and no names, as Keras writes "
            f"it, where this optimizer has {len(order)}; it was left as it is. Load it into an "
            "optimizer with the same arguments and variables"
        )
    named = dict(zip(order, arrays, strict=True))
    calls = int(named["iteration"])
    counters = {
        "update": calls // steps,
        "window": calls % steps,
        "window_has_gradient": np.ones if calls % steps else np.zeros,
        "skipped": 0,
    }
    for name in state:
        if name in counters:
            value = counters[name]
            named[name] = value(state[name].shape) if callable(value) else np.asarray(value)
    return named


class Saving(Step):
    """Keras' hooks for saving and loading."""

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file, by name."""
        for name, variable in self._named_state().items():
            store[name] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Take the state from a Keras file, ours or one of `keras.optimizers.Adadelta`."""
        saved = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        if not self.built:
            self._waiting_state = saved
        else:
            self._take(saved)

    def _take(self, saved: dict[str, np.ndarray]) -> None:
        state = self._named_state()
        if saved and all(name.isdigit() for name in saved):
            if len(saved) > 2:
                steps = self.gradient_accumulation_steps or 1
                saved = from_keras(saved, state, steps)
            else:
                saved = dict(zip(("iteration", "learning_rate"), saved.values(), strict=False))
        if not set(saved) <= {"iteration", "learning_rate"}:
            saved = matched(saved, state)
        for name, array in saved.items():
            if name in state:
                state[name].assign(array)
