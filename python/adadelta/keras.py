"""Adadelta for Keras 3, on the JAX, TensorFlow and torch backends: the core of this package."""

import functools
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from adadelta._core.backend import keras_needed_by

with keras_needed_by("adadelta.Adadelta"):
    import keras
    from keras import ops

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.arguments import checked
from adadelta._core.engine import no_kernel
from adadelta._core.messages import Message
from adadelta._core.precision import is_complex, state_dtype, without_noise
from adadelta._core.step import Options
from adadelta._core.weight_decay import Exclusions
from adadelta._keras import exchange, jax_trainer, loss_scale, precision, saving
from adadelta._keras import learning_rate as rates
from adadelta._keras import summary as summaries
from adadelta._keras.engines import (
    Engine,
    apply_uncompiled,
    eagerly,
    has_several_workers,
    is_compiling,
    outside_programs,
    without_recording,
)
from adadelta._keras.gradients import fitting
from adadelta._keras.known import number_of
from adadelta._keras.state import State, counters, path_of
from adadelta._keras.step import Steps, is_overwritten
from adadelta._kernels import report
from adadelta._state import keras_file
from adadelta._state.summary import Summary

__all__ = ["Adadelta"]


_HOST = hyperparameters.CONVENTIONS["keras"]
# The arguments that Keras' base class does not store.
_OWN = ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite", "fused")
# The attributes that are checked as the arguments are.
_CHECKED = set(hyperparameters.ARGUMENTS) - {"learning_rate", "name"}


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
    While gradients are being accumulated, and when a step is skipped, the weights, the averages
    and the EMA stay as they are.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. A complex
    parameter is treated as a pair of real ones.

    A sparse gradient, such as that of an embedding on TensorFlow, gives the same result as a dense
    one, and the step computes only the rows that have a gradient. The averages of the other rows
    decay when they are used next, and when the state is read, saved, copied or loaded. A variable
    that you took from `variables` before a step is behind until you ask for `variables` again; ask
    before you read or set it. All rows are computed with `weight_decay`, `use_ema`,
    `gradient_accumulation_steps` or a constraint; on TensorFlow also with `fused=False`, under a
    distribution strategy, and on a GPU. `adadelta.kernel_info(optimizer)` shows why.

    On several devices, with `keras.distribution` on JAX, state is sharded like its variable. Norms,
    skipped calls and the loss scale are computed over all devices. Set the distribution before you
    create the optimizer and the model. A state or a `.keras` file can be loaded into any other
    layout.

    Args:
        learning_rate: A finite number of at least 0, a scalar float variable, a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments that
            returns the rate. 1.0 is the paper's rate and what most models need. The default,
            0.001, is that of `keras.optimizers.Adadelta`, so that either class can take the place
            of the other in a program.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        epsilon: Added inside both square roots, greater than 0. The first step is about
            `learning_rate * sqrt(epsilon / (1 - rho))` long, unless the gradient is smaller than
            that root.
        weight_decay: `None`, or a number of at least 0: each update subtracts `learning_rate *
            weight_decay * weight` from the weight.
        clipnorm: `None`, or a number greater than 0: the gradient of a variable is scaled down to
            this norm where its norm is larger.
        clipvalue: `None`, or a number greater than 0: each element of a gradient is limited to
            this magnitude.
        global_clipnorm: `None`, or a number greater than 0: all gradients are scaled down by the
            same factor where their joint norm is larger. Give at most one of the three. Infinity
            means no clipping.
        use_ema: Whether to keep an exponential moving average (EMA) of the weights. It replaces
            the weights when `fit()` ends or `finalize_variable_values()` is called.
        ema_momentum: The momentum of the EMA, from 0 to 1. With 0.99 it averages over about 100
            updates.
        ema_overwrite_frequency: `None`, or a whole number of at least 1: the EMA replaces the
            weights each time this many updates were made.
        loss_scale_factor: `None`, or a number greater than 0 by which the loss is multiplied and
            the gradients are divided, or `"dynamic"` for a factor that adjusts itself to half
            precision.
        gradient_accumulation_steps: `None`, or how many calls to average the gradients over before
            the weights are updated. All calls have the same weight, whatever the size of their
            batch. Learning rate schedules count calls, `ema_overwrite_frequency` counts updates.
            As in Keras, the gradients are added up first, so their sum must be finite too: at most
            3.4e38 in float32.
        name: The optimizer's name; `None` for "adadelta", numbered where that is taken.
        maximize: Whether to maximize the loss instead of minimizing it.
        decoupled_weight_decay: `True` subtracts the decay from the weights, as Keras does. `False`
            adds an L2 penalty, `weight_decay * weight`, to the gradients, as torch and optax do.
        skip_nonfinite: Whether to skip a step in which any gradient is NaN or infinite, and count
            it in `skipped`. With `False`, such a gradient makes weights NaN, as in Keras.
        fused: `None` uses a compiled kernel, which makes the step in one pass over memory, for the
            variables that it supports and where it is faster. `True` uses it for all variables,
            and a step raises an error with the reason where it can't. `False` never uses it:
            choose this if you export a TensorFlow function that contains a training step. The
            results are the same up to rounding. `adadelta.kernel_info()` shows which kernels work
            on this machine, and `adadelta.kernel_info(optimizer)` what makes the step of each
            variable, and why.

    Attributes:
        learning_rate: The current rate; can be set to any of the above at any time.
        iterations: The number of updates so far.
        skipped: The number of skipped steps.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it accepts and what was given. Nothing has changed then.
        RuntimeError: Raised by a step if `fused` is True and the kernel does not support a
            gradient or a variable. Nothing has changed then.

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

    # The module by which adadelta.state exports and imports this optimizer's state.
    state_exchange = "adadelta._keras.exchange"

    built: bool
    _learning_rate: Any
    # Set when the optimizer is built.
    _engine: Any
    _state: State
    _steps: Steps
    # Its shape, the number of changes, makes JAX compile again for another kind of rate.
    _rate_marker: Any = None
    _rate_changes = 0

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
        loss_scale_factor: float | str | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        skip_nonfinite: bool = False,
        fused: bool | None = None,
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
                "fused": fused,
            }.items()
        }
        hyperparameters.check_clips(arguments)
        if arguments["gradient_accumulation_steps"] == 1:
            arguments["gradient_accumulation_steps"] = None
        own = {name: arguments.pop(name) for name in _OWN}
        learning_rate = rates.checked(learning_rate)
        is_variable = isinstance(learning_rate, keras.Variable)
        super().__init__(learning_rate=0.0 if is_variable else learning_rate, **arguments)
        for argument, value in own.items():
            setattr(self, argument, value)
        given = learning_rate if isinstance(learning_rate, float) else None
        self._rate = rates.Rate(self._learning_rate, given)
        if is_variable:
            self.learning_rate = learning_rate
            self._rate.was_set = False
        self._exclusions = Exclusions()
        self._saved = saving.Saved()
        if has_several_workers():
            # fit() fails before it calls the optimizer, so warn when the optimizer is created.
            warnings.warn(
                "Keras' fit() fails with several workers of a MultiWorkerMirroredStrategy, "
                "whatever the optimizer. Train by strategy.run(), with adadelta.tf_keras, or on "
                "JAX with keras.distribution.",
                stacklevel=2,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("learning_rate", "lr"):
            value = rates.checked(value)
        elif name in _CHECKED:
            value = checked(self, name, value)
        super().__setattr__(name, value)

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step: a variable, or what the schedule or function returns.

        `float(optimizer.learning_rate)` is its value, usually in single precision.
        """
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        value = rates.checked(value)
        rate = self._rate
        is_number = isinstance(value, float)
        if is_number and rate.is_number:
            rate.assign(value)
        else:
            if rate.is_in_a_graph:
                text = hyperparameters.with_received(
                    "`learning_rate` can't be replaced by another kind of rate once TensorFlow "
                    "has compiled the training step; set it before training, or compile with "
                    "run_eagerly=True",
                    value,
                )
                raise ValueError(Message(text, "rate_compiled", received=value))
            if rate.is_number:
                self._untrack_variable(rate.value)
            self._replace_rate(self._rate_variable(value) if is_number else value)
            rate.given = value if is_number else None
        rate.was_set = True

    @property
    def lr(self) -> Any:
        """The same as `learning_rate`."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value

    def _rate_variable(self, value: float, dtype: str | None = None) -> Any:
        with interrupts.Deferred(), keras.name_scope(self.name, caller=self):
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
        had_variable = self._rate.is_number
        # Keras looks for the rate under this name.
        self._learning_rate = self._rate.value = rate
        if self._rate.is_number:
            # Move it to second place among the variables, as in Keras.
            self._variables.insert(1, self._variables.pop())
        elif not had_variable:
            self._make_jax_compile_again()
        if locked:
            self._tracker.lock()

    def _make_jax_compile_again(self) -> None:
        """Change the variables, so that JAX compiles the step again."""
        if keras.config.backend() != "jax":
            return
        if self._rate_marker is not None:
            self._untrack_variable(self._rate_marker)
        self._rate_changes += 1
        self._rate_marker = keras.Variable(
            np.zeros(self._rate_changes, "int32"), trainable=False, name="rate_changes"
        )

    def _get_current_learning_rate(self) -> Any:
        return self._rate.now(self._iterations)

    @property
    def variables(self) -> list[Any]:
        """The state variables in Keras' order, followed by those that only this class has."""
        if keras.config.backend() == "jax":
            self._refuse_trainer(*jax_trainer.reading_trainer(self))
        self._catch_up()
        return list(super().variables)

    def _catch_up(self) -> None:
        """Let rows that had no gradient catch up, before the state is read or changed."""
        if self.built:
            self._state.catch_up()

    def _trackable_children(self, *arguments: Any, **options: Any) -> Any:
        """Return what a checkpoint of TensorFlow saves or restores."""
        self._catch_up()
        return super()._trackable_children(*arguments, **options)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the state for `variables`, the parameters that will be updated.

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
        with interrupts.Deferred(), outside_programs():
            self._build(variables)

    def _build(self, variables: list[Any]) -> None:
        self._exclusions.meet([path_of(variable) for variable in variables])
        self._engine = Engine(self.fused)
        self._refuse_without_kernel(variables)
        options = Options.of(self)
        self._settle_rate({state_dtype(precision.dtype_of(variable)) for variable in variables})
        super().build(variables)
        self.built = False
        self._accumulated_grads, self._accumulated_delta_vars = self.add_optimizer_variables(
            variables, ["accumulated_grad", "accumulated_delta_var"]
        )
        is_dynamic = self.loss_scale_factor == "dynamic"
        accumulates = self.gradient_accumulation_steps is not None
        self._state = State(
            self._trainable_variables,
            self._accumulated_grads,
            self._accumulated_delta_vars,
            self._model_variables_moving_average if self.use_ema else None,
            self._accumulated_gradients if accumulates else None,
            self._iterations,
            **counters(
                self.add_variable,
                len(variables),
                accumulates,
                self.skip_nonfinite or is_dynamic,
                is_dynamic,
            ),
            catch_up=self._engine.catch_up,
        )
        self.built = True
        self._steps = Steps(
            self._engine,
            self._state,
            self._decays(),
            options,
            self._rate,
            self.name,
            self.gradient_accumulation_steps,
            self.loss_scale_factor,
            self.ema_overwrite_frequency,
        )
        self._saved.take_waiting(self._parts())

    def _settle_rate(self, dtypes: set[str]) -> None:
        rate = self._rate
        if rate.is_number and rate.given is not None:
            if "float64" in dtypes and precision.dtype_of(rate.value) != "float64":
                self._untrack_variable(rate.value)
                self._replace_rate(self._rate_variable(rate.given, "float64"))
            elif rate.was_set and "float64" not in dtypes:
                rate.given = without_noise(rate.given)
        rate.is_settled = True

    def _held(self) -> State | None:
        return self._state if self.built else None

    def _parts(self) -> exchange.Parts:
        return exchange.Parts(
            step=self._iterations,
            rate=self._rate,
            set_rate=functools.partial(setattr, self, "learning_rate"),
            built=self._held(),
            variables=lambda: self.variables,
            accumulation_steps=self.gradient_accumulation_steps,
            rename_exclusions=self._rename_exclusions,
            config_but_rate=self._config_but_rate,
        )

    def _refuse_trainer(self, model: Any, shares: bool) -> None:
        """Raise if training on JAX has other variables, lacks a kernel, or can't call the rate."""
        if model is None:
            return
        if self.built:
            self._refuse_other_variables(list(model.trainable_variables), shares)
        if self.fused and not jax_trainer.has_taken(model):
            # Before the optimizer is built there is nothing to report.
            for served in self._kernel_report():
                if served.reason is not None:
                    raise no_kernel(served.reason)
        if self._rate.callable is not None and model.jit_compile and not model.run_eagerly:
            self._rate.callable.refuse_main_thread()

    def _decays(self) -> list[float]:
        """Return the weight decay of each variable."""
        decay = self.weight_decay or 0.0
        return [
            decay if self._use_weight_decay(variable) else 0.0
            for variable in self._trainable_variables
        ]

    def _rename_exclusions(self, paths: list[tuple[str, str]]) -> None:
        if self._exclusions.rename(paths):
            self._steps.rows.decays = self._decays()

    def _use_weight_decay(self, variable: Any) -> bool:
        # On TensorFlow this may be the `tf.Variable` inside the Keras variable.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        path = path_of(variable)
        is_excluded = self._exclusions.have(self._var_key(variable), path, path.__contains__)
        return self.weight_decay is not None and not is_excluded

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Create a state variable for a parameter. An EMA starts at the parameter's value."""
        if name == "average":

            def initializer(shape: Any, dtype: Any = None) -> Any:
                # Inside compiled training the value would be a symbolic tensor, from which XLA
                # can't create a variable.
                with eagerly():
                    # A copy: compiled training on JAX can't donate a buffer twice.
                    return ops.copy(precision.value_in_state(reference_variable))

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
        """Create a state variable with the dtype and shape of state for a parameter of `dtype`."""
        if dtype is not None:
            dtype = keras.backend.standardize_dtype(dtype)
            if is_complex(dtype):
                shape, layout = (*shape, 2), None
            dtype = state_dtype(dtype)
        return super().add_variable(shape, initializer, dtype, aggregation, layout, name)

    def _refuse_unusable(self, variables: list[Any]) -> None:
        parameters.refuse_repeated(variables, self._var_key, path_of)
        for variable in variables:
            # A variable that is overwritten has no averages that must hold these numbers.
            overwritten = is_overwritten(variable)
            numbers = {} if overwritten else parameters.numbers_of(self)
            parameters.check(path_of(variable), precision.dtype_of(variable), numbers)

    def _refuse_without_kernel(self, variables: list[Any]) -> None:
        if not self.fused:
            return
        taken = [variable for variable in variables if not is_overwritten(variable)]
        dtypes = sorted({precision.dtype_of(variable) for variable in taken})
        reason = next(filter(None, map(self._engine.reason_against_dtype, dtypes)), None)
        if reason is not None:
            raise ValueError(
                f"`fused` can't be {hyperparameters.received(True)} here: {reason}; None uses "
                "kernels where they can be used"
            )

    def _refuse_other_variables(self, variables: list[Any], shares: bool = False) -> None:
        """Raise unless these are, or with `shares` include, the optimizer's variables in order."""
        known = self._trainable_variables_indices
        places = [known.get(self._var_key(v)) for v in variables]
        if shares:
            places = sorted(place for place in places if place is not None)
        if places != list(range(len(known))):
            raise ValueError(_other_variables())

    def _check_variables_are_known(self, variables: Iterable[Any]) -> None:
        # Keras' message contains all values of the variable.
        for variable in variables:
            if self._var_key(variable) not in self._trainable_variables_indices:
                name = hyperparameters.shortened(path_of(variable), 40)
                raise ValueError(f"Unknown variable: {name}. {_other_variables()}")

    @property
    def iterations(self) -> Any:
        """The number of updates: calls that are skipped or only accumulate do not count."""
        if not self.built or self._state.update is None:
            return super().iterations
        return self._state.update

    @property
    def skipped(self) -> int:
        """The number of calls that were skipped because a gradient was NaN or infinite."""
        counter = self._state.skipped if self.built else None
        return 0 if counter is None else int(counter.numpy())

    def get_weights(self) -> list[np.ndarray]:
        """Return the values of `variables`, in the form that `set_weights()` accepts."""
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
            raise parameters.no_weights_yet()
        weights = list(weights)
        expected = [(variable.path, tuple(variable.shape)) for variable in self.variables]
        parameters.check_weights(map(np.shape, weights), expected, "variables")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def apply(self, grads: Iterable[Any], trainable_variables: Any = None) -> None:
        """Update the variables by one step.

        Args:
            grads: A gradient for each variable, of its shape, in the same order; `None` leaves a
                variable as it is.
            trainable_variables: The variables. Required on the first call unless the optimizer is
                built; a later call may pass a subset.

        Raises:
            ValueError: The gradients do not fit the variables. Nothing has changed then.
            RuntimeError: `fused` is True, and the kernel does not support a gradient. Nothing has
                changed then.

        """
        gradients = list(grads)
        if is_compiling():
            apply_uncompiled(self, gradients, trainable_variables)
            return
        if not gradients:
            return
        with without_recording():
            variables = None if trainable_variables is None else list(trainable_variables)
            indices = self._steps.rows.indices_again(variables, gradients) if self.built else None
            if indices is None:
                gradients, variables = self._checked(gradients, variables)
                indices = [self._get_variable_index(variable) for variable in variables]
                self._steps.rows.note(variables, gradients, indices)
                pairs = zip(indices, gradients, strict=True)
                present = [(index, gradient) for index, gradient in pairs if gradient is not None]
                indices, gradients = map(list, zip(*present, strict=True))
            self._steps.make(indices, gradients, self.assign)

    def stateless_apply(
        self, optimizer_variables: Any, grads: Iterable[Any], trainable_variables: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return the values after one step; neither the given ones nor the variables change.

        Args:
            optimizer_variables: A value for each of `variables`.
            grads: As for `apply()`.
            trainable_variables: A value for each variable that the optimizer was built on.

        Returns:
            `(trainable_variables, optimizer_variables)`: the new values.

        Raises:
            ValueError: The optimizer is not built, the number of values is wrong, the gradients do
                not fit, or the backend is TensorFlow, which has no stateless step.

        """
        if keras.config.backend() == "torch":
            # A step on torch works in place, and these may be the variables' own tensors.
            optimizer_variables, trainable_variables = (
                [ops.convert_to_tensor(value).detach().clone() for value in values]
                for values in (optimizer_variables, trainable_variables)
            )
        values, state = super().stateless_apply(optimizer_variables, grads, trainable_variables)
        if keras.config.backend() == "torch":
            # These tensors belong to the caller.
            self._engine.forget()
        return values, state

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay one variable and apply the equations to it, without the rest of a step.

        Args:
            gradient: Its gradient, which is used as it is.
            variable: The variable.
            learning_rate: The learning rate of this step.

        """
        index = self._get_variable_index(variable)
        self._steps.update_one(index, gradient, learning_rate, self.assign)

    def _kernel_report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the variables."""
        return self._steps.report() if self.built else []

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: each variable's decay is part of its step."""

    def _checked(
        self, gradients: list[Any], variables: list[Any] | None
    ) -> tuple[list[Any], list[Any]]:
        """Return the checked gradients and their variables; build the optimizer if necessary."""
        if variables is None:
            if not self.built:
                raise ValueError(
                    "the optimizer must be built before gradients can come without variables: "
                    "call build(variables) first"
                )
            variables = list(self._trainable_variables)
        gradients = fitting(gradients, variables)
        if self.built:
            self._check_variables_are_known(variables)
            parameters.refuse_repeated(variables, self._var_key, path_of)
        else:
            self.build(variables)
        missing = [path_of(v) for g, v in zip(gradients, variables, strict=True) if g is None]
        if missing:
            warnings.warn(parameters.without_gradients(missing), stacklevel=5)
        return gradients, variables

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss times the loss scale, from which to compute the gradients."""
        if self.loss_scale_factor != "dynamic":
            return super().scale_loss(loss)
        scale = precision.tensor_of(self._state.loss_scale) if self.built else loss_scale.FIRST
        return loss * ops.cast(scale, precision.dtype_of(ops.convert_to_tensor(loss)))

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Finish training: apply accumulated gradients, then replace the weights by their EMA.

        `fit()` calls this at its end. Before the first update it changes nothing.

        Args:
            var_list: The variables to set to their EMA. One that the optimizer was not built on,
                such as one that became trainable later, keeps its value; with `use_ema` a warning
                says so.

        """
        variables = list(var_list)
        if not self.built:
            return
        if self._rate.callable is not None:
            self._rate.callable.raise_failure()
        with interrupts.Deferred(), without_recording(), keras.name_scope(self.name, caller=self):
            self._steps.close_window(self.assign)
            if not self.use_ema or not number_of(self._state.updates):
                return
            places = [
                self._trainable_variables_indices.get(self._var_key(variable))
                for variable in variables
            ]
            self._steps.take_averages(variables, places)
        known = zip(variables, places, strict=True)
        unknown = [path_of(variable) for variable, place in known if place is None]
        if unknown:
            # An error here, after training, would cost the caller what fit() returns.
            warnings.warn(parameters.not_averaged(unknown, "adadelta.Adadelta"), stacklevel=2)

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file by name; before `build()`, the one that was loaded."""
        self._saved.write(self._parts(), store)

    def load_own_variables(self, store: Any) -> None:
        """Load the state from a Keras file of this class or a `.keras` file of Keras' Adadelta.

        If the optimizer is not built yet, it loads the state when it is. The file of an optimizer
        that was never built resets this one. A state that does not fit is left out with a
        `StateWarning`, and the optimizer starts anew. Numbered arrays change nothing unless the
        file says that `keras.optimizers.Adadelta` wrote them.
        """
        self._saved.read(self._parts(), store)

    def load_strictly(self, contents: keras_file.Contents, target: Any) -> None:
        """Load the state from a Keras file, or raise: see `adadelta.load_keras_adadelta()`."""
        saving.load_strictly(contents, exchange.parts_of(target))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this optimizer, as plain Python values."""
        return {"learning_rate": self._rate.config(), **self._config_but_rate()}

    def _config_but_rate(self) -> dict[str, Any]:
        names = [name for name in hyperparameters.ARGUMENTS if name != "learning_rate"]
        config = {name: getattr(self, name) for name in names}
        if self._exclusions.as_text():
            config["exclude_from_weight_decay"] = self._exclusions.config()
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Adadelta":
        """Create an optimizer from what `get_config()` returned."""
        config = dict(config)
        excluded = config.pop("exclude_from_weight_decay", None) or {}
        optimizer = super().from_config(config, custom_objects=custom_objects)
        optimizer._exclusions = Exclusions(**excluded)
        return optimizer

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from weight decay; call this before the optimizer is built.

        A later call with the same arguments changes nothing: the replicas of a `tf.distribute`
        strategy run one after the other, so all but the first find the optimizer built.

        Args:
            var_list: Variables.
            var_names: A string or a list of strings: a variable is excluded if one of them occurs
                in its path, such as "bias" in "sequential/dense/bias".

        Raises:
            ValueError: The optimizer is already built, and the arguments are not the earlier ones.
            TypeError: `var_list` is not a list of variables, or `var_names` is neither a string nor
                a list of strings.

        """
        self._exclusions.exclude(var_list, var_names, self._var_key, path_of, self.built)

    def summary(self) -> Summary:
        """Return a table of how far each variable's gradients move it, and change nothing.

        If the learning rate is a function, it is called for the rate of the next step, as the step
        itself will call it.

        Returns:
            A list, printed as a table, with a row for each variable in the optimizer's order.
            `Summary.to_dict()` returns its columns, for example for
            `pandas.DataFrame(optimizer.summary().to_dict())`. `adadelta.Summary` describes them.
            Before the optimizer is built, the list is empty and says so.

        Raises:
            RuntimeError: Compiled training on JAX holds the state. In a callback, reach the
                optimizer by `self.model.optimizer`, which brings the state back.

        Example:
            >>> import keras, adadelta
            >>> x = keras.Variable([[1.0, 2.0]], name="x")
            >>> optimizer = adadelta.Adadelta(1.0, rho=0.75, epsilon=0.25)
            >>> optimizer.apply([keras.ops.array([[1.0, 1.0]])], [x])
            >>> optimizer.summary()  # doctest: +ELLIPSIS
            Adadelta, built on 1 variable (2 numbers), after 1 update, learning rate 1
            <BLANKLINE>
            variable  shape   parameters  rate: min    25%  median    75%    max  ...
            x         (1, 2)           2      0.866  0.866   0.866  0.866  0.866  ...

        """
        return summaries.summary_of(self._held(), self._rate, self.epsilon)

    def __repr__(self) -> str:
        """Show the settings that differ from the defaults, and the number of updates.

        Example:
            >>> import adadelta
            >>> adadelta.Adadelta(1.0, weight_decay=0.01)
            <Adadelta learning_rate=1.0, weight_decay=0.01, the rest at its defaults; not yet built>

        """
        try:
            # The rate itself: the property would call a function.
            own = {"learning_rate": self._rate}
            names = hyperparameters.ARGUMENTS
            settings = {name: own.get(name) or getattr(self, name) for name in names}
            if self._exclusions.as_text():
                settings["exclude_from_weight_decay"] = self._exclusions.as_text()
            return summaries.representation(type(self).__name__, settings, self._held())
        except Exception:
            # While the optimizer is created or holds tracers, an error would hide another one.
            return super().__repr__()


def _other_variables() -> str:
    return parameters.other_variables("adadelta.Adadelta")


# The module under which users, saved models and R's S3 classes find the class.
Adadelta.__module__ = "adadelta"
