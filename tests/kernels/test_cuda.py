"""The Triton kernel computes the rule: interpreted, and compiled as far as possible without a GPU.

The interpreter runs the kernel with NumPy, on CPU tensors. It shows the arithmetic, the table and
every option. It can't show the rounding of a GPU's instructions, which loads are wide, or whether
the kernel compiles at all; so the kernel is also compiled for two GPUs, and the instructions read.
With ADADELTA_TEST_GPU=1, as bench/gpu.py sets it, the same tests run compiled on this machine's
GPU instead of in the interpreter.
"""

import dataclasses
import importlib.util
import itertools
import os
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

import vectors  # noqa: E402
from adadelta import _kernels  # noqa: E402
from adadelta._core.step import Call, Options, Row, advance  # noqa: E402
from adadelta._kernels import choose, cuda, numpy_arrays  # noqa: E402
from stepper import Stepper  # noqa: E402

# The interpreter's NumPy warns of what NaN, infinity and some of the FAULTS make.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CPU = torch.device("cpu")
ON_GPU = os.environ.get("ADADELTA_TEST_GPU") == "1"
DEVICE = torch.device("cuda") if ON_GPU else CPU
# Chunks of 16 elements make small tensors large: the interpreter takes 1 ms for each chunk.
BLOCK = 16
RATE = Call(0.5)
PLAIN = Options(0.9, 1e-6)


def kernel_module(name, edit=None):
    """Load triton_step.py as a separate module, whatever else in this process uses Triton."""
    spec = importlib.util.find_spec("adadelta._kernels.triton_step")
    source = spec.loader.get_source(spec.name)
    if edit is not None:
        assert edit[0] in source
        source = source.replace(*edit)
    folder = kernel_module.folder
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    kernel_module.folder = tmp_path_factory.mktemp("kernel")


def module_on_device(name, edit=None):
    if ON_GPU:
        return kernel_module(name, edit)
    # Triton reads the variable when it decorates a function, so other tests never see it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        return kernel_module(name, edit)


@pytest.fixture(scope="module")
def kernel_on_device(_folder):
    return module_on_device("tested_step")


@pytest.fixture
def on_device(kernel_on_device, monkeypatch):
    """Let cuda.step() run in the interpreter, or on the GPU, in small chunks."""
    monkeypatch.setattr(_kernels, "triton_step", kernel_on_device, raising=False)
    monkeypatch.setattr(cuda, "BLOCK", BLOCK)
    cuda._row_of_chunk.cache_clear()  # it depends on BLOCK
    yield
    cuda._row_of_chunk.cache_clear()


def array_of(tensor):
    if tensor is None:
        return None
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def expected_step(row, call, options):
    """Return the result of `advance` for a row in NumPy, whose root is exact like a GPU's sqrt.rn.

    torch's own root on a CPU is off by one unit in the last place in one float32 of five.
    """
    arrays = [array_of(tensor) for tensor in row[:4]]
    kind = arrays[2].dtype.type
    numbers = Options(
        kind(options.rho),
        kind(options.epsilon),
        maximize=options.maximize,
        decay_mode=options.decay_mode,
        one_minus_rho=kind(1 - options.rho),
    )
    decay = kind(row.weight_decay) if row.weight_decay else 0.0
    its_row = Row(*arrays, weight_decay=decay)
    with np.errstate(all="ignore"):
        return advance(its_row, Call(kind(float(call.rate))), numbers, numpy_arrays)[:4]


def random_row(size, dtype=torch.float32, gradient_dtype=None, decay=0.0, seed=0):
    random = torch.Generator().manual_seed(1000 * seed + size)
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(power=1):
        return torch.randn(size, generator=random, dtype=torch.float64) * 10.0**power

    # Gradients over 8 orders of magnitude, so that epsilon matters for some and not for others.
    spread = torch.logspace(-6, 2, max(size, 1), dtype=torch.float64)[:size]
    return Row(
        normal(0).to(DEVICE, dtype),
        (normal(0) * spread).to(DEVICE, gradient_dtype or dtype),
        normal(0).square().to(DEVICE, state_dtype),
        normal(-2).square().to(DEVICE, state_dtype),
        weight_decay=decay,
    )


NAMES = ("parameter", "gradient", "square_avg", "acc_delta")


def assert_steps(rows, call=RATE, options=PLAIN, steps=2):
    """Check that the kernel gives the same rows as `advance`, bit for bit."""
    for number in range(steps):
        expected = [expected_step(row, call, options) for row in rows]
        before = [row.gradient.clone() for row in rows]
        cuda.step(rows, call, options)
        for row, after, gradient in zip(rows, expected, before, strict=True):
            assert torch.equal(row.gradient.nan_to_num(), gradient.nan_to_num()), "gradient changed"
            for name, ours, its in zip(NAMES, row, after, strict=False):
                if name != "gradient":
                    same = np.array_equal(array_of(ours), its, equal_nan=True)
                    assert same, f"{name} of size {ours.numel()} after step {number + 1}"


def told(option):
    """Return the call and the options of one of OPTIONS."""
    rate = {name: value for name, value in option.items() if name == "rate"}
    rest = {name: value for name, value in option.items() if name != "rate"}
    return RATE._replace(**rate), dataclasses.replace(PLAIN, **rest)


OPTIONS = {
    "rate on the device": {"rate": torch.tensor([0.1], dtype=torch.float64, device=DEVICE)},
    "maximize": {"maximize": True},
    "coupled": {"decay_mode": "coupled"},
    "decoupled": {"decay_mode": "decoupled"},
    "unscaled": {"decay_mode": "unscaled"},
    # Gradients above 3e11 are limited in float32.
    "saturated": {"epsilon": 1e-15},
}
PAIRS = [
    pair
    for pair in itertools.combinations(OPTIONS, 2)
    if not OPTIONS[pair[0]].keys() & OPTIONS[pair[1]].keys()
]


@pytest.mark.usefixtures("on_device")
class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [0, 1, 13, BLOCK, BLOCK + 1, 3 * BLOCK, 53])
    def test_of_a_tensor_of_any_size(self, size, dtype):
        assert_steps([random_row(size, dtype)])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_of_many_tensors_at_once(self, dtype):
        sizes = (5, 0, 2 * BLOCK, 1, 37, BLOCK, 0)
        decays = (0.0, 0.1, 0.01, 0.2, 0.0, 0.3, 0.1)
        rows = [
            random_row(size, dtype, decay=decay) for size, decay in zip(sizes, decays, strict=True)
        ]
        assert_steps(rows, options=dataclasses.replace(PLAIN, decay_mode="coupled"), steps=3)

    def test_of_tensors_of_any_shape_that_are_not_aligned(self):
        whole = random_row(1 + 3 * 4 * 5)
        row = Row(*(tensor[1:].view(3, 4, 5) for tensor in whole[:4]))
        assert row.parameter.data_ptr() % 16
        assert_steps([row, random_row(20)])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("option", OPTIONS)
    def test_with_an_option(self, option, dtype):
        rows = [random_row(21, dtype, decay=0.1), random_row(3, dtype)]
        rows[1].gradient[0] = 1e30
        assert_steps(rows, *told(OPTIONS[option]))

    @pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
    def test_with_two_options(self, pair):
        options = {**OPTIONS[pair[0]], **OPTIONS[pair[1]]}
        assert_steps([random_row(17, decay=0.1)], *told(options), steps=1)

    @pytest.mark.parametrize("gradient_dtype", [torch.float16, torch.float32])
    def test_of_float16_parameters(self, gradient_dtype):
        row = random_row(41, torch.float16, gradient_dtype, decay=0.1)
        assert_steps([row], steps=3)

    @pytest.mark.parametrize("gradient_dtype", [torch.bfloat16, torch.float32])
    def test_of_bfloat16_parameters(self, gradient_dtype):
        row = random_row(41, torch.bfloat16, gradient_dtype)
        expected = expected_step(row, RATE, PLAIN)
        cuda.step([row], RATE, PLAIN)
        assert all(np.array_equal(array_of(row[it]), expected[it]) for it in (2, 3))
        # The interpreter truncates to bfloat16, where a GPU rounds to nearest (see below): the
        # result may be one bfloat16 lower in magnitude.
        wanted = expected[0].astype("float32")
        np.testing.assert_allclose(row[0].float().cpu().numpy(), wanted, rtol=2.0**-7, atol=0)
        assert not torch.equal(row[0], random_row(41, torch.bfloat16)[0])

    def test_of_dtypes_mixed_in_one_call(self):
        dtypes = (torch.float32, torch.float16, torch.float64)
        assert_steps([random_row(size, dtype) for size in (3, 20) for dtype in dtypes])

    def test_nan_and_infinity_stay_visible_and_huge_gradients_are_limited(self):
        row = random_row(6)
        row[1][:] = torch.tensor([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0])
        parameter = row[0].clone()
        assert_steps([row], steps=1)
        assert row[0][:3].isnan().all() and row[0][3:].isfinite().all()
        assert (row[0][3:5] != parameter[3:5]).all() and row[0][5] == parameter[5]

    def test_a_rate_on_the_device_is_read_when_the_kernel_runs(self):
        rate = torch.tensor(0.5, device=DEVICE)
        assert_steps([random_row(5)], Call(rate), steps=1)
        rate.fill_(0.125)
        assert_steps([random_row(5)], Call(rate), steps=1)


@pytest.mark.usefixtures("on_device")
class TestTable:
    def test_it_is_sent_again_only_when_an_address_changes(self):
        rows = [random_row(20), random_row(7)]
        cuda.step(rows, RATE, PLAIN)
        sent = cuda._on_device.cache_info().misses
        cuda.step(rows, RATE, PLAIN)
        assert cuda._on_device.cache_info().misses == sent
        rows[1] = rows[1]._replace(gradient=rows[1].gradient.clone())
        assert_steps(rows, steps=1)
        assert cuda._on_device.cache_info().misses == sent + 1

    def test_one_launch_serves_all_tensors_of_a_dtype(self, monkeypatch):
        launches = []
        launch = cuda._launch
        monkeypatch.setattr(cuda, "_launch", lambda *a: (launches.append(a[0]), launch(*a)))
        many = [random_row(size) for size in (1, 20, 3, 0, 40)]
        cuda.step(many, RATE, PLAIN)
        cuda.step([*many, random_row(5, torch.float16)], RATE, PLAIN)
        assert [len(rows) for rows in launches] == [4, 4, 1]

    def test_no_tensor_no_launch(self):
        cuda.step([], RATE, PLAIN)
        cuda.step([random_row(0)], RATE, PLAIN)

    def test_autograd_notices_the_change(self):
        row = random_row(5)
        parameter = row[0].requires_grad_()
        loss = (parameter**2).sum()
        cuda.step([row], RATE, PLAIN)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


class KernelStepper(Stepper):
    """The stepper that proves the vectors, with the kernel instead of its arithmetic."""

    def __init__(self, case, dtype):
        super().__init__(case["arguments"], case.get("weight_decay_mode"), case["variables"])
        self.dtype = dtype

    def _update(self, gradients, rate):
        arguments = self.arguments
        # Clipping and the moving average are not part of the kernel.
        gradients = self._clip(gradients)
        options = Options(
            arguments["rho"],
            arguments["epsilon"],
            maximize=arguments.get("maximize", False),
            decay_mode=self.mode or "coupled",
        )
        kept = [self.variables, self.square_avg, self.acc_delta]
        kept = [[np.array(array, dtype=self.dtype) for array in arrays] for arrays in kept]
        self.variables, self.square_avg, self.acc_delta = kept
        rows, sources = [], []
        for gradient, *arrays in zip(gradients, *kept, strict=True):
            if gradient is not None:
                arrays.insert(1, np.array(gradient, dtype=self.dtype))
                decay = arguments.get("weight_decay") or 0.0 if self.mode else 0.0
                tensors = [torch.from_numpy(array).to(DEVICE) for array in arrays]
                rows.append(Row(*tensors, weight_decay=decay))
                sources.append(arrays)
        cuda.step(rows, Call(rate), options)
        for row, arrays in zip(rows, sources, strict=True):
            for tensor, array in zip(row[:4], arrays, strict=True):
                array[...] = array_of(tensor)
        self.update += 1
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                self.variables[index] = self._constrained(index, self.variables[index])
        if arguments.get("use_ema"):
            self._average([])


# Tolerances of tests/python: test_vectors_bite.py for float64, test_vectors.py for float32.
TOLERANCE = {"float64": 1e-11, "float32": 2e-4}


# float64 shows the arithmetic. In float32 each option runs once, since long runs are slow in the
# interpreter; TestNumbers shows every pair bit for bit.
RUNS = [(case, "float64") for name in vectors.NAMES for case in vectors.load(name)]
RUNS += [(case, "float32") for case in vectors.load("options")]


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    ("case", "dtype"),
    RUNS,
    ids=lambda it: it if isinstance(it, str) else it["name"].replace(" ", "-"),
)
def test_it_gives_the_numbers_of_the_vectors(case, dtype):
    stepper = KernelStepper(case, dtype)
    due = {state["call"]: state for state in case["expected"]}
    for number, gradients in enumerate(case["gradients"], 1):
        stepper.call(gradients)
        for slot in vectors.TENSORS if number in due else ():
            if due[number][slot] is None:
                continue
            for ours, exact in zip(getattr(stepper, slot), due[number][slot], strict=True):
                limit = TOLERANCE[dtype]
                largest = np.max(np.abs(exact), initial=0.0) if dtype == "float32" else 0.0
                np.testing.assert_allclose(
                    ours, exact, rtol=limit, atol=limit * largest, err_msg=f"{slot}, {number}"
                )


# Deliberate faults, each as an edit of the code. The tests must detect every one.
FAULTS = {
    "no epsilon above": ("acc_delta + epsilon,", "acc_delta,"),
    "no epsilon below": ("square_avg + epsilon)", "square_avg)"),
    "no root": ("return tl.math.sqrt_rn(quotient)", "return quotient"),
    "rho swapped": ("rho * square_avg + one_minus_rho", "one_minus_rho * square_avg + rho"),
    "rate in the accumulator": ("(step * step)", "(rate * step * step)"),
    "new u": ("step = _root", "acc_delta = rho * acc_delta\n    step = _root"),
    "old v": ("    square_avg = rho * square_avg", "    new = rho * square_avg"),
    "not negated": ("gradient = -gradient", "gradient = gradient"),
    "coupled decay halved": ("gradient + decay * value", "gradient + 0.5 * decay * value"),
    "decay without the rate": ("value * (decay * rate)", "value * decay"),
    "decay with the rate": ("value - value * decay,", "value - value * decay * rate,"),
    "0 times infinity": ("tl.where(decay != 0, gradient + decay * value, gradient)",
                         "gradient + decay * value"),
    "first row's decay": ("FIRST_DECAY + row", "FIRST_DECAY"),
    "not limited": ("limited = tl.minimum(tl.maximum(gradient, -largest), largest)",
                    "limited = gradient"),
    "limited from one side": ("tl.maximum(gradient, -largest)", "gradient"),
    "NaN hidden": ("limited + (gradient - gradient)", "tl.where(gradient == gradient, limited, 0)"),
    "last element left": ("offsets < size,", "offsets < size - 1,"),
    "later chunks left": ("first_chunk) * BLOCK", "first_chunk) * 0"),
    "step forgotten": ("value - rate * step)", "value)"),
    "u not stored": ("tl.store(acc_deltas, acc_delta, mask)", "pass"),
}  # fmt: skip


def assert_everything():
    for options in OPTIONS.values():
        rows = [random_row(21, decay=0.1), random_row(3)]
        rows[1].parameter[0] = np.inf
        rows[0].gradient[:2] = torch.tensor([3e30, -3e30])
        assert_steps(rows, *told(options))
    assert_steps([random_row(4, torch.float16)])
    strange = random_row(3)
    strange.gradient[1] = np.nan
    assert_steps([strange], steps=1)


@pytest.mark.usefixtures("on_device")
def test_nothing_is_wrong_with_the_kernel_as_it_is():
    assert_everything()


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault, monkeypatch):
    wrong = module_on_device(re.sub(r"\W", "_", fault), FAULTS[fault])
    monkeypatch.setattr(_kernels, "triton_step", wrong)
    with pytest.raises(AssertionError, match="of size"):
        assert_everything()


class Recorder:
    """Stand in for the kernel and record the arguments of its launch."""

    def __getitem__(self, grid):
        return lambda *arguments, **named: vars(self).update(arguments=arguments, named=named)


def ptx_of(row, option, capability, monkeypatch, tmp_path):
    """Return the PTX of this launch's kernel for a GPU that need not be present."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = kernel_module("compiled_step")
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "triton_step", module, raising=False)
        patch.setattr(module, "step", recorder)
        cuda.step([row], *told(option))
    kernel = kernel_module("compiled_step").step
    options = {name: recorder.named.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    names = kernel.arg_names
    given = dict(zip(names, recorder.arguments, strict=False))
    constants = {**recorder.named, **{name: None for name in given if given[name] is None}}
    signature = {
        name: "constexpr" if name in constants else triton.runtime.jit.mangle_type(given[name])
        for name in names
    }
    source = ASTSource(
        kernel,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {(position,): [["tt.divisibility", 16]] for position in (0, 1)},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm[
        "ptx"
    ]


COMPILED = {
    "plain": {},
    "coupled": {"maximize": True, "decay_mode": "coupled"},
    "decoupled": {"decay_mode": "decoupled"},
    "unscaled": {"rate": torch.tensor(0.5), "decay_mode": "unscaled"},
}
WIDE = {torch.float32: "v4.[bf]32", torch.float64: "v2.[bf]64", torch.bfloat16: "v4.b32"}


@pytest.mark.parametrize(
    ("options", "dtype", "capability"),
    [
        ("plain", torch.float32, 75),
        ("plain", torch.bfloat16, 90),
        ("coupled", torch.float32, 90),
        ("coupled", torch.float64, 90),
        ("decoupled", torch.float32, 80),
        ("decoupled", torch.bfloat16, 80),
        ("unscaled", torch.float64, 80),
    ],
    ids=str,
)
def test_it_compiles_to_exact_instructions(options, dtype, capability, monkeypatch, tmp_path):
    row = random_row(5000, dtype, decay=0.1)
    ptx = ptx_of(row, COMPILED[options], capability, monkeypatch, tmp_path)
    kind = "f64" if dtype == torch.float64 else "f32"
    instructions = set(re.findall(rf"\b[a-z]+(?:\.\w+)*\.{kind}\b", ptx))
    assert {f"div.rn.{kind}", f"sqrt.rn.{kind}"} <= instructions
    # Each operation is rounded to nearest: no fused multiply-add, nothing approximate or flushed.
    inexact = [i for i in instructions if re.search(r"fma|mad|approx|full|ftz|\.r[zmp]\b", i)]
    assert not inexact
    assert all(".rn" in i for i in instructions if i.split(".")[0] in ("add", "sub", "mul", "div"))
    if dtype == torch.bfloat16:
        assert re.search(r"cvt\.rn\.bf16(x2)?\.f32", ptx)
    for access in ("ld", "st"):
        assert re.search(rf"{access}\.global\S*\.{WIDE[dtype]}", ptx), f"no wide {access}"


class TestWhatItServes:
    @pytest.fixture(autouse=True)
    def _machine(self, monkeypatch):
        """Simulate a machine whose GPU is called "cpu"."""
        ask = cuda._reason_against_row
        monkeypatch.setattr(cuda, "_reason_against_machine", lambda: None)
        monkeypatch.setattr(cuda, "_reason_against_row", lambda row: ask(row, device_type="cpu"))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_every_real_floating_dtype(self, dtype):
        row = random_row(5, dtype)
        assert cuda.reason_against(row) is None
        row = row._replace(parameter=torch.nn.Parameter(row.parameter))
        assert cuda.reason_against(row) is None

    def test_a_gradient_in_the_dtype_of_the_averages(self):
        assert cuda.reason_against(random_row(5, torch.bfloat16, torch.float32)) is None

    @pytest.mark.parametrize("name", ["average", "window", "gradient"])
    def test_not_what_torchs_optimizers_do_not_have(self, name):
        row = random_row(5)
        row = row._replace(**{name: None if name == "gradient" else row.square_avg.clone()})
        assert "no moving average and no window" in cuda.reason_against(row)

    @pytest.mark.parametrize(
        ("options", "loss_scale"),
        [({"clipnorm": 1.0}, None), ({"global_clipnorm": 1.0}, None), ({"clipvalue": 1.0}, None),
         ({}, 8.0)],
    )  # fmt: skip
    def test_not_what_torchs_optimizers_are_not_told(self, options, loss_scale):
        options = dataclasses.replace(PLAIN, **options)
        assert cuda.reason_against_options(RATE._replace(loss_scale=loss_scale), options)
        assert cuda.reason_against_options(RATE, PLAIN) is None

    @pytest.mark.parametrize(
        ("position", "other", "reason"),
        [
            (0, torch.ones(4, dtype=torch.complex64), "parameter is torch.complex64"),
            (0, torch.ones(4, dtype=torch.int32), "parameter is torch.int32"),
            (0, torch.ones(8)[::2], "not dense and contiguous"),
            (1, torch.ones(1).expand(4), "not dense and contiguous"),
            (1, torch.ones(4).to_sparse(), "not dense"),
            (1, torch.ones(4, dtype=torch.float64), "gradient is torch.float64"),
            (2, torch.ones(4, dtype=torch.bfloat16), "average is torch.bfloat16"),
            (3, torch.ones(4, device="meta"), "on meta"),
            (1, torch._efficientzerotensor((4,)), "no memory of its own"),
            (1, torch._neg_view(torch.ones(4)), "not dense"),
            (0, torch.nn.Buffer(torch.ones(4)).as_subclass(type("Own", (torch.Tensor,), {})),
             "is a Own"),
        ],
    )  # fmt: skip
    def test_not_other_tensors(self, position, other, reason):
        row = random_row(4)
        assert cuda.reason_against(row) is None
        row = row._replace(**{NAMES[position]: other})
        assert reason in cuda.reason_against(row)


class TestTheMachine:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_without_a_gpu_there_is_a_reason(self):
        assert cuda.reason_against_dtype("float32") == "torch finds no NVIDIA GPU"
        assert cuda.reason_against(random_row(3)) == "the parameter is on cpu"

    @pytest.mark.usefixtures("on_device")
    def test_the_trial_passes_a_kernel_that_is_right(self):
        assert cuda._failure_on(CPU) is None

    @pytest.mark.usefixtures("on_device")
    def test_the_trial_notices_a_kernel_that_is_wrong(self, monkeypatch):
        monkeypatch.setattr(
            _kernels, "triton_step", module_on_device("wrong", FAULTS["no epsilon below"])
        )
        assert "differ from the rule's" in cuda._failure_on(CPU)

    @pytest.mark.usefixtures("on_device")
    def test_the_trial_notices_a_kernel_that_does_not_run(self, monkeypatch):
        def fail(*_):
            raise RuntimeError("no C compiler")

        monkeypatch.setattr(cuda, "_launch", fail)
        assert cuda._failure_on(CPU).endswith("RuntimeError: no C compiler")


def test_triton_is_imported_only_when_the_kernel_is_used():
    code = "import sys; from adadelta._kernels import cuda; "
    code += "cuda.reason_against_dtype('float32'); print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TestInTheTorchOptimizer:
    """`adadelta.torch.Adadelta(fused=True)` passes its GPU tensors to the kernel."""

    @pytest.fixture(autouse=True)
    def _machine(self, on_device, monkeypatch):
        # CPU tensors stand for GPU tensors, so the CPU kernel must not take them.
        monkeypatch.setattr(choose, "reason_against", lambda kernel: "not here")

        def reason_against(row):
            return "it is complex" if row.parameter.dtype == torch.complex64 else None

        monkeypatch.setattr(cuda, "reason_against", reason_against)

    def parameters(self, dtype):
        generator = torch.Generator().manual_seed(0)
        made = [torch.randn(size, generator=generator).to(dtype) for size in (3, 40)]
        for parameter in made:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
        return made

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"maximize": True},
            {"weight_decay": 0.1},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
        ],
        ids=str,
    )
    def test_its_steps_are_those_of_the_rule(self, options, dtype):
        import adadelta.torch

        results = []
        for fused in (True, False):
            parameters = self.parameters(dtype)
            optimizer = adadelta.torch.Adadelta(parameters, fused=fused, **options)
            for _ in range(3):
                optimizer.step()
            results.append([it.double() for it in parameters])
        for ours, exact in zip(*results, strict=True):
            # torch's root on a CPU is off by one unit in the last place in one number of five.
            tolerance = {torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
            torch.testing.assert_close(ours, exact, rtol=tolerance, atol=tolerance)

    def test_what_it_can_not_serve_is_refused_before_anything_changes(self):
        import adadelta.torch

        parameters = [*self.parameters(torch.float32), torch.ones(2, dtype=torch.complex64)]
        parameters[-1].grad = torch.ones(2, dtype=torch.complex64)
        before = [it.clone() for it in parameters]
        optimizer = adadelta.torch.Adadelta(parameters, fused=True)
        with pytest.raises(RuntimeError, match="`fused=True` needs a kernel"):
            optimizer.step()
        assert all(map(torch.equal, parameters, before))
