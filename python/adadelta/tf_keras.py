"""Adadelta for tf_keras, the Keras 2 of TensorFlow: the class of `tf_keras.optimizers.Adadelta`."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from adadelta._core import hyperparameters, parameters
from adadelta._core.arguments import Checked
from adadelta._core.precision import state_dtype
from adadelta._state import keras_file, matching
from adadelta._tensorflow import clip, exchange, precision, rows, step
from adadelta._tf_keras import learning_rate as rates

__all__ = ["Adadelta"]

_HOST = hyperparameters.CONVENTIONS["tf_keras"]
_OWN = ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite")
# What tf_keras' optimizers know and refuse, with what to do instead.
_REFUSED_BY_HOST = ("decay", "gradient_aggregator", "gradient_transformers")


@tf_keras.saving.register_keras_serializable(package="adadelta")
class Adadelta(tf_keras.optimizers.Optimizer):
    """Adadelta (Zeiler 2012) with the signature of `tf_keras.optimizers.Adadelta`.

    For a parameter x with gradient g, and averages v and u that start at 0:

        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        x <- x - learning_rate d

    One step is, in this order: sum the rows of sparse gradients; negate the gradients
    (`maximize`); clip them; decay the weights; the equations above; the variable's constraint;
    the moving average (`use_ema`); the counters. A sparse gradient gives the numbers of the dense
    one.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. Complex
    parameters are pairs of real ones.

    Args:
        learning_rate: A finite number of at least 0, a
            `tf_keras.optimizers.schedules.LearningRateSchedule`, or a function of no argument
            that returns the rate and is asked at every step (not with `jit_compile=True` in
            `compile()`, since XLA can't call Python). The default, 0.001, is tf_keras'; 1.0 is
            the paper's and what most models need.
        rho: Decay rate of both averages, at least 0 and less than 1.
        epsilon: Added inside both square roots, greater than 0; `None` for
            `tf_keras.backend.epsilon()`. The first steps are about `sqrt(epsilon)` long.
        weight_decay: `None`, or a number of at least 0: the share of each weight that is taken
            away per step, times the learning rate.
        clipnorm: `None`, or the norm to which each gradient is clipped, greater than 0.
        clipvalue: `None`, or the magnitude to which each element is clipped, greater than 0.
        global_clipnorm: `None`, or the norm to which all gradients together are clipped, greater
            than 0. Only one of the three can be given; infinity means no clipping.
        use_ema: Keep an exponential moving average of the weights, which starts at the weights,
            and put it in their place when `fit()` ends or `finalize_variable_values()` is called.
        ema_momentum: The average's momentum, from 0 to 1.
        ema_overwrite_frequency: `None`, or after how many updates, at least 1, the weights are
            overwritten by their average.
        jit_compile: Compile each variable's update with XLA. Without a GPU it is ignored, as in
            tf_keras.
        name: The optimizer's name.
        maximize: Ascend instead of descend.
        decoupled_weight_decay: `True` takes the decay from the weights (Keras), `False` adds
            `weight_decay` times the weights to the gradients (torch, optax).
        skip_nonfinite: Skip calls in which any gradient is NaN or infinite, and count them in
            `skipped`. `False` lets them into the weights, as tf_keras does.
        **kwargs: `mesh`, a `tf.experimental.dtensor.Mesh` on which the state is to be; `lr`, which
            is the same as `learning_rate`; `is_legacy_optimizer`, which saved configs have.

    Attributes:
        learning_rate: The current rate; can be set to a number at any time.
        iterations: How many calls there were; a schedule sees this number.
        skipped: How many of them were skipped.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it takes and what came. Nothing has changed then.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments: https://www.tensorflow.org/api_docs/python/tf/keras/optimizers/Adadelta

    Example:
        >>> import tensorflow as tf
        >>> import adadelta.tf_keras
        >>> x = tf.Variable([1.0, 2.0])
        >>> optimizer = adadelta.tf_keras.Adadelta(learning_rate=1.0, rho=0.75, epsilon=0.25)
        >>> iterations = optimizer.apply_gradients([(tf.constant([1.0, -1.0]), x)])
        >>> int(iterations), [round(float(value), 4) for value in x.numpy()]
        (1, [0.2929, 2.7071])

    """

    # For adadelta.state: who moves this optimizer's state, and what builds it.
    state_exchange = "adadelta._tensorflow.exchange"
    build_argument = "model.trainable_variables"

    rho = Checked()
    epsilon = Checked()
    weight_decay = Checked()
    clipnorm = Checked()
    clipvalue = Checked()
    global_clipnorm = Checked()
    use_ema = Checked()
    ema_momentum = Checked()
    ema_overwrite_frequency = Checked()
    maximize = Checked()
    decoupled_weight_decay = Checked()
    skip_nonfinite = Checked()

    _learning_rate: Any
    _given_rate: float | None = None
    # Whether a graph has the rate's kind in it.
    _rate_is_in_a_graph = False

    def __init__(
        self,
        learning_rate: Any = _HOST.learning_rate,
        rho: float = _HOST.rho,
        epsilon: float | None = _HOST.epsilon,
        weight_decay: float | None = _HOST.weight_decay,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        jit_compile: bool = True,
        name: str = "Adadelta",
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        skip_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        if "lr" in kwargs:
            lr = kwargs.pop("lr")
            if not isinstance(learning_rate, float) or learning_rate != _HOST.learning_rate:
                raise TypeError(
                    "Only one of `learning_rate` and `lr`, which is the same, can be given; "
                    f"received learning_rate={hyperparameters.received(learning_rate)}, "
                    f"lr={hyperparameters.received(lr)}"
                )
            learning_rate = lr
        excluded = kwargs.pop("exclude_from_weight_decay", None)
        arguments = {
            "rho": rho,
            "epsilon": tf_keras.backend.epsilon() if epsilon is None else epsilon,
            "weight_decay": weight_decay,
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
            "use_ema": use_ema,
            "ema_momentum": ema_momentum,
            "ema_overwrite_frequency": ema_overwrite_frequency,
            "name": name,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "skip_nonfinite": skip_nonfinite,
        }
        passed_on = ("mesh", "is_legacy_optimizer", *_REFUSED_BY_HOST)
        hyperparameters.refuse_unknown(
            {argument: value for argument, value in kwargs.items() if argument not in passed_on},
            "adadelta.tf_keras.Adadelta",
            ("learning_rate", *arguments, "jit_compile", "mesh"),
        )
        arguments = {it: hyperparameters.check(it, value) for it, value in arguments.items()}
        hyperparameters.check_clips(arguments)
        jit_compile = bool(hyperparameters.Flag()("jit_compile", jit_compile))
        learning_rate = rates.checked(learning_rate)
        own = {it: arguments.pop(it) for it in _OWN}
        super().__init__(jit_compile=jit_compile, **arguments, **kwargs)
        for argument, value in own.items():
            setattr(self, argument, value)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._given_rate = learning_rate if isinstance(learning_rate, float) else None
        self._parameters: list[Any] = self._no_dependency([])
        self._skipped: Any = None
        self._waiting_state: Any = None
        self._excluded_names: frozenset[str] = frozenset((excluded or {}).get("names", ()))
        if (excluded or {}).get("words"):
            self.exclude_from_weight_decay(var_names=excluded["words"])

    # ------------------------------------------------------------------ the learning rate

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        if not isinstance(learning_rate, rates.Asked):
            return super()._build_learning_rate(learning_rate)
        # Holds the answer of the last step. tf_keras would ask for it now.
        with tf.init_scope():
            self._current_learning_rate = tf.Variable(
                0.0, name="current_learning_rate", dtype=tf.float64, trainable=False
            )
        return learning_rate

    @property
    def learning_rate(self) -> Any:
        """The rate: a variable, which holds a schedule's last value, or what the function says."""
        if isinstance(self._learning_rate, rates.Asked) and tf.executing_eagerly():
            return self._learning_rate(self.iterations)
        return tf_keras.optimizers.Optimizer.learning_rate.fget(self)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        value = rates.checked(value)
        if isinstance(value, float):
            # Refuses when the rate is a schedule or a function.
            tf_keras.optimizers.Optimizer.learning_rate.fset(self, value)
        elif self._rate_is_in_a_graph:
            raise ValueError(
                "`learning_rate` can't be replaced by another kind of rate once TensorFlow has "
                "compiled the training step, which would not see it; give it before training, or "
                f"start with a number and set numbers; received {hyperparameters.received(value)}"
            )
        else:
            self._learning_rate = self._build_learning_rate(value)
        self._given_rate = value if isinstance(value, float) else None

    def _rate_in(self, dtype: str) -> Any:
        rate = self._learning_rate
        if isinstance(rate, rates.LearningRateSchedule):
            return tf.cast(self._current_learning_rate, dtype)
        return precision.exact_rate(rate, self._given_rate, dtype)

    def _rate_number(self) -> float | None:
        rate = self._learning_rate
        if isinstance(rate, rates.LearningRateSchedule):
            return None
        now = rate.numpy()
        given = self._given_rate
        return given if given is not None and now == now.dtype.type(given) else float(now)

    def _set_rate_number(self, rate: float) -> None:
        self.learning_rate = rate

    _checked_rate = staticmethod(rates.checked)

    # ------------------------------------------------------------------ the state

    @property
    def built(self) -> bool:
        """Whether the state has been made."""
        return bool(getattr(self, "_built", False))

    def build(self, var_list: Iterable[Any]) -> None:
        """Make the state for the parameters that will be updated.

        Args:
            var_list: TensorFlow variables of a floating or complex dtype, each once. A later call
                may give some of them.

        Raises:
            ValueError: A variable occurs twice or is not of such a dtype, or `epsilon` is too
                small for it.
            KeyError: The optimizer was built on other variables.

        """
        variables = list(var_list)
        self._refuse_repeated(variables)
        if self.built:
            self._refuse_unknown(variables)
            return
        for variable in variables:
            parameters.check(step.name_of(variable), precision.dtype_of(variable), self.epsilon)
        super().build(variables)
        self._parameters = self._no_dependency(variables)
        self._accumulated_grads: list[Any] = []
        self._accumulated_delta_vars: list[Any] = []
        for variable in variables:
            self._accumulated_grads.append(
                self.add_variable_from_reference(variable, "accumulated_grad")
            )
            self._accumulated_delta_vars.append(
                self.add_variable_from_reference(variable, "accumulated_delta_var")
            )
        if self.skip_nonfinite:
            self._skipped = self._counter("skipped")
        self._built = True
        if self._waiting_state is not None:
            waiting, self._waiting_state = self._waiting_state, None
            self._take(waiting)

    def add_variable_from_reference(
        self,
        model_variable: Any,
        variable_name: str,
        shape: Any = None,
        initial_value: Any = None,
    ) -> Any:
        """Make a state variable for a parameter: 0, unless `initial_value` is given."""
        dtype = precision.dtype_of(model_variable)
        if dtype == state_dtype(dtype):
            return super().add_variable_from_reference(
                model_variable, variable_name, shape, initial_value
            )
        value = tf.zeros_like(model_variable) if initial_value is None else initial_value
        value = precision.to_state(tf.convert_to_tensor(value), dtype)
        name = f"{variable_name}/{model_variable._shared_name}"
        if self._mesh:
            variable = tf.experimental.dtensor.DVariable(value, name=name, trainable=False)
        else:
            strategy = tf.distribute.get_strategy()
            with strategy.extended.colocate_vars_with(model_variable):
                variable = tf.Variable(value, name=name, trainable=False)
        self._variables.append(variable)
        return variable

    def _counter(self, name: str) -> Any:
        zero = tf.constant(0, tf.int64)
        if self._mesh:
            dtensor = tf.experimental.dtensor
            zero = dtensor.copy_to_mesh(zero, dtensor.Layout.replicated(self._mesh, rank=0))
            counter = dtensor.DVariable(zero, name=name, trainable=False)
        else:
            counter = tf.Variable(zero, name=name, trainable=False)
        self._variables.append(counter)
        return counter

    def _refuse_repeated(self, variables: list[Any]) -> None:
        seen = set()
        for variable in variables:
            key = self._var_key(variable)
            if key in seen:
                raise parameters.repeated(step.name_of(variable))
            seen.add(key)

    def _refuse_unknown(self, variables: list[Any]) -> None:
        for variable in variables:
            if self._var_key(variable) not in self._index_dict:
                raise KeyError(
                    f"The optimizer cannot recognize variable {step.name_of(variable)}: it was "
                    "built on other variables. Build it on all that it is to update with "
                    "optimizer.build(variables), or make a new optimizer for these"
                )

    @property
    def skipped(self) -> int:
        """How many calls were skipped for a gradient that was NaN or infinite."""
        return 0 if self._skipped is None else int(self._skipped.numpy())

    def get_weights(self) -> list[np.ndarray]:
        """Return the values of `variables`, as `set_weights()` takes them."""
        return self._read(self.variables)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `variables`.

        Args:
            weights: As many arrays as there are `variables`, of the same shapes.

        Raises:
            ValueError: The optimizer is not built, or the arrays do not fit. Nothing has changed
                then.

        """
        if not self.built:
            raise ValueError(
                "You are calling `set_weights()` on an optimizer that has not yet been built. "
                "Please call `optimizer.build(trainable_variables)` before."
            )
        values = [np.asarray(weight) for weight in weights]
        expected = [(step.name_of(it), tuple(it.shape.as_list())) for it in self.variables]
        parameters.check_weights(values, expected, np.shape, "variables")
        self._write(self.variables, values)

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a `.keras` file, by name; what waits is written as it was loaded."""
        if self.built:
            arrays = keras_file.to_file(exchange.export_state(self))
        else:
            arrays = dict(self._waiting_state or {"iteration": self.iterations.numpy()})
        for name, array in arrays.items():
            store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the state from a `.keras` file, ours or one of `tf_keras.optimizers.Adadelta`.

        An optimizer that is not built keeps it until it is.

        Raises:
            StateMismatchError: The state does not fit. Nothing has changed then.
            ValueError: So does one of tf_keras' own.

        """
        saved = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        if self.built:
            self._take(saved)
        else:
            self._waiting_state = self._no_dependency(saved)

    def _take(self, saved: dict[str, np.ndarray]) -> None:
        # The optimizer may be built while a step is traced, of which this must be no part.
        with tf.init_scope():
            if keras_file.is_numbered(saved) and len(saved) > 1:
                self.set_weights(keras_file.in_order(saved))
            elif len(saved) > 1:
                exchange.import_state(self, keras_file.from_file(saved))

    def _counters(self) -> dict[str, Any]:
        counters = {"step": self._iterations}
        return counters if self._skipped is None else {**counters, "skipped": self._skipped}

    def _slots(self) -> dict[str, dict[str, Any]]:
        slots: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(matching.distinct(map(step.name_of, self._parameters))):
            slots[name] = {
                "square_avg": self._accumulated_grads[index],
                "acc_delta": self._accumulated_delta_vars[index],
            }
            if self.use_ema:
                slots[name]["average"] = self._model_variables_moving_average[index]
        return slots

    def _read(self, variables: Iterable[Any]) -> list[np.ndarray]:
        return [np.asarray(_whole(variable)) for variable in variables]

    def _write(self, variables: Sequence[Any], values: Sequence[Any]) -> None:
        for variable, value in zip(variables, values, strict=True):
            value = np.asarray(value, variable.dtype.base_dtype.as_numpy_dtype)
            if self._mesh:
                value = tf.experimental.dtensor.relayout(
                    tf.experimental.dtensor.copy_to_mesh(
                        value,
                        tf.experimental.dtensor.Layout.replicated(self._mesh, value.ndim),
                    ),
                    variable.layout,
                )
            variable.assign(value)

    # ------------------------------------------------------------------ the step

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
                return self._apply(present)

    def _answer(self) -> list[Any]:
        # Nothing may change before a function has answered, which may fail.
        if not isinstance(self._learning_rate, rates.Asked) or tf.executing_eagerly():
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

        Args:
            var_list: Variables.
            var_names: A string or several: a variable is excluded when one of them, a regular
                expression as in tf_keras, is found in its name.

        Raises:
            ValueError: The optimizer is built already.
            TypeError: `var_names` is neither a string nor a list of them.

        """
        words = [var_names] if isinstance(var_names, str) else var_names
        is_list = words is None or isinstance(words, list | tuple | set | frozenset)
        if not is_list or not all(isinstance(word, str) and word for word in words or []):
            requirement = "a string or a list of strings, none of them empty, or None"
            raise TypeError(hyperparameters.refusal("var_names", requirement, var_names))
        variables = list(var_list or [])
        super().exclude_from_weight_decay(variables, frozenset(words or []))
        self._excluded_names = frozenset(map(step.name_of, variables))

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
            var_list: The variables to set to their average.

        Raises:
            KeyError: One of them is not a variable of this optimizer.

        """
        variables = list(var_list)
        if self.use_ema and self.built:
            self._refuse_unknown(variables)
            self._overwrite_model_variables_with_average_value(variables)

    # ------------------------------------------------------------------ the config

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again, in plain Python values."""
        config = super().get_config()
        config["learning_rate"] = self._rate_config()
        config.update({argument: getattr(self, argument) for argument in _OWN})
        words = getattr(self, "_exclude_from_weight_decay_names", ())
        if self._excluded_names or words:
            config["exclude_from_weight_decay"] = {
                "names": sorted(self._excluded_names),
                "words": sorted(words),
            }
        return config

    def _rate_config(self) -> Any:
        rate = self._learning_rate
        if isinstance(rate, rates.Asked):
            return tf_keras.saving.serialize_keras_object(rate.function)
        number = self._rate_number()
        if number is None:
            return tf_keras.optimizers.schedules.serialize(rate)
        return number

    def _portable_config(self) -> dict[str, Any]:
        host_only = ("name", "jit_compile", "is_legacy_optimizer")
        return {it: value for it, value in self.get_config().items() if it not in host_only}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Adadelta":
        """Make an optimizer from what `get_config()` returned."""
        config = dict(config)
        rate = config.get("learning_rate")
        if isinstance(rate, dict) and rate.get("class_name") in ("function", "__lambda__"):
            config["learning_rate"] = tf_keras.saving.deserialize_keras_object(
                rate, custom_objects=custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)


def _whole(variable: Any) -> Any:
    """The value of a variable, put together where it lies on a mesh."""
    layout = getattr(variable, "layout", None)
    if layout is None:
        return variable.numpy()
    dtensor = tf.experimental.dtensor
    replicated = dtensor.Layout.replicated(layout.mesh, variable.shape.rank)
    return dtensor.relayout(variable.read_value(), replicated).numpy()
