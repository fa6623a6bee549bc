"""What the optimizer knows: its variables, made by `build()`, and their way into files."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from adadelta._core import parameters
from adadelta._core.precision import state_dtype
from adadelta._state import keras_file, matching
from adadelta._tensorflow import exchange, precision, step


class State(tf_keras.optimizers.Optimizer):
    """The variables of the optimizer."""

    # What was loaded before there were variables.
    _waiting_state: Any

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
            numbers = parameters.numbers_of(self)
            parameters.check(step.name_of(variable), precision.dtype_of(variable), numbers)
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
            raise parameters.no_weights_yet()
        values = [np.asarray(weight) for weight in weights]
        expected = [(step.name_of(it), tuple(it.shape.as_list())) for it in self.variables]
        parameters.check_weights(values, expected, np.shape, "variables")
        self._write(self.variables, values)

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a `.keras` file, by name; what waits is written as it was loaded."""
        if self.built:
            arrays = keras_file.to_file(exchange.learned(self))
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


def _whole(variable: Any) -> Any:
    """The value of a variable, put together where it lies on a mesh."""
    layout = getattr(variable, "layout", None)
    if layout is None:
        return variable.numpy()
    dtensor = tf.experimental.dtensor
    replicated = dtensor.Layout.replicated(layout.mesh, variable.shape.rank)
    return dtensor.relayout(variable.read_value(), replicated).numpy()
