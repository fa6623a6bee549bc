"""Which variables are decayed, and by how much."""

from typing import Any

from adadelta._core import parameters
from adadelta._keras.state import State, path_of


class WeightDecay(State):
    """What an optimizer knows of weight decay; the decay itself is part of an update."""

    _excluded_keys: frozenset[Any]
    _excluded_paths: tuple[str, ...]
    _excluded_words: tuple[str, ...]

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Name variables that are not decayed; to be called before the optimizer is built.

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
        keys = frozenset(self._var_key(variable) for variable in variables)
        paths = tuple(path_of(variable) for variable in variables)
        if self.built:
            # A loaded optimizer knows the paths alone.
            same = (
                set(words) == set(self._excluded_words)
                and set(paths) == set(self._excluded_paths)
                and (keys == self._excluded_keys or self._excluded_loaded_paths)
            )
            if not same:
                raise parameters.too_late_to_exclude()
            return
        self._excluded_keys, self._excluded_paths = keys, paths
        self._excluded_words = tuple(words)
        # What a configuration had named before.
        self._excluded_loaded_paths = ()

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: each variable's decay is part of its `update_step`."""

    def _decay_of(self, variable: Any) -> float:
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def _use_weight_decay(self, variable: Any) -> bool:
        if self.weight_decay is None:
            return False
        # On TensorFlow the variable may be the one inside the Keras variable.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        path: str = path_of(variable)
        return not (
            self._var_key(variable) in self._excluded_keys
            or path in self._excluded_loaded_paths
            or any(word in path for word in self._excluded_words)
        )
