"""One step, from the gradients to the counters, on every backend."""

import contextlib
import math
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import clipping, hyperparameters, parameters, rule
from adadelta._keras import average, fused, loss_scale, precision, sparse
from adadelta._keras import learning_rate as rates
from adadelta._keras.branch import branch, choose
from adadelta._keras.state import State, count, path_of
from adadelta._kernels import layout, pieces
from adadelta._kernels import tensorflow as operation

if keras.config.backend() == "torch":
    # Keras' own convert and check their arguments, 5 us a call, which pieces would pay often.
    import torch

    from adadelta._keras import fused_torch

    _SQRT, _CLIP = torch.sqrt, torch.clamp
else:
    _SQRT, _CLIP = ops.sqrt, ops.clip


def _without_recording() -> contextlib.AbstractContextManager[Any]:
    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    import torch

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
    shape, expected = sparse.shape_of(gradient), tuple(variable.shape)
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

        """
        gradients = list(grads)
        if not gradients:
            return
        with _without_recording(), keras.name_scope(self.name, caller=self):
            fitting = self._fitting(gradients, trainable_variables)
            if fitting is not None:
                self._call({}, {}, fitting)
            else:
                variables = self._variables_for(gradients, trainable_variables)
                self._step(gradients, variables)

    def _fitting(self, gradients: list[Any], variables: Any) -> dict[int, Any] | None:
        """Return all gradients if the kernel takes them as they are, without a look at each."""
        if keras.config.backend() != "torch" or not self.built:
            return None
        return fused_torch.fitting(self, gradients, variables)

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

    def _step(self, gradients: list[Any], variables: list[Any]) -> None:
        given: dict[int, Any] = {}
        overwriting: dict[int, Any] = {}
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                continue
            index = self._get_variable_index(variable)
            if self._overwrite_variable_with_gradient(variable):
                overwriting[index] = gradient
            else:
                given[index] = sparse.summed(gradient)
        served = fused.served(self, given)
        present = {
            index: self._unscaled(gradient, self._trainable_variables[index])
            for index, gradient in given.items()
            if index not in served
        }
        self._call(present, overwriting, served)

    def _call(
        self, present: dict[int, Any], overwriting: dict[int, Any], served: dict[int, Any]
    ) -> None:
        """Do what a call does, with gradients by the index of their variables.

        Args:
            present: Gradients that are unscaled, in the dtype and shape of the state.
            overwriting: New values of variables that take them as they are.
            served: Gradients as they came, of variables whose part a kernel does.

        """
        rate = self._get_current_learning_rate()
        asked = rates.asked_of(self._learning_rate)
        finite: Any = True
        if self._skips:
            rest = [*present.values(), *overwriting.values()]
            finite = self._all_finite(rest) if rest else True
            if served:
                finite = ops.logical_and(finite, fused.all_finite(self, served))
        # A function that failed in training on JAX has answered NaN: nothing happens.
        answered: Any = True
        if asked is not None:
            answered = ops.isfinite(rate) if ops.is_tensor(rate) else not math.isnan(rate)
        if served:
            fused.step(self, served, self._action(finite, answered), rate)

        def proceed() -> None:
            if self.gradient_accumulation_steps:
                self._collect(present, overwriting, rate, served)
            else:
                for index, gradient in overwriting.items():
                    self._trainable_variables[index].assign(gradient)
                self._update(present, rate, served=served)

        def call() -> None:
            if self._skips:
                self._branch(finite, lambda: self._go_on(proceed), self._skip, served)
            else:
                proceed()
            count(self._iterations)

        if asked is not None:
            self._branch(answered, call, lambda: None, served)
        else:
            call()

    def _action(self, finite: Any, answered: Any) -> Any:
        """What the kernel is to do: nothing, to collect gradients, or to update."""
        action: Any = layout.UPDATE
        if self.gradient_accumulation_steps:
            action = ops.where(self._closes_window(), layout.UPDATE, layout.COLLECT)
        if self._skips or rates.asked_of(self._learning_rate) is not None:
            action = ops.where(ops.logical_and(finite, answered), action, layout.SKIP)
        return action

    def _closes_window(self) -> Any:
        last = self.gradient_accumulation_steps - 1
        return ops.equal(ops.convert_to_tensor(self._window), last)

    def _branch(
        self, predicate: Any, if_true: Any, if_false: Any, served: Container[int] = ()
    ) -> None:
        # What the kernel has done is left out: JAX may copy what goes through a branch.
        done = {
            id(variable)
            for index in range(len(self._trainable_variables) if served else 0)
            if index in served and index not in self._constrained
            for variable in fused.arrays(self, index, self.use_ema)
        }
        variables = [*self._trainable_variables, *self.variables]
        branch(predicate, if_true, if_false, [it for it in variables if id(it) not in done])

    def _unscaled(self, gradient: Any, variable: Any) -> Any:
        dtype = precision.dtype_of(variable)
        gradient = sparse.map_values(lambda value: precision.to_state(value, dtype), gradient)
        scale = self.loss_scale_factor
        if scale is None:
            return gradient
        scale = self._loss_scale if scale == "dynamic" else scale
        return sparse.map_values(
            lambda value: value / ops.cast(scale, precision.dtype_of(value)), gradient
        )

    def _collect(
        self,
        present: dict[int, Any],
        overwriting: dict[int, Any],
        rate: Any,
        served: Container[int],
    ) -> None:
        def collect() -> None:
            for index, gradient in present.items():
                window_sum = self._accumulated_gradients[index]
                self.assign_add(window_sum, gradient)
            for index, gradient in overwriting.items():
                window_sum = self._accumulated_gradients[index]
                self.assign(window_sum, ops.maximum(gradient, window_sum))
            came = np.array(
                [
                    index in present or index in overwriting or index in served
                    for index in range(len(self._trainable_variables))
                ],
                "int32",
            )
            self._window_has_gradient.assign(ops.maximum(self._window_has_gradient, came))
            count(self._window)

        def close() -> None:
            steps = self.gradient_accumulation_steps
            self._close_window(present, overwriting, rate, steps, served)

        self._branch(self._closes_window(), close, collect, served)

    def _close_window(
        self,
        present: dict[int, Any],
        overwriting: dict[int, Any],
        rate: Any,
        steps: Any,
        served: Container[int] = (),
    ) -> None:
        means = {}
        came = {}
        rest = [index for index in range(len(self._trainable_variables)) if index not in served]
        for index in rest:
            variable = self._trainable_variables[index]
            window_sum = ops.convert_to_tensor(self._accumulated_gradients[index])
            if index in overwriting:
                self._trainable_variables[index].assign(ops.maximum(overwriting[index], window_sum))
            elif not self._overwrite_variable_with_gradient(variable):
                if index in present:
                    window_sum = window_sum + sparse.dense(present[index], window_sum.shape)
                else:
                    came[index] = ops.convert_to_tensor(self._window_has_gradient)[index] > 0
                means[index] = window_sum / ops.cast(steps, precision.dtype_of(window_sum))
        self._update(means, rate, came, served)
        sums = [self._accumulated_gradients[index] for index in rest]
        for counter in (*sums, self._window_has_gradient, self._window):
            counter.assign(ops.zeros(counter.shape, counter.dtype))

    def _update(
        self,
        gradients: dict[int, Any],
        rate: Any,
        came: dict[int, Any] | None = None,
        served: Container[int] = (),
    ) -> None:
        """Update the variables of these indices; those in `came` only where it is true.

        Of the `served` ones only what their constraints leave to do is done.
        """
        came = came or {}
        if self.maximize:
            gradients = {
                index: sparse.map_values(ops.negative, gradient)
                for index, gradient in gradients.items()
            }
        gradients = dict(
            zip(gradients, self._clip_gradients(list(gradients.values())), strict=True)
        )

        def constrain(indices: Container[int]) -> None:
            for index in self._constrained:
                if index in indices:
                    variable = self._trainable_variables[index]
                    variable.assign(variable.constraint(variable))

        def update(indices: list[int]) -> None:
            variables = [self._trainable_variables[index] for index in indices]
            if variables:
                self._backend_update_step([gradients[index] for index in indices], variables, rate)
            constrain(indices)

        update([index for index in gradients if index not in came])
        for index, predicate in came.items():
            self._branch(predicate, partial(update, [index]), lambda: None, served)
        constrain(served)
        if self.use_ema:
            every = range(len(self._trainable_variables))
            self._update_average(
                [it for it in every if it not in served or it in self._constrained]
            )
        if self._update_counter is not None:
            count(self._update_counter)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        limits = (self.clipnorm, self.clipvalue, self.global_clipnorm)
        if all(limit is None or limit == math.inf for limit in limits):
            return grads
        values = [ops.convert_to_tensor(sparse.values_of(gradient)) for gradient in grads]
        if self.global_clipnorm is not None:
            values = clipping.by_global_norm(values, self.global_clipnorm, ops, choose)
        elif self.clipnorm is not None:
            values = [clipping.by_norm(value, self.clipnorm, ops, choose) for value in values]
        else:
            values = [clipping.by_value(value, self.clipvalue, ops) for value in values]
        return [
            sparse.with_values(gradient, value)
            for gradient, value in zip(grads, values, strict=True)
        ]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: each variable's decay is part of its `update_step`."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay one variable and apply the rule to it.

        Args:
            gradient: Its gradient, ready to be used, in the dtype and shape of its state.
            variable: The variable.
            learning_rate: The rate of this step.

        """
        index = self._get_variable_index(variable)
        square_avg, acc_delta = self._accumulated_grads[index], self._accumulated_delta_vars[index]
        dtype = precision.dtype_of(variable)
        rate = precision.as_dtype(learning_rate, precision.state_dtype(dtype))
        decay = self._decay_of(variable)
        # Half precision is rounded once, after the subtraction, which only the dense step does.
        is_exact = dtype == precision.state_dtype(dtype)
        if sparse.is_rows(gradient) and not decay and is_exact:
            self._update_rows(gradient, variable, rate)
            return
        gradient = sparse.dense(gradient, square_avg.shape)

        if self._has_operation(variable) and (self.decoupled_weight_decay or not decay):
            operation.update(
                variable,
                square_avg.value,
                acc_delta.value,
                rate,
                self.rho,
                self.epsilon,
                gradient,
                lambda gradient: self._saturated(gradient, dtype),
                decay,
            )
            return
        value, new_square_avg, new_acc_delta = self._next(
            gradient,
            ops.convert_to_tensor(variable),
            ops.convert_to_tensor(square_avg),
            ops.convert_to_tensor(acc_delta),
            rate,
            decay,
        )
        self.assign(square_avg, new_square_avg)
        self.assign(acc_delta, new_acc_delta)
        self.assign(variable, value)

    def _has_operation(self, variable: Any) -> bool:
        is_possible = self._uses_kernel and keras.config.backend() == "tensorflow"
        return bool(is_possible and operation.can_serve(variable, self.rho))

    def _next(
        self,
        gradient: Any,
        parameter: Any,
        square_avg: Any,
        acc_delta: Any,
        rate: Any,
        decay: float,
    ) -> tuple[Any, Any, Any]:
        """Return what becomes of a parameter and its averages."""
        dtype = precision.dtype_of(parameter)
        value, square_avg, acc_delta = rule.step(
            precision.to_state(parameter, dtype),
            gradient,
            square_avg,
            acc_delta,
            rate=rate,
            rho=self.rho,
            epsilon=self.epsilon,
            limit=precision.largest_gradient(self.epsilon, dtype),
            weight_decay=decay,
            weight_decay_mode="decoupled" if self.decoupled_weight_decay else "coupled",
            sqrt=_SQRT,
            clip=_CLIP,
        )
        return precision.from_state(value, dtype), square_avg, acc_delta

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        if keras.config.backend() != "torch":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        groups: dict[Any, list[tuple[Any, ...]]] = {}
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            parameter = ops.convert_to_tensor(variable)
            key = parameter.dtype, parameter.device, self._decay_of(variable)
            square_avg = self._accumulated_grads[index].value
            acc_delta = self._accumulated_delta_vars[index].value
            groups.setdefault(key, []).append((gradient, parameter, square_avg, acc_delta))
        for (dtype, _, decay), rows in groups.items():
            name = keras.backend.standardize_dtype(dtype)
            rate = precision.as_dtype(learning_rate, precision.state_dtype(name))
            following = partial(self._next, rate=rate, decay=decay)
            if precision.is_complex(name):
                for gradient, *old in rows:
                    for tensor, new in zip(old, following(gradient, *old), strict=True):
                        tensor.copy_(new)
            else:
                pieces.update(following, *zip(*rows, strict=True))

    def _update_rows(self, gradient: Any, variable: Any, rate: Any) -> None:
        """Apply the rule to the rows that have a gradient; in the others the averages decay."""
        index = self._get_variable_index(variable)
        square_avg, acc_delta = self._accumulated_grads[index], self._accumulated_delta_vars[index]
        dtype = precision.dtype_of(variable)
        old_square_avg = ops.convert_to_tensor(square_avg)
        old_acc_delta = ops.convert_to_tensor(acc_delta)
        step, square_avg_rows, acc_delta_rows = rule.update(
            self._saturated(sparse.values_of(gradient), dtype),
            sparse.take(old_square_avg, gradient),
            sparse.take(old_acc_delta, gradient),
            self.rho,
            self.epsilon,
            ops.sqrt,
        )
        self.assign(square_avg, sparse.put(self.rho * old_square_avg, gradient, square_avg_rows))
        self.assign(acc_delta, sparse.put(self.rho * old_acc_delta, gradient, acc_delta_rows))
        self.assign_sub(variable, sparse.with_values(gradient, rate * step))

    def _saturated(self, gradient: Any, dtype: str) -> Any:
        return rule.saturated(gradient, precision.largest_gradient(self.epsilon, dtype), _CLIP)

    def _all_finite(self, gradients: list[Any]) -> Any:
        finite = [ops.all(ops.isfinite(sparse.values_of(gradient))) for gradient in gradients]
        return ops.all(ops.stack(finite))

    def _go_on(self, proceed: Callable[[], None]) -> None:
        proceed()
        self._rescale(loss_scale.after_finite)

    def _skip(self) -> None:
        count(self._skipped_counter)
        self._rescale(loss_scale.after_nonfinite)

    def _rescale(self, after: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        if self._loss_scale is not None:
            scale, calls = after(
                ops.convert_to_tensor(self._loss_scale), ops.convert_to_tensor(self._finite_calls)
            )
            self._loss_scale.assign(scale)
            self._finite_calls.assign(calls)

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss times the loss scale, of which gradients are to be taken."""
        if self.loss_scale_factor != "dynamic":
            return super().scale_loss(loss)
        scale = ops.convert_to_tensor(self._loss_scale) if self.built else loss_scale.FIRST
        return loss * ops.cast(scale, precision.dtype_of(ops.convert_to_tensor(loss)))

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Name variables that are not decayed; to be called before the optimizer is built.

        Args:
            var_list: Variables.
            var_names: A string or several: a variable is excluded when one of them occurs in its
                path, such as "bias" in "sequential/dense/bias".

        Raises:
            ValueError: The optimizer is built already.
            TypeError: `var_names` is neither a string nor a list of them.

        """
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay()` can only be called before the optimizer is built."
            )
        if isinstance(var_names, str):
            # R passes one string as it is.
            var_names = [var_names]
        is_list = var_names is None or isinstance(var_names, list | tuple | set | frozenset)
        words: list[Any] = list(var_names or []) if is_list else [None]
        if not all(isinstance(word, str) and word for word in words):
            requirement = "a string or a list of strings, none of them empty, or None"
            raise TypeError(hyperparameters.refusal("var_names", requirement, var_names))
        variables = list(var_list or [])
        self._excluded_keys = frozenset(self._var_key(variable) for variable in variables)
        self._excluded_paths = tuple(path_of(variable) for variable in variables)
        self._excluded_words = tuple(words)

    def _decay_of(self, variable: Any) -> float:
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def _use_weight_decay(self, variable: Any) -> bool:
        if self.weight_decay is None:
            return False
        # On TensorFlow the variable may be the one inside the Keras variable.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        path: str = path_of(variable)
        return not (
            self._var_key(variable) in self._excluded_keys
            or path in self._excluded_loaded_paths
            or any(word in path for word in self._excluded_words)
        )

    def _update_average(self, indices: Iterable[int]) -> None:
        """Move averages after an update; the first one sets them to the updated weights."""
        updates = ops.convert_to_tensor(self.iterations)
        pairs = self._averaged([self._trainable_variables[index] for index in indices])
        if not pairs:
            return
        self._branch(
            ops.equal(updates, 0),
            lambda: average.start(pairs),
            lambda: average.move(pairs, self.ema_momentum),
        )
        if self.ema_overwrite_frequency is not None:
            due = ops.equal((updates + 1) % self.ema_overwrite_frequency, 0)
            self._branch(due, lambda: average.overwrite(pairs), lambda: None)

    def _averaged(self, variables: Iterable[Any]) -> list[tuple[Any, Any]]:
        averages = self._model_variables_moving_average
        pairs = [(variable, averages[self._get_variable_index(variable)]) for variable in variables]
        return [
            (variable, its_average) for variable, its_average in pairs if its_average is not None
        ]

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Finish training: close an open window, and put the averages in the weights' place.

        `fit()` calls this at its end. Before the first update it changes nothing.

        Args:
            var_list: The variables to set to their average.

        Raises:
            ValueError: One of them is not a variable of this optimizer.

        """
        variables = list(var_list)
        if not self.built:
            return
        asked = rates.asked_of(self._learning_rate)
        if asked is not None:
            asked.raise_failure()
        self._check_variables_are_known(variables)
        with _without_recording(), keras.name_scope(self.name, caller=self):
            if self._window is not None:
                collected = int(ops.convert_to_numpy(self._window))
                if collected:
                    self._close_window({}, {}, self._get_current_learning_rate(), collected)
            if self.use_ema and int(ops.convert_to_numpy(self.iterations)):
                average.overwrite(self._averaged(variables))
