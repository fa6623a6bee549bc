"""Adadelta with the API of TF 1.13's `tf.keras.optimizers.Adadelta`, in graph and eager mode."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from adadelta._core.packages import needed_by

with needed_by("adadelta.tf1", extra="tensorflow"):
    import tensorflow as tf

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.arguments import checked
from adadelta._core.precision import state_dtype
from adadelta._core.step import Call, Options, Row
from adadelta._kernels import report
from adadelta._state import matching
from adadelta._state.exchange import unbuilt
from adadelta._tensorflow import arrays, exchange, rows
from adadelta._tensorflow.engine import Engine, kernel_report
from adadelta._tensorflow.gradients import fitting, name_of
from adadelta._tensorflow.plain import clipped
from adadelta._tf1 import session

__all__ = ["Adadelta"]

_HOST = hyperparameters.CONVENTIONS["tf1"]
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "lr": hyperparameters.FIXED_RATE,
    "rho": hyperparameters.ARGUMENTS["rho"],
    "epsilon": hyperparameters.ARGUMENTS["epsilon"],
    "decay": hyperparameters.FIXED_RATE,
    "clipnorm": hyperparameters.ARGUMENTS["clipnorm"],
    "clipvalue": hyperparameters.ARGUMENTS["clipvalue"],
}
_CLIPS = ("clipnorm", "clipvalue")


def _rate_property(name: str) -> property:
    """Return the learning rate or its decay, which is set as a number and read as a variable."""

    def assign(optimizer: "Adadelta", value: Any) -> None:
        optimizer._set_rate(name, value)

    return property(lambda optimizer: optimizer._rate_variable(name), assign)


@session.known_to_keras
class Adadelta(session.KerasOptimizer):
    """Adadelta (Zeiler 2012) with the API of TF 1.13's `tf.keras.optimizers.Adadelta`.

    For a parameter x with gradient g, and averages v and u that start at 0, the t-th call does,
    from t = 0:

        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        x <- x - lr / (1 + decay t) d

    and then applies the variable's constraint. It works in a `tf.Graph` with a session, in the
    graph mode of tf_keras (as `optimizer` of `model.compile()`), in a `tf.function` and eagerly.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. A complex
    parameter is treated as a pair of real ones.

    A sparse gradient gives the same result as a dense one. Outside of a graph with a session, the
    step computes only its rows, and the averages of the others decay when `weights` is read.

    In eager mode and in a `tf.function`, a compiled kernel makes the step of large variables, as in
    `adadelta.tf_keras`.

    Args:
        lr: The learning rate, a finite number of at least 0.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        epsilon: Added inside both square roots, greater than 0; `None` for
            `tf.keras.backend.epsilon()`, which is 1e-7 unless it was set.
        decay: How fast the rate falls, a finite number of at least 0.
        **kwargs: `clipnorm`, the norm to which each gradient is clipped, or `clipvalue`, the
            magnitude to which each element is clipped: a number greater than 0, where infinity
            means no clipping, or `None`. Only one of the two can be given.

    Attributes:
        lr: A variable with the learning rate; can be set to a number at any time.
        decay: Likewise.
        iterations: A variable with the number of calls.
        weights: The state: the averages of squared gradients of all parameters, followed by those
            of their squared updates.
        updates: What `get_updates()` returned last.

    Raises:
        TypeError: An argument is of the wrong kind or unknown.
        ValueError: An argument is out of range, or two ways of clipping are given. The message
            names the argument, what it accepts and what was given. Nothing has changed then.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments and methods: the documentation of `tf.keras.optimizers.Adadelta` in TF 1.13.

    Example:
        >>> import tensorflow as tf
        >>> import adadelta.tf1
        >>> with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        ...     x = tf.compat.v1.get_variable("x", initializer=[1.0, 2.0])
        ...     optimizer = adadelta.tf1.Adadelta(lr=1.0, rho=0.75, epsilon=0.25)
        ...     updates = optimizer.get_updates(loss=x[0] - x[1], params=[x])
        ...     session.run(tf.compat.v1.global_variables_initializer())
        ...     _ = session.run(updates)
        ...     [round(float(value), 4) for value in session.run(x)]
        [0.2929, 2.7071]

        In eager mode the loss is a function, and the step is made at once:

        >>> x = tf.Variable([1.0, 2.0])
        >>> optimizer = adadelta.tf1.Adadelta(lr=1.0, rho=0.75, epsilon=0.25)
        >>> updates = optimizer.get_updates(loss=lambda: x[0] - x[1], params=[x])
        >>> [round(float(value), 4) for value in x.numpy()]
        [0.2929, 2.7071]

    """

    # The module by which adadelta.state exports and imports this optimizer's state.
    state_exchange = "adadelta._tensorflow.exchange"

    lr = _rate_property("lr")
    decay = _rate_property("decay")

    def __init__(
        self,
        lr: float = _HOST.learning_rate,
        rho: float = _HOST.rho,
        epsilon: float | None = _HOST.epsilon,
        decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        unknown = {name: value for name, value in kwargs.items() if name not in _CLIPS}
        hyperparameters.refuse_unknown(unknown, "adadelta.tf1.Adadelta", tuple(_CHECKS))
        if epsilon is None:
            epsilon = tf.keras.backend.epsilon()
        given = {"lr": lr, "rho": rho, "epsilon": epsilon, "decay": decay}
        given.update({name: kwargs.get(name) for name in _CLIPS})
        arguments = {name: _CHECKS[name](name, value) for name, value in given.items()}
        hyperparameters.check_clips({name: arguments[name] for name in _CLIPS})
        self._rates = {name: arguments.pop(name) for name in ("lr", "decay")}
        self._rate_variables: dict[str, Any] = {}
        self.initial_decay = self._rates["decay"]
        for name, value in arguments.items():
            setattr(self, name, value)
        self._weights: list[Any] = []
        self.updates: list[Any] = []
        self._parameters: list[Any] = []
        self._engine = Engine(sums_replicas=False)

    def __setattr__(self, name: str, value: Any) -> None:
        is_fixed = name in ("rho", "epsilon", *_CLIPS)
        super().__setattr__(name, checked(self, name, value) if is_fixed else value)

    # ------------------------------------------------------------------ rates and counter

    def _rate_variable(self, name: str) -> Any:
        """Return the variable of this name, which is created in the graph that first uses it."""
        if name not in self._rate_variables:
            value, dtype = self._rates.get(name, 0), tf.keras.backend.floatx()
            with tf.name_scope(type(self).__name__):
                self._rate_variables[name] = session.variable(
                    value, name, tf.int64 if name == "iterations" else dtype
                )
        return self._rate_variables[name]

    def _set_rate(self, name: str, value: Any) -> None:
        value = _CHECKS[name](name, value)
        if name in self._rate_variables:
            session.write([self._rate_variables[name]], [value])
        self._rates[name] = value

    def _rate(self, name: str) -> float:
        """Return the number that was given, or the value to which its variable was set since."""
        given = self._rates[name]
        variable = self._rate_variables.get(name)
        if variable is None or not session.can_read(variable):
            return given
        now = session.read([variable])[0]
        return given if now == np.asarray(given, now.dtype) else float(now)

    @property
    def iterations(self) -> Any:
        """A variable with the number of calls."""
        return self._rate_variable("iterations")

    def _rate_at(self, calls: Any) -> Any:
        """Return, in float64, the rate of the call that follows a number of calls."""
        lr, decay = (
            arrays.exact_rate(self._rate_variable(name), self._rates[name])
            for name in ("lr", "decay")
        )
        return lr / (1 + decay * tf.cast(calls, tf.float64))

    # ------------------------------------------------------------------ the step

    @property
    def built(self) -> bool:
        """Whether the state has been made."""
        return bool(self.__dict__.get("_parameters"))

    def build(self, params: Sequence[Any]) -> None:
        """Create the state for the parameters that will be updated; `get_updates()` does it too.

        Args:
            params: TensorFlow variables of a floating or complex dtype, each once.

        Raises:
            ValueError: A variable occurs twice or is not of such a dtype, `epsilon` is too small
                for it, or the optimizer was built on other variables.

        """
        params = list(params)
        if self.built:
            if list(map(id, params)) != list(map(id, self._parameters)):
                raise ValueError(parameters.other_variables("adadelta.tf1.Adadelta"))
            return
        if not params:
            raise ValueError("`params` must be a list of variables; received an empty one")
        parameters.refuse_repeated(params, id, name_of)
        for variable in params:
            numbers = parameters.numbers_of(self)
            parameters.check(name_of(variable), arrays.dtype_of(variable), numbers)
        with tf.name_scope(type(self).__name__):
            self._weights = [
                session.variable(
                    partial(tf.zeros, arrays.state_shape(variable), dtype), slot, dtype
                )
                for slot in ("accumulator", "delta_accumulator")
                for variable in params
                for dtype in [state_dtype(arrays.dtype_of(variable))]
            ]
        for name in ("lr", "decay", "iterations"):
            self._rate_variable(name)
        self._parameters = params

    def _create_all_weights(self, params: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Create the state and return its two halves; tf_keras calls this when it loads a model."""
        self.build(params)
        return self._averages()

    def _averages(self) -> tuple[list[Any], list[Any]]:
        count = len(self._parameters)
        return self._weights[:count], self._weights[count:]

    @tf.autograph.experimental.do_not_convert
    def get_gradients(self, loss: Any, params: Sequence[Any]) -> list[Any]:
        """Return the gradients of a loss, clipped if the optimizer clips.

        Args:
            loss: A scalar tensor of the graph, or a function without arguments that returns the
                loss. In eager mode it must be a function.
            params: TensorFlow variables.

        Raises:
            ValueError: A gradient can't be computed: the loss does not depend on a variable, or
                only through operations that have no gradient.

        """
        params, options = list(params), self._options()
        return [
            rows.map_values(
                partial(arrays.from_state, like=variable), clipped(gradient, variable, options)
            )
            for gradient, variable in zip(self._gradients(loss, params), params, strict=True)
        ]

    def _gradients(self, loss: Any, params: Sequence[Any]) -> list[Any]:
        if callable(loss):
            with tf.GradientTape() as tape:
                tape.watch(params)
                value = loss()
            gradients = tape.gradient(value, params)
        elif tf.executing_eagerly():
            text = (
                "Eagerly, `loss` must be a function of no argument that returns the loss, since "
                "gradients of a number can't be computed"
            )
            raise ValueError(hyperparameters.with_received(text, loss))
        else:
            gradients = tf.gradients(loss, params)
        missing = [
            name_of(variable)
            for gradient, variable in zip(gradients, params, strict=True)
            if gradient is None
        ]
        if missing:
            raise ValueError(
                f"The gradient can't be computed for {hyperparameters.first_of(missing)}: `loss` "
                "does not depend on it, or only by operations without a gradient, such as argmax "
                "and round"
            )
        return [
            fitting(gradient, variable)
            for gradient, variable in zip(gradients, params, strict=True)
        ]

    def _rows(self, gradients: Sequence[Any]) -> list[Row]:
        return [
            Row(*own, constraint=getattr(own[0], "constraint", None))
            for own in zip(self._parameters, gradients, *self._averages(), strict=True)
        ]

    def _kernel_report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the variables."""
        return kernel_report(self._engine, self._rows([None] * len(self._parameters)))

    def _options(self) -> Options:
        return Options(self.rho, self.epsilon, clipnorm=self.clipnorm, clipvalue=self.clipvalue)

    @tf.autograph.experimental.do_not_convert
    def get_updates(self, loss: Any, params: Sequence[Any]) -> list[Any]:
        """Return the operations of one step; in eager mode, make the step.

        Args:
            loss: As for `get_gradients()`.
            params: The variables to update. The state is made on the first call, and later calls
                must give the same variables.

        Returns:
            The operations, all of which must be run for one step. In eager mode the step is already
            made and the list is empty; in a `tf.function` the step is made when the function runs.

        Raises:
            ValueError: A gradient can't be computed, or the variables can't be updated, as for
                `build()`. Nothing has changed then.

        """
        params = list(params)
        gradients = self._gradients(loss, params)
        self.build(params)
        rate = self._rate_at(self.iterations.read_value())
        with interrupts.Deferred():
            self._engine.step(self._rows(gradients), Call(rate), self._options())
            updates = list(self._engine.plain.operations)
            # After the step the rate is known, and thus the number of calls has been read.
            with self._engine.after_step():
                updates.append(self.iterations.assign_add(1))
        eager = tf.executing_eagerly()
        self.updates = [] if eager else [getattr(update, "op", update) for update in updates]
        return self.updates

    # ------------------------------------------------------------------ weights and config

    @property
    def weights(self) -> list[Any]:
        """The state, as described for the class."""
        self._engine.catch_up()
        return self._weights

    def get_weights(self) -> list[np.ndarray]:
        """Return the values of `weights`; in a graph, those in the default session."""
        return session.read(self.weights) if self.weights else []

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `weights`; in a graph, those in the default session.

        Args:
            weights: As many arrays as there are `weights`, of the same shapes. There are none
                before `get_updates()` or `build()`.

        Raises:
            ValueError: The arrays do not fit. Nothing has changed then.

        """
        values = [np.asarray(weight) for weight in weights]
        expected = [(name_of(weight), tuple(weight.shape.as_list())) for weight in self.weights]
        parameters.check_weights(map(np.shape, values), expected, "weights")
        session.write(self.weights, values)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this optimizer, as plain Python values."""
        rates = {name: self._rate(name) for name in self._rates}
        rest = {name: getattr(self, name) for name in ("rho", "epsilon", *_CLIPS)}
        return {**rates, **{name: value for name, value in rest.items() if value is not None}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Adadelta":
        """Create an optimizer from what `get_config()` returned."""
        return cls(**config)

    # ------------------------------------------------------------------ for adadelta.state

    def _parts(self) -> exchange.Parts:
        if not self.built:
            raise unbuilt("params")
        self._engine.catch_up()
        names = matching.distinct(map(name_of, self._parameters))
        slots = {
            name: {"square_avg": square_avg, "acc_delta": acc_delta}
            for name, square_avg, acc_delta in zip(names, *self._averages(), strict=True)
        }
        return exchange.Parts(
            counters={"step": self.iterations},
            slots=slots,
            read=session.read,
            write=session.write,
            rate=self._rate("lr"),
            check_rate=lambda rate: float(_CHECKS["lr"]("lr", rate)),
            set_rate=partial(setattr, self, "lr"),
        )

    def _portable_config(self) -> dict[str, Any]:
        config = self.get_config()
        return {"learning_rate": config.pop("lr"), **config}
