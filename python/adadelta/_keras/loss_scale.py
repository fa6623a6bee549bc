"""The dynamic loss scale: halved by a gradient that is not finite, doubled after many that are.

The first scale and the number of calls are those of `keras.optimizers.LossScaleOptimizer`; the
bounds are this package's, since without them its scale runs to 0 or to infinity.
"""

from typing import Any

from keras import ops

FIRST = 2.0**15
SMALLEST = 1.0
LARGEST = 2.0**24
CALLS_TO_GROW = 2000


def after_finite(scale: Any, calls: Any) -> tuple[Any, Any]:
    """Return the scale and the count of finite calls after one more finite call."""
    calls = calls + 1
    grows = calls >= CALLS_TO_GROW
    larger = ops.minimum(scale * 2.0, LARGEST)
    return ops.where(grows, larger, scale), ops.where(grows, ops.zeros_like(calls), calls)


def after_nonfinite(scale: Any, calls: Any) -> tuple[Any, Any]:
    """Return the scale and the count of finite calls after a gradient that was not finite."""
    return ops.maximum(scale * 0.5, SMALLEST), ops.zeros_like(calls)
