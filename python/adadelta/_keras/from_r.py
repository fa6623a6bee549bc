"""Keras callbacks for R: they stay on R's thread, and call R functions there.

No R function that is called here raises or jumps. It returns a dict of how it ended, "kind", with
its "value" or a "message"; "waits" says that R signals the error itself once the call into Python
has returned.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class Progress(keras.callbacks.Callback):
    """Tells R how far `fit()` has come.

    That it overrides `on_train_batch_end` and does not say `async_safe` keeps Keras from calling
    any callback, its own progress bar too, from another thread, which waits for R for ever where
    Python's output goes through R.

    Args:
        show: An R function that is called with what happened ("begin", "batch", "epoch", "end"),
            the epoch, from 1, how many epochs and batches there are (0 where that is not known),
            the batch, from 1, and the metrics.
        interval: How many seconds at least are between two calls about batches; infinity for no
            such calls.
        form: What people see of it, such as "a progress bar".

    """

    def __init__(self, show: Callable[..., Any], interval: float, form: str) -> None:
        super().__init__()
        self.form = form
        self._show = show
        self._interval = float(interval)
        self._latest = 0.0
        self._epoch = 0
        self._has_failed = False

    def _tell(self, what: str, batch: int, logs: Any) -> None:
        if is_on_main_thread() and not self._has_failed:
            parameters = self.params or {}
            # A metric may be an array, for which a line has no place.
            metrics = {
                name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0
            }
            epochs, steps = parameters.get("epochs"), parameters.get("steps")
            answer = self._show(what, self._epoch, epochs or 0, batch, steps or 0, metrics)
            if answer["kind"] in ("error", "interrupt"):
                self._has_failed = True
                # An exception would make Keras' trainer on JAX lose the weights.
                if answer["waits"] and self.model is not None:
                    self.model.stop_training = True
                else:
                    raise exception_of(answer)

    def on_train_begin(self, logs: Any = None) -> None:
        """Tell that training begins."""
        self._has_failed = False
        self._epoch = 0
        self._tell("begin", 0, logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Take the number of the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell what a batch brought, not too often."""
        now = time.monotonic()
        if now - self._latest >= self._interval:
            self._latest = now
            self._tell("batch", batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tell what an epoch brought."""
        self._tell("epoch", 0, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Tell that training has ended."""
        self._tell("end", 0, logs)


def is_on_main_thread() -> bool:
    """Whether R can be called: from another thread it would end the process, or wait for ever."""
    return threading.current_thread() is threading.main_thread()


def exception_of(answer: dict[str, Any]) -> BaseException:
    """Python's exception for what ended an R function."""
    return KeyboardInterrupt() if answer["kind"] == "interrupt" else RuntimeError(answer["message"])


def end_running_call() -> bool:
    """End the `fit()` or the step that runs, after which R signals its error. Say whether one does.

    An exception would reach R first, as an error of another class.
    """
    frame: Any = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "fit" and isinstance(owner, keras.Model):
            owner.stop_training = True
            return True
    # The outermost function: R has called it.
    return frame.f_code.co_name in ("apply", "apply_gradients") and isinstance(
        owner, keras.optimizers.Optimizer
    )


# The name of its class in R.
Progress.__module__ = "adadelta"
