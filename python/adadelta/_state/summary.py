"""The table that `summary()` returns: how far each variable's gradients move it."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from adadelta._core import rule
from adadelta._core.table import aligned

_QUANTILES = {
    "rate_min": 0.0,
    "rate_q25": 0.25,
    "rate_median": 0.5,
    "rate_q75": 0.75,
    "rate_max": 1.0,
}
_RMS = ("gradient_rms", "update_rms")
_COLUMNS = ("variable", "shape", "parameters", *_QUANTILES, *_RMS)
_HEADINGS = (
    "variable",
    "shape",
    "parameters",
    *("rate: min", "25%", "median", "75%", "max"),
    *("RMS: gradient", "update"),
)


class Averages(NamedTuple):
    """One variable and its averages, which are `None` for a variable without any.

    The shape is that of the variable: the averages of a complex one have one more axis.
    """

    name: str
    shape: tuple[int, ...]
    square_avg: np.ndarray | None
    acc_delta: np.ndarray | None


class Summary(list[dict[str, Any]]):
    """How an optimizer moves each variable: a list of rows that prints as a table.

    Each row is a dict of:

    - `variable`, its path; `shape`; and `parameters`, how many numbers it has;
    - `rate_min`, `rate_q25`, `rate_median`, `rate_q75` and `rate_max`, the quantiles over its
      elements of the effective learning rate. This is the learning rate times RMS[updates] /
      RMS[gradients] (Zeiler 2012, equation 14): how far a gradient of 1 would move the element,
      apart from what this gradient adds to the averages. Before the first gradient it is the
      learning rate itself;
    - `gradient_rms`, the root of the mean over its elements of the running average of squared
      gradients, unscaled and clipped as the equations use them;
    - `update_rms`, the same for the squared updates, times the learning rate: how far its elements
      move per update.

    The averages begin at 0 and are too small for about the first `1 / (1 - rho)` updates. The
    numbers of a variable without elements, or without averages, are NaN.

    Attributes:
        learning_rate: The learning rate of the next step, or `None` before the optimizer is built.
        built: Whether there is anything in the table.
        progress: What the optimizer is built on and how far it has come, in words.

    Example:
        >>> import keras, adadelta
        >>> x = keras.Variable([1.0, 2.0], name="x")
        >>> optimizer = adadelta.Adadelta(1.0, rho=0.75, epsilon=0.25)
        >>> optimizer.summary()
        Adadelta, not yet built: the first step builds it, or build(variables)
        >>> optimizer.apply([keras.ops.array([1.0, -3.0])], [x])
        >>> optimizer.summary().to_dict()["rate_min"]  # doctest: +ELLIPSIS
        [0.435...]

    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], learning_rate: float | None, progress: str
    ) -> None:
        super().__init__(rows)
        self.learning_rate = learning_rate
        self.progress = progress

    @property
    def built(self) -> bool:
        """Whether the optimizer is built."""
        return self.learning_rate is not None

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns by name, as `pandas.DataFrame` takes them."""
        return {column: [row[column] for row in self] for column in _COLUMNS}

    def __repr__(self) -> str:
        if not self.built:
            return "Adadelta, not yet built: the first step builds it, or build(variables)"
        rows = [_HEADINGS, *(tuple(map(_shown, row.values())) for row in self)]
        # All but the names and shapes are numbers.
        lines = aligned(rows, right=range(2, len(_COLUMNS)))
        head = f"Adadelta, {self.progress}, learning rate {self.learning_rate:g}"
        return "\n".join([head, "", *lines])

    def __reduce__(self) -> Any:
        return Summary, (list(self), self.learning_rate, self.progress)


def summarize(
    variables: Iterable[Averages], learning_rate: float, epsilon: float, progress: str
) -> Summary:
    """Return the summary of these variables."""
    rows = (_row(averages, learning_rate, epsilon) for averages in variables)
    return Summary(rows, learning_rate, progress)


def progress(variables: int, numbers: int, calls: int, updates: int) -> str:
    """Return in words what an optimizer is built on and how far it has come.

    Example:
        >>> progress(2, 1234, 6, 3)
        'built on 2 variables (1,234 numbers), after 3 updates in 6 calls'

    """
    text = (
        f"built on {_counted(variables, 'variable')} ({_counted(numbers, 'number')}), "
        f"after {_counted(updates, 'update')}"
    )
    return text if calls == updates else f"{text} in {_counted(calls, 'call')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _row(variable: Averages, learning_rate: float, epsilon: float) -> dict[str, Any]:
    row = {
        "variable": variable.name,
        "shape": variable.shape,
        "parameters": math.prod(variable.shape),
        **dict.fromkeys((*_QUANTILES, *_RMS), math.nan),
    }
    square_avg, acc_delta = variable.square_avg, variable.acc_delta
    if square_avg is None or acc_delta is None or not square_avg.size:
        return row
    rates = rule.effective_rate(square_avg, acc_delta, epsilon, np.sqrt)
    # np.quantile partitions; sorting would take twice the time: 0.16 s for 5 million elements.
    quantiles = np.quantile(rates, list(_QUANTILES.values()))
    row.update(zip(_QUANTILES, (learning_rate * quantiles.astype("float64")).tolist(), strict=True))
    return row | root_mean_squares(square_avg, acc_delta, learning_rate)


def root_mean_squares(
    square_avg: np.ndarray, acc_delta: np.ndarray, learning_rate: float
) -> dict[str, float]:
    """Return the sizes of gradients and of updates, as `Summary` describes them."""
    return {
        "gradient_rms": root_of_mean(square_avg),
        "update_rms": learning_rate * root_of_mean(acc_delta),
    }


def root_of_mean(squares: np.ndarray) -> float:
    """Return the square root of the mean."""
    # In float64, since the sum of saturated averages is beyond the range of float32.
    return math.sqrt(float(np.mean(squares, dtype="float64")))


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
