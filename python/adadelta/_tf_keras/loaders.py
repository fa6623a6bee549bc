"""Information that tf_keras' loaders have but do not pass to the optimizer.

tf_keras has a loader for each of its three formats of whole models. Each creates an optimizer from
its saved config by `from_config()`, and passes it arrays, or none, without their origin.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf

from adadelta._state import exchange, keras_file, matching
from adadelta._state.record import OptimizerState

KERAS, HDF5, SAVED_MODEL = "saving_lib.load_model", "hdf5_format.load_model_from_hdf5", "load.load"


def running(loader: str) -> FrameType | None:
    """Return the frame of one of tf_keras' loaders if it is running, else `None`."""
    module, _, function = loader.rpartition(".")
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == function:
            name = str(frame.f_globals.get("__name__"))
            if name.startswith("tf_keras.") and name.endswith(f".{module}"):
                return frame
        frame = frame.f_back
    return None


def warn_of_saved_model() -> None:
    """Warn if an optimizer is created for a SavedModel that contains the optimizer's state."""
    frame = running(SAVED_MODEL)
    if frame is None or "path" not in frame.f_locals:
        return
    variables = str(PurePath(frame.f_locals["path"], "variables", "variables"))
    try:
        names = [name for name, _ in tf.train.list_variables(variables)]
    except (OSError, ValueError, tf.errors.OpError):
        return
    if any(name.startswith("optimizer/") and "/_variables/" in name for name in names):
        matching.warn_left_out(
            "load_model() does not read it from a SavedModel",
            "starts anew",
            'To go on with it, call model.load_weights(f"{path}/variables/variables")',
        )


_SLOTS = {
    "accumulated_grad": "square_avg",
    "accumulated_delta_var": "acc_delta",
    "average": "average",
}
# The optimizer's name comes first, and the parameter's own last.
_VARIABLE = re.compile(rf"(?:.*?/)?({'|'.join(_SLOTS)})/(.+)")


def lists_in_checkpoint() -> tuple[int, dict[str, list[str]]] | None:
    """Return the id and the lists of the TensorFlow checkpoint that is being restored.

    The lists are those for the object being restored, with the names of their variables. TensorFlow
    itself restores arrays by their position. `None` if no checkpoint is being restored.
    """
    frame = sys._getframe(2)
    position = frame.f_locals.get("checkpoint_position")
    if frame.f_code.co_name != "_queue_children_for_restoration" or position is None:
        return None
    nodes = position.checkpoint.object_graph_proto.nodes
    lists: dict[str, list[str]] = {}
    for child in position.object_proto.children:
        entries = {
            int(entry.local_name): nodes[entry.node_id].attributes
            for entry in nodes[child.node_id].children
            if entry.local_name.isdecimal()
        }
        lists[child.local_name] = [
            entries[place][0].full_name if entries[place] else "" for place in sorted(entries)
        ]
    return id(position.checkpoint), lists


def parameter_of(name: str) -> str:
    """Return the name of the parameter that a variable of the optimizer belongs to."""
    found = _VARIABLE.fullmatch(name)
    return found[2] if found else name


def from_hdf5(weights: Sequence[Any]) -> OptimizerState:
    """Return the state in the arrays of an `.h5` file, which are named after variables.

    tf_keras' own Adadelta uses the same names.
    """
    counters = {"step": 0}
    parameters: dict[str, dict[str, np.ndarray]] = {}
    unknown = []
    for weight in weights:
        name = weight.name.removeprefix("/optimizer_weights/").partition(":")[0]
        found, counter = _VARIABLE.fullmatch(name), name.rpartition("/")[2]
        if found:
            slots = parameters.setdefault(found[2], {})
            slots[_SLOTS[found[1]]] = keras_file.widened(np.array(weight))
        elif counter in ("iteration", "skipped"):
            counters["step" if counter == "iteration" else counter] = int(np.array(weight))
        else:
            unknown.append(name)
    matching.refuse(matching.listed("not in this optimizer:", unknown))
    return exchange.state_of(parameters, counters)
