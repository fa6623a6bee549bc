"""One step, from the gradients to the counters, on every backend."""

import contextlib
import math
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import interrupts, parameters
from adadelta._keras import average, fused, loss_scale, precision, sparse
from adadelta._keras import learning_rate as rates
from adadelta._keras.state import count, path_of
from adadelta._keras.update import Update
from adadelta._kernels import layout

if keras.config.backend() == "torch":
    import torch

    from adadelta._keras import fused_torch


if keras.config.backend() == "torch":
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
    shape, expected = sparse.shape_of(gradient), tuple(variable.shape)
    fits = len(shape) == len(expected) and all(
        mine is None or mine == other for mine, other in zip(shape, expected, strict=True)
    )
    if not fits:
        raise parameters.other_shape(path_of(variable), expected, shape)
    return gradient


class Step(Update):
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
        if keras.config.backend() == "torch" and torch.compiler.is_compiling():
            _apply_outside_of_torch_compile(self, gradients, trainable_variables)
            return
        if not gradients:
            return
        with _without_recording(), keras.name_scope(self.name, caller=self):
            fitting = self._fitting(gradients, trainable_variables)
            if fitting is not None:
                self._call({}, {}, fitting)
            else:
                variables = self._variables_for(gradients, trainable_variables)
                self._step(gradients, variables)

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
        return values, state

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
        if keras.config.backend() == "torch":
            fused_torch.check(self, given)
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
        asked = rates.callable_rate_of(self._learning_rate)
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
        action = self._action(finite, answered) if served else None

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

        with interrupts.Deferred():
            if served:
                fused.step(self, served, action, rate)
            if asked is not None:
                self._branch(answered, call, lambda: None, served)
            else:
                call()

    def _action(self, finite: Any, answered: Any) -> Any:
        """What the kernel is to do: nothing, to collect gradients, or to update."""
        action: Any = layout.UPDATE
        if self.gradient_accumulation_steps:
            action = ops.where(self._closes_window(), layout.UPDATE, layout.COLLECT)
        if self._skips or rates.callable_rate_of(self._learning_rate) is not None:
            action = ops.where(ops.logical_and(finite, answered), action, layout.SKIP)
        return action

    def _closes_window(self) -> Any:
        last = self.gradient_accumulation_steps - 1
        return ops.equal(precision.tensor_of(self._window), last)

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
            window_sum = precision.tensor_of(self._accumulated_gradients[index])
            if index in overwriting:
                self._trainable_variables[index].assign(ops.maximum(overwriting[index], window_sum))
            elif not self._overwrite_variable_with_gradient(variable):
                if index in present:
                    window_sum = window_sum + sparse.dense(present[index], window_sum.shape)
                else:
                    came[index] = precision.tensor_of(self._window_has_gradient)[index] > 0
                means[index] = window_sum / ops.cast(steps, precision.dtype_of(window_sum))
        self._update(means, rate, came, served)
        sums = [self._accumulated_gradients[index] for index in rest]
        for counter in (*sums, self._window_has_gradient, self._window):
            counter.assign(ops.zeros(counter.shape, counter.dtype))

    def _unscaled(self, gradient: Any, variable: Any) -> Any:
        dtype = precision.dtype_of(variable)
        gradient = sparse.map_values(lambda value: precision.to_state(value, dtype), gradient)
        scale = self.loss_scale_factor
        if scale is None:
            return gradient
        scale = self._loss_scale if scale == "dynamic" else scale
        return sparse.map_values(
            lambda value: value / precision.as_dtype(scale, precision.dtype_of(value)), gradient
        )

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
                precision.tensor_of(self._loss_scale), precision.tensor_of(self._finite_calls)
            )
            self._loss_scale.assign(scale)
            self._finite_calls.assign(calls)

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
        with _without_recording(), keras.name_scope(self.name, caller=self):
            if self._window is not None:
                collected = int(ops.convert_to_numpy(self._window))
                if collected:
                    rate = self._get_current_learning_rate()
                    with interrupts.Deferred():
                        self._close_window({}, {}, rate, collected)
            if self.use_ema and int(ops.convert_to_numpy(self.iterations)):
                indices = self._trainable_variables_indices
                known = [it for it in variables if self._var_key(it) in indices]
                with interrupts.Deferred():
                    average.overwrite(self._averaged(known))
                unknown = [path_of(it) for it in variables if self._var_key(it) not in indices]
                if unknown:
                    # An error here, after training, would cost the caller what fit() returns.
                    warnings.warn(
                        parameters.not_averaged(unknown, "adadelta.Adadelta"), stacklevel=2
                    )
