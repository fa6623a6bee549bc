"""One call of the optimizer, from the gradients to the counters, on every backend.

A call decides once what happens: it is skipped, only accumulates gradients, or updates. The engine
then does that to the variables, and the counters are updated.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import interrupts
from adadelta._core.engine import Engine
from adadelta._core.step import COLLECT, FOLLOW, SKIP, UPDATE, Call, Options, Row
from adadelta._keras import loss_scale, precision
from adadelta._keras.known import both, is_equal, known, known_all, opposite, where
from adadelta._keras.learning_rate import Rate
from adadelta._keras.rows import Rows
from adadelta._keras.state import State, count
from adadelta._kernels import report

Assign = Callable[[Any, Any], None]


def is_overwritten(variable: Any) -> bool:
    """Whether a variable is set to its gradient, as in float8 training."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


@dataclass(eq=False, repr=False)
class Steps:
    """Makes the steps of a built optimizer.

    Args:
        engine: Makes the steps of the rows.
        state: The variables.
        decays: The weight decay of each parameter.
        options: The settings for the engine.
        rate: The learning rate.
        name: The name of the optimizer.
        accumulation_steps: Over how many calls gradients are accumulated, or None.
        loss_scale: A number, "dynamic" or None.
        overwrite_frequency: After how many updates the averages replace the parameters, or None.

    """

    engine: Engine
    state: State
    decays: InitVar[Sequence[float]]
    options: Options
    rate: Rate
    name: str
    accumulation_steps: int | None
    loss_scale: Any
    overwrite_frequency: int | None

    def __post_init__(self, decays: Sequence[float]) -> None:
        state = self.state
        self.rows = Rows(
            state.parameters,
            [state.square_avg, state.acc_delta, state.average, state.window_sum],
            decays,
        )
        self._overwriting = frozenset(
            index for index, variable in enumerate(state.parameters) if is_overwritten(variable)
        )

    def make(self, indices: list[int], gradients: list[Any], assign: Assign) -> None:
        """Make one call, with the gradients of the variables of these indices.

        Args:
            indices: The indices.
            gradients: A gradient for each.
            assign: `assign()` of the Keras optimizer.

        """
        has_gradient, overwriting = indices, {}
        if self._overwriting:
            given = dict(zip(indices, gradients, strict=True))
            overwriting = {
                index: given.pop(index) for index in indices if index in self._overwriting
            }
            indices, gradients = list(given), list(given.values())
        now = self.rate.now(self.state.step)
        call = self._told(now, self.accumulation_steps)
        # A rate function that failed in training on JAX has returned NaN: nothing happens.
        answered: Any = True
        if self.rate.callable is not None:
            is_number = isinstance(now, float)
            answered = not math.isnan(now) if is_number else known(ops.isfinite(now))
        finite = True
        if self.state.skipped is not None:
            finite = self._all_finite(
                self.rows.rows(indices, gradients), overwriting.values(), call
            )
        closes = True
        if self.accumulation_steps is not None:
            last = self.accumulation_steps - 1
            closes = known(ops.equal(precision.tensor_of(self.state.window), last))
        happens = where(closes, UPDATE, COLLECT)
        action = where(both(answered, finite), happens, SKIP)
        rows: Sequence[Row] = self.rows.rows(indices, gradients, action)
        without = self._rows_without_gradient(has_gradient, action)
        if without:
            indices, rows = [*indices, *without], [*rows, *without.values()]
        # Keras' name scope is inside: an interrupt at its ends would leave it open, and put it into
        # the names of all later variables.
        with interrupts.Deferred(), keras.name_scope(self.name, caller=self):
            self._make(indices, rows, call, self.options, assign)
            with self.engine.after_step():
                self._overwrite(overwriting, action)
                self._count(action, answered, finite, has_gradient)

    def _told(self, rate: Any, steps: Any) -> Call:
        scale = self.loss_scale
        if self.state.loss_scale is not None:
            scale = precision.tensor_of(self.state.loss_scale)
        starts: Any = False
        overwrites: Any = False
        if self.state.average is not None:
            updates = precision.tensor_of(self.state.updates)
            starts = known(ops.equal(updates, 0))
            every = self.overwrite_frequency
            overwrites = every is not None and known(ops.equal((updates + 1) % every, 0))
        return Call(rate, scale, steps, starts, overwrites)

    def _rows_without_gradient(self, has_gradient: Iterable[int], action: Any) -> dict[int, Row]:
        """Return the rows that a call changes although it has no gradient for them."""
        state = self.state
        is_update = is_equal(action, UPDATE)
        if is_update is False or state.average is state.window_sum is None:
            return {}
        otherwise = SKIP if state.average is None else FOLLOW
        came = None if state.window is None else known_all(state.window_has_gradient)
        rows = {}
        for index in sorted(set(range(len(state.parameters))) - set(has_gradient)):
            if state.square_avg[index] is not None:
                its_action: Any = otherwise
                if came is not None:
                    its_action = where(known(came[index] > 0), UPDATE, otherwise)
                its_action = where(is_update, its_action, SKIP)
                rows[index] = self.rows.row(index, None, its_action)
        return rows

    def _make(
        self,
        indices: Sequence[int],
        rows: Sequence[Row],
        call: Call,
        options: Options,
        assign: Assign,
    ) -> None:
        """Let the engine make a step, and assign the arrays that are new."""
        if isinstance(call.rate, keras.Variable):
            # Operators of Keras' variables would round a float64 decay to float32.
            call = call._replace(rate=precision.tensor_of(call.rate))
        made = self.engine.step(rows, call, options)
        self.rows.note_reasons(indices, self.engine.reasons)
        if made is rows:
            return
        for index, row, new in zip(indices, rows, made, strict=True):
            variables = self.rows.variables_of(index)
            for variable, before, after in zip(variables, row, new, strict=False):
                if variable is not None and after is not before:
                    assign(variable, after)

    def _overwrite(self, gradients: dict[int, Any], action: Any) -> None:
        """Set the variables that are overwritten by their gradient, as in float8 training."""
        is_update, collects = is_equal(action, UPDATE), is_equal(action, COLLECT)
        for index, gradient in gradients.items():
            variable = self.state.parameters[index]
            value, new = precision.tensor_of(variable), gradient
            if self.state.window_sum is not None:
                window = self.state.window_sum[index]
                collected = precision.tensor_of(window)
                new = ops.maximum(gradient, collected)
                rest = where(is_update, ops.zeros_like(collected), collected)
                window.assign(where(collects, new, rest))
            variable.assign(where(is_update, new, value))

    def _count(self, action: Any, answered: Any, finite: Any, has_gradient: Sequence[int]) -> None:
        """Update the counters after a call."""
        is_update, collects = is_equal(action, UPDATE), is_equal(action, COLLECT)
        state = self.state
        count(state.step, answered)
        if state.update is not None:
            count(state.update, is_update)
        if state.window is not None:
            every = np.arange(len(state.parameters))
            now = np.isin(every, has_gradient).astype("int32")
            for counter, more in (
                (state.window, lambda value: value + 1),
                (state.window_has_gradient, lambda value: ops.maximum(value, now)),
            ):
                value = precision.tensor_of(counter)
                collected = where(collects, more(value), value)
                counter.assign(where(is_update, ops.zeros_like(value), collected))
        if state.skipped is not None:
            count(state.skipped, both(answered, opposite(finite)))
        if state.loss_scale is not None:
            variables = state.loss_scale, state.finite_calls
            old = [precision.tensor_of(variable) for variable in variables]
            grown, shrunk = loss_scale.after_finite(*old), loss_scale.after_nonfinite(*old)
            for variable, *values in zip(variables, old, grown, shrunk, strict=True):
                before, larger, smaller = values
                variable.assign(where(answered, where(finite, larger, smaller), before))

    def _all_finite(self, rows: Sequence[Row], others: Iterable[Any], call: Call) -> Any:
        finite: Any = known(self.engine.all_finite(rows, call)) if rows else True
        for gradient in others:
            finite = both(finite, known(ops.all(ops.isfinite(gradient))))
        return finite

    def update_one(self, index: int, gradient: Any, rate: Any, assign: Assign) -> None:
        """Decay one variable and apply the equations to it, without the rest of a step."""
        row = self.rows.row(index, gradient)
        row = row._replace(average=None, window=None, constraint=None, action=UPDATE)
        own = self.options
        options = Options(own.rho, own.epsilon, decay_mode=own.decay_mode)
        self._make([index], [row], Call(rate), options, assign)

    def close_window(self, assign: Assign) -> None:
        """Update the parameters from the gradients accumulated so far, if any."""
        state = self.state
        collected = 0 if state.window is None else int(ops.convert_to_numpy(state.window))
        if not collected or state.window_sum is None:
            return
        rows = self._rows_without_gradient((), UPDATE)
        call = self._told(self.rate.now(state.step), collected)
        self._make(list(rows), list(rows.values()), call, self.options, assign)
        if state.update is not None:
            count(state.update)
        sums = (window_sum for window_sum in state.window_sum if window_sum is not None)
        for counter in (*sums, state.window_has_gradient, state.window):
            counter.assign(ops.zeros(counter.shape, counter.dtype))

    def take_averages(self, variables: Sequence[Any], indices: Sequence[int | None]) -> None:
        """Replace the values of variables by their moving averages, where there is one."""
        averages = self.state.average or []
        for variable, index in zip(variables, indices, strict=True):
            average = None if index is None else averages[index]
            if average is not None:
                tensor = precision.tensor_of(average)
                value = precision.from_state(tensor, precision.dtype_of(variable))
                # A copy: compiled training on JAX can't donate a buffer twice.
                variable.assign(ops.copy(value))

    def report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the variables."""
        taken = dict(self.state.updated())
        return report.served(
            self.engine,
            {name: self.rows.row(index, None) for name, index in taken.items()},
            {name: self.rows.reasons.get(index) for name, index in taken.items()},
        )
