"""Variables that are excluded from weight decay."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from adadelta._core.hyperparameters import as_text, has, is_a, refusal


class Exclusions:
    """Variables excluded from weight decay: by identity, by path, or by words in their names.

    Args:
        paths: The paths that a configuration names.
        words: A variable is excluded if its name contains one of them.

    """

    def __init__(self, paths: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        self.paths, self.words = tuple(paths), tuple(words)
        # For a loaded optimizer, only the paths are known.
        self._loaded_paths = self.paths
        self._keys: frozenset[Any] = frozenset()

    def exclude(
        self,
        var_list: Any,
        var_names: Any,
        key: Callable[[Any], Any],
        path: Callable[[Any], str],
        is_built: bool,
    ) -> None:
        """Exclude variables from weight decay; this replaces what a configuration excluded.

        Args:
            var_list: The first argument of `exclude_from_weight_decay()`: None, or variables of any
                framework.
            var_names: Its second argument: None, several words, or a single one, as R passes a
                vector of length one.
            key: Returns the key of a variable.
            path: Returns the path of a variable.
            is_built: Whether the optimizer is built, so that it is too late for a change.

        """
        variables = _listed(var_list)
        if variables is None or not all(map(_is_variable, variables)):
            raise TypeError(refusal("var_list", ("a list of variables", None), var_list))
        listed = _listed([var_names] if as_text(var_names) is not None else var_names)
        words = None if listed is None else [as_text(word) for word in listed]
        if words is None or not all(words):
            requirement = ("a string or a list of strings, none of them empty", None)
            raise TypeError(refusal("var_names", requirement, var_names))
        keys, paths = frozenset(map(key, variables)), tuple(map(path, variables))
        if not is_built:
            self._keys, self.paths, self.words = keys, paths, tuple(filter(None, words))
            self._loaded_paths = ()
            return
        is_known = set(words) == set(self.words) and set(paths) == set(self.paths)
        if not (is_known and (keys == self._keys or self._loaded_paths)):
            raise ValueError(
                "`exclude_from_weight_decay()` can only be called before the optimizer is built; "
                "after that, only with the same arguments again, which changes nothing"
            )

    def have(self, key: Any, path: str, finds: Callable[[str], Any]) -> bool:
        """Whether a variable is excluded.

        Args:
            key: Its key.
            path: Its path.
            finds: Returns whether its name contains a word, by the host's rule.

        """
        is_named = key in self._keys or path in self._loaded_paths
        return is_named or any(map(finds, self.words))

    def meet(self, paths: Sequence[str]) -> None:
        """Record the paths of all variables.

        In a loaded `Sequential` model, the paths of variables have lost its name:
        `sequential/dense/bias` has become `dense/bias`.
        """
        models = {path.partition("/")[0] for path in paths}
        parts = [path.partition("/") for path in self._loaded_paths]
        inside = (rest for model, _, rest in parts if model not in models and rest in paths)
        self._loaded_paths = (*self._loaded_paths, *inside)

    def rename(self, paths: Sequence[tuple[str, str]]) -> bool:
        """Replace saved paths by the present ones; return whether that was done.

        Args:
            paths: For each variable, its present path, and its path in the saved model, whose
                layers may have had other numbers.

        """
        excluded = set(self.paths if self._loaded_paths else ())
        if not excluded or not excluded <= {saved for _, saved in paths}:
            return False
        now = tuple(path for path, saved in paths if saved in excluded)
        self._loaded_paths = self.paths = now
        return True

    def as_text(self) -> list[str]:
        """Return the excluded paths and words, for people to read."""
        return [*self.paths, *self.words]

    def config(self) -> dict[str, list[str]]:
        """Return the arguments that recreate these exclusions."""
        return {"paths": list(self.paths), "words": list(self.words)}


def _listed(value: Any) -> list[Any] | None:
    if value is None:
        return []
    return list(value) if is_a(value, list | tuple | set | frozenset) else None


def _is_variable(value: Any) -> bool:
    return has(value, "shape") and has(value, "name")
