"""torch's tests of its own optimizers hold for `adadelta.torch.Adadelta`, and more.

The configurations and the invalid arguments are from torch's database of optimizers.
"""

import copy
import doctest
import inspect
import io
import pickle
import sys
import types
import unittest
import warnings

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.adadelta import adadelta as torch_adadelta
from torch.optim.optimizer import register_optimizer_step_pre_hook

import adadelta.torch
from adadelta.torch import Adadelta

try:
    import expecttest  # noqa: F401
except ModuleNotFoundError:
    # torch's test tools derive a base class from it, which nothing here uses.
    sys.modules["expecttest"] = types.SimpleNamespace(TestCase=unittest.TestCase)
from torch.testing._internal import common_optimizers

INFO = next(it for it in common_optimizers.optim_db if it.optim_cls is torch.optim.Adadelta)
CONFIGURATIONS = common_optimizers._get_optim_inputs_including_global_cliquey_kwargs(
    "cpu", torch.float32, INFO, skip=("differentiable",)
) + [
    common_optimizers.OptimizerInput(params=None, kwargs=kwargs, desc=desc)
    for desc, kwargs in (
        ("foreach", {"foreach": True}),
        ("tensor lr", {"lr": torch.tensor(0.5)}),
        ("tensor lr of one dimension", {"lr": torch.tensor([0.5])}),
        ("capturable", {"capturable": True, "lr": torch.tensor(0.5)}),
    )
]
OWN = [
    *CONFIGURATIONS,
    *(
        common_optimizers.OptimizerInput(params=None, kwargs=kwargs, desc=desc)
        for desc, kwargs in (
            ("decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
            ("skip_nonfinite", {"skip_nonfinite": True}),
        )
    ),
]
ERRORS = INFO.optim_error_inputs_func("cpu", torch.float32)


def configurations(items=OWN):
    return pytest.mark.parametrize("kwargs", [it.kwargs for it in items], ids=str)


def problem(dtype=torch.float32, named=False):
    """Return the parameters of a small regression, and a function for its loss and gradients."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator))
    model = model.to(dtype)
    x = torch.randn(16, 5, generator=generator).to(dtype)
    y = x.sum(1, keepdim=True)

    def loss():
        for param in model.parameters():
            param.grad = None
        value = ((model(x) - y) ** 2).mean()
        value.backward()
        return value

    return list(model.named_parameters() if named else model.parameters()), loss


def trained(cls, kwargs, calls=10):
    params, loss = problem()
    optimizer = cls(params, **copy.deepcopy(kwargs))
    for _ in range(calls):
        optimizer.step(loss)
    return params, loss, optimizer


def same(left, right):
    """Whether two values of a state dict are equal, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and (
            left.dtype == right.dtype and torch.equal(left, right)
        )
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_the_signature_is_torchs_and_more():
    for ours, theirs in (
        (Adadelta, torch.optim.Adadelta),
        (adadelta.torch.adadelta, torch_adadelta),
    ):
        mine, its = (inspect.signature(it).parameters for it in (ours, theirs))
        assert list(mine)[: len(its)] == list(its) or set(its) < set(mine)
        for name, parameter in its.items():
            assert mine[name].default == parameter.default, name
            assert mine[name].kind == parameter.kind, name
        for name in set(mine) - set(its):
            assert mine[name].kind is inspect.Parameter.KEYWORD_ONLY


@configurations(CONFIGURATIONS)
def test_training_goes_as_with_torch(kwargs):
    # torch refuses `capturable` on the CPU, where it would not change the numbers.
    theirs = {name: value for name, value in kwargs.items() if name != "capturable"}
    results = [
        trained(cls, its)[0] for cls, its in ((Adadelta, kwargs), (torch.optim.Adadelta, theirs))
    ]
    for ours, other in zip(*results, strict=True):
        # A sum over 16 examples, and 10 steps that build on each other.
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


@configurations()
def test_steps_go_in_the_right_direction(kwargs):
    params, loss = problem()
    optimizer = Adadelta(params, **{"lr": 1.0, **kwargs})
    before = loss().item()
    for _ in range(20):
        optimizer.step(loss)
    maximize = kwargs.get("maximize", False)
    assert (loss().item() > before) == maximize


@pytest.mark.parametrize("error", ERRORS, ids=lambda it: it.optimizer_error_input.desc)
def test_torchs_wrong_arguments_are_refused_in_its_words(error):
    wrong = error.optimizer_error_input
    params = wrong.params or [torch.nn.Parameter(torch.randn(1))]
    # torch only warns if a parameter is given twice.
    kind = ValueError if issubclass(error.error_type, Warning) else error.error_type
    with pytest.raises(kind, match=error.error_regex):
        Adadelta(params, **wrong.kwargs)


def test_what_torchs_base_class_refuses_is_refused():
    with pytest.raises(ValueError, match="empty parameter list"):
        Adadelta([])
    with pytest.raises(ValueError, match="non-leaf"):
        Adadelta([torch.nn.Parameter(torch.ones(1)) * 2])
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        Adadelta([1.0])
    with pytest.raises(TypeError, match="ordered collections"):
        Adadelta([{"params": {torch.nn.Parameter(torch.ones(1))}}])
    with pytest.raises(TypeError, match="must be a dict"):
        Adadelta([torch.nn.Parameter(torch.ones(1))]).add_param_group([])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"fused": True, "foreach": True},
        {"fused": True, "differentiable": True},
        {"foreach": True, "differentiable": True},
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused(kwargs):
    with pytest.raises(ValueError, match="can't be True together"):
        Adadelta([torch.nn.Parameter(torch.ones(1))], **kwargs)


@pytest.mark.parametrize("cls", [Adadelta, torch.optim.Adadelta])
def test_what_torch_refuses_too_is_refused_by_its_kind_of_error(cls):
    def step():
        param = torch.nn.Parameter(torch.ones(1))
        param.grad = torch.ones(1)
        cls([param], foreach=True, differentiable=True).step()

    with pytest.raises(AssertionError):
        step()


@pytest.mark.parametrize("name", ["foreach", "fused", "maximize", "capturable", "skip_nonfinite"])
def test_flags_of_another_kind_are_refused(name):
    with pytest.raises(TypeError, match=f"`{name}` must be True"):
        Adadelta([torch.nn.Parameter(torch.ones(1))], **{name: "yes"})


@configurations()
def test_without_gradients_nothing_happens(kwargs):
    params, _ = problem()
    before = copy.deepcopy(params)
    optimizer = Adadelta(params, **kwargs)
    optimizer.step()
    assert all(map(torch.equal, params, before))
    assert not optimizer.state


@configurations([it for it in OWN if not it.kwargs.get("weight_decay")])
def test_gradients_of_zero_move_nothing_and_decay_the_averages(kwargs):
    params, _, optimizer = trained(Adadelta, kwargs, calls=2)
    before = copy.deepcopy(params)
    averages = [optimizer.state[param]["square_avg"].clone() for param in params]
    for param in params:
        param.grad.zero_()
    optimizer.step()
    assert all(map(torch.equal, params, before))
    rho = optimizer.param_groups[0]["rho"]
    for param, average in zip(params, averages, strict=True):
        assert torch.equal(optimizer.state[param]["square_avg"], rho * average)


@configurations()
def test_gradients_are_left_as_they_are(kwargs):
    params, loss = problem()
    optimizer = Adadelta(params, **kwargs)
    loss()
    before = [param.grad.clone() for param in params]
    optimizer.step()
    assert all(torch.equal(param.grad, grad) for param, grad in zip(params, before, strict=True))


@configurations()
def test_steps_are_counted_for_each_parameter(kwargs):
    params, loss = problem()
    optimizer = Adadelta(params, **kwargs)
    for call in range(5):
        loss()
        if call == 2:
            params[1].grad = None
        optimizer.step()
    counts = [optimizer.state[param]["step"] for param in params]
    assert [count.item() for count in counts] == [5, 4, 5, 5]
    for count in counts:
        assert count.dtype == torch.float32 and count.shape == ()


def test_counts_have_the_default_dtype():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        params, _, optimizer = trained(Adadelta, {}, calls=1)
        assert optimizer.state[params[0]]["step"].dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@configurations()
def test_copies_train_on_by_themselves(kwargs, make):
    _, _, optimizer = trained(Adadelta, kwargs, calls=3)
    before = copy.deepcopy(optimizer.state_dict())
    copied = make(optimizer)
    assert same(copied.state_dict(), before)
    assert copied.defaults.keys() == optimizer.defaults.keys()
    for group in copied.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    copied.step()
    assert same(optimizer.state_dict(), before)
    assert not same(copied.state_dict(), before)


@configurations()
def test_it_can_be_printed(kwargs):
    text = repr(trained(Adadelta, kwargs, calls=1)[2])
    assert text.startswith("Adadelta (") and "    rho: " in text


def test_groups_have_values_of_their_own():
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = Adadelta(
        [{"params": params[0]}, {"params": [params[1]], "lr": 0.0, "foreach": False}],
        weight_decay=0.1,
    )
    optimizer.add_param_group(
        {"params": iter([params[2]]), "weight_decay": 0.0, "maximize": True, "name": "the last"}
    )
    expected = [torch.optim.Adadelta([copy.deepcopy(p)], **kw) for p, kw in zip(params, (
        {"weight_decay": 0.1}, {"weight_decay": 0.1, "lr": 0.0}, {"maximize": True}
    ), strict=True)]  # fmt: skip
    for param, other in zip(params, expected, strict=True):
        its = other.param_groups[0]["params"][0]
        param.grad, its.grad = torch.ones(2), torch.ones(2)
        other.step()
    optimizer.step()
    for param, other in zip(params, expected, strict=True):
        torch.testing.assert_close(param, other.param_groups[0]["params"][0])
    assert optimizer.param_groups[2]["name"] == "the last"


def test_a_group_that_was_given_is_not_changed():
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.5}
    before = dict(group)
    Adadelta([group])
    assert group == before


def test_the_closure_computes_gradients_and_its_loss_is_returned():
    params, loss = problem()
    optimizer = Adadelta(params)
    with torch.no_grad():
        value = optimizer.step(loss)
    assert value.requires_grad and optimizer.step() is None


def test_zero_grad():
    for kwargs in ({}, {"foreach": True}):
        params, _, optimizer = trained(Adadelta, kwargs, calls=1)
        optimizer.zero_grad(set_to_none=False)
        assert all(torch.equal(param.grad, torch.zeros_like(param)) for param in params)
        optimizer.zero_grad()
        assert all(param.grad is None for param in params)


def test_hooks_run_around_the_step():
    params, loss = problem()
    optimizer = Adadelta(params, lr=0.5)
    seen = []
    handles = [
        optimizer.register_step_pre_hook(lambda it, args, kwargs: seen.append("before")),
        optimizer.register_step_post_hook(lambda it, args, kwargs: seen.append("after")),
        register_optimizer_step_pre_hook(lambda *_: seen.append("all")),
    ]
    try:
        optimizer.step(loss)
        assert seen == ["all", "before", "after"]
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step(loss)
    assert len(seen) == 3


def test_hooks_run_around_state_dict_and_load_state_dict():
    params, loss = problem(torch.bfloat16)
    optimizer = Adadelta(params)
    optimizer.step(loss)
    seen = []

    def halve(it, state_dict):
        seen.append("load before")
        groups = [{**group, "lr": 0.5} for group in state_dict["param_groups"]]
        return {**state_dict, "param_groups": groups}

    def after(it):
        # The hook sees the converted state: with torch's class the averages are still bfloat16.
        seen.append(("load after", it.state[params[0]]["square_avg"].dtype))

    optimizer.register_state_dict_pre_hook(lambda it: seen.append("before"))
    optimizer.register_state_dict_post_hook(lambda it, state_dict: {**state_dict, "more": 1})
    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.register_load_state_dict_post_hook(after)
    saved = optimizer.state_dict()
    assert saved["more"] == 1
    optimizer.load_state_dict(saved)
    assert seen == ["before", "load before", ("load after", torch.float32)]
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


SCHEDULERS = {
    "LambdaLR": lambda it: lr_scheduler.LambdaLR(it, lambda step: 0.9**step),
    "MultiplicativeLR": lambda it: lr_scheduler.MultiplicativeLR(it, lambda step: 0.9),
    "StepLR": lambda it: lr_scheduler.StepLR(it, 2),
    "MultiStepLR": lambda it: lr_scheduler.MultiStepLR(it, [2, 4]),
    "ConstantLR": lambda it: lr_scheduler.ConstantLR(it),
    "LinearLR": lambda it: lr_scheduler.LinearLR(it),
    "ExponentialLR": lambda it: lr_scheduler.ExponentialLR(it, 0.9),
    "PolynomialLR": lambda it: lr_scheduler.PolynomialLR(it),
    "CosineAnnealingLR": lambda it: lr_scheduler.CosineAnnealingLR(it, 5),
    "CosineAnnealingWarmRestarts": lambda it: lr_scheduler.CosineAnnealingWarmRestarts(it, 3),
    "CyclicLR": lambda it: lr_scheduler.CyclicLR(it, 0.1, 1.0, 2, cycle_momentum=False),
    "OneCycleLR": lambda it: lr_scheduler.OneCycleLR(it, 1.0, total_steps=10, cycle_momentum=False),
    "ReduceLROnPlateau": lambda it: lr_scheduler.ReduceLROnPlateau(it, patience=0),
    "SequentialLR": lambda it: lr_scheduler.SequentialLR(
        it, [lr_scheduler.ConstantLR(it), lr_scheduler.ExponentialLR(it, 0.9)], [3]
    ),
    "ChainedScheduler": lambda it: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(it), lr_scheduler.ExponentialLR(it, 0.9)]
    ),
}


def test_no_scheduler_is_forgotten():
    assert set(SCHEDULERS) == set(lr_scheduler.__all__) - {"LRScheduler"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["number", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_works_as_with_torch(name, lr):
    rates = []
    for cls in (Adadelta, torch.optim.Adadelta):
        params, loss = problem()
        optimizer = cls(params, lr=copy.deepcopy(lr))
        scheduler = SCHEDULERS[name](optimizer)
        seen = []
        for _ in range(8):
            optimizer.step(loss)
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            seen.append(float(optimizer.param_groups[0]["lr"]))
        rates.append((seen, [param.detach().clone() for param in params]))
    (ours, mine), (theirs, its) = rates
    assert ours == theirs and len(set(ours)) > 1
    for one, other in zip(mine, its, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_grad_scaler_scales_and_skips():
    params, loss = problem()
    expected, same_loss = problem()
    optimizer, plain = Adadelta(params), Adadelta(expected)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    value = loss()
    optimizer.zero_grad()
    scaler.scale(value.detach().clone().requires_grad_())  # creates the scale
    for param in params:
        param.grad = None
    same_loss()
    for param, other in zip(params, expected, strict=True):
        param.grad = other.grad * 8
    scaler.step(optimizer)
    scaler.update()
    plain.step()
    assert all(map(torch.equal, params, expected))
    params[0].grad[0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, params, expected)) and scaler.get_scale() == 4.0


def test_meta_parameters_have_meta_state():
    model = torch.nn.Linear(3, 2, device="meta")
    optimizer = Adadelta(model.parameters(), weight_decay=0.1, skip_nonfinite=True)
    for param in model.parameters():
        param.grad = torch.empty_like(param)
    optimizer.step()
    state = optimizer.state[model.weight]
    assert state["square_avg"].is_meta and state["square_avg"].shape == (2, 3)


def test_lazy_parameters_can_be_given_before_they_have_a_shape():
    model = torch.nn.LazyLinear(2)
    optimizer = Adadelta(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["acc_delta"].shape == (2, 3)


def test_parameters_that_are_more_than_one_tensor():
    from torch.testing._internal.two_tensor import TwoTensor

    parts = [torch.ones(3), torch.zeros(3)]
    param = torch.nn.Parameter(TwoTensor(*(part.clone() for part in parts)))
    optimizer = Adadelta([param], weight_decay=0.1)
    expected = [torch.nn.Parameter(part) for part in parts]
    plain = Adadelta(expected, weight_decay=0.1, fused=False)
    for _ in range(2):
        param.grad = TwoTensor(torch.ones(3), torch.full((3,), 2.0))
        expected[0].grad, expected[1].grad = torch.ones(3), torch.full((3,), 2.0)
        optimizer.step()
        plain.step()
    assert torch.equal(param.a, expected[0]) and torch.equal(param.b, expected[1])


def test_parameters_that_change_their_dtype_take_their_state_along():
    half = torch.nn.Linear(2, 1)
    optimizer = Adadelta(half.parameters())
    for convert in (torch.nn.Module.half, torch.nn.Module.double):
        for param in half.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        before = optimizer.state[half.weight]["square_avg"].clone()
        convert(half)
        for param in half.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        after = optimizer.state[half.weight]["square_avg"]
        torch.testing.assert_close(after.float(), 0.9 * before.float() + 0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("kwargs", [{}, {"decoupled_weight_decay": True}], ids=str)
def test_gradients_flow_through_a_differentiable_step(kwargs, dtype):
    def stepped(param, grad, square_avg, acc_delta):
        param = param.clone()
        param.grad = grad
        optimizer = Adadelta([param], lr=0.9, weight_decay=0.1, differentiable=True, **kwargs)
        state = {"square_avg": square_avg, "acc_delta": acc_delta}
        optimizer.state[param] = {
            "step": torch.tensor(10.0),
            **{name: it.clone() for name, it in state.items()},
        }
        optimizer.step()
        return param, optimizer.state[param]["square_avg"], optimizer.state[param]["acc_delta"]

    torch.manual_seed(0)
    inputs = [torch.rand(4, dtype=dtype, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(stepped, inputs)


def test_gradients_flow_to_the_rate_through_decoupled_decay():
    def stepped(rate, param):
        param = param.clone()
        optimizer = Adadelta(
            [param], lr=rate, weight_decay=0.1, decoupled_weight_decay=True, differentiable=True
        )
        for _ in range(2):
            param.grad = param * 2
            optimizer.step()
        return param

    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    param = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stepped, (rate, param))


class TestSkipNonfinite:
    """With `skip_nonfinite`, a step with such a gradient changes nothing but the count."""

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
    @pytest.mark.parametrize("capturable", [False, True])
    def test_nothing_changes_but_the_count(self, value, capturable):
        params, loss = problem()
        optimizer = Adadelta(params, skip_nonfinite=True, capturable=capturable)
        optimizer.step(loss)
        before = copy.deepcopy((params, optimizer.state_dict()["state"]))
        loss()
        params[2].grad[0, 1] = value
        optimizer.step()
        assert same([params, optimizer.state_dict()["state"]], list(before))
        assert optimizer.skipped == 1
        optimizer.step(loss)
        assert optimizer.skipped == 1 and not same(params, before[0])

    def test_a_first_step_that_is_skipped_leaves_no_state(self):
        params, loss = problem()
        optimizer = Adadelta(params, skip_nonfinite=True)
        loss()
        params[0].grad[0, 0] = torch.nan
        optimizer.step()
        assert not optimizer.state and optimizer.skipped == 1

    def test_every_group_is_skipped_with_the_one_that_asks(self):
        params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        optimizer = Adadelta([{"params": params[0]}, {"params": params[1], "skip_nonfinite": True}])
        for grads, moved in (((1.0, torch.nan), False), ((1.0, 1.0), True)):
            for param, grad in zip(params, grads, strict=True):
                param.grad = torch.full((1,), grad)
            optimizer.step()
            assert all((param.item() != 1) == moved for param in params)
        params[0].grad.fill_(torch.nan)  # in a group without `skip_nonfinite`
        optimizer.step()
        assert params[0].isnan() and params[1].isfinite() and optimizer.skipped == 1

    def test_large_finite_gradients_are_not_skipped(self):
        for dtype in (torch.float64, torch.float32, torch.complex64, torch.float16):
            param = torch.nn.Parameter(torch.ones(2, dtype=dtype))
            param.grad = torch.full_like(param, torch.finfo(dtype).max)
            optimizer = Adadelta([param], skip_nonfinite=True)
            optimizer.step()
            assert optimizer.skipped == 0 and param.isfinite().all()

    @pytest.mark.filterwarnings("ignore:Sparse invariant checks")
    def test_sparse_gradients_are_looked_at(self):
        param = torch.nn.Parameter(torch.ones(3, 2))
        optimizer = Adadelta([param], skip_nonfinite=True)
        for value, skipped in ((torch.nan, 1), (1.0, 1)):
            param.grad = torch.sparse_coo_tensor([[1]], [[value, 0.0]], (3, 2))
            optimizer.step()
            assert optimizer.skipped == skipped

    def test_the_count_is_saved(self):
        params, loss = problem()
        optimizer = Adadelta(params, skip_nonfinite=True)
        loss()
        params[0].grad[0, 0] = torch.nan
        optimizer.step()
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        another = Adadelta(problem()[0], skip_nonfinite=True)
        another.load_state_dict(torch.load(file, weights_only=True))
        assert another.skipped == 1


def test_examples_run():
    runner = doctest.DocTestRunner()
    tests = [test for test in doctest.DocTestFinder().find(adadelta.torch) if test.examples]
    assert len(tests) == 2
    for test in tests:
        assert runner.run(test).failed == 0, test.name


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(Adadelta, {"foreach": True, "weight_decay": 0.1})


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("name", ["rho", "eps", "weight_decay"])
def test_a_scalar_tensor_as_value_of_a_later_group_is_a_number_before_anything_changes(name, fused):
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Adadelta([{"params": [param]} for param in params], fused=fused)
    value = torch.tensor(0.5, dtype=torch.bfloat16)
    for group, its_value in zip(optimizer.param_groups, (0.5, value), strict=True):
        group[name] = its_value
    for _ in range(2):
        for param in params:
            param.grad = torch.ones(2)
        optimizer.step()
    assert torch.equal(*params)
    assert [state["step"].item() for state in optimizer.state.values()] == [2, 2]
