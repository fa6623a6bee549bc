"""Adadelta for Keras 3, on the JAX, TensorFlow and torch backends: the core of this package."""

from typing import Any

import keras
import numpy as np

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.arguments import Checked, checked
from adadelta._core.messages import Message
from adadelta._core.weight_decay import Exclusions
from adadelta._keras import exchange, precision
from adadelta._keras import learning_rate as rates
from adadelta._keras import summary as summaries
from adadelta._keras.saving import Saving
from adadelta._keras.state import path_of
from adadelta._state.summary import Summary

__all__ = ["Adadelta"]


_HOST = hyperparameters.CONVENTIONS["keras"]
# The arguments that Keras' base class does not keep.
_OWN = ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite", "fused")


@keras.saving.register_keras_serializable(package="adadelta")
class Adadelta(Saving):
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
        name: The optimizer's name; `None` for "adadelta", numbered where that is taken.
        maximize: Ascend instead of descend.
        decoupled_weight_decay: `True` takes the decay from the weights (Keras), `False` adds
            `weight_decay` times the weights to the gradients (torch, optax).
        skip_nonfinite: Skip calls in which any gradient is NaN or infinite, and count them in
            `skipped`. `False` lets them into the weights, as Keras does.
        fused: `None` makes the step by a kernel, in one pass over memory, for all variables that
            one can serve here and gains something with; `True` for all of them, small ones too,
            and raises with the first reason where there is one that it can't serve; `False` uses
            none, which a TensorFlow function with a step needs that is to be saved and run
            elsewhere. All give the same numbers, to rounding. `adadelta.kernel_info()` says what
            serves on this machine, and `adadelta.kernel_info(optimizer)` for each variable what
            makes its step, and why.

    Attributes:
        learning_rate: The current rate; can be set to any of the above at any time.
        iterations: How many updates there were.
        skipped: How many calls were skipped.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it takes and what came. Nothing has changed then.
        RuntimeError: By a step, where `fused` is True and the kernel can't take a gradient or a
            variable. Nothing has changed then.

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

    rho = Checked()
    epsilon = Checked()
    weight_decay = Checked()
    clipnorm = Checked()
    clipvalue = Checked()
    global_clipnorm = Checked()
    use_ema = Checked()
    ema_momentum = Checked()
    ema_overwrite_frequency = Checked()
    loss_scale_factor = Checked()
    gradient_accumulation_steps = Checked()
    maximize = Checked()
    decoupled_weight_decay = Checked()
    skip_nonfinite = Checked()
    fused = Checked()

    _learning_rate: Any
    # Whether a TensorFlow graph has the rate's kind in it, and how often JAX had to notice a new
    # one.
    _rate_is_in_a_graph = False
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
        loss_scale_factor: float | None = None,
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
        self._given_rate = learning_rate if isinstance(learning_rate, float) else None
        if is_variable:
            self.learning_rate = learning_rate
        self._rate_was_set = False
        self._exclusions = Exclusions()
        self._waiting_state = None

    def __setattr__(self, name: str, value: Any) -> None:
        is_rate = name in ("learning_rate", "lr")
        value = rates.checked(value) if is_rate else checked(type(self), name, value)
        super().__setattr__(name, value)

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
            is_exact = precision.dtype_of(current) == "float64"
            short = value if is_exact else precision.without_noise(value)
            current.assign(short)
            # Before it is built, the optimizer may still get a float64 rate.
            value = short if self.built else value
        else:
            if self._rate_is_in_a_graph:
                text = (
                    "`learning_rate` can't be replaced by another kind of rate once TensorFlow "
                    "has compiled the training step, which would not see it; give it before "
                    "training, start with a number and set numbers, or compile the model with "
                    f"run_eagerly=True; received {hyperparameters.received(value)}"
                )
                raise ValueError(Message(text, "rate_compiled", received=value))
            if isinstance(current, keras.Variable):
                self._untrack_variable(current)
            self._replace_rate(self._rate_variable(value) if is_number else value)
        self._given_rate = value if is_number else None
        self._rate_was_set = True

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
        had_variable = isinstance(self._learning_rate, keras.Variable)
        self._learning_rate = rate
        if isinstance(rate, keras.Variable):
            # Second among the variables, where Keras has it.
            self._variables.insert(1, self._variables.pop())
        elif not had_variable:
            self._make_jax_compile_again()
        if locked:
            self._tracker.lock()

    def _make_jax_compile_again(self) -> None:
        """Change the variables, by which JAX sees that a step is another one."""
        if keras.config.backend() != "jax":
            return
        if self._rate_marker is not None:
            self._untrack_variable(self._rate_marker)
        self._rate_changes += 1
        self._rate_marker = keras.Variable(
            np.zeros(self._rate_changes, "int32"), trainable=False, name="rate_changes"
        )

    def _get_current_learning_rate(self) -> Any:
        rate = self._learning_rate
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            self._rate_is_in_a_graph = self._rate_is_in_a_graph or not tf.executing_eagerly()
        return rate if isinstance(rate, keras.Variable) else rate(self._iterations)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again, in plain Python values."""
        return {"learning_rate": self._rate_config(), **self._config_but_rate()}

    def _config_but_rate(self) -> dict[str, Any]:
        names = [name for name in hyperparameters.ARGUMENTS if name != "learning_rate"]
        config = {name: getattr(self, name) for name in names}
        if self._exclusions.as_text():
            config["exclude_from_weight_decay"] = self._exclusions.config()
        return config

    def _rate_config(self) -> Any:
        rate = self._learning_rate
        if rates.is_schedule(rate):
            return keras.optimizers.schedules.serialize(rate)
        if isinstance(rate, rates.CallableRate):
            return keras.saving.serialize_keras_object(rate.function)
        now = np.asarray(exchange.array_of(rate, copy=False), precision.dtype_of(rate))[()]
        given = self._given_rate
        if given is None or now != np.asarray(given, now.dtype):
            return precision.shortest(now)
        # Callbacks set what they read from float32, which has digits that nobody gave.
        return precision.shortest(now) if self._rate_was_set and self.built else given

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Adadelta":
        """Make an optimizer from what `get_config()` returned."""
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
            var_names: A string or several: a variable is excluded when one of them occurs in its
                path, such as "bias" in "sequential/dense/bias".

        Raises:
            ValueError: The optimizer is built already, and the arguments are not those of before.
            TypeError: `var_list` is no list of variables, or `var_names` neither a string nor a
                list of them.

        """
        variables, words = parameters.excluded(var_list, var_names)
        keys, paths = map(self._var_key, variables), map(path_of, variables)
        named = list(keys), list(paths), words
        if not self.built:
            self._exclusions.set(*named)
        elif not self._exclusions.are(*named):
            raise parameters.too_late_to_exclude()

    def summary(self) -> Summary:
        """Return a table of how far each variable's gradients move it. Nothing changes.

        A function as learning rate is asked for the rate of the next step, as the step itself
        will ask it.

        Returns:
            A list with a row for each variable, in the order in which the optimizer has them,
            that prints as a table; `Summary.to_dict()` gives its columns, as for
            `pandas.DataFrame(optimizer.summary().to_dict())`. See `adadelta.Summary` for what is in
            them. Before the optimizer is built the list is empty, and says so.

        Raises:
            RuntimeError: Compiled training on JAX has the state at the moment. In a callback,
                `self.model.optimizer` brings it back.

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
        return summaries.summary_of(self)

    def __repr__(self) -> str:
        """Show the settings that differ from the defaults, and how far the optimizer has come.

        Example:
            >>> import adadelta
            >>> adadelta.Adadelta(1.0, weight_decay=0.01)
            <Adadelta learning_rate=1.0, weight_decay=0.01, the rest at its defaults; not yet built>

        """
        try:
            return summaries.representation(self)
        except Exception:
            # While it is being made, or has tracers for values: an error would hide another one.
            return super().__repr__()


# The name by which users, saved models and R's S3 classes know it.
Adadelta.__module__ = "adadelta"
