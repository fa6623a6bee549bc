"""One update: from gradients that are ready to be used to the variables and their averages."""

import math
from collections.abc import Container, Iterable
from functools import partial
from typing import Any

import keras
from keras import ops

from adadelta._core import clipping, rule
from adadelta._keras import average, fused, precision, sparse
from adadelta._keras.branch import branch, choose
from adadelta._keras.state import count
from adadelta._keras.weight_decay import WeightDecay
from adadelta._kernels import pieces
from adadelta._kernels import tensorflow as operation

if keras.config.backend() == "torch":
    # Keras' own convert and check their arguments, 5 us a call, which pieces would pay often, and
    # round numbers to the default dtype.
    import torch

    from adadelta._kernels import torch_memory

    _SQRT, _CLIP = torch.sqrt, torch.clamp
else:
    _SQRT, _CLIP = ops.sqrt, ops.clip


class Update(WeightDecay):
    """What an update does to the variables."""

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
            if any(precision.dtype_of(value) == "float64" for value in values):
                values = [ops.cast(value, "float64") for value in values]
            values = clipping.by_global_norm(values, self.global_clipnorm, ops, choose)
        elif self.clipnorm is not None:
            values = [clipping.by_norm(value, self.clipnorm, ops, choose) for value in values]
        else:
            values = [clipping.by_value(value, self.clipvalue, _CLIP) for value in values]
        return [
            sparse.with_values(gradient, ops.cast(value, precision.dtype_of(gradient)))
            for gradient, value in zip(grads, values, strict=True)
        ]

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
            precision.tensor_of(variable),
            precision.tensor_of(square_avg),
            precision.tensor_of(acc_delta),
            rate,
            decay,
        )
        self.assign(square_avg, new_square_avg)
        self.assign(acc_delta, new_acc_delta)
        self.assign(variable, value)

    def _has_operation(self, variable: Any) -> bool:
        is_possible = self.fused is not False and keras.config.backend() == "tensorflow"
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
        rows = []
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            square_avg = self._accumulated_grads[index].value
            acc_delta = self._accumulated_delta_vars[index].value
            rows.append((gradient, precision.tensor_of(variable), square_avg, acc_delta))
        apart = torch_memory.Rows(list(zip(*rows, strict=True)), gradient=0).sharing()
        groups: dict[Any, list[tuple[Any, ...]]] = {}
        for place, (row, variable) in enumerate(zip(rows, trainable_variables, strict=True)):
            key = (
                row[1].dtype,
                row[1].device,
                self._decay_of(variable),
                place if place in apart else -1,
            )
            groups.setdefault(key, []).append(row)
        for (dtype, _, decay, _), rows in groups.items():
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
        old_square_avg = precision.tensor_of(square_avg)
        old_acc_delta = precision.tensor_of(acc_delta)
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

    def _update_average(self, indices: Iterable[int]) -> None:
        """Move averages after an update; the first one sets them to the updated weights."""
        updates = precision.tensor_of(self.iterations)
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
