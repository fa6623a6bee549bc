"""One call of the optimizer, from the gradients to the counters, on every backend.

A call decides once what happens: nothing (skipped), only collecting gradients, or an update. The
engine then does that to the variables, and the counters follow.
"""

import contextlib
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import interrupts, parameters
from adadelta._core.step import COLLECT, FOLLOW, SKIP, UPDATE, Call, Options, Row
from adadelta._keras import learning_rate as rates
from adadelta._keras import loss_scale, precision
from adadelta._keras.engines import device_of
from adadelta._keras.known import both, is_equal, known, known_all, opposite, where
from adadelta._keras.state import State, count, parameter_names, path_of
from adadelta._kernels import report

if keras.config.backend() == "torch":
    import torch

    # Torch's compiler can't trace a call of the kernel. It is imported, which takes seconds, when
    # this is first called.
    @torch._disable_dynamo
    def _apply_outside_of_torch_compile(
        optimizer: Any, gradients: list[Any], variables: Any
    ) -> None:
        optimizer.apply(gradients, variables)


def _without_recording() -> contextlib.AbstractContextManager[Any]:
    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    return torch.no_grad()


def _fitting(gradient: Any, variable: Any) -> Any:
    """Return the gradient as a tensor of the variable's shape, or raise."""
    given = gradient
    try:
        if not (ops.is_tensor(gradient) or hasattr(gradient, "shape")):
            gradient = ops.convert_to_tensor(gradient)
        dtype = precision.dtype_of(gradient)
    except Exception:
        dtype = "none"
    if not any(kind in dtype for kind in ("float", "int", "bool", "complex")):
        raise parameters.no_numbers(path_of(variable), given)
    # The shape of a gradient of rows may be given as a tuple, which TensorFlow does not show.
    dense_shape = getattr(gradient, "dense_shape", None)
    shape = dense_shape if isinstance(dense_shape, tuple) else tuple(gradient.shape)
    expected = tuple(variable.shape)
    fits = len(shape) == len(expected) and all(
        mine is None or mine == other for mine, other in zip(shape, expected, strict=True)
    )
    if not fits:
        raise parameters.other_shape(path_of(variable), expected, shape)
    return gradient


class Step(State):
    """What a call of the optimizer does."""

    def apply(self, grads: Iterable[Any], trainable_variables: Any = None) -> None:
        """Update the variables by one step.

        Args:
            grads: A gradient for each variable, of its shape, in the same order; `None` for a
                variable that is to be left alone.
            trainable_variables: The variables, needed on the first call unless the optimizer is
                built; a later call may give some of them.

        Raises:
            ValueError: The gradients do not fit the variables. Nothing has changed then.
            RuntimeError: `fused` is True, and the kernel can't take a gradient. Nothing has
                changed then.

        """
        gradients = list(grads)
        if keras.config.backend() == "torch" and torch.compiler.is_compiling():
            _apply_outside_of_torch_compile(self, gradients, trainable_variables)
            return
        if not gradients:
            return
        with _without_recording():
            variables = None if trainable_variables is None else list(trainable_variables)
            indices = self._rows.indices_again(variables, gradients) if self.built else None
            if indices is None:
                variables = self._variables_for(gradients, variables)
                indices = [self._get_variable_index(variable) for variable in variables]
                self._rows.note(variables, gradients, indices)
                pairs = zip(indices, gradients, strict=True)
                present = [(index, it) for index, it in pairs if it is not None]
                indices, gradients = map(list, zip(*present, strict=True))
            self._call(indices, gradients)

    def stateless_apply(
        self, optimizer_variables: Any, grads: Iterable[Any], trainable_variables: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return what a step makes of given values, and change neither these nor the variables.

        Args:
            optimizer_variables: A value for each of `variables`.
            grads: As for `apply()`.
            trainable_variables: A value for each variable that the optimizer was built on.

        Returns:
            `(trainable_variables, optimizer_variables)`: the new values.

        Raises:
            ValueError: The optimizer is not built, there are more or fewer values, the gradients do
                not fit, or Keras computes with TensorFlow, which has no such step.

        """
        if keras.config.backend() == "torch":
            # A step on torch is made in place; what is given may be the variables' own tensors.
            optimizer_variables, trainable_variables = (
                [ops.convert_to_tensor(value).detach().clone() for value in values]
                for values in (optimizer_variables, trainable_variables)
            )
        values, state = super().stateless_apply(optimizer_variables, grads, trainable_variables)
        if keras.config.backend() == "torch":
            # These tensors are the caller's.
            self._engine.forget()
        return values, state

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay one variable and apply the rule to it, without what else a call does.

        Args:
            gradient: Its gradient, ready to be used.
            variable: The variable.
            learning_rate: The rate of this step.

        """
        index = self._get_variable_index(variable)
        row = self._rows.row(index, gradient)
        row = row._replace(average=None, window=None, constraint=None, action=UPDATE)
        options = Options(self.rho, self.epsilon, decay_mode=self._options.decay_mode)
        self._make([index], [row], Call(learning_rate), options)

    def _kernel_report(self) -> list[report.Served]:
        """Return what `kernel_info()` says of the variables."""
        if not self.built:
            return []
        names = parameter_names(self._trainable_variables)
        taken = {
            name: index
            for index, name in enumerate(names)
            if self._accumulated_grads[index] is not None
        }
        return report.served(
            self._engine,
            {name: self._rows.row(index, None) for name, index in taken.items()},
            {name: device_of(self._trainable_variables[index]) for name, index in taken.items()},
            {name: self._rows.reasons.get(index) for name, index in taken.items()},
        )

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: each variable's decay is part of its step."""

    def _variables_for(self, gradients: list[Any], trainable_variables: Any) -> list[Any]:
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "the optimizer must be built before gradients can come without variables: "
                    "call build(variables) first"
                )
            variables = list(self._trainable_variables)
        else:
            variables = list(trainable_variables)
        if len(gradients) != len(variables):
            raise ValueError(
                f"there must be as many gradients as variables, which are {len(variables)}; "
                f"received {len(gradients)}"
            )
        if all(gradient is None for gradient in gradients):
            raise ValueError("No gradients provided for any variable.")
        for position, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            if gradient is not None:
                gradients[position] = _fitting(gradient, variable)
        if self.built:
            self._check_variables_are_known(variables)
            self._refuse_repeated(variables)
        else:
            self.build(variables)
        missing = [path_of(v) for g, v in zip(gradients, variables, strict=True) if g is None]
        if missing:
            warnings.warn(
                f"Gradients do not exist for variables {missing} when minimizing the loss. If "
                "using `model.compile()`, did you forget to provide a `loss` argument?",
                stacklevel=5,
            )
        return variables

    def _call(self, indices: list[int], gradients: list[Any]) -> None:
        """Do what a call does, with gradients of the variables of these indices."""
        has_gradient, overwriting = indices, {}
        if self._overwriting:
            given = dict(zip(indices, gradients, strict=True))
            overwriting = {it: given.pop(it) for it in indices if it in self._overwriting}
            indices, gradients = list(given), list(given.values())
        rate = self._get_current_learning_rate()
        call = self._told(rate, self.gradient_accumulation_steps)
        # A function that failed in training on JAX has answered NaN: nothing happens.
        answered: Any = True
        if rates.callable_rate_of(self._learning_rate) is not None:
            is_number = isinstance(rate, float)
            answered = not math.isnan(rate) if is_number else known(ops.isfinite(rate))
        finite = True
        if self._skips:
            finite = self._all_finite(
                self._rows.rows(indices, gradients), overwriting.values(), call
            )
        closes = True
        if self._window is not None:
            last = self.gradient_accumulation_steps - 1
            closes = known(ops.equal(precision.tensor_of(self._window), last))
        happens = where(closes, UPDATE, COLLECT)
        action = where(both(answered, finite), happens, SKIP)
        rows: Sequence[Row] = self._rows.rows(indices, gradients, action)
        without = self._rows_without_gradient(has_gradient, action)
        if without:
            indices, rows = [*indices, *without], [*rows, *without.values()]
        # Keras' scope is inside: an interrupt at its ends would leave it open, and all variables
        # that are made later would be named in it.
        with interrupts.Deferred(), keras.name_scope(self.name, caller=self):
            self._make(indices, rows, call, self._options)
            self._overwrite(overwriting, action)
            self._count(action, answered, finite, has_gradient)

    def _told(self, rate: Any, steps: Any) -> Call:
        scale: Any = self.loss_scale_factor
        if scale == "dynamic":
            scale = precision.tensor_of(self._loss_scale)
        starts: Any = False
        overwrites: Any = False
        if self.use_ema:
            updates = precision.tensor_of(self.iterations)
            starts = known(ops.equal(updates, 0))
            every = self.ema_overwrite_frequency
            overwrites = every is not None and known(ops.equal((updates + 1) % every, 0))
        return Call(rate, scale, steps, starts, overwrites)

    def _rows_without_gradient(self, has_gradient: Iterable[int], action: Any) -> dict[int, Row]:
        """Return the rows that a call changes although no gradient came for them."""
        is_update = is_equal(action, UPDATE)
        if is_update is False or not (self.use_ema or self._window is not None):
            return {}
        otherwise = FOLLOW if self.use_ema else SKIP
        came = None if self._window is None else known_all(self._window_has_gradient)
        rows = {}
        for index in sorted(set(range(len(self._trainable_variables))) - set(has_gradient)):
            if self._accumulated_grads[index] is not None:
                its_action: Any = otherwise
                if came is not None:
                    its_action = where(known(came[index] > 0), UPDATE, otherwise)
                its_action = where(is_update, its_action, SKIP)
                rows[index] = self._rows.row(index, None, its_action)
        return rows

    def _make(
        self, indices: Sequence[int], rows: Sequence[Row], call: Call, options: Options
    ) -> None:
        """Let the engine make a step, and take the arrays that are new."""
        if isinstance(call.rate, keras.Variable):
            # Operators of Keras' variables would round a float64 decay to float32.
            call = call._replace(rate=precision.tensor_of(call.rate))
        made = self._engine.step(rows, call, options)
        self._rows.note_reasons(indices, self._engine.reasons)
        if made is rows:
            return
        for index, row, new in zip(indices, rows, made, strict=True):
            variables = self._rows.variables_of(index)
            for variable, before, after in zip(variables, row, new, strict=False):
                if variable is not None and after is not before:
                    self.assign(variable, after)

    def _overwrite(self, gradients: dict[int, Any], action: Any) -> None:
        """Set variables that are overwritten by their gradient, as those of float8 training."""
        is_update, collects = is_equal(action, UPDATE), is_equal(action, COLLECT)
        for index, gradient in gradients.items():
            variable = self._trainable_variables[index]
            value, new = precision.tensor_of(variable), gradient
            if self._window is not None:
                window = self._accumulated_gradients[index]
                collected = precision.tensor_of(window)
                new = ops.maximum(gradient, collected)
                rest = where(is_update, ops.zeros_like(collected), collected)
                window.assign(where(collects, new, rest))
            variable.assign(where(is_update, new, value))

    def _count(self, action: Any, answered: Any, finite: Any, has_gradient: Sequence[int]) -> None:
        """Let the counters follow what has happened."""
        is_update, collects = is_equal(action, UPDATE), is_equal(action, COLLECT)
        count(self._iterations, answered)
        if self._update_counter is not None:
            count(self._update_counter, is_update)
        if self._window is not None:
            every = np.arange(len(self._trainable_variables))
            now = np.isin(every, has_gradient).astype("int32")
            for counter, more in (
                (self._window, lambda value: value + 1),
                (self._window_has_gradient, lambda value: ops.maximum(value, now)),
            ):
                value = precision.tensor_of(counter)
                collected = where(collects, more(value), value)
                counter.assign(where(is_update, ops.zeros_like(value), collected))
        if self._skipped_counter is not None:
            count(self._skipped_counter, both(answered, opposite(finite)))
        if self._loss_scale is not None:
            variables = self._loss_scale, self._finite_calls
            old = [precision.tensor_of(variable) for variable in variables]
            grown, shrunk = loss_scale.after_finite(*old), loss_scale.after_nonfinite(*old)
            for variable, *values in zip(variables, old, grown, shrunk, strict=True):
                before, larger, smaller = values
                variable.assign(where(answered, where(finite, larger, smaller), before))

    def _all_finite(self, rows: Sequence[Row], others: Iterable[Any], call: Call) -> Any:
        finite: Any = known(self._engine.all_finite(rows, call)) if rows else True
        for gradient in others:
            finite = both(finite, known(ops.all(ops.isfinite(gradient))))
        return finite

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss times the loss scale, of which gradients are to be taken."""
        if self.loss_scale_factor != "dynamic":
            return super().scale_loss(loss)
        scale = precision.tensor_of(self._loss_scale) if self.built else loss_scale.FIRST
        return loss * ops.cast(scale, precision.dtype_of(ops.convert_to_tensor(loss)))

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Finish training: close an open window, and put the averages in the weights' place.

        `fit()` calls this at its end. Before the first update it changes nothing.

        Args:
            var_list: The variables to set to their average. One that the optimizer was not built
                on, such as one that became trainable later, keeps its value; with `use_ema` a
                warning says so.

        """
        variables = list(var_list)
        if not self.built:
            return
        asked = rates.callable_rate_of(self._learning_rate)
        if asked is not None:
            asked.raise_failure()
        with interrupts.Deferred(), _without_recording(), keras.name_scope(self.name, caller=self):
            if self._window is not None:
                self._close_window(int(ops.convert_to_numpy(self._window)))
            if self.use_ema and int(ops.convert_to_numpy(self.iterations)):
                self._take_averages(variables)

    def _close_window(self, collected: int) -> None:
        if not collected:
            return
        rows = self._rows_without_gradient((), UPDATE)
        call = self._told(self._get_current_learning_rate(), collected)
        self._make(list(rows), list(rows.values()), call, self._options)
        if self._update_counter is not None:
            count(self._update_counter)
        sums = (it for it in self._accumulated_gradients if it is not None)
        for counter in (*sums, self._window_has_gradient, self._window):
            counter.assign(ops.zeros(counter.shape, counter.dtype))

    def _take_averages(self, variables: list[Any]) -> None:
        indices = self._trainable_variables_indices
        for variable in variables:
            if self._var_key(variable) in indices:
                average = self._model_variables_moving_average[self._get_variable_index(variable)]
                if average is not None:
                    value = precision.from_state(
                        precision.tensor_of(average), precision.dtype_of(variable)
                    )
                    # A copy: compiled training on JAX gives buffers away, each only once.
                    variable.assign(ops.copy(value))
        unknown = [path_of(it) for it in variables if self._var_key(it) not in indices]
        if unknown:
            # An error here, after training, would cost the caller what fit() returns.
            warnings.warn(parameters.not_averaged(unknown, "adadelta.Adadelta"), stacklevel=3)
