"""The kernel inside JAX programs gives the rule's numbers, in place, and only where it can."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_tools import (
    DTYPES,
    OPTIONS,
    SIZES,
    arguments,
    as_row,
    assert_same,
    expected,
    factors,
    tensors,
    told,
)

from adadelta._core.step import UPDATE, Call
from adadelta._kernels import cpu, layout, xla
from adadelta._kernels.threads import PythonThreads

SHAPES = [(), (3, 5), (0, 2)]


def precision(dtype):
    """Allow JAX to use float64 where the dtype needs it."""
    allow = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    return allow(dtype == "float64")


def on_jax(rows):
    return [[None if array is None else jnp.asarray(array) for array in row] for row in rows]


def stepped(dtype, rows, options):
    """Run the kernel on rows of arrays, passing every number as an array, not as a constant."""
    (optimizer, call), its_factors = told(dtype, options), factors(dtype, options)
    action = jnp.asarray(options.get("action", UPDATE))
    given = [as_row(row, dtype, options)._replace(action=action) for row in rows]
    on_device = Call(*map(jnp.asarray, call))
    pair = None if its_factors == (1, 1) else [jnp.asarray([it]) for it in its_factors]
    return [row[: layout.COLUMNS] for row in xla.step(given, on_device, optimizer, pair)]


def in_program(dtype, rows, options):
    """Return the rows after a compiled program has run, as NumPy arrays."""
    with precision(dtype):
        made = jax.jit(lambda rows: stepped(dtype, rows, options))(on_jax(rows))
        return [[None if array is None else np.asarray(array) for array in row] for row in made]


def norms_of(dtype, rows, options, together, wide=False):
    optimizer, call = told(dtype, options)
    return xla.norms([as_row(row, dtype, options) for row in rows], call, optimizer, together, wide)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_it_is_the_rule_bit_for_bit(options, dtype):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(1))
    assert_same(in_program(dtype, rows, options), expected(rows, dtype, options))


def test_tensors_of_any_shape():
    generator = np.random.default_rng(2)
    rows = [
        [array if array is None else array.reshape(shape) for array in row]
        for shape in SHAPES
        for row in tensors("float32", [int(np.prod(shape))], {}, generator)
    ]
    assert_same(in_program("float32", rows, {}), expected(rows, "float32", {}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [{}, {"steps": 2.0}, {"decay": 0.1, "decay_mode": "coupled"}, {"factor": 0.3}],
    ids=str,
)
def test_a_missing_gradient_counts_as_zero(options, dtype):
    rows = tensors(dtype, [2000], options, np.random.default_rng(3))
    without = [[None if column == layout.GRADIENT else a for column, a in enumerate(rows[0])]]
    zero = [[np.zeros_like(a) if column == layout.GRADIENT else a
             for column, a in enumerate(rows[0])]]  # fmt: skip
    made = in_program(dtype, without, options)
    wanted = expected(zero, dtype, options)
    wanted[0][layout.GRADIENT] = None
    assert_same([made[0]], wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("together", [True, False])
def test_norms_of_tensors_without_elements(dtype, together):
    rows = tensors(dtype, [0] * 50, {}, np.random.default_rng(9))
    with precision(dtype):
        divisor, norm = norms_of(dtype, on_jax(rows), {}, together)
    np.testing.assert_array_equal(norm, np.zeros(1 if together else 50))
    assert np.isfinite(divisor).all()


# Invalid calls of norms of two gradients of 5 elements: operands, and results.
REFUSED = {
    "scratch too small": (["float32"] * 2, [(2, 2), (58,)]),
    "another dtype": (["float32", "float16"], [(2, 2), (100,)]),
    "one norm too few": (["float32"] * 2, [(1, 2), (100,)]),
    "no scratch": (["float32"] * 2, [(2, 2)]),
    "no settings": ([], [(2, 2), (100,)]),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_a_call_that_does_not_fit_is_an_error_of_xla(case):
    dtypes, shapes = case
    name = xla._registered_handler("norms", "float32")
    results = [
        jax.ShapeDtypeStruct(shape, "int32" if len(shape) == 1 else "float32") for shape in shapes
    ]
    settings, _ = arguments("float32", {})
    operands = [jnp.asarray(settings), *[jnp.ones(5, dtype) for dtype in dtypes]] if dtypes else []
    columns = np.int64(1 << layout.GRADIENT)
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not belong together"):
        jax.block_until_ready(jax.ffi.ffi_call(name, results)(*operands, columns=columns))


def test_buffers_that_are_given_away_are_updated_in_place():
    rows = tensors("float32", [100_000], {}, np.random.default_rng(4))

    def step(parameter, square_avg, acc_delta, gradient):
        row = [parameter, gradient, square_avg, acc_delta, None, None]
        (new,) = stepped("float32", [row], {})
        return new[0], new[2], new[3]

    parameter, gradient, square_avg, acc_delta = (jnp.array(array) for array in rows[0][:4])
    before = [it.unsafe_buffer_pointer() for it in (parameter, square_avg, acc_delta)]
    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    made = compiled(parameter, square_avg, acc_delta, gradient)
    assert [it.unsafe_buffer_pointer() for it in made] == before


def test_buffers_that_are_kept_are_not_touched():
    rows = tensors("float32", [100_000], {}, np.random.default_rng(5))
    given = on_jax(rows)
    jax.block_until_ready(stepped("float32", given, {}))
    assert_same([[np.asarray(it) for it in given[0][:4]]], [rows[0][:4]])


def test_several_programs_may_run_at_once():
    rows = tensors("float32", [300_000, 7], {}, np.random.default_rng(6))
    wanted = expected(rows, "float32", {})
    results = []

    def run():
        for _ in range(10):
            results.append(in_program("float32", rows, {}))

    callers = [threading.Thread(target=run) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 60
    for result in results:
        assert_same(result, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"loss_scale": 3.0}, {"steps": 3.0}], ids=str)
@pytest.mark.parametrize("together", [True, False])
def test_norms_are_those_of_the_other_kernel(dtype, options, together):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(7))
    settings, _ = arguments(dtype, options)
    with precision(dtype):
        divisor, norm = norms_of(dtype, on_jax(rows), options, together)
        ours = np.asarray(divisor, "float64") * np.asarray(norm)
    table = np.array([[0 if a is None else a.ctypes.data for a in row] for row in rows], np.int64)
    divisor, norm = cpu.Work(dtype, table, np.array(SIZES)).norms(
        settings, together, PythonThreads(2)
    )
    np.testing.assert_array_equal(ours, divisor.astype("float64") * norm)


@pytest.mark.parametrize("magnitude", [1e300, 1e-300])
def test_norms_of_huge_and_tiny_gradients_are_finite(magnitude):
    with precision("float64"):
        gradient = jnp.full(10_000, magnitude, "float64")
        row = [None, gradient, gradient, None, None, None]
        divisor, norm = norms_of("float64", [row], {}, True)
    np.testing.assert_allclose(float(norm[0]), magnitude / float(divisor[0]) * 100, rtol=1e-12)


def test_norms_of_gradients_of_very_different_sizes_in_one_call():
    sizes = np.array([1e300, 2.0, 1e-300, 0.0, np.inf])
    with precision("float64"):
        gradients = [jnp.full(10_000, size, "float64") for size in sizes]
        rows = [[None, gradient, gradient, None, None, None] for gradient in gradients]
        divisor, norm = norms_of("float64", rows, {}, False)
    # The divisors are powers of two; the sums have 10,000 terms.
    np.testing.assert_allclose(np.asarray(norm), sizes / np.asarray(divisor) * 100, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wide", [False, True])
def test_norms_under_vmap_are_those_of_the_kernel(dtype, wide):
    gradients = np.random.default_rng(9).normal(size=(3, 40)).astype(dtype)
    exact = np.linalg.norm(gradients.astype("float64"), axis=1)
    with precision("float64" if wide else dtype):

        def norm(gradient):
            row = [None, gradient, gradient, None, None, None]
            divisor, norm = norms_of(dtype, [row], {}, True, wide)
            return divisor[0] * norm[0]

        for ours in (jax.vmap(norm)(gradients), [norm(it) for it in jnp.asarray(gradients)]):
            assert ours[0].dtype == ("float64" if wide else dtype)
            # Sums of squares are in float64, except those of the rule in float32.
            rounding = 1e-6 if dtype == "float32" and not wide else 1e-14
            np.testing.assert_allclose(ours, exact, rtol=rounding)


def test_under_vmap_and_differentiation_it_is_the_rule():
    rows = tensors("float32", [12], {}, np.random.default_rng(8))
    wanted = expected(rows, "float32", {})[0][0]
    parameter, gradient, square_avg, acc_delta = (jnp.asarray(array) for array in rows[0][:4])

    def moved(parameter, gradient, square_avg, acc_delta):
        row = [parameter, gradient, square_avg, acc_delta, None, None]
        return stepped("float32", [row], {})[0][0]

    parts = [it.reshape(3, 4) for it in (parameter, gradient, square_avg, acc_delta)]
    # XLA may fuse a multiplication with an addition, which saves one rounding.
    np.testing.assert_allclose(jax.vmap(moved)(*parts).reshape(-1), wanted, rtol=1e-6)
    slope = jax.grad(lambda it: moved(it, gradient, square_avg, acc_delta).sum())(parameter)
    np.testing.assert_array_equal(slope, np.ones(12))


SHARDED = """
import numpy as np, jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from adadelta._core.step import Call, Options, Row, step as whole_step
from adadelta._kernels import numpy_arrays, xla
told = Call(1.0), Options(0.95, 1e-7)
arrays = [np.random.default_rng(0).normal(size=4096).astype("float32") ** k for k in (1, 3, 2, 4)]
def step(*row):
    new = xla.step([Row(*row, weight_decay=0.1)], *told)[0]
    return new[0], new[2], new[3]
spread = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices"))
given = [jax.device_put(array, spread) for array in arrays]
compiled = jax.jit(step).lower(*given).compile()
text = compiled.as_text()
assert "all-gather" not in text and "custom-call" not in text, text
made = compiled(*given)
row = whole_step(Row(*arrays, weight_decay=0.1), *told, numpy_arrays)
wanted = row[0], row[2], row[3]
for ours, exact in zip(made, wanted):
    assert ours.sharding.is_equivalent_to(spread, 1)
    # Of values up to 1e5, where XLA may round once less.
    np.testing.assert_allclose(ours, exact, rtol=2e-6, atol=1e-6)
one = jax.jit(step).lower(*[jnp.asarray(array) for array in arrays]).compile().as_text()
assert "adadelta_step_float32" in one, one
"""


@pytest.mark.parametrize("flags", ["--xla_force_host_platform_device_count=4"])
def test_a_program_that_is_spread_over_devices_gathers_nothing(flags):
    _run_alone(SHARDED, flags)


def test_a_kernel_that_is_required_is_missed_on_several_devices():
    code = (
        SHARDED.split("given = ")[0].replace("*told)", "*told, is_required=True)")
        + """
jax.jit(step)(*[jnp.asarray(array) for array in arrays])
try:
    jax.jit(step)(*[jax.device_put(array, spread) for array in arrays])
except RuntimeError as error:
    assert "none for a program: it runs on 4 devices" in str(error), error
else:
    raise AssertionError("no error")
"""
    )
    _run_alone(code, "--xla_force_host_platform_device_count=4")


def test_it_works_with_a_single_thread_of_xla():
    code = (
        SHARDED.split("def step")[0]
        + """
given = [jnp.asarray(np.resize(array, 200_000)) for array in arrays]
new = xla.step([Row(*given, weight_decay=0.1)], *told)[0]
wanted = whole_step(
    Row(*[np.asarray(it) for it in given], weight_decay=np.float32(0.1)), *told, numpy_arrays
)
np.testing.assert_array_equal(new[0], wanted[0])
"""
    )
    _run_alone(code, "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")


def _run_alone(code, flags):
    environment = dict(os.environ, XLA_FLAGS=flags, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
