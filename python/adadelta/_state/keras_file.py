"""The optimizer's part of a `.keras` or `.weights.h5` file: arrays by name.

A file of the host's own optimizers has numbers in place of names, and only a `.keras` file says
which class wrote it.
"""

import io
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from adadelta._core.packages import needed_by
from adadelta._state import matching
from adadelta._state.exchange import state_of
from adadelta._state.record import AVERAGES, SLOTS, OptimizerState
from adadelta._state.storage import StateFileError, opened

Arrays = Mapping[str, np.ndarray]

# The names of counters in the file (Keras' own for the calls) and in `OptimizerState`.
_COUNTERS = {
    "iteration": "step",
    **{name: name for name in ("update", "window", "skipped", "finite_calls", "loss_scale")},
}
_CAME = "window_has_gradient"
_PLACE = "place"
# The number of this format. It marks a file as ours, and lets later formats be told apart.
_FORMAT_KEY, _FORMAT = "format", 1
MARK = {_FORMAT_KEY: np.asarray(_FORMAT)}
# Marks numbered arrays that are known to be written by the host's own Adadelta.
OF_HOST = "of_keras_adadelta"


def to_file(state: OptimizerState) -> dict[str, np.ndarray]:
    """Return the arrays of a file, by name."""
    arrays = {
        _key(name, slot): array
        for name, slots in state.parameters.items()
        for slot, array in slots.items()
    }
    for name, attribute in _COUNTERS.items():
        value = getattr(state, attribute)
        if value is not None:
            arrays[name] = np.asarray(value, "float32" if isinstance(value, float) else None)
    for place, name in enumerate(state.parameters):
        # The file does not keep the order.
        arrays[_key(name, _PLACE)] = np.asarray(place)
    for name in state.window_gradients:
        arrays[_key(name, _CAME)] = np.asarray(1)
    return arrays | MARK


def _key(name: str, slot: str) -> str:
    # A / would make a folder in the file.
    return f"{name.replace('/', '|')}|{slot}"


def from_file(saved: Arrays) -> OptimizerState:
    """Return the state in a file that this package wrote."""
    counters: dict[str, Any] = {}
    hyperparameters: dict[str, Any] = {}
    parameters: dict[str, dict[str, np.ndarray]] = {}
    places: dict[str, int] = {}
    came, unknown, is_newer = [], [], False
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
            counters[_COUNTERS[key]] = array
        elif key == "learning_rate":
            hyperparameters[key] = float(array)
        elif key == _FORMAT_KEY:
            is_newer = int(array) > _FORMAT
        else:
            unknown.append(key)
    problems = ["it was written by a newer version of this package"] if is_newer else []
    problems += [] if "step" in counters else ["missing: iteration"]
    matching.refuse(problems + matching.listed("not in this optimizer:", unknown))
    names = sorted(parameters, key=lambda name: places.get(name, 0))
    ordered = {name: parameters[name] for name in names}
    return state_of(ordered, counters, hyperparameters, came)


def is_numbered(saved: Arrays) -> bool:
    """Whether one of the host's own optimizers wrote this."""
    return all(name.isdigit() for name in saved)


def in_order(saved: Arrays) -> list[np.ndarray]:
    """Return the arrays of a file of the host, in their order."""
    return [saved[key] for key in sorted(saved, key=int)]


def by_position(
    arrays: Sequence[np.ndarray], slots: Mapping[str, Collection[str]], host: str, before: range
) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of the host's own Adadelta by parameter and slot, or raise.

    They have no names. Their order is that of its variables: counters, moving averages of the
    weights, sums of accumulated gradients, and then the two accumulators of each parameter in turn.

    Args:
        arrays: The arrays in their order.
        slots: The slots of each parameter of the optimizer to load them into.
        host: What wrote them, in words.
        before: How many arrays there may be before those of parameters.

    """
    order = [
        (name, slot)
        for group in (("average",), ("window_sum",), AVERAGES)
        for name, own in slots.items()
        for slot in group
        if slot in own
    ]
    first = len(arrays) - len(order)
    if first not in before:
        numbers = " or ".join(str(len(order) + count) for count in before)
        matching.refuse(
            [
                f"it has {len(arrays)} arrays without names, from {host}, and not {numbers}; load "
                "it into an optimizer with the same arguments and variables"
            ]
        )
    parameters: dict[str, dict[str, np.ndarray]] = {}
    for (name, slot), array in zip(order, arrays[first:], strict=True):
        parameters.setdefault(name, {})[slot] = widened(array)
    return parameters


def widened(array: np.ndarray) -> np.ndarray:
    """Return an array of the host's state, widened to float32 if it has half precision."""
    return array.astype("float32") if array.dtype.name in ("float16", "bfloat16") else array


# The call that loads the state strictly, in the user's language.
strict_call = "adadelta.load_keras_adadelta(model, path)"


def warn_left_out(error: Exception) -> None:
    """Warn that the state in a file does not fit, so the optimizer starts anew."""
    matching.warn_left_out(error, "starts anew", f"{strict_call} loads it strictly")


def warn_of_unknown_origin(outcome: str, host: str) -> None:
    """Warn about numbered arrays of unknown origin.

    Args:
        outcome: What the optimizer does now.
        host: The only class whose numbered arrays are accepted.

    """
    matching.warn_left_out(
        "the file does not say whose it is",
        outcome,
        f"If {host} has written it, call {strict_call}",
    )


class Contents(NamedTuple):
    """The optimizer's part of a file, and what is known about its origin.

    `class_name` is the optimizer's class, such as "keras.optimizers.Adam", if the file names it,
    and `name` is its name. `wrapper` has the arrays of the `LossScaleOptimizer` around it.
    """

    arrays: dict[str, np.ndarray]
    class_name: str | None
    name: str | None
    wrapper: dict[str, np.ndarray] | None


def read(path: str) -> Contents:
    """Read a file that Keras wrote.

    Raises:
        OSError: There is no such file, or it can't be read.
        StateFileError: It is damaged or of another kind, or has no optimizer in it.

    """
    with opened(path) as file:
        try:
            return _contents(file)
        except Exception as error:
            raise StateFileError(
                f"{path} is damaged, or it is no model or weights file that Keras has written with "
                "an optimizer"
            ) from error


def arrays_of(contents: Contents, host: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, marked as the host's own if they are numbered.

    Args:
        contents: What is in the file.
        host: The only class whose numbered arrays are accepted.

    Raises:
        StateMismatchError: The file says that another class wrote it.

    """
    arrays = dict(contents.arrays)
    if is_numbered(arrays):
        if contents.class_name not in (None, host):
            matching.refuse([f"{contents.class_name} has written it"])
        arrays[OF_HOST] = np.asarray(1)
    return arrays


def _contents(file: BinaryIO) -> Contents:
    with needed_by("A file of Keras", extra="keras-files"):
        import h5py

    class_name = None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            class_name = class_in(archive)
            # Keras stores it uncompressed: it is not larger than the file, whatever that claims.
            if archive.getinfo(_WEIGHTS).compress_type != zipfile.ZIP_STORED:
                raise ValueError("its weights are compressed, as Keras does not write them")
            file = io.BytesIO(archive.read(_WEIGHTS))
    with h5py.File(file, "r") as weights:
        place = "optimizer/inner_optimizer/vars"
        is_wrapped = place in weights
        group = weights[place if is_wrapped else "optimizer/vars"]
        return Contents(
            _arrays(group),
            class_name,
            name_in(group),
            _arrays(weights["optimizer/vars"]) if is_wrapped else None,
        )


_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"


def _arrays(group: Any) -> dict[str, np.ndarray]:
    import h5py

    arrays = {}
    for name in group:
        dataset = group[name]
        is_here = isinstance(group.get(name, getlink=True), h5py.HardLink)
        is_plain = isinstance(dataset, h5py.Dataset) and not dataset.is_virtual
        if not (is_here and is_plain and not dataset.external):
            raise ValueError(f"{name} is no array in the file itself")
        if dataset.attrs.get("dtype") == "bfloat16":
            import ml_dtypes

            arrays[name] = np.array(dataset).view(ml_dtypes.bfloat16)
        else:
            arrays[name] = np.array(dataset)
    return arrays


def class_in(archive: zipfile.ZipFile) -> str | None:
    """Return the class of the optimizer in a `.keras` file, if its configuration names it."""
    try:
        config = json.loads(archive.read(_CONFIG))["compile_config"]["optimizer"]
        if isinstance(config, dict) and config["class_name"] == "LossScaleOptimizer":
            config = config["config"]["inner_optimizer"]
        module, name, registered = (
            config[key] for key in ("module", "class_name", "registered_name")
        )
        host = module.partition(".")[0]
        # On torch, Keras' optimizers are in a module of their own, with the same class names.
        if host in ("keras", "tf_keras") and registered in (None, name):
            return f"{host}.optimizers.{name}"
        return str(registered or f"{module}.{name}")
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def name_in(group: Any) -> str | None:
    """Return the name of the optimizer that wrote a group of a weights file."""
    name = getattr(group, "attrs", {}).get("name")
    return name if isinstance(name, str) else None
