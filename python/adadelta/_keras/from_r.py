"""Keras callbacks for R, which call R functions on R's own thread.

An R function that is called here never raises an error or jumps. It returns a dict: "kind" says how
it ended, "value" or "message" with what, and "waits" whether R signals the error itself once the
call into Python has returned.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class Progress(keras.callbacks.Callback):
    """Reports the progress of `fit()` to R.

    This class overrides `on_train_batch_end` without setting `async_safe`, so Keras calls no
    callback, not even its progress bar, from another thread, which would hang where Python's output
    goes through R.

    Args:
        show: An R function that is called with the event ("begin", "batch", "epoch", "end"), the
            epoch from 1, the number of epochs, the batch from 1, the number of batches (either
            number is 0 if unknown), and the metrics.
        interval: The shortest time between two calls for batches, in seconds; infinity for no such
            calls.
        form: What users see of it, such as "a progress bar".

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
            # A metric may be an array, which does not fit into a line.
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
        """Report that training begins."""
        self._has_failed = False
        self._epoch = 0
        self._tell("begin", 0, logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the number of the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Report the metrics after a batch, at most once per interval."""
        now = time.monotonic()
        if now - self._latest >= self._interval:
            self._latest = now
            self._tell("batch", batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the metrics after an epoch."""
        self._tell("epoch", 0, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Report that training has ended."""
        self._tell("end", 0, logs)


def is_on_main_thread() -> bool:
    """Whether R can be called. From another thread, a call would crash the process or hang."""
    return threading.current_thread() is threading.main_thread()


def exception_of(answer: dict[str, Any]) -> BaseException:
    """Return the Python exception for the error or interrupt that ended an R function."""
    return KeyboardInterrupt() if answer["kind"] == "interrupt" else RuntimeError(answer["message"])


def end_running_call() -> bool:
    """Stop a running `fit()` or step, so that R signals its error; return whether one is running.

    An exception would reach R first, as an error of another class.
    """
    frame: Any = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "fit" and isinstance(owner, keras.Model):
            owner.stop_training = True
            return True
    # This is the outermost function, which R has called.
    return frame.f_code.co_name in ("apply", "apply_gradients") and isinstance(
        owner, keras.optimizers.Optimizer
    )


# This gives the class its name in R.
Progress.__module__ = "adadelta"
