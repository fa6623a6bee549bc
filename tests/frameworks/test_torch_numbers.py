"""The torch front end reproduces the shared vectors and equals `torch.optim.Adadelta`."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch.optim.adadelta import adadelta as torch_adadelta

import adadelta.torch
import vectors

# As for the core: 1e-15 per operation over 200 steps. In float32, rounding the hyperparameters
# alone costs 6e-8; with gradients over 12 orders of magnitude, 3e-5 was measured.
VECTOR_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}
# torch divides two roots where the rule takes the root of a quotient: three more roundings.
# Measured over all combinations below: 3e-16 and 1.2e-7 for parameters, 8 times that for averages.
TORCH_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}

NAMES = {"learning_rate": "lr", "epsilon": "eps"}
OPTIONS = {
    *("learning_rate", "rho", "epsilon", "weight_decay", "maximize", "skip_nonfinite"),
}


def fits(case):
    return set(case["arguments"]) <= OPTIONS and (
        case.get("weight_decay_mode") != "unscaled"
        and not any(variable["constraint"] for variable in case["variables"])
    )


CASES = [case for name in vectors.NAMES for case in vectors.load(name) if fits(case)]


def made(case, params):
    """Return the optimizer of a case, and what to call after each step."""
    arguments = {NAMES.get(name, name): value for name, value in case["arguments"].items()}
    arguments["weight_decay"] = arguments.get("weight_decay") or 0.0
    mode = case.get("weight_decay_mode")
    schedule = arguments["lr"] if isinstance(arguments["lr"], dict) else None
    if schedule:
        arguments["lr"] = schedule["initial_learning_rate"]
    optimizer = adadelta.torch.Adadelta(
        params, **arguments, decoupled_weight_decay=mode == "decoupled"
    )
    if not schedule:
        return optimizer, lambda: None
    assert schedule["schedule"] == "exponential_decay"
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule["decay_rate"] ** (step / schedule["decay_steps"])
    )
    return optimizer, scheduler.step


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 30
    assert {case["convention"] for case in CASES} >= {"torch", "keras", "paper"}
    for option in OPTIONS:
        assert any(option in case["arguments"] for case in CASES), option


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("dtype", VECTOR_TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_vectors(case, dtype):
    params = [
        torch.nn.Parameter(torch.tensor(variable["initial"], dtype=dtype))
        for variable in case["variables"]
    ]
    optimizer, after = made(case, params)
    expected = {state["call"]: state for state in case["expected"]}
    for call, gradients in enumerate(case["gradients"], start=1):
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = None if gradient is None else torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        after()
        if call not in expected:
            continue
        state = expected[call]
        assert optimizer.skipped == state["skipped"]
        for slot in ("variables", "square_avg", "acc_delta"):
            for param, exact in zip(params, state[slot], strict=True):
                own = optimizer.state.get(param, {})
                zero = torch.zeros_like(param)
                ours = param if slot == "variables" else own.get(slot, zero)
                scale = np.max(np.abs(exact), initial=1e-30)
                np.testing.assert_allclose(
                    ours.detach().numpy() / scale,
                    exact / scale,
                    rtol=VECTOR_TOLERANCE[dtype],
                    atol=VECTOR_TOLERANCE[dtype],
                    err_msg=f"{slot} after call {call}",
                )


def shapes():
    return [(3, 4), (7,), (), (0, 3), (1, 1, 2)]


def twins(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ours = [
        torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator))
        for shape in shapes()
    ]
    return ours, copy.deepcopy(ours)


def assert_same(ours, theirs, tolerance):
    for mine, its in zip(ours, theirs, strict=True):
        if its.numel():
            off = (mine - its).abs().max() / its.abs().max().clamp(min=1e-30)
            assert off <= tolerance, f"off by {off:.2g}"


COMBINATIONS = [
    {**numbers, "weight_decay": decay, "maximize": maximize, "foreach": foreach}
    for numbers, decay, maximize, foreach in itertools.product(
        ({}, {"lr": 0.01, "rho": 0.95, "eps": 1e-8}, {"lr": torch.tensor(0.5), "rho": 0.5}),
        (0, 0.1),
        (False, True),
        (None, False, True),
    )
]


@pytest.mark.parametrize("dtype", TORCH_TOLERANCE, ids=str)
@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_300_random_steps_equal_torch(options, dtype):
    ours, theirs = twins(dtype)
    mine = adadelta.torch.Adadelta(ours, **options)
    its = torch.optim.Adadelta(theirs, **options)
    generator = torch.Generator().manual_seed(1)
    for step in range(300):
        for one, other in zip(ours, theirs, strict=True):
            # Some gradients are missing.
            grad = torch.randn(one.shape, dtype=dtype, generator=generator)
            one.grad = None if (step + one.numel()) % 7 == 0 else grad
            other.grad = None if one.grad is None else grad.clone()
        mine.step()
        its.step()
    assert_same(ours, theirs, TORCH_TOLERANCE[dtype])
    for one, other in zip(ours, theirs, strict=True):
        for slot in ("step", "square_avg", "acc_delta"):
            assert_same(
                [mine.state[one][slot]], [its.state[other][slot]], 10 * TORCH_TOLERANCE[dtype]
            )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "maximize": True}], ids=str)
def test_complex_parameters_equal_torch(options, dtype):
    ours, theirs = twins(dtype)
    mine = adadelta.torch.Adadelta(ours, **options)
    its = torch.optim.Adadelta(theirs, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, dtype=dtype, generator=generator)
            other.grad = one.grad.clone()
        mine.step()
        its.step()
    tolerance = TORCH_TOLERANCE[torch.float64 if dtype == torch.complex128 else torch.float32]
    assert_same(ours, theirs, tolerance)
    assert mine.state[ours[0]]["square_avg"].dtype == dtype


def test_a_conjugated_gradient_is_read_as_it_is():
    ours, theirs = twins(torch.complex128)
    grads = [torch.randn_like(param) for param in ours]
    for params, values in (
        (ours, [g.conj() for g in grads]),
        (theirs, [g.conj().resolve_conj() for g in grads]),
    ):
        for param, value in zip(params, values, strict=True):
            param.grad = value
        adadelta.torch.Adadelta(params).step()
    assert ours[0].grad.is_conj()
    assert_same(ours, theirs, 0)


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"maximize": True, "rho": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_one_by_one_equals_together_bit_for_bit(options, dtype):
    # The second tensor has more elements than one piece of work.
    together = [torch.nn.Parameter(torch.randn(n, dtype=dtype)) for n in (5, 70_000, 1, 0, 999)]
    one_by_one = copy.deepcopy(together)
    optimizers = [
        adadelta.torch.Adadelta(params, foreach=foreach, fused=False, **options)
        for params, foreach in ((together, True), (one_by_one, False))
    ]
    for _ in range(3):
        for one, other in zip(together, one_by_one, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, one_by_one, strict=True):
        assert torch.equal(one, other)
        for slot in ("square_avg", "acc_delta"):
            assert torch.equal(optimizers[0].state[one][slot], optimizers[1].state[other][slot])


@pytest.mark.parametrize("format", [torch.channels_last, None], ids=["channels_last", "transposed"])
@pytest.mark.parametrize("size", [5, 80])
def test_memory_of_any_order(format, size):
    def laid_out(value):
        if format is not None:
            return value.contiguous(memory_format=format)
        return value.transpose(0, 1).contiguous().transpose(0, 1)

    # The second shape has more elements than one piece of work.
    plain = torch.nn.Parameter(torch.randn(4, 3, size, size))
    other = torch.nn.Parameter(laid_out(plain.detach().clone()))
    assert not other.is_contiguous()
    optimizers = [
        adadelta.torch.Adadelta([param], weight_decay=0.1, fused=False) for param in (plain, other)
    ]
    for _ in range(3):
        plain.grad = torch.randn_like(plain)
        other.grad = laid_out(plain.grad.clone())
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(plain, other)
    assert optimizers[1].state[other]["square_avg"].stride() == other.stride()


def test_parameters_of_several_dtypes_in_one_group():
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = adadelta.torch.Adadelta(params, lr=0.1)
    optimizer.step()
    # The step is sqrt(eps) / sqrt(0.1 + eps), times the rate.
    expected = 1 - 0.1 * (1e-6 / (0.1 + 1e-6)) ** 0.5
    for param in params:
        off = (param.real.double() - expected).abs().max()
        assert off <= torch.finfo(param.dtype).eps
    averages = [optimizer.state[param]["square_avg"].dtype for param in params]
    assert averages == [torch.float32, torch.float64, torch.float32, torch.float32, torch.complex64]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": torch.tensor(0.5), "weight_decay": 0.1},
        {"skip_nonfinite": True},
        {"capturable": True, "decoupled_weight_decay": True, "weight_decay": 0.1},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_compiled_step_equals_the_eager_one(options):
    ours, theirs = twins(torch.float32)
    eager, compiled = (adadelta.torch.Adadelta(params, **options) for params in (ours, theirs))

    @torch.compile(backend="aot_eager")
    def step():
        compiled.step()

    for call in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        if call == 2 and options.get("skip_nonfinite"):
            ours[0].grad[0, 0] = theirs[0].grad[0, 0] = torch.nan
        eager.step()
        step()
    # Both make the same operations in the same order.
    assert_same(ours, theirs, 1e-6)
    assert eager.skipped == compiled.skipped == (1 if options.get("skip_nonfinite") else 0)
    for one, other in zip(ours, theirs, strict=True):
        assert eager.state[one]["step"] == compiled.state[other]["step"]


def test_functional_form_equals_torch():
    def lists():
        torch.manual_seed(0)
        return (
            [[torch.randn(3, dtype=torch.float64) for _ in range(2)] for _ in range(2)]
            + [[torch.rand(3, dtype=torch.float64) for _ in range(2)] for _ in range(2)]
            + [[torch.zeros(()) for _ in range(2)]]
        )

    options = {"lr": 0.5, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.1, "maximize": True}
    ours, theirs = lists(), lists()
    adadelta.torch.adadelta(*ours, **options)
    torch_adadelta(*theirs, **options)
    for mine, its in zip(ours, theirs, strict=True):
        assert_same(mine, its, 1e-12)
