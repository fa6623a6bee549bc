"""The effects of a kernel other than its numbers: the same as the rule's, and not noticeable."""

import copy
import os
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from conftest import floats

import adadelta
from driver import BACKEND, MODES, Driver, numpy

FUSED = [None, False]


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_overflows_when_it_is_unscaled_is_skipped(mode, fused):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, loss_scale_factor=0.5, skip_nonfinite=True, fused=fused)
    run = Driver(optimizer, [variable], mode)
    run.call([np.array([3e38, 1.0])])
    assert optimizer.skipped == 1
    np.testing.assert_array_equal(numpy(variable), [1.0, 2.0])


@pytest.mark.skipif(BACKEND != "torch", reason="only torch keeps a graph of what was computed")
@pytest.mark.parametrize("fused", FUSED)
def test_autograd_refuses_a_backward_pass_over_weights_that_have_changed(fused):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, fused=fused)
    loss = (variable.value**2).sum()
    loss.backward(retain_graph=True)
    optimizer.apply([variable.value.grad], [variable])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has tensors whose sign is to be turned")
def test_a_gradient_whose_sign_is_only_marked_is_read_with_its_sign():
    import torch

    variable = keras.Variable([1.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([torch.ones(1)], [variable])
    before = numpy(variable)[0]
    # One number is contiguous even as the imaginary part of a conjugate.
    gradient = torch.tensor([-2.0j]).conj().imag
    assert gradient.is_neg() and gradient.is_contiguous() and gradient[0] == 2
    optimizer.apply([gradient], [variable])
    assert numpy(variable)[0] < before


ALIKE = {
    "transposed": lambda gradient: gradient.t().contiguous().t(),
    "COO": lambda gradient: gradient.to_sparse(),
    "CSR": lambda gradient: gradient.to_sparse_csr(),
    "MKL-DNN": lambda gradient: gradient.to_mkldnn(),
}


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has tensors of these layouts")
@pytest.mark.parametrize("layout", ALIKE.values(), ids=list(ALIKE))
def test_a_gradient_may_come_in_another_layout_than_the_last_one(layout):
    gradient = np.array([[1.0, 0.0], [2.0, 3.0]], "float32")

    def trained(change):
        variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
        optimizer = adadelta.Adadelta(1.0)
        optimizer.apply([keras.ops.ones((2, 2))], [variable])
        optimizer.apply([change(keras.ops.convert_to_tensor(gradient))], [variable])
        return numpy(variable)

    np.testing.assert_allclose(trained(layout), trained(lambda it: it), rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_that_takes_its_gradient_does_so_at_every_call(mode):
    variables = [keras.Variable([1.0, 2.0], dtype="float32") for _ in range(2)]
    variables[1].overwrite_with_gradient = True
    run = Driver(adadelta.Adadelta(1.0), variables, mode)
    for value in (3.0, 5.0):
        run.call([np.ones(2), np.full(2, value)])
        np.testing.assert_array_equal(numpy(variables[1]), [value, value])


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless step on TensorFlow")
@pytest.mark.parametrize("fused", FUSED)
def test_a_stateless_step_changes_nothing(fused):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, fused=fused)
    gradient = keras.ops.ones(2)
    optimizer.apply([gradient], [variable])
    before = [numpy(it) for it in (variable, *optimizer.variables)]
    values, state = [variable.value], [it.value for it in optimizer.variables]
    (value,), _ = optimizer.stateless_apply(state, [gradient], values)
    assert np.all(numpy(value) < before[0])
    for old, given, it in zip(
        before, [*values, *state], (variable, *optimizer.variables), strict=True
    ):
        np.testing.assert_array_equal(numpy(it), old)
        np.testing.assert_array_equal(numpy(given), old)
    optimizer.apply([gradient], [variable])
    # One result is the rule's and the other a kernel's, whose root may differ in the last digit.
    np.testing.assert_allclose(numpy(variable), numpy(value), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="only torch's engine notes tensors")
def test_a_stateless_step_keeps_no_tensors_in_memory():
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build([variable])
    state = [it.value for it in optimizer.variables]
    values, state = optimizer.stateless_apply(state, [keras.ops.ones(2)], [variable.value])
    kept = [weakref.ref(it) for it in (*values, *state)]
    del values, state
    assert all(it() is None for it in kept)


def test_a_copy_for_the_same_variables_has_a_state_of_its_own():
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0)
    gradient = keras.ops.ones(2)
    optimizer.apply([gradient], [variable])
    before = numpy(optimizer._accumulated_grads[0])
    copied = copy.deepcopy(optimizer, {id(variable): variable})
    copied.apply([gradient], [variable])
    np.testing.assert_array_equal(numpy(optimizer._accumulated_grads[0]), before)
    assert np.all(numpy(copied._accumulated_grads[0]) > before)


@pytest.mark.skipif(BACKEND != "torch", reason="only torch lets a parameter change its memory")
@pytest.mark.parametrize(
    "moved",
    [lambda value: value.clone(), lambda value: value.t().contiguous().t()],
    ids=["elsewhere", "otherwise"],
)
def test_parameters_may_move_between_steps(moved):
    gradients = np.random.default_rng(0).normal(size=(3, 2, 2)).astype("float32")

    def trained(moves):
        variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
        optimizer = adadelta.Adadelta(1.0)
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            if moves:
                variable.value.data = moved(variable.value.data)
        return numpy(variable)

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="only torch lets a parameter change its layout")
def test_a_parameter_may_be_transposed_where_it_lies():
    variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
    optimizer = adadelta.Adadelta(1.0)
    zero = keras.ops.zeros((2, 2))
    optimizer.apply([zero], [variable])
    variable.value.data = variable.value.data.t()
    one = keras.ops.convert_to_tensor(np.array([[0.0, 1.0], [0.0, 0.0]], "float32"))
    optimizer.apply([one], [variable])
    changed = numpy(variable) != np.array([[1.0, 3.0], [2.0, 4.0]])
    np.testing.assert_array_equal(changed, [[False, True], [False, False]])


def negated(value):
    import torch

    value.data = torch._neg_view(value.data)


STATE_CHANGES = {
    "turned": lambda value: value.t_(),
    "turned by its data": lambda value: setattr(value, "data", value.data.t()),
    "negated": negated,
    "in another dtype": lambda value: setattr(value, "data", value.data.double()),
    "in longer storage": lambda value: value.untyped_storage().resize_(64),
}


@pytest.mark.skipif(BACKEND != "torch", reason="only torch lets state change its memory")
@pytest.mark.parametrize("change", STATE_CHANGES.values(), ids=list(STATE_CHANGES))
@pytest.mark.parametrize("slot", ["_accumulated_grads", "_accumulated_delta_vars"])
def test_state_may_change_between_steps(slot, change):
    gradients = np.random.default_rng(0).normal(size=(4, 2, 2)).astype("float32")

    def trained(fused):
        variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
        optimizer = adadelta.Adadelta(1.0, fused=fused)
        for call, gradient in enumerate(gradients):
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            if call == 1:
                change(getattr(optimizer, slot)[0].value)
        return numpy(variable)

    # A negative average has no real root.
    np.testing.assert_allclose(trained(None), trained(False), rtol=1e-5, equal_nan=True)


CUT_OFF = {
    "average": lambda optimizer, variable, gradient: optimizer._accumulated_grads[0].value,
    "moving average": lambda optimizer, variable, gradient: (
        optimizer._model_variables_moving_average[0].value
    ),
    "parameter": lambda optimizer, variable, gradient: variable.value,
    "gradient": lambda optimizer, variable, gradient: gradient,
}


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has tensors beyond their storage")
@pytest.mark.parametrize("which", CUT_OFF.values(), ids=list(CUT_OFF))
@pytest.mark.parametrize("fused", FUSED)
def test_a_tensor_beyond_its_storage_is_refused_before_anything_changes(fused, which):
    variables = [keras.Variable([1.0, 2.0, 3.0], dtype="float32") for _ in range(2)]
    optimizer = adadelta.Adadelta(1.0, use_ema=True, fused=fused)
    for _ in range(2):
        optimizer.apply([keras.ops.ones(3) for _ in variables], variables)
    gradients = [keras.ops.ones(3) for _ in variables]
    before = numpy(variables[1]), int(optimizer.iterations)
    which(optimizer, variables[0], gradients[0]).untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="ends before the tensor does"):
        optimizer.apply(gradients, variables)
    np.testing.assert_array_equal(numpy(variables[1]), before[0])
    assert int(optimizer.iterations) == before[1]


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has tensors without memory")
def test_gradients_without_memory_of_their_own_are_left_to_torch():
    run_alone("""
import keras, torch
from torch.testing._internal.two_tensor import TwoTensor
import adadelta

for make in (
    lambda: torch._efficientzerotensor((4,)),
    lambda: TwoTensor(torch.ones(4), torch.ones(4)),
):
    for special in (0, 1):
        results = []
        for fused in (None, False):
            variable = keras.Variable([1.0, 2.0, 3.0, 4.0], dtype="float32")
            optimizer = adadelta.Adadelta(1.0, fused=fused)
            for call in range(3):
                optimizer.apply([make() if call == special else torch.ones(4)], [variable])
            results.append(variable.value.tolist())
        assert results[0] == results[1], (make, special, results)
""")


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has variables that share memory")
@pytest.mark.parametrize("fused", FUSED)
def test_variables_that_share_memory_are_updated_one_after_the_other(fused):
    import torch

    whole = torch.ones(6)
    variables = [keras.Variable(np.ones(6), dtype="float32") for _ in range(2)]
    for variable in variables:
        variable.value.data = whole
    optimizer = adadelta.Adadelta(1.0, fused=fused)
    alone = keras.Variable(np.ones(6), dtype="float32")
    other = adadelta.Adadelta(1.0, fused=False)
    for _ in range(2):
        optimizer.apply([keras.ops.ones(6), keras.ops.ones(6)], variables)
        other.apply([keras.ops.ones(6)], [alone])
    np.testing.assert_allclose(1 - whole.numpy(), 2 * (1 - numpy(alone)), rtol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has a compiler that traces Python")
@pytest.mark.parametrize("options", [{}, {"use_ema": True, "skip_nonfinite": True}], ids=str)
def test_a_function_that_torch_compiles_may_contain_a_step(options):
    import torch

    gradients = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")

    def trained(compiled):
        variable = keras.Variable([1.0, 2.0, 3.0], dtype="float32")
        optimizer = adadelta.Adadelta(1.0, **options)

        def step(gradient):
            optimizer.apply([gradient * 2], [variable])
            return variable.value.sum()

        step = torch.compile(step, backend="eager") if compiled else step
        for gradient in gradients:
            step(torch.tensor(gradient))
        return numpy(variable), int(optimizer.iterations)

    (ours, count), (its, its_count) = trained(True), trained(False)
    np.testing.assert_array_equal(ours, its)
    assert count == its_count == 4


def test_an_optimizer_says_what_makes_the_step_of_each_variable():
    variables = [
        keras.Variable(np.ones((2, 3)), dtype="float32", name="weights"),
        keras.Variable(1.0, dtype="float16", name="bias"),
    ]
    optimizer = adadelta.Adadelta()
    assert adadelta.kernel_info(optimizer) == []
    assert "not yet built" in repr(adadelta.kernel_info(optimizer))
    optimizer.build(variables)
    assert adadelta.kernel_info(optimizer).to_dict()["shape"] == [(2, 3), ()]
    # Only a step shows that the gradient of a float16 variable is float32.
    optimizer.apply([keras.ops.ones((2, 3)), keras.ops.ones(())], variables)
    weights, bias = adadelta.kernel_info(optimizer)
    assert (weights["variable"], weights["dtype"]) == ("weights", "float32")
    assert bias["reason"] and bias["engine"].startswith("operators of")
    if BACKEND != "tensorflow":
        # On TensorFlow, small variables gain nothing from the kernel.
        assert weights["reason"] is None
    plain = adadelta.Adadelta(fused=False)
    plain.build(variables)
    assert {row["reason"] for row in adadelta.kernel_info(plain)} == {"`fused` is False"}
    wrapped = keras.optimizers.LossScaleOptimizer(plain)
    assert adadelta.kernel_info(wrapped) == adadelta.kernel_info(plain)
    with pytest.raises(TypeError, match="`optimizer` must be None or an optimizer of adadelta"):
        adadelta.kernel_info("adam")
    with pytest.raises(TypeError, match="`params` must be None for an optimizer that knows"):
        adadelta.kernel_info(plain, variables)


def test_kernels_that_are_asked_for_and_are_not_there_are_refused(monkeypatch):
    from adadelta._kernels import choose

    monkeypatch.setattr(choose, "reason_against_dtype", lambda *_: "it is not there")
    variable = keras.Variable([1.0], dtype="float32")
    with pytest.raises(ValueError, match="`fused` can't be True here: it is not there"):
        adadelta.Adadelta(fused=True).build([variable])
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([keras.ops.ones(1)], [variable])
    assert numpy(variable)[0] < 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it has no kernel for small variables")
@pytest.mark.parametrize("weight_decay", [None, 0.01])
@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_half_precision_variables_are_the_same_with_and_without_fused(
    dtype, mode, weight_decay
):
    gradients = np.random.default_rng(0).normal(size=(20, 3, 2))

    def trained(fused):
        variable = keras.Variable(np.linspace(-1, 1, 6).reshape(3, 2), dtype=dtype)
        optimizer = adadelta.Adadelta(1.0, weight_decay=weight_decay, fused=fused)
        run = Driver(optimizer, [variable], mode)
        for gradient in gradients:
            run.call([gradient])
        return [numpy(keras.ops.cast(it, "float32")) for it in (variable, *optimizer.variables[2:])]

    by_default, by_rule = trained(None), trained(False)
    # The averages do not depend on the parameter, so they differ by float32's rounding; a parameter
    # may be rounded to the other side once.
    parameter, *averages = zip(by_default, by_rule, strict=True)
    half = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    np.testing.assert_allclose(*parameter, rtol=half, atol=half / 4)
    for pair in averages:
        np.testing.assert_allclose(*pair, rtol=1e-5)


@pytest.mark.parametrize("rho", [0.95, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("mode", MODES)
def test_a_new_square_has_its_weight_where_rho_is_near_1(mode, rho):
    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0, rho=rho)
    Driver(optimizer, [variable], mode).call([np.array([2.0, 1.0])])
    # In float32, 1 - 0.99 has a relative error of 1e-6.
    expected = (1 - rho) * np.array([4.0, 1.0])
    np.testing.assert_allclose(numpy(optimizer._accumulated_grads[0]), expected, rtol=1e-6)


OPTIONS = {
    "everything": {
        "global_clipnorm": 1.0,
        "weight_decay": 0.01,
        "use_ema": True,
        "loss_scale_factor": 8.0,
    },
    "a window": {"clipnorm": 0.5, "gradient_accumulation_steps": 3},
    "skipping": {"skip_nonfinite": True, "clipvalue": 0.1},
    "small scale": {"skip_nonfinite": True, "loss_scale_factor": 0.5},
    "dynamic scale": {"loss_scale_factor": "dynamic", "global_clipnorm": 0.5},
    "overwriting": {"use_ema": True, "ema_overwrite_frequency": 2, "maximize": True},
    "coupled": {"weight_decay": 0.1, "decoupled_weight_decay": False, "use_ema": True},
}
DTYPES = {
    "float32": ("float32",) * 3,
    "float64": ("float64",) * 3,
    "float16": ("float16",) * 3,
    "mixed": ("float32", "float64", "bfloat16"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_with_a_kernel_it_is_as_without(options, dtypes, mode):
    """Also the counters, and also where variables of several dtypes share one norm."""

    def trained(fused):
        generator = np.random.default_rng(0)
        variables = [
            keras.Variable(generator.normal(size=shape), dtype=dtype)
            for shape, dtype in zip([(5, 3), (7,), ()], dtypes, strict=True)
        ]
        optimizer = adadelta.Adadelta(1.0, fused=fused, **options)
        run = Driver(optimizer, variables, mode)
        for _ in range(6):
            run.call([generator.normal(size=it.shape) for it in variables])
        return [
            numpy(keras.ops.cast(it, "float32") if "bfloat16" in str(it.dtype) else it)
            for it in (*variables, *optimizer.variables)
        ]

    with floats("float64" if "float64" in dtypes else "float32"):
        for ours, exact in zip(trained(True), trained(False), strict=True):
            # A half-precision value rounded to the other side affects later steps this much.
            rounding = 2e-2 if {"float16", "bfloat16"} & set(dtypes) else 1e-5
            np.testing.assert_allclose(ours, exact, rtol=rounding, atol=rounding / 10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{"clipnorm": 0.5}, {"global_clipnorm": 0.5, "skip_nonfinite": True}], ids=str
)
def test_variables_without_elements_do_not_count(options, mode):
    """Also where all variables of a dtype are empty: memory for the sums was too small then."""

    def trained(number):
        variables = [keras.Variable([1.0, 2.0, 3.0], dtype="float16")]
        variables += [keras.Variable(np.zeros((2, 0)), dtype="bfloat16") for _ in range(number)]
        optimizer = adadelta.Adadelta(1.0, fused=True, **options)
        run = Driver(optimizer, variables, mode)
        for _ in range(3):
            run.call([np.ones(it.shape) for it in variables])
        return numpy(variables[0])

    np.testing.assert_array_equal(trained(20), trained(0))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere the kernel costs nothing")
@pytest.mark.parametrize(("size", "serves"), [(2**14, True), (2**14 - 1, False)])
def test_tensorflow_takes_the_kernel_where_variables_are_large(size, serves):
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([keras.ops.ones(size)], [keras.Variable(np.ones(size), dtype="float32")])
    (reason,) = optimizer._engine.reasons
    assert reason is None if serves else "the kernel gains from 16,384" in reason


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere the kernel costs nothing")
def test_tensorflow_takes_the_kernel_where_xla_compiles_the_step():
    import tensorflow as tf

    variable = keras.Variable([1.0, 2.0], dtype="float32")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build([variable])
    for compiled in (False, True):
        step = tf.function(lambda: optimizer.apply([tf.ones(2)], [variable]), jit_compile=compiled)
        step()
        assert (optimizer._engine.reasons == [None]) == compiled


def with_callbacks(tf):
    tf.debugging.enable_check_numerics()
    return tf.debugging.disable_check_numerics


def with_eager_functions(tf):
    tf.config.run_functions_eagerly(True)
    return lambda: tf.config.run_functions_eagerly(False)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has functions")
@pytest.mark.parametrize("where", [with_callbacks, with_eager_functions])
def test_where_xla_can_not_compile_the_rule_makes_the_step(where):
    import tensorflow as tf

    def trained(fused):
        variable = keras.Variable(np.ones(2**15), dtype="float32")
        optimizer = adadelta.Adadelta(1.0, fused=fused)
        optimizer.apply([keras.ops.ones(2**15)], [variable])
        leave = where(tf)
        try:
            optimizer.apply([keras.ops.ones(2**15)], [variable])
        finally:
            leave()
            values.append(numpy(variable)[0])

    values = []
    trained(None)
    with pytest.raises(RuntimeError, match="`fused=True` needs a kernel, and there is none"):
        trained(True)
    # The failed second call, with `fused=True`, has changed nothing.
    assert 1 > values[1] > values[0]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow compiles a program of its own")
def test_only_so_many_sets_of_variables_have_programs():
    from adadelta._tensorflow import programs

    variables = [keras.Variable(np.ones(2**14), dtype="float32") for _ in range(8)]
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build(variables)
    served = 0
    for missing in range(8):
        gradients = [keras.ops.ones(2**14) for _ in variables]
        gradients[missing] = None
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply(gradients, variables)
        served += optimizer._engine.reasons == [None] * 7
    assert served == programs.SETS
    # Each variable was left out once, so all have had the same number of steps.
    values = [numpy(it)[0] for it in variables]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def run_alone(code):
    """Run code in a separate process, which must exit with status 0."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


UNCOMPILABLE = """
import keras
import numpy as np
import pytest
import adadelta
from adadelta._kernels import cache, choose, compiler

def variables():
    return [keras.Variable(np.ones(2**15), dtype=it) for it in ("float32", "bfloat16")]

def trained(**options):
    optimizer, given = adadelta.Adadelta(1.0, skip_nonfinite=True, **options), variables()
    for _ in range(2):
        optimizer.apply([keras.ops.ones(it.shape, it.dtype) / 2 for it in given], given)
    return [keras.ops.convert_to_numpy(keras.ops.cast(it, "float32")) for it in given]

kernel = choose.FOR_KERAS[keras.config.backend()]
assert choose.reason_against(kernel) is None
adadelta.Adadelta(fused=True).build(variables()[:1])

# No file is read, and nothing can be compiled from here on.
cache.folder = lambda: None

def object_codes(functions):
    if functions:
        raise MemoryError("no room")
    return {}

compiler.object_codes = object_codes
adadelta.Adadelta(fused=True).build(variables()[:1])
for options in ({}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}):
    for mine, other in zip(trained(**options), trained(fused=False, **options), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-2)
with pytest.raises(ValueError, match="no room"):
    adadelta.Adadelta(fused=True).build(variables())
"""


def test_a_dtype_whose_kernel_can_not_be_compiled_takes_the_plain_path():
    run_alone(UNCOMPILABLE)


DIVIDED = """
import numpy as np
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import adadelta
variables = []
for device in ("CPU:0", "CPU:1"):
    with tf.device(device):
        variables.append(keras.Variable(np.ones(2**15), dtype="float32"))
gradients = [keras.ops.ones(2**15), keras.ops.ones(2**15)]
optimizer = adadelta.Adadelta(1.0)
for _ in range(2):
    optimizer.apply(gradients, variables)
one, other = (it.numpy() for it in variables)
assert one[0] < 1 and np.allclose(one, other), (one, other)
try:
    adadelta.Adadelta(1.0, fused=True).apply(gradients, variables)
except RuntimeError as error:
    assert "CPU:1" in str(error), error
else:
    raise AssertionError("the kernel can't serve the other device")
assert np.all(one == variables[0].numpy())
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow divides a processor")
def test_variables_may_lie_on_two_devices():
    run_alone(DIVIDED)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs without execution")
def test_the_kernel_can_be_asked_for_first_in_a_graph_or_a_strategy():
    code = """
import keras
import tensorflow as tf
import adadelta
with tf.Graph().as_default(), tf.distribute.MirroredStrategy(["CPU:0"]).scope():
    assert adadelta.kernel_info()["tensorflow"]["serves"], adadelta.kernel_info()
"""
    run_alone(code)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow compiles a program of its own")
def test_more_variables_than_one_program_has_share_one_norm():
    def trained(fused):
        variables = [keras.Variable([float(i)], dtype="float32") for i in range(100)]
        optimizer = adadelta.Adadelta(1.0, global_clipnorm=0.5, fused=fused)
        for _ in range(2):
            optimizer.apply([keras.ops.ones(1) * (i + 1) for i in range(100)], variables)
        return np.concatenate([numpy(it) for it in variables])

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow saves functions")
def test_what_tensorflow_saves_has_no_program_of_ours(tmp_path):
    import tensorflow as tf

    class Held(tf.Module):
        def __init__(self):
            self.optimizer = adadelta.Adadelta(1.0, fused=True)
            self.optimizer.apply([keras.ops.ones(1)], [keras.Variable([1.0], dtype="float32")])

    tf.saved_model.save(Held(), str(tmp_path))
    assert b"XlaCallModule" not in (tmp_path / "saved_model.pb").read_bytes()
