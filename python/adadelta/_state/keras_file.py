"""The optimizer's part of a `.keras` or `.weights.h5` file: arrays by name.

A file of the host's own Adadelta has numbers in the place of names.
"""

from collections.abc import Mapping

import numpy as np

from adadelta._state import matching
from adadelta._state.record import SLOTS, OptimizerState

Arrays = Mapping[str, np.ndarray]

# In the file a parameter's name has | in the place of /, which would make a folder.
_COUNTERS = {
    "iteration": "step",
    "update": "update",
    "window": "window",
    "skipped": "skipped",
    "finite_calls": "finite_calls",
}
_CAME = "window_has_gradient"
_PLACE = "place"


def to_file(state: OptimizerState) -> dict[str, np.ndarray]:
    """Return the arrays of a file, by name."""
    arrays = {
        f"{name.replace('/', '|')}|{slot}": array
        for name, slots in state.parameters.items()
        for slot, array in slots.items()
    }
    for name, attribute in _COUNTERS.items():
        if getattr(state, attribute) is not None:
            arrays[name] = np.asarray(getattr(state, attribute))
    if state.loss_scale is not None:
        arrays["loss_scale"] = np.asarray(state.loss_scale, "float32")
    for place, name in enumerate(state.parameters):
        # The order, which the file does not keep.
        arrays[f"{name.replace('/', '|')}|{_PLACE}"] = np.asarray(place)
    for name in state.window_gradients:
        arrays[f"{name.replace('/', '|')}|{_CAME}"] = np.asarray(1)
    return arrays


def from_file(saved: Arrays) -> OptimizerState:
    """Return the state in a file of ours."""
    state = OptimizerState()
    parameters: dict[str, dict[str, np.ndarray]] = {}
    places: dict[str, int] = {}
    came, unknown = [], []
    for key, array in saved.items():
        path, _, slot = key.rpartition("|")
        name = path.replace("|", "/")
        if name and slot in SLOTS:
            parameters.setdefault(name, {})[slot] = array
        elif name and slot == _PLACE:
            places[name] = int(array)
        elif name and slot == _CAME:
            came.append(name)
        elif key in _COUNTERS:
            setattr(state, _COUNTERS[key], int(array))
        elif key == "loss_scale":
            state.loss_scale = float(array)
        elif key == "learning_rate":
            state.hyperparameters[key] = float(array)
        else:
            unknown.append(key)
    problems = [] if "iteration" in saved else ["missing: iteration"]
    problems += [f"not in this optimizer: {', '.join(unknown)}"] if unknown else []
    matching.refuse(problems)
    return OptimizerState(
        **{
            **state.counters(),
            "update": state.update if "update" in saved else state.step,
            "window_gradients": came,
            "hyperparameters": state.hyperparameters,
            "parameters": {
                name: parameters[name]
                for name in sorted(parameters, key=lambda name: places.get(name, 0))
            },
        }
    )


def is_numbered(saved: Arrays) -> bool:
    """Whether an optimizer of the host has written this."""
    return all(name.isdigit() for name in saved)


def in_order(saved: Arrays) -> list[np.ndarray]:
    """Return the arrays of a file of the host, in their order."""
    return [saved[key] for key in sorted(saved, key=int)]
