"""The monitor for R, whose warnings are R conditions."""

from collections.abc import Callable
from typing import Any

from adadelta._keras.from_r import is_on_main_thread
from adadelta._watch.monitor import Monitor


class MonitorForR(Monitor):
    """A monitor that warns in R.

    Args:
        every: As for `Monitor`.
        sample: As for `Monitor`.
        warn: An R function that is called with each message, and whose value says whether R
            will warn.

    """

    def __init__(self, every: Any, sample: Any, warn: Callable[[str], Any]) -> None:
        super().__init__(every, sample)
        self._warn_in_r = warn

    def warn(self, message: str) -> None:
        """Warn in R once `fit()` has returned, or in Python if R can't."""
        if not (is_on_main_thread() and self._warn_in_r(message).get("value")):
            super().warn(message)
