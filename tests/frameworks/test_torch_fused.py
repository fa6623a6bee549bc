"""The kernel in the torch front end gives the rule's numbers; what it can't update is detected."""

import copy
import os
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from adadelta import kernel_info
from adadelta._core.step import COLLECT, UPDATE, Call, Options, Row
from adadelta._kernels import choose
from adadelta._torch.engine import Engine
from adadelta._torch.kernel import Members
from adadelta.torch import Adadelta

pytestmark = pytest.mark.skipif(
    choose.reason_against("cpu") is not None, reason=f"no kernel: {choose.reason_against('cpu')}"
)

SHAPES = ((3, 5), (), (0, 3), (70_000,), (1, 1, 2), (4, 4))
OPTIONS = [
    {},
    {"weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "lr": torch.tensor(0.5)},
    {"skip_nonfinite": True, "rho": 0.0, "eps": 1e-3},
]


def pair(dtype=torch.float32, shapes=SHAPES, **options):
    """Return an optimizer with the kernel and one with the rule, on equal parameters."""
    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    second = copy.deepcopy(first)
    return first, second, Adadelta(first, fused=True, **options), Adadelta(
        second, fused=False, **options
    )  # fmt: skip


def step(params, others, *optimizers, make=torch.randn_like):
    for param, other in zip(params, others, strict=True):
        param.grad = make(param)
        other.grad = param.grad.clone()
    for optimizer in optimizers:
        optimizer.step()


def assert_equal(params, others, one, other):
    for first, second in zip(params, others, strict=True):
        pairs = [(first, second)]
        pairs += [(value, other.state[second][name]) for name, value in one.state[first].items()]
        for mine, its in pairs:
            # Unlike the kernel's, torch's square root is not always rounded to nearest: an average
            # was off by 2 units in its last place after five steps. With coupled decay, a
            # half-precision parameter that is rounded the other way shows in the averages.
            tolerance = 8 * torch.finfo(first.dtype).eps
            largest = its.detach().abs().nan_to_num(0, 0).max().item() if its.numel() else 0
            torch.testing.assert_close(
                mine, its, rtol=tolerance, atol=tolerance * largest, equal_nan=True
            )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)
def test_the_kernel_gives_the_rules_numbers(dtype, options):
    params, others, one, other = pair(dtype, **copy.deepcopy(options))
    for call in range(5):
        scale = 10.0 ** (9 * (call - 2)) if dtype != torch.float16 else 1.0
        step(params, others, one, other, make=lambda it: torch.randn_like(it) * scale)  # noqa: B023
        assert_equal(params, others, one, other)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_is_seen(value):
    params, others, one, other = pair(shapes=[(3,)])
    step(params, others, one, other, make=lambda it: torch.tensor([1.0, value, 2.0]))
    assert_equal(params, others, one, other)
    assert params[0].isfinite().tolist() == [True, False, True]


def test_several_groups_with_missing_gradients():
    params, others, *_ = pair()
    one, other = (
        Adadelta([{"params": it[:2]}, {"params": it[2:], "lr": 0.1, "weight_decay": 0.5}], fused=f)
        for it, f in ((params, True), (others, False))
    )
    for call in range(6):
        for index, (param, its) in enumerate(zip(params, others, strict=True)):
            param.grad = None if (call + index) % 3 == 0 else torch.randn_like(param)
            its.grad = None if param.grad is None else param.grad.clone()
        one.step()
        other.step()
    assert_equal(params, others, one, other)


def resized(optimizer, params):
    params[0].data = torch.ones(9, 9)
    optimizer.state.pop(params[0])


def cut_in_place(optimizer, params):
    params[0].data = params[0].data[:2]
    optimizer.state.pop(params[0])


def cut_with_its_state(optimizer, params):
    state = optimizer.state[params[0]]
    for tensor in (params[0], state["square_avg"], state["acc_delta"]):
        tensor.data = tensor.data[:2]


def turned_in_place(optimizer, params):
    params[5].data = params[5].data.t()


def average_turned(optimizer, params):
    state = optimizer.state[params[5]]
    state["square_avg"] = state["square_avg"].t()


def average_turned_where_it_lies(optimizer, params):
    optimizer.state[params[5]]["acc_delta"].t_()


def average_turned_by_its_data(optimizer, params):
    average = optimizer.state[params[5]]["square_avg"]
    average.data = average.data.t()


def average_negated(optimizer, params):
    average = optimizer.state[params[3]]["acc_delta"]
    average.data = torch._neg_view(-average.data)


def parameter_negated(optimizer, params):
    params[3].data = torch._neg_view(params[3].data)


def average_of_another_dtype(optimizer, params):
    average = optimizer.state[params[3]]["square_avg"]
    average.data = average.data.double()


def average_read_as_another_dtype(optimizer, params):
    average = optimizer.state[params[3]]["square_avg"]
    average.data = average.data.zero_().view(torch.int32)


def storage_moved(optimizer, params):
    average = optimizer.state[params[3]]["square_avg"]
    average.untyped_storage().resize_(4 * average.numel() + 64)


def average_is_a_view(optimizer, params):
    average = optimizer.state[params[3]]["square_avg"]
    average.set_(torch.cat([average, average]).untyped_storage(), 5, average.shape)


def made_half(optimizer, params):
    for param in params:
        param.data = param.data.half()


def state_replaced(optimizer, params):
    state = optimizer.state[params[3]]
    state["acc_delta"] = torch.full_like(state["acc_delta"], 0.5)


def state_moved(optimizer, params):
    state = optimizer.state[params[3]]
    state["square_avg"].data = torch.full_like(state["square_avg"], 0.5)


def state_forgotten(optimizer, params):
    optimizer.state.clear()


def parameter_transposed(optimizer, params):
    params[0].data = torch.arange(15.0).reshape(5, 3).t()
    for slot in ("square_avg", "acc_delta"):
        optimizer.state[params[0]][slot] = torch.zeros(3, 5)


def group_changed(optimizer, params):
    optimizer.param_groups[0].update(lr=0.1, weight_decay=0.3, maximize=True)


def parameter_taken_out(optimizer, params):
    optimizer.state.pop(optimizer.param_groups[0]["params"].pop())
    params.pop()


@pytest.mark.parametrize(
    "change",
    [
        resized,
        cut_in_place,
        cut_with_its_state,
        turned_in_place,
        average_turned,
        average_turned_where_it_lies,
        average_turned_by_its_data,
        average_negated,
        parameter_negated,
        average_of_another_dtype,
        average_read_as_another_dtype,
        storage_moved,
        average_is_a_view,
        made_half,
        state_replaced,
        state_moved,
        state_forgotten,
        parameter_transposed,
        group_changed,
        parameter_taken_out,
    ],
)
def test_changes_between_steps_are_noticed(change):
    params, others, _, other = pair()
    one = Adadelta(params)
    for _ in range(2):
        step(params, others, one, other)
    for optimizer, its in ((one, params), (other, others)):
        for param in its:
            param.grad = None
        change(optimizer, its)
    for _ in range(2):
        step(params, others, one, other)
        assert_equal(params, others, one, other)


@pytest.mark.parametrize(
    "change", [average_turned, average_turned_where_it_lies, average_turned_by_its_data]
)
def test_the_kernel_takes_averages_that_lie_otherwise(change):
    params, others, one, other = pair(weight_decay=0.1)
    for _ in range(3):
        step(params, others, one, other)
        assert_equal(params, others, one, other)
        change(one, params)
        change(other, others)


def resized_average(optimizer, param):
    optimizer.state[param]["square_avg"].resize_(2)


def turned_average(optimizer, param):
    optimizer.state[param]["acc_delta"].t_()


def emptied(optimizer, param):
    optimizer.state[param]["square_avg"].untyped_storage().resize_(0)


def emptied_and_cut_off(optimizer, param):
    storage = optimizer.state[param]["acc_delta"].untyped_storage()
    storage.resize_(0)
    storage.resize_(8)


def gradient_cut_off(optimizer, param):
    param.grad.untyped_storage().resize_(8)


def parameter_cut_off(optimizer, param):
    param.untyped_storage().resize_(8)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resized_average, "averages of shapes"),
        (turned_average, "averages of shapes"),
        (emptied, "the storage of a parameter"),
        (emptied_and_cut_off, "the storage of a parameter"),
        (gradient_cut_off, "the storage of a parameter"),
        (parameter_cut_off, "the storage of a parameter"),
    ],
)
def test_tensors_that_are_too_short_are_refused_before_anything_changes(change, message, fused):
    first, second = (torch.nn.Parameter(torch.ones(1, 3)) for _ in range(2))
    optimizer = Adadelta([{"params": [first]}, {"params": [second]}], fused=fused)
    for call in range(3):
        first.grad, second.grad = torch.ones(1, 3), torch.ones(1, 3)
        if call < 2:
            optimizer.step()
    before = first.tolist()
    change(optimizer, second)
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert first.tolist() == before
    assert all(state["step"] == 2 for state in optimizer.state.values())


WITHOUT_MEMORY = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map

from adadelta.torch import Adadelta


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        def inside(it):
            return it.inner if isinstance(it, cls) else it

        return function(*tree_map(inside, arguments), **tree_map(inside, options or {}))


def faked():
    with FakeTensorMode(allow_non_fake_inputs=True):
        return torch.ones(4)




KINDS = {
    "zeros": lambda: torch._efficientzerotensor((4,)),
    "two": lambda: TwoTensor(torch.ones(4), torch.ones(4)),
    "collective": lambda: AsyncCollectiveTensor(torch.ones(4)),
    "wrapper": lambda: Wrapper(torch.ones(4)),
    "fake": faked,
    "functional": lambda: torch._to_functional_tensor(torch.ones(4)),
}


def trained(make, special, fused):
    param = torch.nn.Parameter(torch.ones(4))
    optimizer = Adadelta([param], fused=fused)
    for call in range(3):
        param.grad = None
        try:
            param.grad = make() if call == special else torch.ones(4)
            optimizer.step()
        except RuntimeError as error:
            return type(error), param.tolist()
    return param.tolist()


for name, make in KINDS.items():
    for special in (0, 1):
        ours, its = (trained(make, special, fused) for fused in (None, False))
        assert ours == its, (name, special, ours, its)
print("done")
"""


def test_gradients_without_memory_of_their_own_are_left_to_torch():
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_MEMORY], env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "done", (done.returncode, done.stderr)


@pytest.mark.parametrize("fused", [None, False])
def test_parameters_that_share_memory_are_updated_one_after_the_other(fused):
    """As in torch, no update is lost."""

    def trained(make):
        whole = torch.linspace(1, 2, 12)
        params = [torch.nn.Parameter(it) for it in (whole, whole[2:5], whole[4:8], torch.ones(3))]
        optimizer = make(params)
        for _ in range(3):
            for param in params:
                param.grad = torch.linspace(-1, 1, param.numel())
            optimizer.step()
        return whole

    torch.testing.assert_close(
        trained(lambda params: Adadelta(params, weight_decay=0.1, fused=fused)),
        trained(lambda params: torch.optim.Adadelta(params, weight_decay=0.1, foreach=False)),
    )


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("fused", [None, False])
def test_a_gradient_may_be_its_own_parameter(fused, first):
    def trained(make):
        param = torch.nn.Parameter(torch.linspace(1, 2, 5000))
        optimizer = make([param])
        for call in range(3):
            param.grad = param.data if first or call else torch.ones(5000)
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(
        trained(lambda params: Adadelta(params, fused=fused)),
        trained(lambda params: torch.optim.Adadelta(params, foreach=False)),
    )


def inside_its_parameter(param):
    return param.data


def at_an_odd_address(param):
    return torch.frombuffer(bytearray(4 * param.numel() + 1), dtype=torch.float32, offset=1)


def longer_than_its_memory(param):
    gradient = torch.ones_like(param)
    gradient.untyped_storage().resize_(4 * param.numel() - 4)
    return gradient


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (inside_its_parameter, "a tensor shares memory with another"),
        (at_an_odd_address, "the gradient has no memory of its own"),
        (longer_than_its_memory, "the storage of a parameter, a gradient"),
    ],
)
def test_every_step_looks_where_gradients_are(make, reason):
    params = [torch.nn.Parameter(torch.ones(size)) for size in (5, 0, 7)]
    optimizer = Adadelta(params, fused=True)
    for _ in range(3):
        # New gradients, all of which are elsewhere than before.
        kept = [param.grad for param in params]
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    del kept
    before = [param.tolist() for param in params]
    params[2].grad = make(params[2])
    with pytest.raises((RuntimeError, ValueError), match=reason):
        optimizer.step()
    assert [param.tolist() for param in params] == before


def test_a_call_that_is_under_way_is_not_used_by_another_thread():
    members = Members("float32", slice(None), np.zeros((1, 6), np.int64), np.array([5]))
    first, second = members.take([8], True), members.take([16], True)
    assert (first.table[0, 1], second.table[0, 1]) == (8, 16)
    members.keep(first, [8], True)
    assert members.take([8], True) is first
    assert members.take([8], True) is not first


def test_fake_tensors_make_fake_steps():
    with FakeTensorMode():
        param = torch.nn.Parameter(torch.ones(4))
        param.grad = torch.ones(4)
        optimizer = Adadelta([param])
        for _ in range(2):
            optimizer.step()
        assert optimizer.state[param]["acc_delta"].shape == (4,)


def test_gradients_may_be_missing_while_they_are_accumulated():
    def made(fused):
        rows = [Row(*(torch.full((5,), it) for it in (1.0, 2.0, 0.1, 0.2)), None, torch.ones(5))]
        engine = Engine(fused=fused)
        for action in (COLLECT, COLLECT, UPDATE, UPDATE):
            for gradient in (None, rows[0].gradient):
                row = rows[0]._replace(gradient=gradient, action=action)
                engine.step([row], Call(0.1, steps=2.0), Options(0.9, 1e-6))
        return torch.cat([rows[0].parameter, rows[0].acc_delta, rows[0].window])

    torch.testing.assert_close(made(True), made(False))


def test_a_mode_sees_every_operation_of_a_step():
    class Seeing(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += "copy_" in str(function)
            return function(*args, **(kwargs or {}))

    params, others, _, other = pair()
    one = Adadelta(params)
    step(params, others, one, other)
    for param, its in zip(params, others, strict=True):
        param.grad = its.grad = torch.ones_like(param)
    with Seeing() as mode:
        one.step()
    assert mode.seen
    other.step()
    assert_equal(params, others, one, other)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "make",
    [
        lambda it: torch.randn(it.shape[::-1]).permute(tuple(range(it.dim()))[::-1]),
        lambda it: torch.randn(()).expand(it.shape),
        lambda it: torch.sparse_coo_tensor(size=it.shape) if it.dim() else torch.ones(()),
        lambda it: torch._neg_view(torch.randn(it.shape)),
    ],
    ids=["transposed", "expanded", "sparse", "negated"],
)
def test_gradients_of_any_layout_after_plain_ones(make):
    params, others, one, other = pair()
    step(params, others, one, other)
    step(params, others, one, other, make=make)
    assert_equal(params, others, one, other)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("make", [torch.randn_like, lambda it: torch.randn_like(it).conj()])
def test_complex_parameters_are_pairs_for_the_kernel(make, dtype):
    params, others, one, other = pair(dtype, weight_decay=0.1)
    for _ in range(3):
        step(params, others, one, other, make=make)
        assert_equal(params, others, one, other)


def test_autograd_knows_of_the_change():
    param = torch.nn.Parameter(torch.ones(3))
    loss = (param**2).sum()
    param.grad = torch.ones(3)
    Adadelta([param], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("param", "grad", "reason"),
    [
        (torch.ones(3).to(torch.float8_e5m2), None, "the parameter is torch.float8_e5m2"),
        (torch.ones(3, 2).t(), None, "not dense and contiguous"),
        (torch.ones(3, 2), TwoTensor(torch.ones(3, 2), torch.ones(3, 2)), "a TwoTensor"),
        (torch.ones(2, device="meta"), None, "the parameter is on meta"),
    ],
    ids=["8 bits", "transposed", "subclass", "meta"],
)
def test_where_the_kernel_cant_serve_fused_says_why_before_anything_changes(param, grad, reason):
    first = torch.nn.Parameter(torch.ones(2))
    second = torch.nn.Parameter(param)
    first.grad = torch.ones(2)
    second.grad = torch.ones_like(second) if grad is None else grad
    optimizer = Adadelta([{"params": first}, {"params": second, "fused": True}])
    with pytest.raises(RuntimeError, match=f"`fused=True` needs a kernel.*{reason}"):
        optimizer.step()
    assert not optimizer.state and torch.equal(first, torch.ones(2))


def test_the_rule_serves_where_there_is_no_kernel(monkeypatch):
    monkeypatch.setattr(choose, "reason_against", lambda kernel: "numba can't be imported")
    params, others, _, other = pair()
    one = Adadelta(params)
    step(params, others, one, other)
    assert all(map(torch.equal, params, others))
    with pytest.raises(RuntimeError, match="numba can't be imported"):
        Adadelta(params, fused=True).step()


def test_copies_do_not_share_what_was_noted():
    params, others, one, _ = pair()
    step(params, others, one)
    copied = copy.deepcopy(one)
    before = [param.detach().clone() for param in params]
    for param in copied.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    copied.step()
    assert all(map(torch.equal, params, before))


def test_what_is_saved_of_an_engine_has_no_tensors():
    param, gradient = torch.ones(5000), torch.ones(5000)
    row = Row(param, gradient, torch.zeros(5000), torch.zeros(5000))
    engine = Engine(fused=True)
    for _ in range(2):
        engine.step([row], Call(1.0), Options(0.9, 1e-6))
    assert engine.reasons == [None]
    assert len(pickle.dumps(engine)) < 1000
    copied, before = copy.deepcopy(engine), param.clone()
    others = Row(*(tensor.clone() for tensor in row[:4]))
    copied.step([others], Call(1.0), Options(0.9, 1e-6))
    assert torch.equal(param, before) and not torch.equal(others.parameter, before)


def test_gradients_are_not_kept_in_memory():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = Adadelta([param], fused=True)
    for _ in range(3):
        param.grad = torch.ones(3)
        kept = weakref.ref(param.grad)
        optimizer.step()
        optimizer.zero_grad()
        assert kept() is None


def test_kernel_info_names_the_parameters_of_every_group():
    weight, bias, other = (torch.nn.Parameter(torch.ones(size)) for size in (2, 3, 4))
    groups = [{"params": [weight, bias]}, {"params": [other], "fused": False}]
    rows = kernel_info(Adadelta(groups))
    assert [(row["variable"], row["shape"]) for row in rows] == [
        ("0", (2,)),
        ("1", (3,)),
        ("2", (4,)),
    ]
    assert {row["device"] for row in rows} == {"cpu"}
    assert rows[2]["reason"] == "`fused` is False"
