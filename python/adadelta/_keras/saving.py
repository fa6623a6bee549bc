"""The optimizer's part of a `.keras` or `.weights.h5` file: by name, checked before it is taken.

A file written with `keras.optimizers.Adadelta` holds the same variables by position only; its
order is known and it loads too. Such a model goes on with ours like this:

    model = keras.saving.load_model(path, compile=False)
    model.compile(adadelta.Adadelta(...), ...)
    model.load_weights(path)
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core.precision import shortest
from adadelta._keras import exchange, loss_scale
from adadelta._keras.state import parameter_names
from adadelta._keras.step import Step
from adadelta._state import keras_file, matching
from adadelta._state.record import OptimizerState


def from_keras(saved: keras_file.Arrays, optimizer: Any) -> OptimizerState:
    """Return the state in a file written with `keras.optimizers.Adadelta`.

    Its variables are numbered: the counter, the rate when it is a number, the averages, the sums
    of the window, and then the two accumulators of each parameter in turn.
    """
    arrays = [np.asarray(saved[str(number)]) for number in range(len(saved))]
    slots = exchange.slots_of(optimizer)
    order = [
        (name, slot)
        for group in (("average",), ("window_sum",), ("square_avg", "acc_delta"))
        for name, own in slots.items()
        for slot in group
        if slot in own
    ]
    rates = len(arrays) - len(order) - 1
    if rates not in (0, 1):
        # With or without the rate, which is a variable only while it is a number.
        matching.refuse(
            [
                f"it has {len(arrays)} arrays and no names, as Keras writes it, where this "
                f"optimizer has {len(order) + 1} or {len(order) + 2}; load it into an optimizer "
                "with the same arguments and variables"
            ]
        )
    parameters: dict[str, dict[str, np.ndarray]] = {}
    for (name, slot), array in zip(order, arrays[1 + rates :], strict=True):
        half = array.dtype.name in ("float16", "bfloat16")
        parameters.setdefault(name, {})[slot] = array.astype("float32") if half else array
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
    averages = [it["average"] for it in parameters.values() if "average" in it]
    sums = [it["window_sum"] for it in parameters.values() if "window_sum" in it]
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


class Saving(Step):
    """Keras' hooks for saving and loading."""

    # For adadelta.state: who moves this optimizer's state.
    state_exchange = "adadelta._keras.exchange"

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file, by name; what waits is written as it was loaded."""
        if self.built:
            arrays = keras_file.to_file(exchange.learned(self, copy=False))
        else:
            start = {"iteration": ops.convert_to_numpy(self._iterations)}
            arrays = dict(self._waiting_state or start)
        if isinstance(self._learning_rate, keras.Variable) and not keras_file.is_numbered(arrays):
            arrays["learning_rate"] = ops.convert_to_numpy(self._learning_rate)
        for name, array in arrays.items():
            store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the state from a Keras file, ours or one of `keras.optimizers.Adadelta`.

        An optimizer that is not built keeps it until it is. A file of an optimizer that had not
        been built takes this one back to its start.

        Raises:
            StateMismatchError: The state does not fit. Nothing has changed then.

        """
        saved = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        if self.built:
            if saved:
                self._take(saved)
            return
        # The rate is known now, and may be set to another one before the rest is taken.
        rate = saved.pop("learning_rate", None)
        if rate is not None:
            exchange.import_rate(self, float(rate))
        self._waiting_state = saved or None

    def _take(self, saved: keras_file.Arrays) -> None:
        # The optimizer may be built inside compiled training, of which this must be no part.
        with _eagerly():
            numbered = keras_file.is_numbered(saved)
            if numbered and len(saved) <= 2:
                saved = dict(
                    zip(("iteration", "learning_rate"), keras_file.in_order(saved), strict=False)
                )
                numbered = False
            state = from_keras(saved, self) if numbered else keras_file.from_file(saved)
            if not state.parameters and not state.step:
                state = exchange.start_of(self, state.hyperparameters)
            exchange.import_state(self, state)


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return tensorflow.init_scope()
