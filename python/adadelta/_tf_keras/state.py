"""The optimizer's state: its variables, created by `build()`, and their saving and loading."""

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from adadelta._core import hyperparameters, parameters
from adadelta._core.precision import state_dtype
from adadelta._core.weight_decay import Exclusions
from adadelta._state import keras_file, matching
from adadelta._state.exchange import mapped, state_of, unbuilt
from adadelta._state.record import OptimizerState
from adadelta._tensorflow import arrays, exchange
from adadelta._tensorflow.engine import Engine
from adadelta._tensorflow.gradients import name_of
from adadelta._tf_keras import learning_rate, loaders

_HOST = "tf_keras.optimizers.Adadelta"


class State(tf_keras.optimizers.Optimizer):
    """The variables of the optimizer."""

    _engine: Engine
    _exclusions: Exclusions
    # The state that was loaded before the optimizer was built.
    _waiting_state: Any
    # Whether the `.keras` file that is being loaded says that tf_keras' own Adadelta wrote it.
    _is_hosts_in_file = False
    # Which checkpoint was restored last, and whether it did not fit.
    _last_checkpoint = (0, False)

    @property
    def built(self) -> bool:
        """Whether the state has been made."""
        return bool(getattr(self, "_built", False))

    def build(self, var_list: Iterable[Any]) -> None:
        """Create the state for the parameters that will be updated.

        Args:
            var_list: TensorFlow variables of a floating or complex dtype, each once. A later call
                may pass a subset.

        Raises:
            ValueError: A variable occurs twice or is not of such a dtype, or `epsilon` is too
                small for it.
            KeyError: The optimizer was built on other variables.

        """
        variables = list(var_list)
        parameters.refuse_repeated(variables, self._var_key, name_of)
        if self.built:
            self._refuse_unknown(variables)
            return
        for variable in variables:
            numbers = parameters.numbers_of(self)
            parameters.check(name_of(variable), arrays.dtype_of(variable), numbers)
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
        """Create a state variable for a parameter, 0 unless `initial_value` is given."""
        dtype = arrays.dtype_of(model_variable)
        if dtype == state_dtype(dtype):
            return super().add_variable_from_reference(
                model_variable, variable_name, shape, initial_value
            )
        value = tf.zeros_like(model_variable) if initial_value is None else initial_value
        value = arrays.in_state(tf.convert_to_tensor(value), state_dtype(dtype))
        strategy = tf.distribute.get_strategy().extended
        beside = nullcontext() if self._mesh else strategy.colocate_vars_with(model_variable)
        with beside:
            return self._variable(value, f"{variable_name}/{model_variable._shared_name}")

    def _counter(self, name: str) -> Any:
        zero = tf.constant(0, tf.int64)
        return self._variable(_replicated(zero, self._mesh) if self._mesh else zero, name)

    def _variable(self, value: Any, name: str) -> Any:
        make = tf.experimental.dtensor.DVariable if self._mesh else tf.Variable
        variable = make(value, name=name, trainable=False)
        self._variables.append(variable)
        return variable

    def _refuse_unknown(self, variables: list[Any]) -> None:
        for variable in variables:
            if self._var_key(variable) not in self._index_dict:
                name = hyperparameters.shortened(name_of(variable), 60)
                raise KeyError(
                    f"The optimizer cannot recognize variable {name}: it was built on others. "
                    "Build it on all that it is to update, or make a new optimizer"
                )

    @property
    def skipped(self) -> int:
        """The number of calls that were skipped because a gradient was NaN or infinite."""
        return 0 if self._skipped is None else int(self._skipped.numpy())

    @property
    def variables(self) -> Any:
        """The state variables."""
        self._catch_up()
        return super().variables

    def _trackable_children(self, *arguments: Any, **options: Any) -> Any:
        """Return what a checkpoint saves or restores."""
        self._catch_up()
        return super()._trackable_children(*arguments, **options)

    def _catch_up(self) -> None:
        """Let rows that had no gradient catch up, before the state is read or changed."""
        if self.built:
            self._engine.catch_up()

    def get_weights(self) -> list[np.ndarray]:
        """Return the values of `variables`, in the form that `set_weights()` accepts."""
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
        if loaders.running(loaders.HDF5):
            self._import_or_warn(lambda: loaders.from_hdf5(weights))
            return
        values = [np.asarray(weight) for weight in weights]
        expected = [
            (name_of(variable), tuple(variable.shape.as_list())) for variable in self.variables
        ]
        parameters.check_weights(map(np.shape, values), expected, "variables")
        self._write(self.variables, values)

    def save_own_variables(self, store: Any) -> None:
        """Write the state into a Keras file by name; before `build()`, the one that was loaded."""
        if self.built:
            arrays = keras_file.to_file(exchange.learned(self._parts()))
        else:
            start = {"iteration": self.iterations.numpy(), **keras_file.MARK}
            arrays = dict(self._waiting_state or start)
        for name, array in arrays.items():
            store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Load the state from a Keras file of this class or of `tf_keras.optimizers.Adadelta`.

        If the optimizer is not built yet, it loads the state when it is. A state that does not fit
        is left out with a `StateWarning`, and the optimizer starts anew. Numbered arrays are loaded
        if `load_model()` created the optimizer from the config of `tf_keras.optimizers.Adadelta` in
        the same file. Others change nothing, since their origin is unknown.
        """
        saved = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (no dict)
        is_hosts, self._is_hosts_in_file = self._is_hosts_in_file, False
        if saved and keras_file.is_numbered(saved):
            if not is_hosts:
                self._leave_out(saved)
                return
            saved[keras_file.OF_HOST] = np.asarray(1)
        if self.built:
            if saved:
                self._take(saved)
        else:
            self._waiting_state = self._no_dependency(saved) if saved else None

    def _lookup_dependency(self, name: str, cached_dependencies: Any = None) -> Any:
        """Return the dependency of this name, or None if the checkpoint's state does not fit."""
        found = loaders.lists_in_checkpoint()
        if found and self._is_left_out(*found):
            return None
        return super()._lookup_dependency(name, cached_dependencies)

    def _is_left_out(self, checkpoint: int, lists: dict[str, list[str]]) -> bool:
        # TensorFlow calls this for each list, one checkpoint after the other.
        if self._last_checkpoint[0] != checkpoint:
            problem, outcome = self._problem_with_checkpoint(lists), "stays as it was"
            # Bypass tf_keras' tracking, which would replace the pair by a list of its own.
            self.__dict__["_last_checkpoint"] = checkpoint, problem is not None
            if problem and "_accumulated_grads" in lists:
                self._start_anew()
                outcome = "starts anew"
            if problem:
                matching.warn_left_out(problem, outcome, "")
        return self._last_checkpoint[1]

    def _problem_with_checkpoint(self, lists: dict[str, list[str]]) -> str | None:
        names = lists.get("_accumulated_grads", [])
        if not names:
            # More than the counter, but not the averages of this class.
            is_other = len(lists.get("_variables", [])) > 1
            return "it is that of another optimizer" if is_other else None
        if bool(lists.get("_model_variables_moving_average")) != self.use_ema:
            return f"`use_ema` was {not self.use_ema} for the optimizer that was saved"
        saved = matching.distinct(map(loaders.parameter_of, names))
        own = matching.distinct(map(name_of, self._parameters))
        paired = matching.paired(saved, own)
        if self.built and [paired.get(name) for name in own] != saved:
            return "it is for other parameters, or for these in another order"
        return None

    def load_strictly(self, contents: keras_file.Contents, target: Any) -> None:
        """Load the state from a file of this class or of `tf_keras.optimizers.Adadelta`, or raise.

        The arguments and the error are those of `load_strictly()` of `adadelta.Adadelta`, except
        that a `LossScaleOptimizer` as target is an error: the file does not name its loss scale.
        """
        if not target.built:
            raise unbuilt()
        saved = keras_file.arrays_of(contents, _HOST)
        if target is not self:
            matching.refuse(
                [
                    "the file does not name the loss scale of tf_keras' LossScaleOptimizer; pass "
                    "the optimizer inside it"
                ]
            )
        with tf.init_scope():
            self._import(self._state_in(saved))

    def _take(self, saved: dict[str, np.ndarray]) -> None:
        self._import_or_warn(lambda: self._state_in(saved))

    def _import_or_warn(self, read: Callable[[], OptimizerState]) -> None:
        # The optimizer may be built while a step is traced; keep this out of the graph.
        with tf.init_scope():
            try:
                self._import(read())
            except (OverflowError, TypeError, ValueError) as error:
                self._start_anew()
                keras_file.warn_left_out(error)

    def _import(self, state: OptimizerState) -> None:
        if not state.parameters and not state.step:
            # The optimizer that was saved had not been built.
            state = self._start()
        names = exchange.take(self._parts(), state)
        saved = {own: name.partition("#")[0] for own, name in names.items()}
        # A loaded optimizer excludes variables from weight decay by their names in the saved model,
        # where layers can have had other numbers.
        own = matching.distinct(map(name_of, self._parameters))
        now = map(name_of, self._parameters)
        self._exclusions.rename([(name, saved[path]) for name, path in zip(now, own, strict=True)])

    def _state_in(self, saved: dict[str, np.ndarray]) -> OptimizerState:
        """Return the state in a file, or raise."""
        saved = dict(saved)
        if saved.pop(keras_file.OF_HOST, None) is None:
            return keras_file.from_file(saved)
        arrays = keras_file.in_order(saved)
        # An optimizer that was not built has only its counter.
        slots = self._slots() if len(arrays) > 1 else {}
        parameters = keras_file.by_position(arrays, slots, "tf_keras", range(1, 2))
        return state_of(parameters, {"step": int(arrays[0])})

    def _start(self) -> OptimizerState:
        """Return the state of a built optimizer before its first call."""
        slots = self._slots()
        start = mapped(exchange.zeros_like, slots)
        for variable, (name, own) in zip(self._parameters, slots.items(), strict=True):
            if "average" in own:
                value = tf.convert_to_tensor(_whole(variable))
                start[name]["average"] = arrays.to_state(value, own["average"]).numpy()
        return OptimizerState(parameters=start)

    def _start_anew(self) -> None:
        if self.built:
            exchange.take(self._parts(), self._start())
        else:
            self._iterations.assign(0)

    def _leave_out(self, saved: dict[str, np.ndarray]) -> None:
        """Warn of numbered arrays of unknown origin."""
        arrays, outcome = keras_file.in_order(saved), "stays as it was"
        own = self._read(self.variables)
        # tf_keras' LossScaleOptimizer has put them into the optimizer inside it, by position.
        if self.built and len(own) == len(arrays) and all(map(np.array_equal, arrays, own)):
            with tf.init_scope():
                self._start_anew()
            outcome = "starts anew"
        keras_file.warn_of_unknown_origin(outcome, _HOST)

    def _parts(self) -> exchange.Parts:
        if not self.built:
            raise unbuilt()
        skipped = {} if self._skipped is None else {"skipped": self._skipped}
        return exchange.Parts(
            counters={"step": self._iterations, **skipped},
            slots=self._slots(),
            read=self._read,
            write=self._write,
            rate=self._rate_number(),
            check_rate=learning_rate.checked,
            set_rate=functools.partial(setattr, self, "learning_rate"),
        )

    def _rate_number(self) -> float | None:
        """Return the learning rate if it is a number, else None."""
        raise NotImplementedError

    def _slots(self) -> dict[str, dict[str, Any]]:
        self._catch_up()
        slots: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(matching.distinct(map(name_of, self._parameters))):
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
                value = _replicated(value, self._mesh)
                value = tf.experimental.dtensor.relayout(value, variable.layout)
            variable.assign(value)


def _replicated(value: Any, mesh: Any) -> Any:
    """Return a value that is replicated on every device of a mesh."""
    dtensor = tf.experimental.dtensor
    return dtensor.copy_to_mesh(value, dtensor.Layout.replicated(mesh, len(value.shape)))


def _whole(variable: Any) -> Any:
    """Return the whole value of a variable, gathered if it is on a mesh."""
    layout = getattr(variable, "layout", None)
    if layout is None:
        return variable.numpy()
    dtensor = tf.experimental.dtensor
    replicated = dtensor.Layout.replicated(layout.mesh, variable.shape.rank)
    return dtensor.relayout(variable.read_value(), replicated).numpy()
