"""What the tests of all kernels share: dtypes, options, tensors, and what is the same."""

import ml_dtypes
import numpy as np

from adadelta._core import precision, rule
from adadelta._kernels import layout, portable

# Around the sizes of a block and a piece, and none at all.
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
    "coupled": {"decay": 0.1, "decay_mode": layout.COUPLED},
    "decoupled": {"decay": 0.1, "decay_mode": layout.DECOUPLED},
    "unscaled": {"decay": 0.1, "decay_mode": layout.UNSCALED},
    "average": {"momentum": 0.9},
    "average starts": {"momentum": 0.9, "average_starts": 1.0},
    "average overwrites": {"momentum": 0.9, "overwrite": 1.0},
    "window closes": {"steps": 3.0},
    "window collects": {"steps": 3.0, "action": layout.COLLECT},
    "skip": {"action": layout.SKIP},
}


def tensors(dtype, sizes, options, generator):
    """For each size: parameter, gradient, square_avg, acc_delta, average, window."""
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


def arguments(dtype, options):
    state = precision.state_dtype(dtype)
    options = dict(options)
    own = [options.pop("decay", 0.0), options.pop("divisor", 1.0), options.pop("factor", 1.0)]
    smallest, largest = np.finfo(state).tiny, np.finfo(state).max
    limit = rule.largest_gradient(1e-6, float(smallest), float(largest))
    settings = np.array(layout.settings(0.7, 0.9, 1e-6, limit, **options), state)
    return settings, np.array(own, state)


def expected(rows, settings, own):
    """What a step makes of rows by the transcription of the rule that kernels are held to."""
    results = []
    with np.errstate(all="ignore"):
        for row in rows:
            parameter, *state = portable.step(np, settings, own, *row)
            results.append([parameter, row[layout.GRADIENT], *state])
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
