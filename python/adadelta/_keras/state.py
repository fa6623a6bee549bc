"""What the optimizer knows: its variables, made by `build()`, and their names."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import hyperparameters, interrupts, parameters
from adadelta._core.step import Options
from adadelta._core.weight_decay import Exclusions
from adadelta._keras import jax_trainer, loss_scale, precision
from adadelta._keras.engines import Engine, eagerly
from adadelta._keras.rows import Rows
from adadelta._state import matching

# The variables that count, beside Keras' own `iteration`, by their names in saved state.
COUNTERS = {
    "update": "_update_counter",
    "window": "_window",
    "window_has_gradient": "_window_has_gradient",
    "skipped": "_skipped_counter",
    "loss_scale": "_loss_scale",
    "finite_calls": "_finite_calls",
}


def _other_variables() -> str:
    return parameters.other_variables("adadelta.Adadelta")


def path_of(variable: Any) -> str:
    # A tf.Variable has a name and no path.
    return str(getattr(variable, "path", None) or variable.name)


@cache
def _largest(dtype: str) -> int:
    return int(np.iinfo(dtype).max)


def count(counter: Any, condition: Any = True) -> None:
    """Add 1 where a condition is true, but not to the largest number, which would become negative.

    Args:
        counter: A Keras variable of integers.
        condition: A bool or a boolean scalar.

    """
    if condition is False:
        return
    value = counter.value
    adds = value < _largest(counter.dtype)
    if keras.config.backend() == "torch" and value is counter._value:
        # In place: Keras' operators and assign() take 90 us on a step that takes 150. Not in a
        # stateless scope, where another tensor stands for the variable's.
        value.add_(adds)
        return
    adds = adds if condition is True else ops.logical_and(adds, condition)
    counter.assign(value + ops.cast(adds, precision.dtype_of(counter)))


def parameter_names(variables: Sequence[Any]) -> list[str]:
    """The name of each parameter: its path, with a number where paths repeat."""
    return matching.distinct(path_of(variable) for variable in variables)


class State(keras.optimizers.Optimizer):
    """The variables of the optimizer."""

    built: bool
    # The number that was given as rate, and whether it has been set since the optimizer was made.
    _rate_was_set = False
    _engine: Any
    _options: Options
    _rows: Rows
    _overwriting: frozenset[int]
    _waiting_state: dict[str, np.ndarray] | None
    _given_rate: float | None
    _exclusions: Exclusions
    _update_counter: Any
    _window: Any
    _window_has_gradient: Any
    _skipped_counter: Any
    _loss_scale: Any
    _finite_calls: Any

    @property
    def variables(self) -> list[Any]:
        """The state variables, in Keras' order; ours that Keras lacks come last."""
        if keras.config.backend() == "jax":
            model, shares = jax_trainer.reading_trainer(self)
            if model is not None:
                jax_trainer.refuse_what_compiled_training_cannot_do(self, model, shares)
        return list(super().variables)

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
        with interrupts.Deferred():
            self._build(variables)

    def _build(self, variables: list[Any]) -> None:
        self._exclusions.meet([path_of(variable) for variable in variables])
        self._engine = Engine(self.fused)
        self._refuse_without_kernel(variables)
        self._options = Options.of(self)
        if isinstance(self._learning_rate, keras.Variable) and self._given_rate is not None:
            widest = {precision.state_dtype(precision.dtype_of(v)) for v in variables}
            if "float64" in widest and precision.dtype_of(self._learning_rate) != "float64":
                current = self._learning_rate
                self._untrack_variable(current)
                self._replace_rate(self._rate_variable(self._given_rate, "float64"))
            elif self._rate_was_set and "float64" not in widest:
                self._given_rate = precision.without_noise(self._given_rate)
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
                (), keras.initializers.Constant(loss_scale.FIRST), "float32", name="loss_scale"
            )
            self._finite_calls = self._counter("finite_calls")
        self._overwriting = frozenset(
            index
            for index, variable in enumerate(variables)
            if self._overwrite_variable_with_gradient(variable)
        )
        self.built = True
        self._rows = Rows(
            self._trainable_variables,
            [
                self._accumulated_grads,
                self._accumulated_delta_vars,
                self._model_variables_moving_average if self.use_ema else None,
                self._accumulated_gradients if self._window is not None else None,
            ],
            self._decays(),
        )
        if self._waiting_state is not None:
            waiting, self._waiting_state = self._waiting_state, None
            self._take(waiting)

    def _decays(self) -> list[float]:
        """The weight decay of each variable."""
        decay = self.weight_decay or 0.0
        return [decay if self._use_weight_decay(it) else 0.0 for it in self._trainable_variables]

    def _use_weight_decay(self, variable: Any) -> bool:
        # On TensorFlow the variable may be the one inside the Keras variable.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        path = path_of(variable)
        is_excluded = self._exclusions.have(self._var_key(variable), path, path.__contains__)
        return self.weight_decay is not None and not is_excluded

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
                # Inside compiled training the value would be one of its tensors, and XLA can't
                # make a variable of that.
                with eagerly():
                    # A copy: compiled training on JAX gives buffers away, each only once.
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
        """Make a state variable, in the dtype and shape that the state of `dtype` has."""
        if dtype is not None:
            dtype = keras.backend.standardize_dtype(dtype)
            if precision.is_complex(dtype):
                shape, layout = (*shape, 2), None
            dtype = precision.state_dtype(dtype)
        return super().add_variable(shape, initializer, dtype, aggregation, layout, name)

    def _refuse_repeated(self, variables: list[Any]) -> None:
        seen = set()
        for variable in variables:
            key = self._var_key(variable)
            if key in seen:
                raise parameters.repeated(path_of(variable))
            seen.add(key)

    def _refuse_unusable(self, variables: list[Any]) -> None:
        self._refuse_repeated(variables)
        for variable in variables:
            # A variable that is overwritten has no accumulators, so any numbers will do.
            overwritten = self._overwrite_variable_with_gradient(variable)
            numbers = {} if overwritten else parameters.numbers_of(self)
            parameters.check(path_of(variable), precision.dtype_of(variable), numbers)

    def _refuse_without_kernel(self, variables: list[Any]) -> None:
        if not self.fused:
            return
        taken = [it for it in variables if not self._overwrite_variable_with_gradient(it)]
        dtypes = sorted({precision.dtype_of(variable) for variable in taken})
        reason = next(filter(None, map(self._engine.reason_against_dtype, dtypes)), None)
        if reason is not None:
            raise ValueError(
                f"`fused` can't be {hyperparameters.received(True)} here: {reason}; None uses "
                "kernels where they can be used"
            )

    def _refuse_other_variables(self, variables: list[Any], shares: bool = False) -> None:
        """Raise unless these are the optimizer's variables, in order; or among others if shared."""
        known = self._trainable_variables_indices
        places = [known.get(self._var_key(v)) for v in variables]
        if shares:
            places = sorted(place for place in places if place is not None)
        if places != list(range(len(known))):
            raise ValueError(_other_variables())

    def _check_variables_are_known(self, variables: Iterable[Any]) -> None:
        # Keras' message has all values of the variable in it.
        for variable in variables:
            if self._var_key(variable) not in self._trainable_variables_indices:
                raise ValueError(f"Unknown variable: {path_of(variable)}. {_other_variables()}")

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

    def _named_state(self) -> dict[str, Any]:
        """Every state variable by name, in the order of `variables`."""
        state = {"iteration": self._iterations}
        if isinstance(self._learning_rate, keras.Variable):
            state["learning_rate"] = self._learning_rate
        if not self.built:
            return state
        names = [name.replace("/", "|") for name in parameter_names(self._trainable_variables)]
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
        for name, attribute in COUNTERS.items():
            variable = getattr(self, attribute)
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
            raise parameters.no_weights_yet()
        weights = list(weights)
        expected = [(variable.path, tuple(variable.shape)) for variable in self.variables]
        parameters.check_weights(weights, expected, np.shape, "variables")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)
