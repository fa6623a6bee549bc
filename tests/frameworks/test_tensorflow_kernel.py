"""The kernel updates TensorFlow's variables in place, as the rule does, wherever it is called."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from kernel_tools import DTYPES, OPTIONS, SIZES, arguments, assert_same, expected, tensors

from adadelta._kernels import cpu, layout, xla_tensorflow
from adadelta._kernels.threads import PythonThreads

CALLS = {
    "eager": lambda function: function,
    "function": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


def program_of(rows):
    """Return the program for rows of arrays, with its variables."""
    variables = [
        [
            None if array is None or column == layout.GRADIENT else tf.Variable(array)
            for column, array in enumerate(row)
        ]
        for row in rows
    ]
    return xla_tensorflow.Program(variables)


def stepped(rows, settings, own, call="eager"):
    """Return the rows after one step, as NumPy arrays."""
    program = program_of(rows)
    row_settings = np.tile(own, (len(rows), 1))
    gradients = [tf.constant(row[layout.GRADIENT]) for row in rows]

    def step(*gradients):
        program.step(settings, row_settings, gradients)

    CALLS[call](step)(*gradients)
    return [[None if it is None else it.numpy() for it in row] for row in program.rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_it_is_the_rule_bit_for_bit(options, dtype):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(1))
    settings, own = arguments(dtype, options)
    assert_same(stepped(rows, settings, own), expected(rows, dtype, options))


@pytest.mark.parametrize("call", CALLS)
def test_tensors_of_any_shape_wherever_it_is_called(call):
    generator = np.random.default_rng(2)
    rows = [
        [array if array is None else array.reshape(shape) for array in row]
        for shape in [(), (3, 5), (0, 2)]
        for row in tensors("float32", [int(np.prod(shape))], {}, generator)
    ]
    settings, own = arguments("float32", {})
    assert_same(stepped(rows, settings, own, call), expected(rows, "float32", {}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"loss_scale": 3.0}, {"steps": 3.0}], ids=str)
@pytest.mark.parametrize("together", [True, False])
def test_norms_are_those_of_the_other_kernel(dtype, options, together):
    rows = tensors(dtype, SIZES, options, np.random.default_rng(7))
    settings, _ = arguments(dtype, options)
    gradients = [row[layout.GRADIENT] for row in rows]
    divisor, norm = program_of(rows).norms(settings, gradients, together)
    ours = divisor.numpy().astype("float64") * norm.numpy()
    table = np.array([[0 if a is None else a.ctypes.data for a in row] for row in rows], np.int64)
    divisor, norm = cpu.Work(dtype, table, np.array(SIZES)).norms(
        settings, together, PythonThreads(2)
    )
    np.testing.assert_array_equal(ours, divisor.astype("float64") * norm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("together", [True, False])
def test_norms_of_tensors_without_elements(dtype, together):
    settings, _ = arguments(dtype, {})
    rows = tensors(dtype, [0] * 50, {}, np.random.default_rng(9))
    gradients = [row[layout.GRADIENT] for row in rows]
    divisor, norm = program_of(rows).norms(settings, gradients, together)
    np.testing.assert_array_equal(norm, np.zeros(1 if together else 50))
    assert np.isfinite(divisor).all()


@pytest.mark.parametrize(
    ("dtype", "norms", "scratch"),
    [("float32", 2, 58), ("float16", 2, 100), ("float32", 1, 100)],
    ids=["scratch too small", "another dtype", "one norm too few"],
)
def test_a_call_that_does_not_fit_is_an_error_of_xla(dtype, norms, scratch):
    settings, _ = arguments("float32", {})
    results = [([norms, 2], tf.float32), ([scratch], tf.int32)]

    @tf.function(jit_compile=True)
    def call(*operands):
        columns = 1 << layout.GRADIENT
        return xla_tensorflow._call("norms", "float32", operands, results, columns, {})

    with pytest.raises(tf.errors.InvalidArgumentError, match="do not belong together"):
        call(tf.constant(settings), tf.ones(5), tf.ones(5, dtype))


@pytest.mark.parametrize("magnitude", [1e300, 1e-300])
def test_norms_of_huge_and_tiny_gradients_are_finite(magnitude):
    settings, _ = arguments("float64", {})
    rows = tensors("float64", [10_000], {}, np.random.default_rng(3))
    divisor, norm = program_of(rows).norms(settings, [np.full(10_000, magnitude)], True)
    np.testing.assert_allclose(norm.numpy()[0], magnitude / divisor.numpy()[0] * 100, rtol=1e-12)


@pytest.mark.parametrize("call", CALLS)
def test_variables_are_updated_in_place(call):
    code = f"""
import resource
import numpy as np
import tensorflow as tf
from kernel_tools import arguments, tensors
from test_tensorflow_kernel import CALLS, program_of
settings, own = arguments("float32", {{}})
rows = tensors("float32", [20_000_000], {{}}, np.random.default_rng(4))
program, gradient = program_of(rows), tf.constant(rows[0][1])
row = program.rows[0]
del rows
step = CALLS[{call!r}](lambda gradient: program.step(settings, own[None], [gradient]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small = program_of(tensors("float32", [5], {{}}, np.random.default_rng(4)))
small.step(settings, own[None], [np.ones(5, "float32")])
before = peak()
for _ in range(3):
    step(gradient)
row[0][:1].numpy()
print("MiB:", peak() - before)
"""
    done = alone(code)
    # A copy of one of the three arrays would take 76 MiB.
    assert float(done.split("MiB:")[1]) < 60, done


def alone(code, **variables):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **variables)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300,
        cwd=os.path.dirname(__file__), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_read_before_keeps_its_value():
    settings, own = arguments("float32", {})
    rows = tensors("float32", [100_000], {}, np.random.default_rng(5))
    program = program_of(rows)
    read = program.rows[0][layout.PARAMETER].read_value()
    program.step(settings, own[None], [rows[0][layout.GRADIENT]])
    assert_same([[read.numpy()]], [[rows[0][layout.PARAMETER]]])
    assert np.any(program.rows[0][layout.PARAMETER].numpy() != read.numpy())


@pytest.mark.parametrize("call", CALLS)
def test_what_is_read_around_it_is_of_before_and_after(call):
    settings, own = arguments("float32", {})
    rows = tensors("float32", [1000], {}, np.random.default_rng(5))
    program = program_of(rows)
    parameter = program.rows[0][layout.PARAMETER]

    @CALLS[call]
    def around(gradient):
        before = tf.identity(parameter)
        program.step(settings, own[None], [gradient])
        return before, tf.identity(parameter)

    before, after = around(tf.constant(rows[0][layout.GRADIENT]))
    wanted = expected(rows, "float32", {})[0][0]
    assert_same([[before.numpy(), after.numpy()]], [[rows[0][0], wanted]])


@pytest.mark.parametrize("call", CALLS)
def test_a_tape_around_it_does_not_record_it(call):
    settings, own = arguments("float32", {})
    rows = tensors("float32", [100], {}, np.random.default_rng(5))
    program = program_of(rows)
    parameter = program.rows[0][layout.PARAMETER]

    @CALLS[call]
    def run(gradient):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(parameter * parameter)
            program.step(settings, own[None], [gradient])
        return tape.gradient(loss, parameter)

    np.testing.assert_array_equal(run(tf.constant(rows[0][1])).numpy(), 2 * rows[0][0])


def test_several_threads_may_call_at_once():
    settings, own = arguments("float32", {})
    rows = tensors("float32", [300_000, 7], {}, np.random.default_rng(6))
    wanted = expected(rows, "float32", {})
    results = []

    def run():
        for _ in range(5):
            results.append(stepped(rows, settings, own))

    callers = [threading.Thread(target=run) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 20
    for result in results:
        assert_same(result, wanted)


def test_it_works_with_a_single_thread_of_tensorflow():
    alone("""
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
from test_tensorflow_kernel import *
settings, own = arguments("float32", {})
rows = tensors("float32", [200_000], {}, np.random.default_rng(1))
assert_same(stepped(rows, settings, own), expected(rows, "float32", {}))
""")


@pytest.mark.parametrize("hosts", [("xla_tensorflow", "xla"), ("xla", "xla_tensorflow")], ids=str)
def test_tensorflow_and_jax_share_a_process(hosts, tmp_path):
    """Load both kernels in one process: JAX and TensorFlow have different versions of XLA."""
    alone(
        "\n".join(
            f"from adadelta._kernels import {host}\n"
            f"reason = {host}.reason_against_dtype('float32')\nassert reason is None, reason"
            for host in hosts
        ),
        ADADELTA_KERNEL_CACHE=str(tmp_path),
    )
