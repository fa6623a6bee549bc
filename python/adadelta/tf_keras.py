"""Adadelta for tf_keras, the Keras 2 of TensorFlow, like `tf_keras.optimizers.Adadelta`."""

import copy
from typing import Any

from adadelta._core.packages import needed_by

with needed_by("adadelta.tf_keras", extra="tf-keras"):
    import tensorflow as tf
    import tf_keras

from adadelta._core import hyperparameters
from adadelta._core.arguments import checked
from adadelta._core.precision import shortest
from adadelta._core.weight_decay import Exclusions
from adadelta._tensorflow import arrays
from adadelta._tensorflow.engine import Engine
from adadelta._tf_keras import learning_rate as rates
from adadelta._tf_keras import legacy, loaders
from adadelta._tf_keras.step import Step

__all__ = ["Adadelta"]

_HOST = hyperparameters.CONVENTIONS["tf_keras"]
_OWN = ("rho", "epsilon", "maximize", "decoupled_weight_decay", "skip_nonfinite")
# The attributes that are checked as the arguments are.
_CHECKED = {*_HOST.names, *_OWN} - {"learning_rate", "name"}
# Arguments that tf_keras' optimizers refuse with a message on what to do instead.
_REFUSED_BY_HOST = ("decay", "gradient_aggregator", "gradient_transformers")


@tf_keras.saving.register_keras_serializable(package="adadelta")
class Adadelta(Step):
    """Adadelta (Zeiler 2012) with the signature of `tf_keras.optimizers.Adadelta`.

    For a parameter x with gradient g, and averages v and u that start at 0:

        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        x <- x - learning_rate d

    One step is, in this order: sum the rows of sparse gradients; negate the gradients
    (`maximize`); clip them; decay the weights; the equations above; the variable's constraint; the
    moving average (`use_ema`); the counters.

    A sparse gradient gives the same result as a dense one, and the step computes only the rows that
    have a gradient. The averages of the other rows decay when they are used next, and when the
    state is read, saved, copied or loaded. A variable that you took from `variables` before a step
    is behind until you ask for `variables` again; ask before you read or set it. All rows are
    computed with `weight_decay`, `use_ema` or a constraint, under a distribution strategy, on a
    mesh and on a GPU. `adadelta.kernel_info(optimizer)` shows why.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. A complex
    parameter is treated as a pair of real ones.

    On the processor, a compiled kernel makes the step of large variables (16,384 elements on
    average) in one pass over memory. In a `tf.function` that XLA compiles, it makes the step of
    all variables. A function that contains such a step, or that of a sparse gradient, can't be
    exported to another program.

    Args:
        learning_rate: A finite number of at least 0, a
            `tf_keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments
            that returns the rate and is called at every step (not with `jit_compile=True` in
            `compile()`, since XLA can't call Python). 1.0 is the paper's rate and what most models
            need. The default, 0.001, is that of `tf_keras.optimizers.Adadelta`, so that either
            class can take the place of the other in a program.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        epsilon: Added inside both square roots, greater than 0; `None` for
            `tf_keras.backend.epsilon()`. The first step is about
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
        use_ema: Whether to keep an exponential moving average (EMA) of the weights, which starts
            at the weights. It replaces the weights when `fit()` ends or
            `finalize_variable_values()` is called.
        ema_momentum: The momentum of the EMA, from 0 to 1. With 0.99 it averages over about 100
            updates.
        ema_overwrite_frequency: `None`, or a whole number of at least 1: the EMA replaces the
            weights each time this many updates were made.
        jit_compile: Compile each variable's update with XLA. Without a GPU it is ignored, as in
            tf_keras.
        name: The optimizer's name.
        maximize: Whether to maximize the loss instead of minimizing it.
        decoupled_weight_decay: `True` subtracts the decay from the weights, as Keras does. `False`
            adds an L2 penalty, `weight_decay * weight`, to the gradients, as torch and optax do.
        skip_nonfinite: Whether to skip a step in which any gradient is NaN or infinite, and count
            it in `skipped`. With `False`, such a gradient makes weights NaN, as in tf_keras.
        **kwargs: `mesh`, a `tf.experimental.dtensor.Mesh` to place the state on; `lr`, another name
            for `learning_rate`; `is_legacy_optimizer`, which saved configs contain.

    Attributes:
        learning_rate: The current rate; can be set to a number at any time.
        iterations: The number of calls so far, which a learning rate schedule receives.
        skipped: The number of calls that were skipped.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it accepts and what was given. Nothing has changed then.

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

    # The module by which adadelta.state exports and imports this optimizer's state.
    state_exchange = "adadelta._tensorflow.exchange"

    _learning_rate: Any
    _given_rate: float | None = None

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
        excluded = kwargs.pop("exclude_from_weight_decay", None) or {}
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
        arguments = {name: hyperparameters.check(name, value) for name, value in arguments.items()}
        hyperparameters.check_clips(arguments)
        jit_compile = bool(hyperparameters.Flag()("jit_compile", jit_compile))
        learning_rate = rates.checked(learning_rate)
        own = {name: arguments.pop(name) for name in _OWN}
        super().__init__(jit_compile=jit_compile, **arguments, **kwargs)
        for argument, value in own.items():
            setattr(self, argument, value)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._given_rate = learning_rate if isinstance(learning_rate, float) else None
        self._parameters: list[Any] = self._no_dependency([])
        self._skipped: Any = None
        self._engine = Engine(sums_replicas=False)
        self._waiting_state = None
        self._exclusions = Exclusions(excluded.get("names", ()), excluded.get("words", ()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("learning_rate", "lr"):
            value = rates.checked(value)
        elif name in _CHECKED:
            value = checked(self, name, value)
        super().__setattr__(name, value)

    # ------------------------------------------------------------------ the learning rate

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        if not isinstance(learning_rate, rates.CallableRate):
            return super()._build_learning_rate(learning_rate)
        # Holds the rate of the last step. tf_keras would call the function now.
        with tf.init_scope():
            self._current_learning_rate = tf.Variable(
                0.0, name="current_learning_rate", dtype=tf.float64, trainable=False
            )
        return learning_rate

    @property
    def learning_rate(self) -> Any:
        """The rate: a variable, which holds a schedule's last value, or the function's result."""
        if isinstance(self._learning_rate, rates.CallableRate) and tf.executing_eagerly():
            return self._learning_rate(self.iterations)
        return tf_keras.optimizers.Optimizer.learning_rate.fget(self)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        value = rates.checked(value)
        if isinstance(value, float):
            # Raises an error if the rate is a schedule or a function.
            tf_keras.optimizers.Optimizer.learning_rate.fset(self, value)
        elif self._rate_is_in_a_graph:
            text = (
                "`learning_rate` can't be replaced by another kind of rate once TensorFlow has "
                "compiled the training step; set it before training"
            )
            raise ValueError(hyperparameters.with_received(text, value))
        else:
            self._learning_rate = self._build_learning_rate(value)
        self._given_rate = value if isinstance(value, float) else None

    def _rate(self) -> Any:
        """Return the rate of a call in float64, from which each row gets its own."""
        rate = self._learning_rate
        if isinstance(rate, rates.LearningRateSchedule):
            return tf.cast(self._current_learning_rate, tf.float64)
        return arrays.exact_rate(rate, self._given_rate)

    def _rate_number(self) -> float | None:
        rate = self._learning_rate
        if isinstance(rate, rates.LearningRateSchedule):
            return None
        now = rate.numpy()
        given = self._given_rate
        if given is None or now != now.dtype.type(given):
            return shortest(now)
        return given

    # ------------------------------------------------------------------ the config

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this optimizer, as plain Python values."""
        if legacy.is_asking():
            return legacy.config_of(self, self._rate_number())
        config = super().get_config()
        config["learning_rate"] = self._rate_config()
        config.update({argument: getattr(self, argument) for argument in _OWN})
        if self._exclusions.as_text():
            names, words = sorted(self._exclusions.paths), sorted(self._exclusions.words)
            config["exclude_from_weight_decay"] = {"names": names, "words": words}
        return config

    def _rate_config(self) -> Any:
        rate, number = self._learning_rate, self._rate_number()
        if isinstance(rate, rates.CallableRate):
            return tf_keras.saving.serialize_keras_object(rate.function)
        return tf_keras.optimizers.schedules.serialize(rate) if number is None else number

    def __deepcopy__(self, memo: dict[int, Any]) -> "Adadelta":
        """Return an optimizer with the same arguments, which loads this one's state when built.

        As with Keras' optimizers, the copy is for other variables: those of a copy of the model.
        """
        rate, number = self._learning_rate, self._rate_number()
        config = self._with_any_rate().get_config()
        if not isinstance(rate, rates.CallableRate):
            rate = copy.deepcopy(rate, memo) if number is None else number
        config["learning_rate"] = rate
        if self._mesh:
            config["mesh"] = self._mesh
        new = type(self).from_config(config)
        memo[id(self)] = new
        state: dict[str, Any] = {}
        self.save_own_variables(state)
        new.load_own_variables(state)
        return new

    def _with_any_rate(self) -> "Adadelta":
        # Not every function or schedule can be put into a config.
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _learning_rate=tf.constant(0.0), _given_rate=None)
        return twin

    def _portable_config(self) -> dict[str, Any]:
        host_only = ("name", "jit_compile", "is_legacy_optimizer")
        return {name: value for name, value in self.get_config().items() if name not in host_only}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Adadelta":
        """Create an optimizer from what `get_config()` returned."""
        config = dict(config)
        rate = config.get("learning_rate")
        if isinstance(rate, dict) and rate.get("class_name") in ("function", "__lambda__"):
            config["learning_rate"] = tf_keras.saving.deserialize_keras_object(
                rate, custom_objects=custom_objects
            )
        optimizer = super().from_config(config, custom_objects=custom_objects)
        is_hosts = not any(argument in config for argument in _OWN[2:])
        optimizer._is_hosts_in_file = is_hosts and loaders.running(loaders.KERAS) is not None
        loaders.warn_of_saved_model()
        return optimizer
