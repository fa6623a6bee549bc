"""Variables that are excluded from weight decay."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any


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

    def set(self, keys: Iterable[Any], paths: Iterable[str], words: Iterable[str]) -> None:
        """Exclude these variables, instead of those that a configuration named."""
        self._keys, self.paths, self.words = frozenset(keys), tuple(paths), tuple(words)
        self._loaded_paths = ()

    def are(self, keys: Iterable[Any], paths: Iterable[str], words: Iterable[str]) -> bool:
        """Whether exactly these variables are excluded."""
        return bool(
            set(words) == set(self.words)
            and set(paths) == set(self.paths)
            and (frozenset(keys) == self._keys or self._loaded_paths)
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
