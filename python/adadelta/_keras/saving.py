"""The optimizer's part of a `.keras` or `.weights.h5` file: by name, checked before it is taken.

A file of Keras' own optimizers holds their variables by position only. It is taken where it is
known that `keras.optimizers.Adadelta` has written it: a `.keras` file says so. Such a model goes on
with ours like this:

    model = keras.saving.load_model(path, compile=False)
    model.compile(adadelta.Adadelta(...), ...)
    model.load_weights(path)

What does not fit is left out with a warning, since the model's weights are loaded by the same call.
"""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core.precision import shortest
from adadelta._keras import exchange, loss_scale
from adadelta._keras.engines import eagerly
from adadelta._keras.state import parameter_names, path_of
from adadelta._keras.step import Step
from adadelta._state import keras_file, matching
from adadelta._state.record import OptimizerState, StateMismatchError


def from_keras(saved: keras_file.Arrays, optimizer: Any) -> OptimizerState:
    """Return the state in a file written with `keras.optimizers.Adadelta`.

    The rate is one of its variables, after the counter, only while it is a number.
    """
    arrays = keras_file.in_order(saved)
    slots = exchange.slots_of(optimizer)
    parameters = keras_file.by_position(arrays, slots, "Keras", range(1, 3))
    rates = len(arrays) - 1 - sum(map(len, slots.values()))
    calls, steps = int(arrays[0]), optimizer.gradient_accumulation_steps or 1
    window = calls % steps
    _refuse_mistaken(parameters, calls, window)
    state = OptimizerState(
        step=calls,
        update=calls // steps,
        hyperparameters={"learning_rate": shortest(arrays[1][()])} if rates else {},
        parameters=parameters,
        window=window if optimizer.gradient_accumulation_steps else None,
        window_gradients=tuple(parameter_names(optimizer._trainable_variables)) if window else (),
    )
    if optimizer._loss_scale is not None:
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
            "where a window begins it has sums that are not 0, as in a file written with "
            "`use_ema` in the place of `gradient_accumulation_steps`, or with another number of "
            "them"
        )
    matching.refuse(problems)


KERAS_ADADELTA = "keras.optimizers.Adadelta"


class Saving(Step):
    """Keras' hooks for saving and loading."""

    # The rate before a state was loaded that waits for `build()`, and the rate in that state.
    _rates_of_waiting: tuple[Any, Any] | None = None

    # For adadelta.state: who moves this optimizer's state.
    state_exchange = "adadelta._keras.exchange"

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file, by name; what waits is written as it was loaded."""
        if self.built:
            arrays = keras_file.to_file(exchange.learned(self, copy=False))
        else:
            start = {"iteration": ops.convert_to_numpy(self._iterations), **keras_file.MARK}
            arrays = dict(self._waiting_state or start)
        if isinstance(self._learning_rate, keras.Variable) and keras_file.OF_HOST not in arrays:
            arrays["learning_rate"] = ops.convert_to_numpy(self._learning_rate)
        for name, array in arrays.items():
            store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the state from a Keras file, ours or a `.keras` file of `keras.optimizers.Adadelta`.

        An optimizer that is not built keeps it until it is. A file of an optimizer that had not
        been built takes this one back to its start. A state that does not fit is left out with a
        `StateWarning`, and the optimizer starts anew; numbered arrays of which the file does not
        say that `keras.optimizers.Adadelta` has written them change nothing.
        """
        saved = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        source = _Source(store)
        if saved and keras_file.is_numbered(saved):
            if source.class_name != KERAS_ADADELTA:
                self._leave_out(saved, source)
                return
            saved[keras_file.OF_HOST] = np.asarray(1)
        if self.built:
            if saved:
                self._take(saved, source.is_wrapped)
            return
        # The rate is known now, and may be set to another one before the rest is taken.
        rate, before = saved.pop("learning_rate", None), self._rate_now()
        self._waiting_state, self._rates_of_waiting = saved or None, None
        try:
            if rate is not None:
                exchange.import_rate(self, float(rate))
                self._rates_of_waiting = before, self._rate_now()
        except (TypeError, ValueError) as error:
            self._waiting_state = None
            keras_file.warn_left_out(error)

    def load_strictly(self, contents: keras_file.Contents, target: Any) -> None:
        """Take the state from a Keras file of ours or of `keras.optimizers.Adadelta`, or raise.

        Args:
            contents: What is in the file.
            target: This optimizer, or the `LossScaleOptimizer` around it.

        Raises:
            StateMismatchError: The state does not fit. Nothing has changed then.

        """
        exchange.refuse_unbuilt(target)
        saved = keras_file.arrays_of(contents, KERAS_ADADELTA)
        if keras_file.OF_HOST in saved and _is_name_of_another(contents.name):
            matching.refuse([f'it is that of an optimizer called "{contents.name}"'])
        with eagerly():
            try:
                state = _state_in(saved, self)
                if target is not self:
                    # Its own variables come after Keras' counter and rate: the calls, the scale.
                    scale = contents.wrapper or {}
                    state.loss_scale = float(scale.get("3", target.initial_scale))
                    state.finite_calls = int(scale.get("2", 0))
            except StateMismatchError:
                raise
            except (OverflowError, TypeError, ValueError) as error:
                raise StateMismatchError(f"The file has no state that can be: {error}") from error
            self._import(target, state)

    def _take(self, saved: keras_file.Arrays, is_wrapped: bool = False) -> None:
        # The optimizer may be built inside compiled training, of which this must be no part.
        with eagerly():
            try:
                self._import(self, _state_in(saved, self))
            except (OverflowError, TypeError, ValueError) as error:
                self._start_anew(saved.get("learning_rate") if is_wrapped else None)
                keras_file.warn_left_out(error)
        self._rates_of_waiting = None

    def _import(self, target: Any, state: OptimizerState) -> None:
        names = exchange.import_state(target, state)
        own = zip(
            parameter_names(self._trainable_variables), self._trainable_variables, strict=True
        )
        saved = {name: theirs.partition("#")[0] for name, theirs in names.items()}
        if self._exclusions.rename(
            [(path_of(variable), saved[name]) for name, variable in own if name in saved]
        ):
            self._rows.decays = self._decays()

    def _leave_out(self, saved: keras_file.Arrays, source: "_Source") -> None:
        """Warn that arrays of unknown origin were not loaded."""
        outcome, arrays = "stays as it was", keras_file.in_order(saved)
        if (
            source.is_wrapped
            and len(arrays) == len(self._variables)
            and all(map(np.array_equal, arrays, map(exchange.array_of, self._variables)))
        ):
            # Keras' LossScaleOptimizer has put them into the optimizer inside it, by position.
            with eagerly():
                has_rate = isinstance(self._learning_rate, keras.Variable)
                self._start_anew(arrays[1] if has_rate else None)
            outcome = "starts anew"
        if source.class_name:
            matching.warn_left_out(f"{source.class_name} has written it", outcome, "")
        elif _is_name_of_another(source.name):
            reason = f'it is that of an optimizer called "{source.name}"'
            matching.warn_left_out(reason, outcome, "")
        else:
            keras_file.warn_of_unknown_origin(outcome, KERAS_ADADELTA)

    def _start_anew(self, put: Any = None) -> None:
        """Go back to the state of a new optimizer, and to its own rate.

        Args:
            put: A rate that Keras' LossScaleOptimizer has put into this optimizer, if any.

        """
        if self.built:
            exchange.import_state(self, exchange.start_of(self, {}))
        else:
            self._iterations.assign(0)
        own, loaded = self._rates_of_waiting or (self._given_rate, put)
        if own is not None and loaded is not None and exchange.has_rate(self, loaded):
            self.learning_rate = own

    def _rate_now(self) -> Any:
        is_number = isinstance(self._learning_rate, keras.Variable)
        return self._rate_config() if is_number else None


class _Source:
    """What Keras' store of arrays says about its file. A plain mapping says nothing."""

    def __init__(self, store: Any) -> None:
        place, archive = getattr(store, "_h5_entry_path", ""), getattr(store, "archive", None)
        self.is_wrapped = str(place).endswith("/inner_optimizer")
        self.name = keras_file.name_in(getattr(store, "_h5_entry_group", None))
        # The optimizers of models inside the model have their configurations elsewhere.
        is_whole = place in ("optimizer", "optimizer/inner_optimizer")
        self.class_name = keras_file.class_in(archive) if archive and is_whole else None


def _is_name_of_another(name: str | None) -> bool:
    """Whether this is the default name of another optimizer of Keras'."""
    word = re.sub(r"_\d+$", "", name or "").replace("_", "")
    others = {
        name.lower() for name in dir(keras.optimizers) if name not in ("Adadelta", "Optimizer")
    }
    return word in others


def _state_in(saved: keras_file.Arrays, optimizer: Any) -> OptimizerState:
    """Return the state in a file, or raise."""
    saved = dict(saved)
    if saved.pop(keras_file.OF_HOST, None) is None:
        state = keras_file.from_file(saved)
    elif len(saved) > 2:
        state = from_keras(saved, optimizer)
    else:
        names = ("iteration", "learning_rate")
        state = keras_file.from_file(dict(zip(names, keras_file.in_order(saved), strict=False)))
    if not state.parameters and not state.step:
        return exchange.start_of(optimizer, state.hyperparameters)
    return state
