"""Dtypes, options, tensors and comparisons for the tests of all kernels."""

import ml_dtypes
import numpy as np

from adadelta._core import precision
from adadelta._core.step import COLLECT, SKIP, UPDATE, Call, Options, Row, step
from adadelta._kernels import layout, numpy_arrays

# Sizes around those of a block and a piece, and 0.
SIZES = (0, 1, 3, 17, layout.BLOCK - 1, layout.BLOCK, layout.BLOCK + 1, layout.PIECE + 5)
DTYPES = {"bfloat16": ml_dtypes.bfloat16} | {
    name: np.dtype(name) for name in ("float16", "float32", "float64")
}
OPTIONS = {
    "plain": {},
    "loss_scale": {"loss_scale": 8.0},
    "odd loss_scale": {"loss_scale": 3.0},
    "maximize": {"maximize": True},
    "clip_value": {"clip_value": 0.5},
    "factor": {"factor": 0.3},
    "divisor": {"factor": 0.3, "divisor": 4.0},
    "coupled": {"decay": 0.1, "decay_mode": "coupled"},
    "decoupled": {"decay": 0.1, "decay_mode": "decoupled"},
    "unscaled": {"decay": 0.1, "decay_mode": "unscaled"},
    "average": {"momentum": 0.9},
    "average starts": {"momentum": 0.9, "average_starts": True},
    "average overwrites": {"momentum": 0.9, "overwrite": True},
    "window closes": {"steps": 3.0},
    "window collects": {"steps": 3.0, "action": COLLECT},
    "skip": {"action": SKIP},
}


def tensors(dtype, sizes, options, generator):
    """Return for each size: parameter, gradient, square_avg, acc_delta, average, window."""
    state = precision.state_dtype(dtype)
    rows = []
    for size in sizes:
        parameter = generator.normal(size=size).astype(DTYPES[dtype])
        exponents = generator.uniform(-6, 4, size)
        gradient = (generator.normal(size=size) * 10**exponents).astype(DTYPES[dtype])
        gradient[::7] = 0
        averages = [(generator.random(size) ** 4).astype(state) for _ in range(2)]
        has_average, has_window = "momentum" in options, "steps" in options
        average = generator.normal(size=size).astype(state) if has_average else None
        window = generator.normal(size=size).astype(state) if has_window else None
        rows.append([parameter, gradient, *averages, average, window])
    return rows


def told(dtype, options):
    """Return the `Options` and the `Call` of a step, in numbers of the state's dtype."""
    state = np.dtype(precision.state_dtype(dtype)).type
    get = options.get
    optimizer = Options(
        state(0.9),
        state(1e-6),
        maximize=get("maximize", False),
        clipvalue=state(get("clip_value", np.inf)),
        decay_mode=get("decay_mode", "decoupled"),
        ema_momentum=state(get("momentum", 0.0)),
        one_minus_rho=state(1 - 0.9),
        one_minus_ema_momentum=state(1 - get("momentum", 0.0)),
    )
    call = Call(
        state(0.7),
        state(get("loss_scale", 1.0)),
        state(get("steps", 1.0)),
        bool(get("average_starts", False)),
        bool(get("overwrite", False)),
    )
    return optimizer, call


def as_row(arrays, dtype, options):
    """Return the arrays of a tensor as a `Row` of `_core.step`."""
    decay = np.dtype(precision.state_dtype(dtype)).type(options.get("decay", 0.0))
    decay = decay if decay else 0.0
    return Row(*arrays, weight_decay=decay, action=options.get("action", UPDATE))


def factors(dtype, options):
    """Return the divisor of the gradients, and the factor by which they are then multiplied."""
    state = np.dtype(precision.state_dtype(dtype)).type
    return state(options.get("divisor", 1.0)), state(options.get("factor", 1.0))


def arguments(dtype, options):
    """Return the settings of a call, and those of each of its rows."""
    state = precision.state_dtype(dtype)
    own = [options.get("decay", 0.0), *factors(dtype, options)]
    limit = precision.largest_gradient(1e-6, dtype)
    numbers = layout.settings(*told(dtype, options), options.get("action", UPDATE), limit)
    return np.array(numbers, state), np.array(own, state)


def expected(rows, dtype, options):
    """Return the result of `_core/step.py` for these rows, which kernels must reproduce."""
    results = []
    optimizer, call = told(dtype, options)
    with np.errstate(all="ignore"):
        for arrays in rows:
            row = as_row(arrays, dtype, options)
            new = step(row, call, optimizer, numpy_arrays, factors(dtype, options))
            results.append(list(new[: layout.COLUMNS]))
    return results


def table_of(rows):
    return np.array(
        [[0 if array is None else array.ctypes.data for array in row] for row in rows], np.int64
    )


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


def assert_same(rows, others):
    for row, other in zip(rows, others, strict=True):
        for array, its_other in zip(row, other, strict=True):
            if array is not None:
                nan = np.isnan(array.astype("float64"))
                assert np.array_equal(nan, np.isnan(its_other.astype("float64")))
                assert np.array_equal(bits(array)[~nan], bits(its_other)[~nan])
