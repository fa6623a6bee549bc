"""Which variables are not decayed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any


class Exclusions:
    """Variables that are not decayed: by themselves, by their paths, or by words in these.

    Args:
        paths: The paths that a configuration names.
        words: A variable is excluded when one of them is found in its name.

    """

    def __init__(self, paths: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        self.paths, self.words = tuple(paths), tuple(words)
        # Of a loaded optimizer the paths alone are known.
        self._loaded_paths = self.paths
        self._keys: frozenset[Any] = frozenset()

    def set(self, keys: Iterable[Any], paths: Iterable[str], words: Iterable[str]) -> None:
        """Exclude these, instead of what a configuration had named before."""
        self._keys, self.paths, self.words = frozenset(keys), tuple(paths), tuple(words)
        self._loaded_paths = ()

    def are(self, keys: Iterable[Any], paths: Iterable[str], words: Iterable[str]) -> bool:
        """Whether these are what is excluded."""
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
            finds: Whether a word is found in its name, as the host looks for it.

        """
        is_named = key in self._keys or path in self._loaded_paths
        return is_named or any(map(finds, self.words))

    def meet(self, paths: Sequence[str]) -> None:
        """Take note of the paths of all variables.

        A loaded `Sequential` has lost its name from the paths of what is inside:
        `sequential/dense/bias` has become `dense/bias`.
        """
        models = {path.partition("/")[0] for path in paths}
        parts = [path.partition("/") for path in self._loaded_paths]
        inside = (rest for model, _, rest in parts if model not in models and rest in paths)
        self._loaded_paths = (*self._loaded_paths, *inside)

    def rename(self, paths: Sequence[tuple[str, str]]) -> bool:
        """Take over the paths that variables have now; return whether that changed anything.

        Args:
            paths: Of each variable, the path that it has now, and the one that it had in the model
                that was saved, whose layers can have had other numbers.

        """
        excluded = set(self.paths if self._loaded_paths else ())
        if not excluded or not excluded <= {saved for _, saved in paths}:
            return False
        now = tuple(path for path, saved in paths if saved in excluded)
        self._loaded_paths = self.paths = now
        return True

    def as_text(self) -> list[str]:
        """Return what was named, for people."""
        return [*self.paths, *self.words]

    def config(self) -> dict[str, list[str]]:
        """Return what makes these again, by the names of the arguments."""
        return {"paths": list(self.paths), "words": list(self.words)}
