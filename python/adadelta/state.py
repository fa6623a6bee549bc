"""Export the state of an optimizer, import it, write it to a file and read it again.

A run that is stopped after any call and resumed from its weights and its state continues bit for
bit as if it had not been stopped.

This works for every optimizer of this package. The attribute `state_exchange` of an optimizer names
the module with its `export_state()` and `import_state()`.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from adadelta._core import hyperparameters
from adadelta._core.loss_scaling import unwrapped
from adadelta._state import atomic, conversion, keras_file, storage
from adadelta._state.record import (
    OptimizerState,
    StateMismatchError,
    StateWarning,
    refuse_no_state,
)
from adadelta._state.storage import StateFileError

__all__ = [
    "OptimizerState",
    "StateFileError",
    "StateMismatchError",
    "StateWarning",
    "convert_state",
    "export_state",
    "import_state",
    "layout_mapping",
    "load_keras_adadelta",
    "load_state",
    "read_state",
    "save_model",
    "save_state",
    "write_state",
]


def export_state(optimizer: object) -> OptimizerState:
    """Return the state of an optimizer as NumPy arrays by parameter name.

    The arrays are copies; further training does not change them.

    Args:
        optimizer: An optimizer of this package that is built, or a
            `keras.optimizers.LossScaleOptimizer` around one.

    Raises:
        TypeError: `optimizer` is not an optimizer of this package.
        StateMismatchError: The optimizer is not built yet, so it has no state.
        NotImplementedError: The learning rate is a schedule without `get_config()`.

    Example:
        >>> import keras, adadelta
        >>> x = keras.Variable([1.0, 2.0], name="x")
        >>> optimizer = adadelta.Adadelta(1.0)
        >>> optimizer.apply([keras.ops.array([1.0, -1.0])], [x])
        >>> adadelta.export_state(optimizer)
        OptimizerState(step=1, update=1, 1 parameter, slots: square_avg, acc_delta)

    """
    return _exchange_of(optimizer).export_state(optimizer)


def import_state(optimizer: object, state: OptimizerState) -> None:
    """Load a state into an optimizer, so that it continues where the other one stopped.

    Parameters are matched by name. Names may differ in the numbers that Keras gives to layers and
    in the names of the models and layers around them, if both models have the same structure: the
    same kinds of parameters, in the same order and of the same shapes. Everything is checked
    before anything changes: either the whole state is loaded or nothing.

    The optimizer keeps its own arguments, except for the learning rate, which may have been
    changed during training: if it is a number both in the state and in the optimizer, that of the
    state is loaded. A schedule or a function is not replaced.

    Args:
        optimizer: An optimizer of this package, or a `keras.optimizers.LossScaleOptimizer` around
            one. It must be built: call `optimizer.build(model.trainable_variables)` first.
        state: What `export_state()` or `read_state()` returned.

    Raises:
        TypeError: `optimizer` is not an optimizer of this package, or `state` is not a state.
        StateMismatchError: The optimizer is not built, or the state does not fit it: parameters
            are missing, or unknown, or of another shape or dtype, or the state needs an option
            that the optimizer lacks. Its attribute `problems` lists all, and nothing has changed.

    Example:
        >>> import keras, adadelta
        >>> x = keras.Variable([1.0, 2.0], name="x")
        >>> optimizer = adadelta.Adadelta(1.0)
        >>> optimizer.apply([keras.ops.array([1.0, -1.0])], [x])
        >>> another = adadelta.Adadelta(1.0)
        >>> another.build([x])
        >>> adadelta.import_state(another, adadelta.export_state(optimizer))
        >>> int(another.iterations)
        1

    """
    own = _exchange_of(optimizer)
    refuse_no_state("state", state)
    own.import_state(optimizer, state)


def convert_state(
    state: OptimizerState,
    mapping: Mapping[str, str | tuple[str, Callable[..., Any]]],
    *,
    keep_others: bool = False,
) -> OptimizerState:
    """Rename and transpose the parameters of a state, for another framework.

    Frameworks use different names and layouts for the parameters of the same model: the kernel of
    a dense layer in Keras is the transpose of the weight of a linear layer in torch. A square
    kernel would fit without being transposed too. So you must name every parameter, unless
    `keep_others` is true.

    Args:
        state: What `export_state()` or `read_state()` returned. It stays as it is.
        mapping: For the name of each parameter its new name, or a tuple of that and a function
            that takes an array and returns it in the other layout, such as `numpy.transpose`. It
            is called for every slot of the parameter. It may only move elements and widen float32
            to float64.
        keep_others: Keep the parameters that are not in the mapping as they are.

    Returns:
        A new state, with copies of the arrays. Counters and hyperparameters are those of `state`.

    Raises:
        TypeError: `state` is not a state, or `mapping` contains something else.
        StateMismatchError: A name is unknown, one is missing, two would get the same name, or a
            function fails, changes numbers, their count or their dtype. Its attribute `problems`
            lists all.

    Example:
        >>> import numpy as np
        >>> import adadelta
        >>> averages = np.arange(6, dtype="float32").reshape(2, 3)
        >>> slots = {"square_avg": averages, "acc_delta": averages}
        >>> state = adadelta.OptimizerState(parameters={"dense/kernel": slots})
        >>> names = {"dense/kernel": ("0.weight", np.transpose)}
        >>> moved = adadelta.convert_state(state, names)
        >>> moved.parameters["0.weight"]["square_avg"].shape
        (3, 2)

    """
    refuse_no_state("state", state)
    if not isinstance(mapping, Mapping):
        raise TypeError(hyperparameters.refusal("mapping", "a mapping of names", mapping))
    hyperparameters.Flag()("keep_others", keep_others)
    return conversion.convert(state, mapping, keep_others)


def layout_mapping(
    rename: Mapping[str, str], axes: Mapping[str, Sequence[int] | None]
) -> dict[str, str | tuple[str, Callable[..., Any]]]:
    """Return a mapping for `convert_state()` from names and orders of axes alone.

    Args:
        rename: The new names of parameters.
        axes: For the old names of parameters, renamed or not, the order of their axes as
            `numpy.transpose` takes it, or `None` to reverse it.

    Example:
        >>> from adadelta.state import layout_mapping
        >>> sorted(layout_mapping({"bias": "0.bias"}, {"kernel": None}))
        ['bias', 'kernel']

    """
    mapping: dict[str, Any] = dict(rename)
    for name, order in axes.items():
        mapping[name] = (rename.get(name, name), functools.partial(np.transpose, axes=order))
    return mapping


def save_state(optimizer: object, path: str | os.PathLike[str]) -> None:
    """Write the state of an optimizer to a file, replacing an existing one.

    An existing file is replaced only when the new one is completely on the disk, so an interrupted
    save loses nothing. It is a safetensors file with a checksum.

    Args:
        optimizer: As for `export_state()`.
        path: The file, usually ending in ".safetensors".

    Raises:
        TypeError: `optimizer` is not an optimizer of this package, its arguments can't be written
            as JSON, or `path` is not the name of a file.
        ValueError: An average is NaN, so training can't resume from it. The old file is unharmed.
        StateMismatchError: The optimizer is not built yet.
        NotImplementedError: The learning rate is a schedule without `get_config()`.
        OSError: The file can't be written, or `path` is no regular file. The old one is unharmed.

    Example:
        >>> import pathlib, tempfile, keras, adadelta
        >>> path = pathlib.Path(tempfile.mkdtemp(), "state.safetensors")
        >>> x = keras.Variable([1.0, 2.0], name="x")
        >>> optimizer = adadelta.Adadelta(1.0)
        >>> optimizer.apply([keras.ops.array([1.0, -1.0])], [x])
        >>> adadelta.save_state(optimizer, path)
        >>> another = adadelta.Adadelta(1.0)
        >>> another.build([x])
        >>> adadelta.load_state(another, path)
        >>> adadelta.export_state(another) == adadelta.export_state(optimizer)
        True

    """
    write_state(export_state(optimizer), path)


def load_state(optimizer: object, path: str | os.PathLike[str]) -> None:
    """Load a state that `save_state()` wrote into an optimizer.

    Args:
        optimizer: As for `import_state()`.
        path: The file.

    Raises:
        OSError: There is no such file, or it can't be read.
        StateFileError: The file is damaged or cut off, is of another kind, or was written by a
            newer version of this package; the message says which.
        TypeError: `optimizer` is not an optimizer of this package.
        StateMismatchError: The state does not fit the optimizer, as for `import_state()`.
            In all of these cases, the optimizer has not changed.

    Example:
        >>> import adadelta
        >>> adadelta.load_state(adadelta.Adadelta(1.0), "nowhere.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.safetensors'

    """
    _exchange_of(optimizer)
    import_state(optimizer, read_state(path))


def load_keras_adadelta(optimizer: object, path: str | os.PathLike[str]) -> None:
    """Load the optimizer state from a model or weights file of Keras.

    `load_model()` and `load_weights()` warn and leave a state out if it does not fit, or if the
    file does not say which optimizer wrote it. This function loads it or raises an error. The file
    may come from `adadelta.Adadelta` or from `keras.optimizers.Adadelta` with the same arguments.
    A `.weights.h5` file of Keras' class does not name it, so use this function only if you know
    that it wrote the file.

    It does not load the weights of the model: call `model.load_weights(path)` for them.

    Args:
        optimizer: A compiled Keras model with an optimizer of this package, the optimizer, or a
            `keras.optimizers.LossScaleOptimizer` around one. The optimizer of a model is built if
            necessary; an optimizer without a model must be built already.
        path: The file, ending in ".keras" or ".weights.h5".

    Raises:
        OSError: There is no such file, or it can't be read.
        StateFileError: The file is damaged, of another kind, or has no optimizer in it.
        TypeError: `optimizer` is not an optimizer of this package, or the model has no optimizer.
        StateMismatchError: The state does not fit the optimizer, as for `import_state()`, or is
            that of another class. The optimizer has not changed.

    Example:
        >>> import pathlib, tempfile, keras, adadelta
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.weights.h5")
        >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adadelta(1.0), "mse")
        >>> _ = model.train_on_batch(keras.ops.ones((4, 2)), keras.ops.ones((4, 1)))
        >>> model.save_weights(path)
        >>> model.compile(adadelta.Adadelta(1.0), "mse")
        >>> adadelta.load_keras_adadelta(model, path)
        >>> int(model.optimizer.iterations)
        1

    """
    model: Any = optimizer if hasattr(optimizer, "trainable_variables") else None
    own: Any = optimizer if model is None else getattr(model, "optimizer", None)
    load = getattr(unwrapped(own)[0], "load_strictly", None)
    if load is None:
        raise TypeError(
            "`optimizer` must be an adadelta.Adadelta or a Keras model compiled with one; received "
            + hyperparameters.received(own)
        )
    contents = keras_file.read(_checked(path))
    if model is not None and model.built and not own.built:
        own.build(model.trainable_variables)
    load(contents, own)


def write_state(state: OptimizerState, path: str | os.PathLike[str]) -> None:
    """Write a state to a file, as `save_state()` does.

    Args:
        state: The state.
        path: The file.

    Raises:
        TypeError: `state` is not a state, or its hyperparameters can't be written as JSON.
        ValueError: Training can't resume from it: an average is NaN or negative, the loss scale is
            not finite, or `window_gradients` names other parameters. The old file is unharmed.
        OSError: The file can't be written, or `path` is no regular file. The old one is unharmed.

    Example:
        >>> import pathlib, tempfile
        >>> from adadelta.state import OptimizerState, read_state, write_state
        >>> path = pathlib.Path(tempfile.mkdtemp(), "state.safetensors")
        >>> write_state(OptimizerState(step=3, update=3), path)
        >>> read_state(path)
        OptimizerState(step=3, update=3, 0 parameters, slots: none)

    """
    refuse_no_state("state", state)
    storage.write(state, _checked(path))


def read_state(path: str | os.PathLike[str]) -> OptimizerState:
    """Return the state in a file that `save_state()` wrote.

    Args:
        path: The file.

    Raises:
        OSError: There is no such file, or it can't be read.
        StateFileError: The file is damaged or cut off, is of another kind, or was written by a
            newer version of this package; the message says which.

    Example:
        >>> from adadelta.state import read_state
        >>> read_state("nowhere.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.safetensors'

    """
    return storage.read(_checked(path))


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Save a Keras model with its optimizer to a file, replacing an existing one as a whole.

    An interrupted `model.save(path)` destroys the old file. This function writes a new file beside
    it, flushes it to disk and renames it, so at every moment `path` is the old file or the new one,
    whatever happens. Load it with `keras.saving.load_model()`.

    Args:
        model: A Keras model.
        path: The file, ending in ".keras".

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: `path` does not end in ".keras".
        OSError: The file can't be written, or `path` is no regular file. The old one is unharmed.

    Example:
        >>> import pathlib, tempfile, keras, adadelta
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
        >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(adadelta.Adadelta(1.0), "mse")
        >>> adadelta.save_model(model, path)
        >>> type(keras.saving.load_model(path).optimizer).__name__
        'Adadelta'

    """
    if not _checked(path).endswith(".keras"):
        raise ValueError(f'`path` must end in ".keras"; received "{os.fspath(path)}"')
    if not callable(getattr(model, "save", None)):
        raise TypeError(hyperparameters.refusal("model", "a Keras model", model))
    with atomic.replaced(path) as beside:
        model.save(beside)


def _checked(path: Any) -> str:
    # open() would take a whole number for the descriptor of an open file, and close that.
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name:
        raise TypeError(hyperparameters.refusal("path", "the name of a file", path))
    return name


def _exchange_of(optimizer: object) -> Any:
    inner, _ = unwrapped(optimizer)
    module = getattr(type(inner), "state_exchange", None)
    if module is None:
        raise TypeError(
            "`optimizer` must be an optimizer of this package, such as adadelta.Adadelta; "
            f"received {type(inner).__module__}.{type(inner).__name__}"
        )
    return import_module(module)
