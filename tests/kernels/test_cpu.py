"""The fused step on the processor does what the rule does, bit for bit."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from adadelta._core import precision, rule
from adadelta._kernels import cpu, layout, portable
from adadelta._kernels.threads import PythonThreads

# Around the sizes of a block and a piece, and none at all.
SIZES = (0, 1, 3, 17, layout.BLOCK - 1, layout.BLOCK, layout.BLOCK + 1, layout.PIECE + 5)
DTYPES = {"bfloat16": ml_dtypes.bfloat16} | {
    name: np.dtype(name) for name in ("float16", "float32", "float64")
}
OPTIONS = {
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
PAIRS = [
    (one, other)
    for one, other in itertools.combinations(OPTIONS, 2)
    if not OPTIONS[one].keys() & OPTIONS[other].keys() - {"momentum"}
]
CASES = [(), *[(name,) for name in OPTIONS], *PAIRS]


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


def table_of(rows):
    return np.array(
        [[0 if array is None else array.ctypes.data for array in row] for row in rows], np.int64
    )


def run(dtype, rows, settings, own, threads=PythonThreads(2)):
    sizes = np.array([row[0].size for row in rows], np.int64)
    row_settings = np.tile(own, (len(rows), 1))
    cpu.step(dtype, table_of(rows), sizes, settings, row_settings, threads)


def expected(rows, settings, own):
    results = []
    with np.errstate(all="ignore"):
        for parameter, gradient, square_avg, acc_delta, average, window in rows:
            new = portable.step(
                np, settings, own, parameter, gradient, square_avg, acc_delta, average, window
            )
            results.append([new[0], gradient, *new[1:]])
    return results


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


def assert_same(rows, others):
    for row, other in zip(rows, others, strict=True):
        for array, its_other in zip(row, other, strict=True):
            if array is not None:
                nan = np.isnan(array.astype("float64"))
                assert np.array_equal(nan, np.isnan(its_other.astype("float64")))
                assert np.array_equal(bits(array)[~nan], bits(its_other)[~nan])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("names", CASES, ids=lambda names: " and ".join(names) or "plain")
def test_it_is_the_rule_bit_for_bit(names, dtype):
    options = {key: value for name in names for key, value in OPTIONS[name].items()}
    rows = tensors(dtype, SIZES, options, np.random.default_rng(1))
    settings, own = arguments(dtype, options)
    wanted = expected(rows, settings, own)
    run(dtype, rows, settings, own)
    assert_same(rows, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_finite_and_saturation(dtype):
    state = precision.state_dtype(dtype)
    values = [np.nan, np.inf, -np.inf, 1e30, -1e30, 65504, 1e-40, -1e-40, 0, -0.0, 6e-8, 65520]
    with np.errstate(all="ignore"):
        gradient = np.array(values, DTYPES[dtype])
        parameter = np.array(values[::-1], DTYPES[dtype])
    zeros = [np.zeros(len(values), state) for _ in range(3)]
    rows = [[parameter, gradient, *zeros, None]]
    settings, own = arguments(dtype, {"momentum": 0.5})
    wanted = expected(rows, settings, own)
    run(dtype, rows, settings, own)
    assert_same(rows, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_precision_number_is_read_and_rounded_as_it_should_be(dtype):
    every = np.arange(2**16, dtype="uint16").view(DTYPES[dtype])
    settings, own = arguments(dtype, {})
    settings[layout.RATE] = 0.0
    state = [np.zeros(2**16, "float32") for _ in range(2)]
    rows = [[every.copy(), np.zeros_like(every), *state, None, None]]
    run(dtype, rows, settings, own)
    assert_same([[rows[0][0]]], [[every]])
    # Between neighbours, and exactly in the middle of them.
    with np.errstate(all="ignore"):
        wide = every.astype("float32")
        for share in (0.25, 0.5, 0.75):
            middle = wide + share * (np.roll(wide, -1) - wide)
            average = middle.astype("float32")
            rows = [[every.copy(), np.zeros_like(every), *state, average.copy(), None]]
            settings, own = arguments(dtype, {"momentum": 1.0, "overwrite": 1.0})
            run(dtype, rows, settings, own)
            assert_same([[rows[0][0]]], [[(average + 0 * wide).astype(DTYPES[dtype])]])


def test_arrays_may_lie_at_any_address_of_their_dtype():
    generator = np.random.default_rng(3)
    settings, own = arguments("float32", {})
    for offset in range(5):
        rows = tensors("float32", [999], {}, generator)
        rows = [[None if a is None else np.resize(a, 999 + offset)[offset:] for a in rows[0]]]
        wanted = expected(rows, settings, own)
        run("float32", rows, settings, own)
        assert_same(rows, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"loss_scale": 3.0}, {"steps": 3.0}], ids=str)
def test_norms(dtype, options):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(6))
    settings, _ = arguments(dtype, options)
    sizes = np.array(SIZES, np.int64)
    given = []
    for _, gradient, _, _, _, window in rows:
        value = gradient.astype(settings.dtype) / settings[layout.LOSS_SCALE]
        if window is not None:
            value = (window + value) / settings[layout.STEPS]
        given.append(value.astype("float64"))
    exact = np.array([np.linalg.norm(value) for value in given])
    for together, wanted in ((False, exact), (True, np.array([np.linalg.norm(exact)]))):
        divisor, norm = cpu.norms(dtype, table_of(rows), sizes, settings, together, PythonThreads(2))
        # One rounding to the state's dtype, after sums in float64 of up to 33,000 squares.
        tolerance = 1e-12 if settings.dtype == np.float64 else 1e-7
        np.testing.assert_allclose(divisor.astype("float64") * norm, wanted, rtol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "magnitude"),
    [("float32", 3e38), ("float32", 1e-44), ("float64", 1e300), ("float64", 1e-320)],
)
def test_norms_of_huge_and_tiny_gradients_are_finite(dtype, magnitude):
    gradient = np.full(10_000, magnitude, dtype)
    rows = [[gradient, gradient, gradient, gradient, None, None]]
    settings, _ = arguments(dtype, {})
    divisor, norm = cpu.norms(dtype, table_of(rows), np.array([10_000]), settings, True, PythonThreads(2))
    assert np.isfinite(divisor).all() and np.isfinite(norm).all()
    exact = float(gradient[0]) * 100
    if dtype == "float32":
        ours = float(divisor[0]) * float(norm[0])
    else:
        # exact / divisor is in range even where exact is not precise
        exact, ours = float(gradient[0]) / float(divisor[0]) * 100, float(norm[0])
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_norm_of_what_is_not_finite_is_not_finite(value):
    gradient = np.array([1.0, value, 2.0], "float32")
    rows = [[gradient, gradient, gradient, gradient, None, None]]
    settings, _ = arguments("float32", {})
    _, norm = cpu.norms("float32", table_of(rows), np.array([3]), settings, True, PythonThreads(2))
    np.testing.assert_equal(norm, np.array([value], "float32"))
