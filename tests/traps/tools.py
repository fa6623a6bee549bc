"""Shared by the traps: small models, exact arithmetic and comparisons."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from driver import MODES, Driver, sparse
from traps.table import Trapped

BACKEND = keras.config.backend()

# The ways in which fit() can run a step.
FITS: dict[str, dict[str, Any]] = {
    "compiled": {},
    **({} if BACKEND == "torch" else {"without XLA": {"jit_compile": False}}),
    "eager": {"run_eagerly": True},
}

# The compiled mode that differs most from eager calls.
COMPILED = {"jax": "jit", "tensorflow": "function", "torch": "eager"}[BACKEND]

__all__ = ["BACKEND", "COMPILED", "FITS", "MODES", "Driver", "sparse"]


def is_ours(cls: Any) -> bool:
    return cls is not keras.optimizers.Adadelta


def check(condition: Any, text: str) -> None:
    if not condition:
        raise Trapped(text)


def numpy(value: Any) -> np.ndarray:
    # Through float32, since NumPy has no bfloat16.
    if "bfloat16" in str(value.dtype):
        value = keras.ops.cast(value, "float32")
    return np.asarray(keras.ops.convert_to_numpy(value))


def variable(value: Any, dtype: str = "float32", **options: Any) -> keras.Variable:
    return keras.Variable(
        np.asarray(value, "complex64" if "complex" in dtype else "float64"), dtype=dtype, **options
    )


def close(actual: Any, expected: Any, what: str, tolerance: float = 1e-5) -> None:
    """Fall if two arrays differ by more than a share of the largest expected number."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = max(np.max(np.abs(expected), initial=0.0), 1e-30)
    off = np.max(np.abs(actual - expected), initial=0.0) / scale
    if not off <= tolerance:
        texts = ((_few(actual, digits), _few(expected, digits)) for digits in (6, 17))
        shown, right = next((pair for pair in texts if pair[0] != pair[1]), (actual, expected))
        raise Trapped(f"{what} is {shown} where {right} is right")


def _few(array: np.ndarray, digits: int) -> str:
    values = array.reshape(-1)[:3]
    text = ", ".join(f"{value:.{digits}g}" for value in values)
    return text + (", ..." if array.size > 3 else "")


class Exact:
    """The rule in float64, for one array; `call` takes the gradient and the rate of a step."""

    def __init__(self, value: Any, rho: float = 0.95, epsilon: float = 1e-7) -> None:
        self.x = np.array(value, np.float64)
        self.v, self.u = np.zeros_like(self.x), np.zeros_like(self.x)
        self.rho, self.epsilon = rho, epsilon

    def call(self, gradient: Any, rate: float = 1.0) -> float:
        """Make one step and return its length before the rate is applied."""
        g = np.asarray(gradient, np.float64)
        self.v = self.rho * self.v + (1 - self.rho) * g * g
        step = np.sqrt(self.u + self.epsilon) / np.sqrt(self.v + self.epsilon) * g
        self.u = self.rho * self.u + (1 - self.rho) * step * step
        self.x = self.x - rate * step
        return step


def refused(action: Callable[[], Any]) -> Exception | None:
    """Return the error with which arguments or calls are refused, or None."""
    try:
        action()
    except (TypeError, ValueError, RuntimeError) as error:
        return error
    return None


def model(optimizer: Any, width: int = 3, start: float = 0.5, **options: Any) -> Any:
    """Return a model of one dense layer; by default its loss is the mean output."""
    layer = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(start)
    )
    made = keras.Sequential([keras.Input((width,)), layer])
    options.setdefault("loss", lambda truth, output: keras.ops.mean(output, axis=-1))
    made.compile(optimizer=optimizer, **options)
    return made


def fit(made: Any, x: Any, batch_size: int = 1, **options: Any) -> None:
    x = np.asarray(x, "float32")
    options.setdefault("epochs", 1)
    made.fit(
        x,
        np.zeros((len(x), 1), "float32"),
        batch_size=batch_size,
        shuffle=False,
        verbose=0,
        **options,
    )


def weights(made: Any) -> np.ndarray:
    return np.concatenate([np.ravel(weight) for weight in made.get_weights()])


class Weights(keras.callbacks.Callback):
    """A callback that keeps the model's weights after every batch."""

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.then, self.seen = then, []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(weights(self.model))
        if self.then is not None:
            self.then(batch)


def rates_of(
    cls: type, rate: Any, batches: int = 4, then: Any = None, compiled: Any = None, **options: Any
) -> list[float]:
    """Return the learning rates in a fit(), computed from how far a weight moved in each step."""
    made = model(cls(learning_rate=rate, **options), width=1, start=0.0, **(compiled or {}))
    kept = Weights(None if then is None else lambda batch: then(made, batch))
    fit(made, np.ones((batches, 1)), callbacks=[kept])
    steps = [exact_step for exact_step in _steps(batches)]
    places = [0.0, *(float(seen[0]) for seen in kept.seen)]
    return [(old - new) / step for old, new, step in zip(places, places[1:], steps, strict=False)]


def _steps(count: int) -> Iterator[float]:
    exact = Exact(0.0)
    for _ in range(count):
        yield float(exact.call(1.0))


def calls(driver: Driver, gradients: Sequence[Sequence[Any]]) -> Driver:
    for each in gradients:
        driver.call([None if g is None else np.asarray(g, "float32") for g in each])
    return driver


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Allow float64 on JAX."""
    with contextlib.ExitStack() as stack:
        if BACKEND == "jax":
            import jax

            allow = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
            stack.enter_context(allow(True))
        yield


def finite(values: Any) -> bool:
    return bool(np.all(np.isfinite(values)))


def nan() -> float:
    return math.nan
