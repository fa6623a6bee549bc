"""The fused step on the processor gives the same numbers as the rule, bit for bit."""

import numpy as np
import pytest
from kernel_tools import (
    DTYPES,
    OPTIONS,
    SIZES,
    arguments,
    assert_same,
    expected,
    table_of,
    tensors,
)

from adadelta._core import precision
from adadelta._kernels import cpu, layout
from adadelta._kernels.threads import PythonThreads

TWO_THREADS = PythonThreads(2)


def run(dtype, rows, settings, own, threads=TWO_THREADS):
    sizes = np.array([row[0].size for row in rows], np.int64)
    row_settings = np.tile(own, (len(rows), 1))
    cpu.Work(dtype, table_of(rows), sizes).step(settings, row_settings, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_it_is_the_rule_bit_for_bit(options, dtype):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(1))
    settings, own = arguments(dtype, options)
    wanted = expected(rows, dtype, options)
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
    options = {"momentum": 0.5}
    settings, own = arguments(dtype, options)
    wanted = expected(rows, dtype, options)
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
    # Values between neighbors, and exactly in the middle of them.
    with np.errstate(all="ignore"):
        wide = every.astype("float32")
        for share in (0.25, 0.5, 0.75):
            middle = wide + share * (np.roll(wide, -1) - wide)
            average = middle.astype("float32")
            rows = [[every.copy(), np.zeros_like(every), *state, average.copy(), None]]
            settings, own = arguments(dtype, {"momentum": 1.0, "overwrite": True})
            run(dtype, rows, settings, own)
            assert_same([[rows[0][0]]], [[(average + 0 * wide).astype(DTYPES[dtype])]])


def test_arrays_may_lie_at_any_address_of_their_dtype():
    generator = np.random.default_rng(3)
    settings, own = arguments("float32", {})
    for offset in range(5):
        rows = tensors("float32", [999], {}, generator)
        rows = [[None if a is None else np.resize(a, 999 + offset)[offset:] for a in rows[0]]]
        wanted = expected(rows, "float32", {})
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
        divisor, norm = cpu.Work(dtype, table_of(rows), sizes).norms(
            settings, together, PythonThreads(2)
        )
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
    divisor, norm = cpu.Work(dtype, table_of(rows), np.array([10_000])).norms(
        settings, True, PythonThreads(2)
    )
    assert np.isfinite(divisor).all() and np.isfinite(norm).all()
    exact = float(gradient[0]) * 100
    if dtype == "float32":
        ours = float(divisor[0]) * float(norm[0])
    else:
        # exact / divisor is in range even where exact is not precise
        exact, ours = float(gradient[0]) / float(divisor[0]) * 100, float(norm[0])
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


def test_wide_norms_have_the_digits_of_float64():
    gradient = np.random.default_rng(9).normal(size=(1000,)).astype("float32")
    settings, _ = arguments("float32", {})
    table = table_of([[gradient] * 4 + [None] * 2])
    work = cpu.Work("float32", table, np.array([1000]))
    divisor, norm = work.norms(settings, True, PythonThreads(2), wide=True)
    assert divisor.dtype == norm.dtype == np.float64
    exact = np.linalg.norm(gradient.astype("float64"))
    np.testing.assert_allclose(divisor * norm, exact, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_norm_of_what_is_not_finite_is_not_finite(value):
    gradient = np.array([1.0, value, 2.0], "float32")
    rows = [[gradient, gradient, gradient, gradient, None, None]]
    settings, _ = arguments("float32", {})
    work = cpu.Work("float32", table_of(rows), np.array([3]))
    _, norm = work.norms(settings, True, PythonThreads(2))
    np.testing.assert_equal(norm, np.array([value], "float32"))


def test_more_elements_than_32_bits_can_count():
    # Zeros that are never written take no memory.
    gradient = np.zeros(2**31 + 5, "float16")
    gradient[-4:] = 3
    rows = [[None, it, None, None, None, None] for it in (gradient, np.ones(4, "float16"))]
    settings, _ = arguments("float16", {})
    sizes = np.array([2**31 + 5, 4], np.int64)
    work = cpu.Work("float16", table_of(rows), sizes)
    divisor, norm = work.norms(settings, False, PythonThreads(2))
    np.testing.assert_array_equal(divisor * norm, [6, 2])
