"""Statistics of each variable and its averages, computed from a sample of the elements."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from adadelta._core import rule
from adadelta._keras.state import State
from adadelta._state import summary

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_RATES = tuple(f"effective_rate_q{100 * quantile:02.0f}" for quantile in QUANTILES)

COLUMNS = (
    "step",
    "update",
    "epoch",
    "loss",
    "learning_rate",
    "skipped",
    "variable",
    "layer",
    "size",
    *_RATES,
    "gradient_rms",
    "update_rms",
    "weight_rms",
)


@dataclass(frozen=True)
class Reading:
    """The sampled values of one variable at one time."""

    variable: str
    size: int
    square_avg: np.ndarray
    acc_delta: np.ndarray
    weights: np.ndarray
    effective_rates: np.ndarray
    learning_rate: float

    def row(self) -> dict[str, Any]:
        """Return the values to record, by column."""
        with np.errstate(all="ignore"):
            quantiles = _quantiles(self.effective_rates)
            return {
                "variable": self.variable,
                "layer": self.variable.rpartition("/")[0] or self.variable,
                "size": self.size,
                **dict(zip(_RATES, quantiles, strict=True)),
                **summary.root_mean_squares(self.square_avg, self.acc_delta, self.learning_rate),
                "weight_rms": summary.root_of_mean(np.square(self.weights)),
            }


def read(state: State, epsilon: float, learning_rate: float, sample: int) -> list[Reading]:
    """Read every variable that has averages."""
    readings = []
    for name, index in _watched(state):
        square_avg = _elements(state.square_avg[index], sample)
        acc_delta = _elements(state.acc_delta[index], sample)
        variable = state.parameters[index]
        with np.errstate(all="ignore"):
            effective = rule.effective_rate(square_avg, acc_delta, epsilon, np.sqrt)
        readings.append(
            Reading(
                name,
                math.prod(variable.shape),
                square_avg,
                acc_delta,
                _elements(variable, sample),
                learning_rate * effective,
                learning_rate,
            )
        )
    return readings


def weights(state: State, sample: int) -> dict[str, np.ndarray]:
    """Return the sampled weights of every variable that has averages."""
    return {name: _elements(state.parameters[index], sample) for name, index in _watched(state)}


def has_gradient(state: State, names: set[str]) -> set[str]:
    """Return the variables of which any element, sampled or not, has had a gradient."""
    return {
        name
        for name, index in _watched(state)
        if name in names and bool(number(ops.any(state.square_avg[index].value != 0)))
    }


def number(value: Any) -> Any:
    """Return a scalar variable, tensor or number as a NumPy number."""
    return np.asarray(ops.convert_to_numpy(value))


def _watched(state: State) -> list[tuple[str, int]]:
    """Return the names and indices of the variables that have averages and are not empty."""
    return [entry for entry in state.updated() if math.prod(state.parameters[entry[1]].shape)]


def _elements(variable: Any, sample: int) -> np.ndarray:
    """Return the sampled elements as float64, complex ones as both of their parts."""
    value = variable.value
    shape = tuple(value.shape)
    size = math.prod(shape)
    if size > sample:
        value = _taken(value, shape, _places(size, sample))
    array = np.asarray(ops.convert_to_numpy(value))
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)
    return array.astype(np.float64).ravel()


def _taken(value: Any, shape: tuple[int, ...], places: np.ndarray) -> Any:
    """Return elements of a value without copying all of it."""
    backend = keras.config.backend()
    if backend == "torch":
        return ops.take(ops.reshape(value, (-1,)), places)
    if backend == "tensorflow":
        import tensorflow as tf

        # From the variable itself: 50 us. Reading, flattening and then taking needs 600.
        return tf.gather_nd(value, np.stack(np.unravel_index(places, shape), axis=-1))
    if {device.platform for device in value.devices()} == {"cpu"}:
        # NumPy reads JAX's memory in place: 0.5 ms a record; JAX's operators need 40.
        return np.asarray(value).reshape(-1)[places]
    return value[np.unravel_index(places, shape)]


@functools.lru_cache(maxsize=256)
def _places(size: int, sample: int) -> np.ndarray:
    """Return the places to sample: always the same, and random, since rows may have a pattern."""
    # With replacement, so that time and memory do not grow with the size.
    return np.unique(np.random.default_rng(size).integers(0, size, sample))


def _quantiles(values: np.ndarray) -> list[float]:
    """Return what `np.quantile` does, in half its time; it also turns infinities into NaN."""
    # NaN is sorted to the end.
    ordered = np.sort(values)
    if np.isnan(ordered[-1]):
        return [math.nan] * len(QUANTILES)
    last = len(ordered) - 1
    between = np.interp(np.multiply(QUANTILES, last), np.arange(last + 1), ordered)
    return [float(value) for value in between]
