"""The optimizer's part of a `.keras` or `.weights.h5` file: by name, checked before it is loaded.

A file of Keras' own optimizers holds their variables by position only. It is loaded if it is known
that `keras.optimizers.Adadelta` wrote it, as a `.keras` file says. To continue such a model with
this package's class:

    model = keras.saving.load_model(path, compile=False)
    model.compile(adadelta.Adadelta(...), ...)
    model.load_weights(path)

A state that does not fit gives a warning, not an error: the same call loads the model's weights.
"""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from adadelta._core.precision import shortest
from adadelta._keras import exchange, loss_scale
from adadelta._keras.engines import eagerly
from adadelta._keras.exchange import Parts
from adadelta._keras.known import array_of
from adadelta._keras.learning_rate import Rate
from adadelta._keras.state import path_of
from adadelta._state import keras_file, matching
from adadelta._state.record import OptimizerState, StateMismatchError


def from_keras(saved: keras_file.Arrays, parts: Parts) -> OptimizerState:
    """Return the state in a file written with `keras.optimizers.Adadelta`.

    The rate is one of its variables, after the counter, only if it is a number.
    """
    arrays = keras_file.in_order(saved)
    own = parts.state
    slots = own.slots()
    parameters = keras_file.by_position(arrays, slots, "Keras", range(1, 3))
    rates = len(arrays) - 1 - sum(map(len, slots.values()))
    calls, steps = int(arrays[0]), parts.accumulation_steps or 1
    window = calls % steps
    _refuse_mistaken(parameters, calls, window)
    state = OptimizerState(
        step=calls,
        update=calls // steps,
        hyperparameters={"learning_rate": shortest(arrays[1][()])} if rates else {},
        parameters=parameters,
        window=window if parts.accumulation_steps else None,
        window_gradients=tuple(own.names) if window else (),
    )
    if own.loss_scale is not None:
        state.loss_scale, state.finite_calls = loss_scale.FIRST, 0
    return state


def _refuse_mistaken(
    parameters: Mapping[str, Mapping[str, np.ndarray]], calls: int, window: int
) -> None:
    """Refuse arrays that can't be what their positions say."""
    averages = [own["average"] for own in parameters.values() if "average" in own]
    sums = [own["window_sum"] for own in parameters.values() if "window_sum" in own]
    problems = []
    if averages and calls and not any(np.any(array) for array in averages):
        problems.append(
            "after some calls every average in it is 0, as in a file written with "
            "`gradient_accumulation_steps` in the place of `use_ema`"
        )
    if sums and not window and any(np.any(array) for array in sums):
        problems.append(
            "its sums are not 0 where accumulation begins: it was written with another "
            "`gradient_accumulation_steps`, or with `use_ema` in its place"
        )
    matching.refuse(problems)


KERAS_ADADELTA = "keras.optimizers.Adadelta"


class Saved:
    """The optimizer's state in a Keras file, loaded at once or when the optimizer is built.

    Attributes:
        waiting: The arrays that wait for the optimizer to be built, or None.

    """

    def __init__(self) -> None:
        self.waiting: dict[str, np.ndarray] | None = None
        # The rate before the waiting state was read, and the rate in that state.
        self._rates: tuple[Any, Any] | None = None

    def write(self, parts: Parts, store: Any) -> None:
        """Write the state into a Keras file by name; before `build()`, the one that was loaded."""
        rate = parts.rate
        if parts.built:
            arrays = keras_file.to_file(exchange.learned(parts, copy=False))
        else:
            start = {"iteration": array_of(parts.step), **keras_file.MARK}
            arrays = dict(self.waiting or start)
        if rate.is_number and keras_file.OF_HOST not in arrays:
            arrays["learning_rate"] = array_of(rate.value)
        for name, array in arrays.items():
            store[name] = array

    def read(self, parts: Parts, store: Any) -> None:
        """Load the state from a Keras file: see `Adadelta.load_own_variables()`."""
        saved = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        source = _Source(store)
        if saved and keras_file.is_numbered(saved):
            if source.class_name != KERAS_ADADELTA:
                self._leave_out(parts, saved, source)
                return
            saved[keras_file.OF_HOST] = np.asarray(1)
        if parts.built:
            if saved:
                self._take(parts, saved, source.is_wrapped)
            return
        # Set the rate now, since the user may change it before the rest is loaded.
        rate, before = saved.pop("learning_rate", None), _number_of(parts.rate)
        self.waiting, self._rates = saved or None, None
        try:
            if rate is not None:
                exchange.import_rate(parts, float(rate))
                self._rates = before, _number_of(parts.rate)
        except (TypeError, ValueError) as error:
            self.waiting = None
            keras_file.warn_left_out(error)

    def take_waiting(self, parts: Parts) -> None:
        """Load the state that was read from a file before the optimizer was built."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self._take(parts, waiting)

    def _take(self, parts: Parts, saved: keras_file.Arrays, is_wrapped: bool = False) -> None:
        # The optimizer may be built inside compiled training; keep this out of the traced step.
        with eagerly():
            try:
                _import(parts, _state_in(saved, parts))
            except (OverflowError, TypeError, ValueError) as error:
                self._start_anew(parts, saved.get("learning_rate") if is_wrapped else None)
                keras_file.warn_left_out(error)
        self._rates = None

    def _leave_out(self, parts: Parts, saved: keras_file.Arrays, source: "_Source") -> None:
        """Warn that arrays of unknown origin were not loaded."""
        outcome, arrays = "stays as it was", keras_file.in_order(saved)
        if (
            source.is_wrapped
            and len(arrays) == len(parts.variables())
            and all(map(np.array_equal, arrays, map(array_of, parts.variables())))
        ):
            # Keras' LossScaleOptimizer has put them into the optimizer inside it, by position.
            with eagerly():
                self._start_anew(parts, arrays[1] if parts.rate.is_number else None)
            outcome = "starts anew"
        if source.class_name:
            matching.warn_left_out(f"{source.class_name} has written it", outcome, "")
        elif _is_name_of_another(source.name):
            reason = f'it is that of an optimizer called "{source.name}"'
            matching.warn_left_out(reason, outcome, "")
        else:
            keras_file.warn_of_unknown_origin(outcome, KERAS_ADADELTA)

    def _start_anew(self, parts: Parts, put: Any) -> None:
        """Go back to the state of a new optimizer, and to its own rate.

        Args:
            parts: The optimizer.
            put: A rate that Keras' LossScaleOptimizer has put into the optimizer, if any.

        """
        if parts.built:
            exchange.take(parts, exchange.start_of(parts.built, {}))
        else:
            parts.step.assign(0)
        rate = parts.rate
        own, loaded = self._rates or (rate.given, put)
        if own is not None and loaded is not None and rate.has(loaded):
            parts.set_rate(own)


def load_strictly(contents: keras_file.Contents, parts: Parts) -> None:
    """Load the state from a file of this class or of `keras.optimizers.Adadelta`, or raise.

    Args:
        contents: The contents of the file.
        parts: The optimizer, which may be in a `LossScaleOptimizer`.

    Raises:
        StateMismatchError: The state does not fit. Nothing has changed then.

    """
    parts.counters()  # raises an error if the optimizer is not built
    saved = keras_file.arrays_of(contents, KERAS_ADADELTA)
    if keras_file.OF_HOST in saved and _is_name_of_another(contents.name):
        matching.refuse([f'it is that of an optimizer called "{contents.name}"'])
    with eagerly():
        try:
            state = _state_in(saved, parts)
            if parts.wrapper is not None:
                # Its own variables follow Keras' counter and rate: finite calls and scale.
                scale = contents.wrapper or {}
                state.loss_scale = float(scale.get("3", parts.wrapper.initial_scale))
                state.finite_calls = int(scale.get("2", 0))
        except StateMismatchError:
            raise
        except (OverflowError, TypeError, ValueError) as error:
            raise StateMismatchError(f"The file has no state that can be: {error}") from error
        _import(parts, state)


def _import(parts: Parts, state: OptimizerState) -> None:
    names, own = exchange.take(parts, state), parts.state
    saved = {name: theirs.partition("#")[0] for name, theirs in names.items()}
    parts.rename_exclusions(
        [
            (path_of(variable), saved[name])
            for name, variable in zip(own.names, own.parameters, strict=True)
            if name in saved
        ]
    )


def _number_of(rate: Rate) -> Any:
    """Return the learning rate if it is a number, else None."""
    return rate.config() if rate.is_number else None


class _Source:
    """Facts about a file from Keras' store of its arrays. A plain mapping has none."""

    def __init__(self, store: Any) -> None:
        place, archive = getattr(store, "_h5_entry_path", ""), getattr(store, "archive", None)
        self.is_wrapped = str(place).endswith("/inner_optimizer")
        self.name = keras_file.name_in(getattr(store, "_h5_entry_group", None))
        # The optimizers of models inside the model have their configurations elsewhere.
        is_whole = place in ("optimizer", "optimizer/inner_optimizer")
        self.class_name = keras_file.class_in(archive) if archive and is_whole else None


def _is_name_of_another(name: str | None) -> bool:
    """Whether this is the default name of another Keras optimizer."""
    word = re.sub(r"_\d+$", "", name or "").replace("_", "")
    others = {
        name.lower() for name in dir(keras.optimizers) if name not in ("Adadelta", "Optimizer")
    }
    return word in others


def _state_in(saved: keras_file.Arrays, parts: Parts) -> OptimizerState:
    """Return the state in a file, or raise."""
    saved = dict(saved)
    if saved.pop(keras_file.OF_HOST, None) is None:
        state = keras_file.from_file(saved)
    elif len(saved) > 2:
        state = from_keras(saved, parts)
    else:
        names = ("iteration", "learning_rate")
        state = keras_file.from_file(dict(zip(names, keras_file.in_order(saved), strict=False)))
    if not state.parameters and not state.step:
        return exchange.start_of(parts.state, state.hyperparameters)
    return state
