"""A Keras callback that records what the optimizer does, and warns in plain words."""

import math
import warnings
from typing import Any

from adadelta._core.backend import keras_needed_by

with keras_needed_by("adadelta.Monitor"):
    import keras

from adadelta._core import hyperparameters
from adadelta._core.loss_scaling import unwrapped
from adadelta._core.table import aligned
from adadelta._keras import reading
from adadelta._keras.exchange import parts_of
from adadelta._watch import diagnosis
from adadelta.keras import Adadelta

__all__ = ["Monitor"]


class Monitor(keras.callbacks.Callback):
    """Records what Adadelta does during `fit()`, as data and as a plot, and warns of problems.

    It records one row for each variable that is trained: after the first update, after every
    `every`-th, and at the end. It warns, once for each kind of problem, when the learning rate is
    so low that nothing changes, when gradients reach the limit of their size, when calls are
    skipped, when an average becomes NaN, and when a variable gets no gradient.

    A second `fit()` with the same optimizer adds to the records; with another one they start over.
    Recording takes about as long as a small training step, so a small `every` slows down the
    training of small models.

    Args:
        every: The number of updates between records, a whole number of at least 1.
        sample: How many elements of each variable are read, a whole number of at least 1. They are
            the same ones at every record, chosen at random with a seed that depends only on the
            size of the variable. Smaller variables are read as a whole.

    Attributes:
        records: A list of dicts, one for each record and variable, with the following items.
            Statistics are those of the sample.

            - "step", "update", "skipped": how many calls, updates and skipped calls the optimizer
              has made;
            - "epoch": the epoch, from 1;
            - "loss": the loss that Keras reports, which is the mean since the epoch began;
            - "learning_rate": the learning rate of this step;
            - "variable", "layer", "size": the path of the variable, the same without its last
              part, and how many numbers it has;
            - "effective_rate_q05", "..._q25", "..._q50", "..._q75", "..._q95": quantiles of the
              effective learning rate. This multiplies the gradient of each element, and is the
              learning rate times RMS[step] / RMS[gradient] of that element;
            - "gradient_rms": the root of the mean of `square_avg`, the running average of squared
              gradients. It starts at 0, so it is too small in about the first `1 / (1 - rho)`
              updates;
            - "update_rms": the learning rate times the root of the mean of `acc_delta`, the
              running average of squared steps: how far an element moves in one update. It is too
              small at first as well;
            - "weight_rms": the root of the mean of the squared weights.

    Raises:
        TypeError: An argument is of the wrong type; or, when training begins, the optimizer of the
            model is not `adadelta.Adadelta`, alone or in `keras.optimizers.LossScaleOptimizer`.
            Nothing has changed then.
        ValueError: An argument is out of range.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701: equation 14,
        and Figure 2, which `plot()` draws by layer.

    Example:
        >>> import keras, numpy as np, adadelta
        >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(adadelta.Adadelta(learning_rate=1.0), "mse")
        >>> monitor = adadelta.Monitor(every=10)
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> history = model.fit(*data, epochs=20, verbose=0, callbacks=[monitor])
        >>> sorted(set(row["update"] for row in monitor.records))
        [1, 10, 20]
        >>> list(monitor.to_dict())[:3]
        ['step', 'update', 'epoch']
        >>> monitor  # doctest: +ELLIPSIS
        <Adadelta monitor>
          3 records, to update 20 in epoch 20: loss ..., learning rate 1
          ...effective learning rate ..., update ...

    """

    records: list[dict[str, Any]]

    def __init__(self, every: int = 100, sample: int = 1000) -> None:
        self.every = hyperparameters.MONITOR["every"]("every", every)
        self.sample = hyperparameters.MONITOR["sample"]("sample", sample)
        super().__init__()
        self._optimizer: Adadelta | None = None
        self._epoch = 1
        self._start_over()

    def _start_over(self) -> None:
        self.records = []
        self._warned: set[str] = set()
        self._watched: diagnosis.Watched | None = None

    # ------------------------------------------------------------------ Keras calls these

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse other optimizers, and read the weights if the optimizer is built."""
        optimizer = _adadelta_of(self.model)
        if optimizer is not self._optimizer:
            self._optimizer = optimizer
            self._start_over()
        self._watched = None
        self._epoch = 1
        self._last_batch = -1
        self._recorded_loss = (0, 0.0)
        self._calls = self._recorded_calls = 0
        # An update takes several calls if gradients are accumulated.
        self._calls_of_an_update = optimizer.gradient_accumulation_steps or 1
        self._next = self._calls_of_an_update
        if optimizer.built:
            self._begin_to_watch(optimizer)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the number of the epoch, which Keras counts from 0."""
        self._epoch = epoch + 1
        self._last_batch = -1
        self._recorded_loss = (0, 0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Record if enough updates have been made."""
        # With steps_per_execution this is called once for several batches.
        self._calls += batch - self._last_batch if batch > self._last_batch else 1
        self._last_batch = batch
        if self._calls >= self._next:
            period = self.every * self._calls_of_an_update
            self._next = (self._calls // period + 1) * period
            self._record(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Record the end of training."""
        if self._calls > self._recorded_calls:
            self._record(logs)

    # ------------------------------------------------------------------ recording

    def _begin_to_watch(self, optimizer: Adadelta) -> None:
        # TensorFlow builds an optimizer in its first call, which is over by now.
        own = parts_of(optimizer).state
        calls, updates = own.progress()
        step = calls - self._calls
        self._watched = diagnosis.Watched(
            start=reading.weights(own, self.sample),
            update=updates if step else 0,
            step=step,
            skipped=optimizer.skipped if step else 0,
            optimizer=optimizer,
        )

    def _record(self, logs: Any) -> None:
        # Reading `self.model` copies JAX's values back into the variables.
        optimizer = _adadelta_of(self.model)
        if self._watched is None:
            self._begin_to_watch(optimizer)
        self._recorded_calls = self._calls
        parts = parts_of(optimizer)
        own = parts.state
        step, update = own.progress()
        common = {
            "step": step,
            "update": update,
            "epoch": self._epoch,
            "loss": float((logs or {}).get("loss", math.nan)),
            "learning_rate": parts.rate.latest(step),
            "skipped": optimizer.skipped,
        }
        readings = reading.read(own, optimizer.epsilon, common["learning_rate"], self.sample)
        self.records += [{**common, **one.row()} for one in readings]
        assert self._watched is not None
        self._watched.add(common, readings, *self._since_last_record(common["loss"]))
        for kind, find in diagnosis.KINDS.items():
            message = None if kind in self._warned else find(self._watched)
            if message:
                self._warned.add(kind)
                self.warn(message)

    def _since_last_record(self, mean: float) -> tuple[int, float]:
        """Return the number of batches and their mean loss, from the mean of the epoch."""
        batches = max(self._last_batch, 0) + 1
        (before, mean_before), self._recorded_loss = self._recorded_loss, (batches, mean)
        if before >= batches:
            return batches, mean
        return batches - before, (batches * mean - before * mean_before) / (batches - before)

    def warn(self, message: str) -> None:
        """Warn. A subclass can send the message elsewhere.

        Args:
            message: What was found, and what to do about it.

        """
        warnings.warn(message, stacklevel=2)

    # ------------------------------------------------------------------ results

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the records by columns, as `pandas.DataFrame()` takes them."""
        return {column: [row[column] for row in self.records] for column in reading.COLUMNS}

    def __repr__(self) -> str:
        """Show the last record, as R's print() does: a line for each variable."""
        head = "<Adadelta monitor>"
        if not self.records:
            return f"{head}\n  nothing recorded yet"
        end = self.records[-1]
        last = [row for row in self.records if row["step"] == end["step"]]
        rows = [
            (
                row["variable"],
                f"effective learning rate {row['effective_rate_q50']:.3g}, "
                f"update {row['update_rms']:.3g}",
            )
            for row in last
        ]
        about = (
            f"{len({row['step'] for row in self.records})} records, to update {end['update']} in "
            f"epoch {end['epoch']}: loss {end['loss']:.3g}, learning rate "
            f"{end['learning_rate']:.3g}"
        )
        return "\n  ".join([head, about, *aligned(rows)])

    def plot(self, variables: Any = None, figure: Any = None) -> Any:
        """Draw the effective learning rates and the updates over training, by layer.

        Needs matplotlib. One panel shows the median of the effective learning rates, with a band
        from their 5 % to their 95 % quantile, the other one `update_rms`.

        Args:
            variables: A list of paths of variables, or `None` for the largest of each layer.
            figure: The `matplotlib.figure.Figure` to draw into, or `None` for a new one.

        Returns:
            The figure, to be shown or saved: `monitor.plot().savefig("training.png")`.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: Nothing is recorded yet, or a variable is unknown.

        """
        from adadelta._watch.plot import plot

        return plot(self.records, variables, figure)


def _adadelta_of(model: Any) -> Adadelta:
    """Return the optimizer of a model, without Keras' wrapper, or raise if it is not ours."""
    given = getattr(model, "optimizer", None)
    optimizer, _ = unwrapped(given)
    if not isinstance(optimizer, Adadelta):
        requirement = (
            "the optimizer that is watched must be adadelta.Adadelta, alone or in "
            "keras.optimizers.LossScaleOptimizer"
        )
        kind = type(optimizer)
        raise TypeError(f"{requirement}; received {kind.__module__}.{kind.__qualname__}")
    return optimizer


Monitor.__module__ = "adadelta"
