"""Adadelta for Keras 3, on the JAX, TensorFlow and torch backends: the core of this package."""

import contextlib
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import clipping, hyperparameters, rule
from adadelta._keras import learning_rate as rates
from adadelta._keras import precision, saving, sparse
from adadelta._keras.branch import branch

__all__ = ["Adadelta"]

# The first scale is that of keras.optimizers.LossScaleOptimizer; so is the number of calls with
# finite gradients after which it doubles.
_FIRST_LOSS_SCALE = 2.0**15
_LARGEST_LOSS_SCALE = 2.0**24
_LOSS_SCALE_GROWTH_CALLS = 2000

# The arguments that keras.optimizers.Optimizer does not know.
_OWN_ARGUMENTS = ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite")

# The variables that count, beside Keras' own `iteration`.
_COUNTER_ATTRIBUTES = {
    "update": "_update_counter",
    "window": "_window",
    "window_has_gradient": "_window_has_gradient",
    "skipped": "_skipped_counter",
    "loss_scale": "_loss_scale",
    "finite_calls": "_finite_calls",
}


def _named(variable: Any) -> str:
    # A tf.Variable has a name and no path.
    return str(getattr(variable, "path", None) or variable.name)


def _count(counter: Any) -> None:
    """Add 1, and stay at the largest number instead of wrapping to a negative one."""
    value = ops.convert_to_tensor(counter)
    largest = np.iinfo(precision.dtype_of(counter)).max
    counter.assign(value + ops.cast(value < largest, precision.dtype_of(counter)))


def _without_recording() -> contextlib.AbstractContextManager[Any]:
    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def _fitting(gradient: Any, variable: Any) -> Any:
    """Return the gradient as a tensor of the variable's shape, or raise."""
    if not (ops.is_tensor(gradient) or hasattr(gradient, "shape")):
        try:
            gradient = ops.convert_to_tensor(gradient)
        except Exception as error:
            raise TypeError(
                f"the gradient for {_named(variable)} must be a tensor; received "
                f"{hyperparameters.received(gradient)}"
            ) from error
    shape, expected = sparse.shape_of(gradient), tuple(variable.shape)
    fits = len(shape) == len(expected) and all(
        mine is None or mine == other for mine, other in zip(shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"the gradient for {_named(variable)} must have shape {expected}; received {shape}"
        )
    return gradient


class _Checked:
    """An argument as an attribute: checked whenever it is set, fixed once the optimizer is built.

    Compiled training would go on with the old value, so a change that could go unnoticed is
    refused.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__["_arguments"][self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        arguments = instance.__dict__.setdefault("_arguments", {})
        value = hyperparameters.check(self.name, value)
        if getattr(instance, "built", False) and value != arguments[self.name]:
            raise ValueError(
                f"`{self.name}` can't be changed once the optimizer is built, since compiled "
                "training would not see it; make a new optimizer from get_config(), or call "
                f"set_weights() on it to go on from here; received "
                f"{hyperparameters.received(value)}"
            )
        arguments[self.name] = value


@keras.saving.register_keras_serializable(package="adadelta")
class Adadelta(keras.optimizers.Optimizer):
    """Adadelta (Zeiler 2012) with the signature of `keras.optimizers.Adadelta`.

    For a parameter x with gradient g, and averages v and u that start at 0:

        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        x <- x - learning_rate d

    One step is, in this order: divide the gradients by `loss_scale_factor`; collect them over
    `gradient_accumulation_steps` calls; negate them (`maximize`); clip them; decay the weights;
    the equations above; the variable's constraint; the moving average (`use_ema`); the counters.
    A call that only collects gradients, or is skipped, changes nothing else.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. Complex
    parameters are pairs of real ones.

    Args:
        learning_rate: A finite number of at least 0, a scalar float variable, a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function of no argument that
            returns the rate. The default, 0.001, is Keras'; 1.0 is the paper's and what most
            models need.
        rho: Decay rate of both averages, at least 0 and less than 1.
        epsilon: Added inside both square roots, greater than 0. The first steps are about
            `sqrt(epsilon)` long.
        weight_decay: `None`, or a number of at least 0: the share of each weight that is taken
            away per step, times the learning rate.
        clipnorm: `None`, or the norm to which each gradient is clipped, greater than 0.
        clipvalue: `None`, or the magnitude to which each element is clipped, greater than 0.
        global_clipnorm: `None`, or the norm to which all gradients together are clipped, greater
            than 0. Only one of the three can be given; infinity means no clipping.
        use_ema: Keep an exponential moving average of the weights, and put it in their place
            when `fit()` ends or `finalize_variable_values()` is called.
        ema_momentum: The average's momentum, from 0 to 1.
        ema_overwrite_frequency: `None`, or after how many updates, at least 1, the weights are
            overwritten by their average.
        loss_scale_factor: `None`, or a number greater than 0 by which the loss is multiplied and
            the gradients are divided.
        gradient_accumulation_steps: `None`, or over how many calls the mean gradient is taken for
            one update. Calls weigh the same, whatever the size of their batch. Schedules count
            calls, `ema_overwrite_frequency` counts updates.
        name: The optimizer's name, or `None` for "adadelta".
        maximize: Ascend instead of descend.
        decoupled_weight_decay: `True` takes the decay from the weights (Keras), `False` adds
            `weight_decay` times the weights to the gradients (torch, optax).
        skip_nonfinite: Skip calls in which any gradient is NaN or infinite, and count them in
            `skipped`. `False` lets them into the weights, as Keras does.

    Attributes:
        learning_rate: The current rate; can be set to any of the above at any time.
        iterations: How many updates there were.
        skipped: How many calls were skipped.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it takes and what came. Nothing has changed then.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments: https://keras.io/api/optimizers/adadelta/

    Example:
        >>> import keras, adadelta
        >>> x = keras.Variable([1.0, 2.0])
        >>> optimizer = adadelta.Adadelta(learning_rate=1.0, rho=0.75, epsilon=0.25)
        >>> optimizer.apply([keras.ops.array([1.0, -1.0])], [x])
        >>> [round(float(value), 4) for value in x.numpy()]
        [0.2929, 2.7071]
    """

    rho = _Checked()
    epsilon = _Checked()
    weight_decay = _Checked()
    clipnorm = _Checked()
    clipvalue = _Checked()
    global_clipnorm = _Checked()
    use_ema = _Checked()
    ema_momentum = _Checked()
    ema_overwrite_frequency = _Checked()
    loss_scale_factor = _Checked()
    gradient_accumulation_steps = _Checked()
    maximize = _Checked()
    decoupled_weight_decay = _Checked()
    skip_nonfinite = _Checked()

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        skip_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        hyperparameters.refuse_unknown(kwargs, "Adadelta")
        arguments = {
            name: hyperparameters.check(name, value)
            for name, value in {
                "rho": rho,
                "epsilon": epsilon,
                "weight_decay": weight_decay,
                "clipnorm": clipnorm,
                "clipvalue": clipvalue,
                "global_clipnorm": global_clipnorm,
                "use_ema": use_ema,
                "ema_momentum": ema_momentum,
                "ema_overwrite_frequency": ema_overwrite_frequency,
                "loss_scale_factor": loss_scale_factor,
                "gradient_accumulation_steps": gradient_accumulation_steps,
                "name": name,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
                "skip_nonfinite": skip_nonfinite,
            }.items()
        }
        hyperparameters.check_clips(arguments)
        if arguments["gradient_accumulation_steps"] == 1:
            arguments["gradient_accumulation_steps"] = None
        own = {
            name: arguments.pop(name)
            for name in ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite")
        }
        learning_rate = rates.checked(learning_rate)
        is_variable = isinstance(learning_rate, keras.Variable)
        super().__init__(learning_rate=0.0 if is_variable else learning_rate, **arguments)
        for argument, value in own.items():
            setattr(self, argument, value)
        self._given_rate = learning_rate if isinstance(learning_rate, float) else None
        if is_variable:
            self.learning_rate = learning_rate
        self._excluded_keys: frozenset[Any] = frozenset()
        self._excluded_paths: tuple[str, ...] = ()
        self._excluded_loaded_paths: tuple[str, ...] = ()
        self._excluded_words: tuple[str, ...] = ()
        self._waiting_state: dict[str, np.ndarray] | None = None

    # ------------------------------------------------------------------ learning rate

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step: a variable, or what the schedule or function gives."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        value = rates.checked(value)
        is_number = isinstance(value, float)
        current = self._learning_rate
        if is_number and isinstance(current, keras.Variable):
            current.assign(value)
        else:
            if isinstance(current, keras.Variable):
                self._untrack_variable(current)
            self._replace_rate(self._rate_variable(value) if is_number else value)
        self._given_rate = value if is_number else None

    @property
    def lr(self) -> Any:
        """The same as `learning_rate`."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value

    def _rate_variable(self, value: float, dtype: str | None = None) -> Any:
        with keras.name_scope(self.name, caller=self):
            return keras.Variable(
                value,
                name="learning_rate",
                dtype=dtype or keras.config.floatx(),
                trainable=False,
                aggregation="only_first_replica",
            )

    def _replace_rate(self, rate: Any) -> None:
        locked = self._tracker.locked
        self._tracker.unlock()
        self._learning_rate = rate
        if isinstance(rate, keras.Variable):
            # Second among the variables, where Keras has it.
            self._variables.insert(1, self._variables.pop())
        if locked:
            self._tracker.lock()

    def _get_current_learning_rate(self) -> Any:
        if rates.is_schedule(self._learning_rate):
            return self._learning_rate(self._iterations)
        if isinstance(self._learning_rate, keras.Variable):
            return self._learning_rate
        return rates.answer(self._learning_rate)

    # ------------------------------------------------------------------ variables

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state for `variables`, the parameters that will be updated.

        Args:
            variables: Keras variables of a floating or complex dtype, each once.

        Raises:
            ValueError: A variable occurs twice or is not of such a dtype, `epsilon` is too small
                for it, or the optimizer was built on other variables.
        """
        variables = list(variables)
        if self.built:
            self._refuse_other_variables(variables)
            return
        self._refuse_unusable(variables)
        if isinstance(self._learning_rate, keras.Variable) and self._given_rate is not None:
            widest = {precision.state_dtype(precision.dtype_of(v)) for v in variables}
            if "float64" in widest and precision.dtype_of(self._learning_rate) != "float64":
                current = self._learning_rate
                self._untrack_variable(current)
                self._replace_rate(self._rate_variable(self._given_rate, "float64"))
        super().build(variables)
        self.built = False
        self._accumulated_grads, self._accumulated_delta_vars = self.add_optimizer_variables(
            variables, ["accumulated_grad", "accumulated_delta_var"]
        )
        self._update_counter = self._window = self._window_has_gradient = None
        self._skipped_counter = self._loss_scale = self._finite_calls = None
        if self.gradient_accumulation_steps or self._skips:
            self._update_counter = self._counter("update")
        if self.gradient_accumulation_steps:
            self._window = self._counter("window")
            self._window_has_gradient = self._counter("window_has_gradient", (len(variables),))
        if self._skips:
            self._skipped_counter = self._counter("skipped")
        if self.loss_scale_factor == "dynamic":
            self._loss_scale = self.add_variable(
                (), keras.initializers.Constant(_FIRST_LOSS_SCALE), "float32", name="loss_scale"
            )
            self._finite_calls = self._counter("finite_calls")
        self.built = True
        if self._waiting_state is not None:
            waiting, self._waiting_state = self._waiting_state, None
            self._take(waiting)

    def _counter(self, name: str, shape: tuple[int, ...] = ()) -> Any:
        return self.add_variable(
            shape, "zeros", "int32", aggregation="only_first_replica", name=name
        )

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Make a state variable for a parameter; an average starts at the parameter's value."""
        if name == "average":

            def initializer(shape: Any, dtype: Any = None) -> Any:
                value = ops.convert_to_tensor(reference_variable)
                # A copy: compiled training on JAX gives buffers away, each only once.
                return ops.copy(precision.to_state(value, precision.dtype_of(reference_variable)))

        return super().add_variable_from_reference(
            reference_variable, name=name, initializer=initializer
        )

    def add_variable(
        self,
        shape: tuple[int, ...],
        initializer: Any = "zeros",
        dtype: str | None = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Any:
        """Make a state variable, in the dtype and shape that the state of `dtype` has."""
        if dtype is not None:
            dtype = keras.backend.standardize_dtype(dtype)
            if precision.is_complex(dtype):
                shape, layout = (*shape, 2), None
            dtype = precision.state_dtype(dtype)
        return super().add_variable(shape, initializer, dtype, aggregation, layout, name)

    def _refuse_unusable(self, variables: list[Any]) -> None:
        keys = [self._var_key(variable) for variable in variables]
        for variable, key in zip(variables, keys, strict=True):
            dtype = precision.dtype_of(variable)
            if keys.count(key) > 1:
                raise ValueError(f"the variable {_named(variable)} is given more than once")
            if not ("float" in dtype or "complex" in dtype):
                raise ValueError(
                    f"the variable {_named(variable)} must be of a floating dtype; "
                    f"received {dtype}"
                )
            if self._overwrite_variable_with_gradient(variable):
                continue
            smallest = precision.smallest_normal(dtype)
            if self.epsilon < smallest:
                raise ValueError(
                    f"`epsilon` must be at least {smallest:.3g} for the variable "
                    f"{_named(variable)} of dtype {dtype}; received {self.epsilon}"
                )

    def _refuse_other_variables(self, variables: list[Any]) -> None:
        known = self._trainable_variables_indices
        if [known.get(self._var_key(v)) for v in variables] != list(range(len(known))):
            raise ValueError(
                "This optimizer belongs to other variables, and its state is about them: make a "
                "new optimizer for these, for example with "
                "adadelta.Adadelta.from_config(optimizer.get_config())"
            )

    def _overwrite_variable_with_gradient(self, variable: Any) -> bool:
        return bool(getattr(variable, "overwrite_with_gradient", False))

    @property
    def iterations(self) -> Any:
        """How many updates there were: calls, less those that only collected or were skipped."""
        if not self.built or self._update_counter is None:
            return super().iterations
        return self._update_counter

    @property
    def skipped(self) -> int:
        """How many calls were skipped for a gradient that was NaN or infinite."""
        counter = self._skipped_counter if self.built else None
        return 0 if counter is None else int(counter.numpy())

    @property
    def _skips(self) -> bool:
        return self.skip_nonfinite or self.loss_scale_factor == "dynamic"

    # ------------------------------------------------------------------ one step

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
            variables = self._variables_for(gradients, trainable_variables)
            self._step(gradients, variables)

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
            keys = [self._var_key(variable) for variable in variables]
            for variable, key in zip(variables, keys, strict=True):
                if keys.count(key) > 1:
                    raise ValueError(f"the variable {_named(variable)} is given more than once")
        else:
            self.build(variables)
        missing = [_named(v) for g, v in zip(gradients, variables, strict=True) if g is None]
        if missing:
            warnings.warn(
                f"Gradients do not exist for variables {missing} when minimizing the loss. If "
                "using `model.compile()`, did you forget to provide a `loss` argument?",
                stacklevel=5,
            )
        return variables

    def _step(self, gradients: list[Any], variables: list[Any]) -> None:
        present: dict[int, Any] = {}
        overwriting: dict[int, Any] = {}
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                continue
            index = self._get_variable_index(variable)
            if self._overwrite_variable_with_gradient(variable):
                overwriting[index] = gradient
            else:
                present[index] = self._unscaled(gradient, variable)
        rate = self._get_current_learning_rate()

        def proceed() -> None:
            if self.gradient_accumulation_steps:
                self._collect(present, overwriting, rate)
            else:
                for index, gradient in overwriting.items():
                    self._trainable_variables[index].assign(gradient)
                self._update(present, rate)

        if self._skips:
            finite = self._all_finite([*present.values(), *overwriting.values()])
            self._branch(finite, lambda: self._go_on(proceed), self._skip)
        else:
            proceed()
        _count(self._iterations)

    def _branch(self, predicate: Any, if_true: Any, if_false: Any) -> None:
        branch(predicate, if_true, if_false, [*self._trainable_variables, *self.variables])

    def _unscaled(self, gradient: Any, variable: Any) -> Any:
        dtype = precision.dtype_of(variable)
        gradient = sparse.summed(gradient)
        gradient = sparse.map_values(lambda value: precision.to_state(value, dtype), gradient)
        scale = self.loss_scale_factor
        if scale is None:
            return gradient
        scale = self._loss_scale if scale == "dynamic" else scale
        return sparse.map_values(
            lambda value: value / ops.cast(scale, precision.dtype_of(value)), gradient
        )

    def _collect(self, present: dict[int, Any], overwriting: dict[int, Any], rate: Any) -> None:
        steps = self.gradient_accumulation_steps

        def collect() -> None:
            for index, gradient in present.items():
                window_sum = self._accumulated_gradients[index]
                self.assign_add(window_sum, gradient)
            for index, gradient in overwriting.items():
                window_sum = self._accumulated_gradients[index]
                self.assign(window_sum, ops.maximum(gradient, window_sum))
            came = np.zeros(len(self._trainable_variables), "int32")
            came[[*present, *overwriting]] = 1
            self._window_has_gradient.assign(ops.maximum(self._window_has_gradient, came))
            _count(self._window)

        def close() -> None:
            self._close_window(present, overwriting, rate, steps)

        self._branch(ops.equal(ops.convert_to_tensor(self._window), steps - 1), close, collect)

    def _close_window(
        self, present: dict[int, Any], overwriting: dict[int, Any], rate: Any, steps: Any
    ) -> None:
        means = {}
        came = {}
        for index, variable in enumerate(self._trainable_variables):
            window_sum = ops.convert_to_tensor(self._accumulated_gradients[index])
            if index in overwriting:
                self._trainable_variables[index].assign(
                    ops.maximum(overwriting[index], window_sum)
                )
            elif not self._overwrite_variable_with_gradient(variable):
                if index in present:
                    window_sum = window_sum + sparse.dense(present[index], window_sum.shape)
                else:
                    came[index] = ops.convert_to_tensor(self._window_has_gradient)[index] > 0
                means[index] = window_sum / ops.cast(steps, precision.dtype_of(window_sum))
        self._update(means, rate, came)
        for counter in (*self._accumulated_gradients, self._window_has_gradient, self._window):
            counter.assign(ops.zeros(counter.shape, counter.dtype))

    def _update(
        self, gradients: dict[int, Any], rate: Any, came: dict[int, Any] | None = None
    ) -> None:
        """Update the variables of these indices; those in `came` only where it is true."""
        came = came or {}
        if self.maximize:
            gradients = {
                index: sparse.map_values(ops.negative, gradient)
                for index, gradient in gradients.items()
            }
        gradients = dict(
            zip(gradients, self._clip_gradients(list(gradients.values())), strict=True)
        )

        def update(indices: list[int]) -> None:
            variables = [self._trainable_variables[index] for index in indices]
            if variables:
                self._backend_update_step([gradients[index] for index in indices], variables, rate)
            for variable in variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))

        update([index for index in gradients if index not in came])
        for index, predicate in came.items():
            self._branch(predicate, lambda index=index: update([index]), lambda: None)
        if self.use_ema:
            self._update_average()
        if self._update_counter is not None:
            _count(self._update_counter)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        limits = (self.clipnorm, self.clipvalue, self.global_clipnorm)
        if all(limit is None or limit == math.inf for limit in limits):
            return grads
        values = [ops.convert_to_tensor(sparse.values_of(gradient)) for gradient in grads]
        if self.global_clipnorm is not None:
            values = clipping.by_global_norm(values, self.global_clipnorm, ops)
        elif self.clipnorm is not None:
            values = [clipping.by_norm(value, self.clipnorm, ops) for value in values]
        else:
            values = [clipping.by_value(value, self.clipvalue, ops) for value in values]
        return [
            sparse.map_values(lambda _, value=value: value, gradient)
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
        rate = ops.cast(learning_rate, precision.state_dtype(dtype))
        decay = self.weight_decay if self._use_weight_decay(variable) else None
        # Half precision is rounded once, after the subtraction, which only the dense step does.
        is_exact = dtype == precision.state_dtype(dtype)
        if sparse.is_rows(gradient) and not decay and is_exact:
            self._update_rows(gradient, variable, rate)
            return
        gradient = sparse.dense(gradient, square_avg.shape)
        value = precision.to_state(ops.convert_to_tensor(variable), dtype)
        if decay and self.decoupled_weight_decay:
            value_decayed = value - value * (decay * rate)
        elif decay:
            gradient, value_decayed = gradient + decay * value, value
        else:
            value_decayed = value
        step, new_square_avg, new_acc_delta = rule.update(
            self._saturated(gradient, dtype),
            ops.convert_to_tensor(square_avg),
            ops.convert_to_tensor(acc_delta),
            self.rho,
            self.epsilon,
            ops.sqrt,
        )
        self.assign(square_avg, new_square_avg)
        self.assign(acc_delta, new_acc_delta)
        self.assign(variable, precision.from_state(value_decayed - rate * step, dtype))

    def _update_rows(self, gradient: Any, variable: Any, rate: Any) -> None:
        """Apply the rule to the rows that have a gradient; in the others the averages decay."""
        index = self._get_variable_index(variable)
        square_avg, acc_delta = self._accumulated_grads[index], self._accumulated_delta_vars[index]
        dtype = precision.dtype_of(variable)
        averages = [ops.convert_to_tensor(average) for average in (square_avg, acc_delta)]
        step, *new_rows = rule.update(
            self._saturated(sparse.values_of(gradient), dtype),
            *(sparse.take(average, gradient) for average in averages),
            self.rho,
            self.epsilon,
            ops.sqrt,
        )
        for variable_of, average, rows in zip(
            (square_avg, acc_delta), averages, new_rows, strict=True
        ):
            self.assign(variable_of, sparse.put(self.rho * average, gradient, rows))
        self.assign_sub(variable, sparse.with_values(gradient, rate * step))

    def _saturated(self, gradient: Any, dtype: str) -> Any:
        limit = rule.largest_gradient(precision.largest_number(dtype))
        # The difference is 0 for every finite gradient, and keeps NaN and infinity visible.
        return ops.clip(gradient, -limit, limit) + (gradient - gradient)

    def _all_finite(self, gradients: list[Any]) -> Any:
        finite = [ops.all(ops.isfinite(sparse.values_of(gradient))) for gradient in gradients]
        return ops.all(ops.stack(finite))

    def _go_on(self, proceed: Any) -> None:
        proceed()
        if self.loss_scale_factor == "dynamic":
            calls = ops.convert_to_tensor(self._finite_calls) + 1
            grow = calls >= _LOSS_SCALE_GROWTH_CALLS
            scale = ops.convert_to_tensor(self._loss_scale)
            larger = ops.minimum(scale * 2.0, _LARGEST_LOSS_SCALE)
            self._loss_scale.assign(ops.where(grow, larger, scale))
            self._finite_calls.assign(ops.where(grow, ops.zeros_like(calls), calls))

    def _skip(self) -> None:
        _count(self._skipped_counter)
        if self.loss_scale_factor == "dynamic":
            scale = ops.convert_to_tensor(self._loss_scale)
            self._loss_scale.assign(ops.maximum(scale * 0.5, 1.0))
            self._finite_calls.assign(ops.zeros((), "int32"))

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss times the loss scale, of which gradients are to be taken."""
        if self.loss_scale_factor != "dynamic":
            return super().scale_loss(loss)
        scale = _FIRST_LOSS_SCALE if not self.built else ops.convert_to_tensor(self._loss_scale)
        return loss * ops.cast(scale, precision.dtype_of(ops.convert_to_tensor(loss)))

    # ------------------------------------------------------------------ weight decay

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Name variables that are not decayed; to be called before the optimizer is built.

        Args:
            var_list: Variables.
            var_names: Strings: a variable is excluded when one of them occurs in its path, such
                as "bias" in "sequential/dense/bias".

        Raises:
            ValueError: The optimizer is built already.
            TypeError: `var_names` is not a list of strings.
        """
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay()` can only be called before the optimizer is built."
            )
        words = list(var_names or [])
        if isinstance(var_names, str) or not all(isinstance(word, str) and word for word in words):
            raise TypeError(
                hyperparameters.refusal("var_names", "a list of strings, or None", var_names)
            )
        variables = list(var_list or [])
        self._excluded_keys = frozenset(self._var_key(variable) for variable in variables)
        self._excluded_paths = tuple(_named(variable) for variable in variables)
        self._excluded_words = tuple(words)

    def _use_weight_decay(self, variable: Any) -> bool:
        if self.weight_decay is None:
            return False
        # On TensorFlow the variable may be the one inside the Keras variable.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        path = _named(variable)
        return not (
            self._var_key(variable) in self._excluded_keys
            or path in self._excluded_loaded_paths
            or any(word in path for word in self._excluded_words)
        )

    # ------------------------------------------------------------------ moving average

    def _update_average(self) -> None:
        """Move the average after an update; the first one sets it to the updated weights."""
        updates = ops.convert_to_tensor(self.iterations)
        first = ops.equal(updates, 0)
        pairs = [
            (variable, average)
            for variable, average in zip(
                self._trainable_variables, self._model_variables_moving_average, strict=True
            )
            if average is not None
        ]
        for variable, average in pairs:
            dtype = precision.dtype_of(variable)
            value = precision.to_state(ops.convert_to_tensor(variable), dtype)
            old = ops.convert_to_tensor(average)
            new = self.ema_momentum * old + (1 - self.ema_momentum) * value
            average.assign(ops.where(first, value, new))
        if self.ema_overwrite_frequency is not None:
            due = ops.equal((updates + 1) % self.ema_overwrite_frequency, 0)
            self._branch(due, lambda: self._overwrite(pairs), lambda: None)

    def _overwrite(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        for variable, average in pairs:
            value = ops.convert_to_tensor(average)
            # A copy: compiled training on JAX gives buffers away, each only once.
            variable.assign(ops.copy(precision.from_state(value, precision.dtype_of(variable))))

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
        self._check_variables_are_known(variables)
        with _without_recording(), keras.name_scope(self.name, caller=self):
            if self._window is not None:
                collected = int(ops.convert_to_numpy(self._window))
                if collected:
                    self._close_window({}, {}, self._get_current_learning_rate(), collected)
            if self.use_ema and int(ops.convert_to_numpy(self.iterations)):
                averages = self._model_variables_moving_average
                pairs = [(v, averages[self._get_variable_index(v)]) for v in variables]
                self._overwrite((v, average) for v, average in pairs if average is not None)

    # ------------------------------------------------------------------ state and configuration

    def _named_state(self) -> dict[str, Any]:
        """Every state variable by name, in the order of `variables`."""
        state = {"iteration": self._iterations}
        if isinstance(self._learning_rate, keras.Variable):
            state["learning_rate"] = self._learning_rate
        if not self.built:
            return state
        names = [
            name.replace("/", "|") for name in saving.parameter_names(self._trainable_variables)
        ]
        slots = []
        if self.use_ema:
            slots.append({"average": self._model_variables_moving_average})
        if self.gradient_accumulation_steps:
            slots.append({"window_sum": self._accumulated_gradients})
        slots.append(
            {"square_avg": self._accumulated_grads, "acc_delta": self._accumulated_delta_vars}
        )
        for group in slots:
            for index, name in enumerate(names):
                for slot, variables in group.items():
                    if variables[index] is not None:
                        state[f"{name}|{slot}"] = variables[index]
        for name in saving.COUNTERS:
            variable = getattr(self, _COUNTER_ATTRIBUTES[name])
            if variable is not None:
                state[name] = variable
        return state

    def get_weights(self) -> list[np.ndarray]:
        """Return the values of `variables`, as `set_weights()` takes them."""
        return [ops.convert_to_numpy(variable) for variable in self.variables]

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
                "Call build(variables) first."
            )
        weights = list(weights)
        if len(weights) != len(self.variables):
            raise ValueError(
                f"`weights` must be a list of {len(self.variables)} arrays, one for each of "
                f"`variables`; received {len(weights)}"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            if tuple(variable.shape) != tuple(np.shape(weight)):
                raise ValueError(
                    f"the weight for {variable.path} must have shape {tuple(variable.shape)}; "
                    f"received {tuple(np.shape(weight))}"
                )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file, by name."""
        for name, variable in self._named_state().items():
            store[name] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Take the state from a Keras file, ours or one of `keras.optimizers.Adadelta`."""
        saved = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        if not self.built:
            self._waiting_state = saved
        else:
            self._take(saved)

    def _take(self, saved: dict[str, np.ndarray]) -> None:
        state = self._named_state()
        if saved and all(name.isdigit() for name in saved):
            if len(saved) > 2:
                steps = self.gradient_accumulation_steps or 1
                saved = saving.from_keras(saved, state, steps)
            else:
                saved = dict(zip(("iteration", "learning_rate"), saved.values(), strict=False))
        if not set(saved) <= {"iteration", "learning_rate"}:
            saved = saving.matched(saved, state)
        for name, array in saved.items():
            if name in state:
                state[name].assign(array)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again, in plain Python values."""
        config = super().get_config()
        rate = self._learning_rate
        if isinstance(rate, keras.Variable):
            now = float(ops.convert_to_numpy(rate))
            given = self._given_rate
            is_given = given is not None and np.asarray(given, precision.dtype_of(rate)) == now
            config["learning_rate"] = given if is_given else now
        config.update({name: getattr(self, name) for name in _OWN_ARGUMENTS})
        if self._excluded_paths or self._excluded_words:
            config["exclude_from_weight_decay"] = {
                "paths": list(self._excluded_paths),
                "words": list(self._excluded_words),
            }
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Adadelta":
        """Make an optimizer from what `get_config()` returned."""
        config = dict(config)
        excluded = config.pop("exclude_from_weight_decay", None) or {}
        optimizer = super().from_config(config, custom_objects=custom_objects)
        optimizer._excluded_paths = tuple(excluded.get("paths", ()))
        optimizer._excluded_loaded_paths = optimizer._excluded_paths
        optimizer._excluded_words = tuple(excluded.get("words", ()))
        return optimizer


# The name by which users, saved models and R's S3 classes know it.
Adadelta.__module__ = "adadelta"
