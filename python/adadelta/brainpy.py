"""Adadelta for BrainPy, with the signature and the weight decay of `brainpy.optim.Adadelta`."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from adadelta._core.packages import needed_by

with needed_by("adadelta.brainpy", extra="brainpy"):
    import jax.numpy as jnp

    from adadelta._brainpy.host import brainpy

from adadelta import state as portable
from adadelta._brainpy import exchange
from adadelta._brainpy import learning_rate as rates
from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.arguments import refuse_change
from adadelta._core.step import Call, Options, Row
from adadelta._jax import precision
from adadelta._jax.engine import Engine, next_count
from adadelta._kernels import report
from adadelta._state import matching

__all__ = ["Adadelta"]

bm = brainpy.math
_CONVENTION = hyperparameters.CONVENTIONS["brainpy"]
_CHECKS: Mapping[str, hyperparameters.Check] = {
    "rho": hyperparameters.ARGUMENTS["rho"],
    "epsilon": hyperparameters.ARGUMENTS["epsilon"],
    "weight_decay": hyperparameters.UNSCALED_WEIGHT_DECAY,
}


class StateLoadResult(NamedTuple):
    """What BrainPy's `load_state_dict()` returns: names of variables."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Adadelta(brainpy.optim.Optimizer):
    """Adadelta (Zeiler 2012) with the signature of `brainpy.optim.Adadelta`.

    For a variable x with gradient g, and averages v and u that start at 0:

        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
        u <- rho u + (1 - rho) d^2
        x <- x - weight_decay x - lr d

    As in BrainPy, the learning rate does not scale the weight decay. It works with `bm.jit`,
    `bm.for_loop` and `BPTT`; compiled functions need a JAX version for which BrainPy supports them.

    Float16 and bfloat16 variables are updated in float32 and have float32 averages. A complex
    variable is treated as a pair of real ones. Its gradient is the conjugate of what `bm.grad`
    returns.

    Args:
        lr: A finite number of at least 0 of any kind, a variable of one such number, a
            `brainpy.optim.Scheduler`, a function without arguments that returns the rate and is
            called at every step, by compiled functions too, or a function of the number of steps
            so far in `jax.numpy`. `lr.set_value()` reaches compiled functions; for that, the
            number in a scheduler is put into a variable.
        train_vars: `None`, or the variables to train, by name.
        weight_decay: `None`, or a number from 0 to 1: each step subtracts `weight_decay *
            variable` from the variable.
        epsilon: Added inside both square roots, greater than 0. The first step is about
            `lr * sqrt(epsilon / (1 - rho))` long, unless the gradient is smaller than that
            root.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        name: The optimizer's name; `None` for "Adadelta0" and so on.

    Attributes:
        lr: The scheduler of the learning rate.
        vars_to_train: The variables by name.
        step: A variable with the number of steps so far.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range. The message names the argument, what it accepts
            and what was given. Nothing has changed then.
        brainpy.errors.MathError: `train_vars` is not a dict.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments: https://brainpy.readthedocs.io/ (brainpy.optim.Adadelta)

    Example:
        >>> import adadelta.brainpy
        >>> import brainpy.math as bm
        >>> x = bm.TrainVar(bm.asarray([1.0, 2.0]))
        >>> optimizer = adadelta.brainpy.Adadelta(
        ...     train_vars={"x": x}, rho=0.75, epsilon=0.25
        ... )
        >>> optimizer.update({"x": bm.asarray([1.0, -1.0])})
        >>> [round(float(value), 4) for value in x]
        [0.2929, 2.7071]

    """

    state_exchange = "adadelta._brainpy.exchange"

    # A default, since BrainPy prints an object whose name it refuses.
    lr: Any = None

    def __init__(
        self,
        lr: Any = _CONVENTION.learning_rate,
        train_vars: Mapping[str, Any] | None = None,
        weight_decay: float | None = _CONVENTION.weight_decay,
        epsilon: float | None = _CONVENTION.epsilon,
        rho: float = _CONVENTION.rho,
        name: str | None = None,
    ) -> None:
        lr = rates.checked(lr)
        self.rho, self.epsilon, self.weight_decay = rho, epsilon, weight_decay
        text = hyperparameters.check("name", name)
        if text is not None and not text.isidentifier():
            requirement = "a Python identifier, or None"
            raise ValueError(hyperparameters.refusal("name", requirement, text))
        self.vars_to_train = bm.ArrayCollector()
        self._averages: dict[str, tuple[Any, Any]] = {}
        self._engine = Engine()
        # Why the kernel did not update each variable in the last step, or None.
        self._found_reasons: dict[str, str | None] = {}
        self._refuse_variables(train_vars)
        # Skip Optimizer.__init__(), which accepts fewer rates, as BrainPy's own optimizers do.
        super(brainpy.optim.Optimizer, self).__init__(name=text)
        self.lr = rates.scheduler_of(lr)
        self.register_train_vars(train_vars)
        self.step = bm.Variable(jnp.zeros((), jnp.int32))

    def __setattr__(self, name: str, value: Any) -> None:
        # BrainPy's optimizers accept no other rate after they are created.
        if name == "lr":
            value = rates.checked(value)
            current = self.__dict__.get("lr")
            if isinstance(value, float) and isinstance(current, rates.Constant):
                current.set_value(value)
                return
            if self.__dict__.get("_is_compiled"):
                text = (
                    "`lr` can't be replaced by another kind of rate once a compiled function has "
                    "the optimizer in it, which would not see it; make a new optimizer"
                )
                raise ValueError(hyperparameters.with_received(text, value))
            value = rates.scheduler_of(value)
        elif name in _CHECKS:
            value = _CHECKS[name](name, value)
            numbers = {name: value} if name in parameters.NUMBERS else {}
            for path, variable in self.__dict__.get("vars_to_train", {}).items():
                parameters.check(path, str(variable.dtype), numbers)
            if self.__dict__.get("_is_compiled"):
                reason = (
                    "once a compiled function has the optimizer in it, which would not see it; "
                    "make a new optimizer"
                )
                refuse_change(self, name, value, reason)
        super().__setattr__(name, value)

    def register_train_vars(self, train_vars: Mapping[str, Any] | None = None) -> None:
        """Add variables to train.

        Args:
            train_vars: The variables by name.

        Raises:
            brainpy.errors.MathError: `train_vars` is not a dict.
            TypeError: A name is not a string, or a value is not a variable of a floating or complex
                dtype.
            ValueError: A name or a variable is registered already. Nothing has changed then.

        """
        self._refuse_variables(train_vars)
        for name, variable in (train_vars or {}).items():
            self.vars_to_train[name] = variable
            value = jnp.asarray(bm.as_jax(variable))
            cache, delta = (bm.Variable(precision.zeros_like(value)) for _ in range(2))
            self._averages[name] = cache, delta
            self.register_implicit_vars({f"{name}_cache": cache, f"{name}_delta": delta})

    def _refuse_variables(self, train_vars: Any) -> None:
        if train_vars is not None and not isinstance(train_vars, dict):
            requirement = "a dict of variables by name, or None"
            raise brainpy.errors.MathError(
                hyperparameters.refusal("train_vars", requirement, train_vars)
            )
        seen = {id(variable): name for name, variable in self.vars_to_train.items()}
        for name, variable in (train_vars or {}).items():
            if not hyperparameters.is_a(name, str):
                raise TypeError(hyperparameters.refusal("train_vars", "named by strings", name))
            shown = f'train_vars["{hyperparameters.shortened(name)}"]'
            if not hyperparameters.is_a(variable, bm.Variable):
                requirement = "a brainpy.math.Variable"
                raise TypeError(hyperparameters.refusal(shown, requirement, variable))
            if not precision.can_be_trained(variable.dtype):
                raise TypeError(
                    f"`{shown}` must be of a floating or complex dtype; received {variable.dtype}"
                )
            parameters.check(name, str(variable.dtype), parameters.numbers_of(self))
            if name in self.vars_to_train:
                raise ValueError(f'a variable named "{name}" is registered already')
            if id(variable) in seen:
                raise ValueError(
                    f'the variable named "{name}" is registered already, as "{seen[id(variable)]}"'
                )
            seen[id(variable)] = name

    def update(self, grads: Mapping[str, Any]) -> None:
        """Update the variables by one step.

        Args:
            grads: The gradient for each variable by name, of the variable's shape; `None` leaves a
                variable as it is.

        Raises:
            brainpy.errors.MathError: The names are not those of the variables to train.
            TypeError: A gradient is not an array of numbers.
            ValueError: A gradient has the wrong shape, all of them are `None`, or the rate is out
                of range. Nothing has changed then.

        """
        gradients = self._checked(grads)
        rate = rates.value_of(self.lr)
        rows = {name: self._row(name, gradient) for name, gradient in gradients.items()}
        given = [precision.with_pairs(row) for row in rows.values()]
        options = Options(self.rho, self.epsilon, decay_mode=str(_CONVENTION.weight_decay_mode))
        made = self._engine.step(given, Call(rate), options)
        self._found_reasons = dict(zip(rows, self._engine.reasons, strict=True))
        values: list[tuple[Any, Any]] = []
        for (name, old), new in zip(rows.items(), made, strict=True):
            row = precision.without_pairs(new, old)
            variables = (self.vars_to_train[name], *self._averages[name])
            values += zip(variables, (row.parameter, row.square_avg, row.acc_delta), strict=True)
        step = self.step.value
        values.append((self.step, next_count(step)))
        if precision.is_traced(step):
            self._is_compiled = True
        with interrupts.Deferred():
            for variable, value in values:
                variable.value = value
            self.lr.step_call()

    def _checked(self, grads: Any) -> dict[str, Any]:
        """Return the gradients that are not `None`, or raise."""
        if not isinstance(grads, Mapping):
            raise TypeError(hyperparameters.refusal("grads", "a dict of gradients by name", grads))
        missing = [name for name in self.vars_to_train if name not in grads]
        extra = [name for name in grads if name not in self.vars_to_train]
        if missing or extra:
            first_of = hyperparameters.first_of
            parts = [f"missing: {first_of(missing)}"] if missing else []
            parts += [f"unknown: {first_of([str(name) for name in extra])}"] if extra else []
            text = (
                "`grads` must have the names of the variables to train, with None where there is "
                f"no gradient; {'; '.join(parts)}"
            )
            longest = hyperparameters.LONGEST_MESSAGE
            raise brainpy.errors.MathError(hyperparameters.shortened(text, longest))
        gradients = {}
        for name, gradient in grads.items():
            if gradient is None:
                continue
            gradient = bm.as_jax(gradient) if isinstance(gradient, bm.Array) else gradient
            like = bm.as_jax(self._averages[name][0])
            problem = precision.problem_with_gradient(gradient, like)
            if problem:
                kind, text = problem
                raise kind(f"the gradient for {name} {text}")
            gradients[name] = gradient
        if self.vars_to_train and not gradients:
            raise ValueError("No gradients provided for any variable.")
        return gradients

    def _row(self, name: str, gradient: Any) -> Row:
        variables = (self.vars_to_train[name], *self._averages[name])
        parameter, cache, delta = (jnp.asarray(bm.as_jax(variable)) for variable in variables)
        return Row(parameter, gradient, cache, delta, weight_decay=self.weight_decay or 0.0)

    def _kernel_report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the variables."""
        rows = {name: self._row(name, None) for name in self.vars_to_train}
        return report.served(self._engine, rows, self._found_reasons)

    def averages(self) -> dict[str, dict[str, Any]]:
        """Return the variables that hold the averages: by name, then `square_avg`, `acc_delta`."""
        return {
            name: {"square_avg": cache, "acc_delta": delta}
            for name, (cache, delta) in self._averages.items()
        }

    def save_states(self, filename: str | os.PathLike[str]) -> None:
        """Write the optimizer's state to a file, and replace a file that is there.

        The format is that of `adadelta.save_state()`: arrays by the variables' names, with a
        checksum. An existing file stays complete until the new one replaces it.

        Args:
            filename: The file, usually ending in ".safetensors".

        Raises:
            TypeError: `filename` is not a file name.
            OSError: The file can't be written. An existing file is unchanged.

        """
        portable.save_state(self, filename)

    def load_states(self, filename: str | os.PathLike[str]) -> None:
        """Load the state from a file that `save_states()` or `adadelta.save_state()` wrote.

        Variables are matched by name. Names that differ only in the numbers that BrainPy gives to
        objects, such as Dense0.W and Dense3.W, match too, if all of them match in their order. A
        scheduler continues where the saved one stopped if it is of the same class.

        Args:
            filename: The file.

        Raises:
            OSError: There is no such file, or it can't be read.
            adadelta.state.StateFileError: The file is damaged or of another kind.
            adadelta.state.StateMismatchError: Variables are missing, unknown, or of another shape
                or dtype. The error's `problems` lists everything. Nothing has changed then.

        """
        portable.load_state(self, filename)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        warn: bool = True,
        compatible: str = "v2",
        **kwargs: Any,
    ) -> StateLoadResult:
        """Load the result of `state_dict()` of this optimizer, or another one for its variables.

        BrainPy's own method looks for the names of objects, such as Adadelta0. A new optimizer has
        another name, so that method loads nothing. Here variables are matched as in
        `load_states()`.

        Args:
            state_dict: What `state_dict()` returned.
            warn: Has no effect, since a state that does not fit is an error.
            compatible: BrainPy's format, "v1" or "v2". The format is recognized automatically.
            **kwargs: Have no effect, as in BrainPy.

        Returns:
            A `StateLoadResult` in which nothing is missing or unexpected.

        Raises:
            TypeError: `state_dict` is not a dict of arrays by name.
            ValueError: `compatible` is unknown.
            adadelta.state.StateMismatchError: As for `load_states()`. Nothing has changed then.

        """
        if compatible not in ("v1", "v2"):
            raise ValueError(hyperparameters.refusal("compatible", '"v1" or "v2"', compatible))
        exchange.import_state(self, exchange.of_state_dict(state_dict, self.averages()))
        return StateLoadResult([], [])

    def __load_state__(
        self, state_dict: Mapping[str, Any], **kwargs: Any
    ) -> tuple[list[str], list[str]]:
        """Load the optimizer's own part of the state of a model that contains the optimizer.

        A state that does not fit is left out with a `StateWarning`. If a model's state has no part
        for the optimizer, BrainPy warns.

        Returns:
            The names of the variables that were missing and of those that were unexpected.

        """
        own = self.__save_state__()
        if not state_dict:
            return list(own), []
        name = next(iter(state_dict)).partition(".")[0]
        try:
            saved = exchange.of_state_dict({name: state_dict}, self.averages())
            exchange.import_state(self, saved)
        except (TypeError, ValueError) as error:
            advice = "optimizer.load_state_dict() loads it strictly"
            matching.warn_left_out(error, "goes on as it is", advice)
            missing = [key for key in own if key not in state_dict]
            return missing, [key for key in state_dict if key not in own]
        return [], []

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(lr={self.lr!r}, weight_decay={self.weight_decay}, "
            f"epsilon={self.epsilon}, rho={self.rho})"
        )
