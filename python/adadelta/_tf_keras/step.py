"""One call of the optimizer, from the gradients to the counters, on every device."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.precision import state_dtype
from adadelta._tensorflow import clip, precision, rows, step
from adadelta._tf_keras import learning_rate as rates
from adadelta._tf_keras.state import State


class Step(State):
    """What a call of the optimizer does."""

    # Whether a graph has the rate's kind in it.
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
            grads_and_vars: `(gradient, variable)` pairs; a variable whose gradient is `None` is
                left alone.
            name: The name scope of what is done, instead of the optimizer's name.
            skip_gradients_aggregation: Whether the gradients have been summed over the replicas
                of a distribution strategy already.
            **kwargs: `experimental_aggregate_gradients`, the contrary of
                `skip_gradients_aggregation`.

        Returns:
            The variable `iterations`.

        Raises:
            ValueError: The gradients do not fit the variables, or there are none.
            TypeError: One is no tensor of numbers. Nothing has changed then.
            KeyError: The optimizer was built on other variables.

        """
        aggregate = kwargs.pop("experimental_aggregate_gradients", True)
        hyperparameters.refuse_unknown(
            kwargs, "apply_gradients()", ("name", "skip_gradients_aggregation")
        )
        pairs = [(gradient, variable) for gradient, variable in grads_and_vars]
        if not pairs:
            return self.iterations
        missing = [step.name_of(variable) for gradient, variable in pairs if gradient is None]
        if len(missing) == len(pairs):
            raise ValueError(f"No gradients provided for any variable: {missing}.")
        present = [
            (step.fitting(gradient, variable), variable)
            for gradient, variable in pairs
            if gradient is not None
        ]
        with tf.name_scope(name or self.name or "Adadelta"):
            with tf.init_scope():
                self.build([variable for _, variable in pairs])
            if missing:
                warnings.warn(
                    f"Gradients do not exist for variables {missing} when minimizing the loss. If "
                    "using `model.compile()`, did you forget to provide a `loss` argument?",
                    stacklevel=2,
                )
            self._rate_is_in_a_graph = self._rate_is_in_a_graph or not tf.executing_eagerly()
            self._compute_current_learning_rate()
            with tf.control_dependencies(self._answer()):
                on_mesh = self._mesh or self._run_with_dtensor
                if aggregate and not skip_gradients_aggregation and not on_mesh:
                    present = list(self.aggregate_gradients(present))
                with interrupts.Deferred():
                    return self._apply(present)

    def _answer(self) -> list[Any]:
        # Nothing may change before a function has answered, which may fail.
        if not isinstance(self._learning_rate, rates.CallableRate) or tf.executing_eagerly():
            return []
        return [self._current_learning_rate.read_value()]

    def _apply(self, pairs: list[tuple[Any, Any]]) -> Any:
        variables = [variable for _, variable in pairs]
        gradients = [step.prepared(gradient, variable) for gradient, variable in pairs]
        # Before clipping, which makes infinite elements finite.
        finite = step.all_finite(gradients) if self.skip_nonfinite else None
        if self._mesh:
            gradients = [
                rows.dense(gradient, variable.shape)
                for gradient, variable in zip(gradients, variables, strict=True)
            ]
        if self.maximize:
            gradients = [rows.map_values(tf.negative, gradient) for gradient in gradients]
        gradients = self._clip_gradients(gradients)
        pairs = list(zip(gradients, variables, strict=True))
        if self._mesh or self._run_with_dtensor:
            return self._update_all(None, pairs, finite)
        return tf.__internal__.distribute.interim.maybe_merge_call(
            self._update_all, self._distribution_strategy, pairs, finite
        )

    def _clip_gradients(self, grads: Sequence[Any]) -> list[Any]:
        present = [rows.summed(gradient) for gradient in grads if gradient is not None]
        clipped = iter(clip.clipped(present, self.clipnorm, self.clipvalue, self.global_clipnorm))
        return [None if gradient is None else next(clipped) for gradient in grads]

    def _update_all(self, distribution: Any, pairs: list[tuple[Any, Any]], finite: Any) -> Any:
        """Update all variables on all devices, then the averages and the counters."""

        def proceed() -> Any:
            for gradient, variable in pairs:
                self._on_each_device(distribution, variable, self._apply_to_variable, gradient)
            if self.use_ema:
                self._move_averages([variable for _, variable in pairs])
            return tf.constant(0)

        def skip() -> Any:
            self._skipped.assign_add(1)
            return tf.constant(0)

        if finite is None:
            proceed()
        else:
            if distribution is not None:
                # The gradients are the same on all replicas by now.
                finite = distribution.experimental_local_results(finite)[0]
            clip.choose(finite, proceed, skip)
        return self.iterations.assign_add(1)

    def _on_each_device(self, distribution: Any, variable: Any, function: Any, *args: Any) -> None:
        if distribution is None or self._mesh or self._run_with_dtensor:
            function(variable, *args)
        else:
            distribution.extended.update(variable, function, args=args, group=False)

    def _apply_to_variable(self, variable: Any, gradient: Any) -> None:
        if self.jit_compile:
            self._update_step_xla(gradient, variable, id(self._var_key(variable)))
        else:
            self._update_step(gradient, variable)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: each variable's decay is part of its `update_step`."""

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Decay one variable, apply the rule to it, and then its constraint.

        Args:
            gradient: Its gradient, ready to be used, in the dtype and shape of its state.
            variable: The variable.

        """
        index = self._index_dict[self._var_key(variable)]
        decays = self.weight_decay and self._use_weight_decay(self._parameters[index])
        step.update(
            variable,
            gradient,
            self._accumulated_grads[index],
            self._accumulated_delta_vars[index],
            self._rate_in(state_dtype(precision.dtype_of(variable))),
            self.rho,
            self.epsilon,
            weight_decay=self.weight_decay if decays else 0.0,
            decoupled=self.decoupled_weight_decay,
            constraint=self._parameters[index].constraint,
            in_one_operation=not (self._mesh or self._run_with_dtensor),
        )

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Name variables that are not decayed; to be called before the optimizer is built.

        A later call with the same arguments changes nothing: the replicas of a `tf.distribute`
        strategy run one after the other, so all but the first find the optimizer built.

        Args:
            var_list: Variables.
            var_names: A string or several: a variable is excluded when one of them, a regular
                expression as in tf_keras, is found in its name.

        Raises:
            ValueError: The optimizer is built already, and the arguments are not those of before.
            TypeError: `var_list` is no list of variables, or `var_names` neither a string nor a
                list of them.

        """
        variables, words = parameters.excluded(var_list, var_names)
        names = frozenset(map(step.name_of, variables))
        if self.built:
            # A loaded optimizer knows the names alone.
            excluded = set(getattr(self, "_exclude_from_weight_decay", ()))
            same = (
                set(words) == set(getattr(self, "_exclude_from_weight_decay_names", ()))
                and names == self._excluded_names
                and (not excluded or excluded == set(map(self._var_key, variables)))
            )
            if not same:
                raise parameters.too_late_to_exclude()
            return
        super().exclude_from_weight_decay(variables, frozenset(words))
        self._excluded_names = names

    def _use_weight_decay(self, variable: Any) -> bool:
        # The names are those of a loaded config, where the variables themselves are unknown.
        by_name = not getattr(self, "_exclude_from_weight_decay", None)
        if by_name and step.name_of(variable) in self._excluded_names:
            return False
        return bool(super()._use_weight_decay(variable))

    # ------------------------------------------------------------------ the moving average

    def _move_averages(self, variables: Sequence[Any]) -> None:
        self._update_model_variables_moving_average(variables)
        if self.ema_overwrite_frequency is None:
            return
        updates = self.iterations + 1 - (0 if self._skipped is None else self._skipped)

        def overwrite() -> Any:
            self._overwrite_model_variables_with_average_value(variables)
            return tf.constant(0)

        due = tf.equal(updates % self.ema_overwrite_frequency, 0)
        clip.choose(due, overwrite, lambda: tf.constant(0))

    def _update_model_variables_moving_average(self, var_list: Iterable[Any]) -> None:
        def move(average: Any, variable: Any) -> None:
            value = precision.to_state(tf.convert_to_tensor(variable), precision.dtype_of(variable))
            average.assign(self.ema_momentum * average + (1 - self.ema_momentum) * value)

        for variable in var_list:
            self._on_each_device(
                self._distribution_strategy, self._average_of(variable), move, variable
            )

    def _overwrite_model_variables_with_average_value(self, var_list: Iterable[Any]) -> None:
        def overwrite(variable: Any, average: Any) -> None:
            value = tf.convert_to_tensor(average)
            variable.assign(precision.from_state(value, precision.dtype_of(variable)))

        for variable in var_list:
            self._on_each_device(
                self._distribution_strategy, variable, overwrite, self._average_of(variable)
            )

    def _average_of(self, variable: Any) -> Any:
        return self._model_variables_moving_average[self._index_dict[self._var_key(variable)]]

    def finalize_variable_values(self, var_list: Iterable[Any]) -> None:
        """Put the averages in the place of the weights, as `fit()` does at its end.

        Args:
            var_list: The variables to set to their average. One that the optimizer was not built
                on, such as one that became trainable later, keeps its value, and a warning says
                so.

        """
        variables = list(var_list)
        if self.use_ema and self.built:
            known = [it for it in variables if self._var_key(it) in self._index_dict]
            self._overwrite_model_variables_with_average_value(known)
            unknown = [step.name_of(it) for it in variables if not any(it is its for its in known)]
            if unknown:
                # An error here, after training, would cost the caller what fit() returns.
                warnings.warn(
                    parameters.not_averaged(unknown, "adadelta.tf_keras.Adadelta"), stacklevel=2
                )
