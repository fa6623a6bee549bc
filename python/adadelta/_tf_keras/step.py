"""One call of the optimizer, from the gradients to the counters, on every device."""

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.step import UPDATE, Call, Options, Row
from adadelta._kernels import report
from adadelta._tensorflow import arrays
from adadelta._tensorflow.engine import kernel_report
from adadelta._tensorflow.gradients import fitting, name_of
from adadelta._tf_keras import learning_rate as rates
from adadelta._tf_keras.state import State


class Step(State):
    """The step of the optimizer."""

    # Whether a graph depends on the kind of rate.
    _rate_is_in_a_graph = False

    @tf.autograph.experimental.do_not_convert
    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Any, Any]],
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Update variables by one step.

        Args:
            grads_and_vars: `(gradient, variable)` pairs; a variable whose gradient is `None` stays
                as it is.
            name: The name scope of the step, instead of the optimizer's name.
            skip_gradients_aggregation: Whether the gradients have been summed over the replicas
                of a distribution strategy already.
            **kwargs: `experimental_aggregate_gradients`, the opposite of
                `skip_gradients_aggregation`.

        Returns:
            The variable `iterations`.

        Raises:
            ValueError: The gradients do not fit the variables, or there are none.
            TypeError: A gradient is not a tensor of numbers. Nothing has changed then.
            KeyError: The optimizer was built on other variables.

        """
        aggregate = kwargs.pop("experimental_aggregate_gradients", True)
        hyperparameters.refuse_unknown(
            kwargs, "apply_gradients()", ("name", "skip_gradients_aggregation")
        )
        pairs = [(gradient, variable) for gradient, variable in grads_and_vars]
        if not pairs:
            return self.iterations
        missing = [name_of(variable) for gradient, variable in pairs if gradient is None]
        if len(missing) == len(pairs):
            names = hyperparameters.first_of(missing)
            raise ValueError(f"No gradients provided for any variable: {names}.")
        present = [
            (fitting(gradient, variable), variable)
            for gradient, variable in pairs
            if gradient is not None
        ]
        with tf.name_scope(name or self.name or "Adadelta"):
            with tf.init_scope():
                self.build([variable for _, variable in pairs])
            if missing:
                warnings.warn(parameters.without_gradients(missing), stacklevel=2)
            self._rate_is_in_a_graph = self._rate_is_in_a_graph or not tf.executing_eagerly()
            self._compute_current_learning_rate()
            with tf.control_dependencies(self._answer()):
                on_mesh = self._mesh or self._run_with_dtensor
                if aggregate and not skip_gradients_aggregation and not on_mesh:
                    present = list(self.aggregate_gradients(present))
                with interrupts.Deferred():
                    return self._apply(present)

    def _answer(self) -> list[Any]:
        # Nothing may change before the rate function has returned, since it may fail.
        if not isinstance(self._learning_rate, rates.CallableRate) or tf.executing_eagerly():
            return []
        return [self._current_learning_rate.read_value()]

    def _apply(self, pairs: list[tuple[Any, Any]]) -> Any:
        """Let the engine make the step on all devices, and update the counters."""
        rows = [self._row(gradient, variable, self.use_ema) for gradient, variable in pairs]
        call = Call(self._rate(), average_overwrites=self._overwrites())
        finite: Any = True
        if self.skip_nonfinite:
            finite = self._engine.all_finite(rows, call)
            # A number chosen by tf.where has no layout on a DTensor mesh.
            action = tf.cast(finite, tf.int32) * UPDATE
            rows = [row._replace(action=action) for row in rows]
        self._make(rows, call, Options.of(self))
        with self._engine.after_step():
            if self.skip_nonfinite:
                self._skipped.assign_add(tf.cast(tf.logical_not(finite), tf.int64))
            return self.iterations.assign_add(1)

    def _make(self, rows: Sequence[Row], call: Call, options: Options) -> None:
        self._engine.plain.compiles_rows = self.jit_compile
        self._engine.step(rows, call, options)

    def _row(self, gradient: Any, variable: Any, with_average: bool) -> Row:
        index = self._index_dict[self._var_key(variable)]
        own = self._parameters[index]
        return Row(
            variable,
            gradient,
            self._accumulated_grads[index],
            self._accumulated_delta_vars[index],
            self._model_variables_moving_average[index] if with_average else None,
            weight_decay=self.weight_decay
            if self.weight_decay and self._use_weight_decay(own)
            else 0.0,
            constraint=own.constraint,
        )

    def _kernel_report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the variables."""
        if not self.built:
            return []
        rows = [self._row(None, variable, self.use_ema) for variable in self._parameters]
        return kernel_report(self._engine, rows)

    def _overwrites(self) -> Any:
        """Whether the averages replace the weights after this update."""
        if not self.use_ema or self.ema_overwrite_frequency is None:
            return False
        updates = self.iterations + 1 - (0 if self._skipped is None else self._skipped)
        return tf.equal(updates % self.ema_overwrite_frequency, 0)

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Decay one variable, apply the equations to it, and then its constraint.

        Args:
            gradient: Its gradient, which is used as it is.
            variable: The variable.

        """
        mode = "decoupled" if self.decoupled_weight_decay else "coupled"
        options = Options(self.rho, self.epsilon, decay_mode=mode)
        self._make([self._row(gradient, variable, False)], Call(self._rate()), options)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from weight decay; call this before the optimizer is built.

        A later call with the same arguments changes nothing: the replicas of a `tf.distribute`
        strategy run one after the other, so all but the first find the optimizer built.

        Args:
            var_list: Variables.
            var_names: A string or a list of strings: a variable is excluded if one of them, a
                regular expression as in tf_keras, is found in its name.

        Raises:
            ValueError: The optimizer is already built, and the arguments are not the earlier ones.
            TypeError: `var_list` is not a list of variables, or `var_names` is neither a string nor
                a list of strings.

        """
        self._exclusions.exclude(var_list, var_names, self._var_key, name_of, self.built)

    def _use_weight_decay(self, variable: Any) -> bool:
        def finds(word: str) -> Any:
            return re.search(word, variable.name)

        return not self._exclusions.have(self._var_key(variable), name_of(variable), finds)

    # ------------------------------------------------------------------ the moving average

    def _overwrite_model_variables_with_average_value(self, var_list: Iterable[Any]) -> None:
        def overwrite(variable: Any, average: Any) -> None:
            variable.assign(arrays.from_state(tf.convert_to_tensor(average), variable))

        for variable in var_list:
            average = self._model_variables_moving_average[
                self._index_dict[self._var_key(variable)]
            ]
            if self._mesh or self._run_with_dtensor:
                overwrite(variable, average)
            else:
                self._distribution_strategy.extended.update(
                    variable, overwrite, args=(average,), group=False
                )

    def finalize_variable_values(self, var_list: Iterable[Any]) -> None:
        """Replace the weights by their EMA, as `fit()` does at its end.

        Args:
            var_list: The variables to set to their EMA. One that the optimizer was not built on,
                such as one that became trainable later, keeps its value, and a warning says so.

        """
        variables = list(var_list)
        if self.use_ema and self.built:
            known = [
                variable for variable in variables if self._var_key(variable) in self._index_dict
            ]
            self._overwrite_model_variables_with_average_value(known)
            unknown = [
                name_of(variable)
                for variable in variables
                if not any(variable is other for other in known)
            ]
            if unknown:
                # An error here, after training, would cost the caller what fit() returns.
                warnings.warn(
                    parameters.not_averaged(unknown, "adadelta.tf_keras.Adadelta"), stacklevel=2
                )
