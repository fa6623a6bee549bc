"""Where `torch.optim.Adadelta` goes wrong: ours avoids each trap, and torch's own class fails.

Each trap is a function of an optimizer class that fails if the class falls into it. The second
test shows that torch's does: a trap that catches no class would test nothing.
"""

import copy
import inspect
import re
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from adadelta.torch import Adadelta

TRAPS = []


def trap(number, words):
    def add(function):
        slug = re.sub(r"[^a-z0-9]+", "-", f"{number} {words}".lower()).strip("-")
        TRAPS.append(pytest.param(function, id=slug))
        return function

    return add


def ones(*shape, dtype=torch.float32):
    param = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
    param.grad = torch.ones_like(param)
    return param


def refused(action, kind=(ValueError, TypeError)):
    with pytest.raises(kind):
        action()


WRONG = {
    "lr": (-1.0, torch.nan, torch.inf, "0.1", None, True),
    "rho": (-0.1, 1.0, 1.5, torch.nan),
    "eps": (0.0, -1.0, torch.inf, torch.nan),
    "weight_decay": (-0.1, torch.inf, torch.nan, None),
}
WRONG_VALUES = [(name, value) for name, values in WRONG.items() for value in values]


@trap(52, "wrong values in a group that is added later are accepted")
def added_groups(cls):
    for name, value in WRONG_VALUES:
        optimizer = cls([ones(1)])
        group = {"params": [ones(1)], name: value}
        refused(lambda: optimizer.add_param_group(group))  # noqa: B023
        assert len(optimizer.param_groups) == 1


@trap(52, "wrong values in a group of the constructor are accepted")
def groups_of_the_constructor(cls):
    for name, value in WRONG_VALUES:
        refused(lambda: cls([{"params": [ones(1)], name: value}]))  # noqa: B023


@trap(52, "wrong values that are assigned are used")
def assigned_values(cls):
    for steps in (0, 1):
        for name, value in WRONG_VALUES:
            params = [ones(1), ones(1)]
            optimizer = cls([{"params": params[0]}, {"params": params[1]}])
            for _ in range(steps):
                optimizer.step()
            before = [param.item() for param in params]
            optimizer.param_groups[1][name] = value
            refused(optimizer.step)
            assert [param.item() for param in params] == before
    optimizer.param_groups[1]["weight_decay"] = 0.0
    optimizer.step()
    assert all(param.item() < old for param, old in zip(params, before, strict=True))


@trap(52, "a tensor with a wrong rate is used")
def assigned_tensor(cls):
    for value in (-1.0, torch.nan, torch.inf):
        param = ones(1)
        optimizer = cls([param], lr=torch.tensor(1.0))
        optimizer.param_groups[0]["lr"].fill_(value)
        refused(optimizer.step)
        assert param.item() == 1


@trap(52, "wrong values that are loaded are used")
def loaded_values(cls):
    for name, value in WRONG_VALUES:
        optimizer = cls([ones(1)])
        saved = optimizer.state_dict()
        saved["param_groups"][0][name] = value
        refused(lambda: optimizer.load_state_dict(saved))  # noqa: B023
        assert optimizer.param_groups[0]["lr"] == 1.0


@trap(53, "infinite values, a rho of 1 and an epsilon of 0 are accepted")
def values_of_the_constructor(cls):
    for name, value in WRONG_VALUES:
        refused(lambda: cls([ones(1)], **{name: value}))  # noqa: B023


@trap(54, "a tensor rate is shared with the caller")
def shared_with_the_caller(cls):
    rate, param = torch.tensor(1.0), ones(1)
    optimizer = cls([param], lr=rate)
    rate.fill_(0.0)
    optimizer.step()
    assert param.item() < 1


@trap(54, "a scheduler changes the caller's tensor")
def changed_by_a_scheduler(cls):
    rate = torch.tensor(1.0)
    optimizer = cls([{"params": [ones(1)], "lr": rate}])
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert rate.item() == 1.0 and optimizer.param_groups[0]["lr"].item() == 0.5


@trap(54, "two groups share a tensor rate, which a scheduler sets for each of them")
def shared_between_groups(cls):
    optimizer = cls([{"params": [ones(1)]}, {"params": [ones(1)]}], lr=torch.tensor(1.0))
    lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5, lambda step: 0.25])
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.25]


def named(*names):
    return [(name, ones(2)) for name in names]


@trap(55, "the state of named parameters is loaded by position")
def loaded_by_position(cls):
    first = named("a", "b")
    optimizer = cls(first)
    first[0][1].grad = torch.full((2,), 3.0)
    optimizer.step()
    second = named("b", "a")
    another = cls(second)
    another.load_state_dict(optimizer.state_dict())
    for name, param in first:
        expected = optimizer.state[param]["square_avg"]
        assert torch.equal(another.state[dict(second)[name]]["square_avg"], expected)
    assert another.param_groups[0]["param_names"] == ["b", "a"]


@trap(55, "the state of parameters with other names is loaded")
def other_names(cls):
    optimizer = cls(named("a", "b"))
    optimizer.step()
    another = cls(named("a", "c"))
    with pytest.raises(ValueError, match="missing: c; not in this optimizer: b"):
        another.load_state_dict(optimizer.state_dict())
    assert not another.state


@trap(55, "the state of another optimizer is loaded, and the step fails")
def another_optimizers_state(cls):
    for other in (torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD):
        giver = other([ones(2)], lr=0.1)
        giver.step()
        optimizer = cls([ones(2)])
        refused(lambda: optimizer.load_state_dict(giver.state_dict()))  # noqa: B023
        assert "rho" in optimizer.param_groups[0] and not optimizer.state


@trap(55, "the state of parameters of another shape is loaded")
def other_shapes(cls):
    giver = cls([ones(2), ones(3)])
    giver.step()
    optimizer = cls([ones(2), ones(4)])
    with pytest.raises(ValueError, match=r"shape \(4,\); received \(3,\)"):
        optimizer.load_state_dict(giver.state_dict())
    assert not optimizer.state


@trap(55, "two optimizers share the state that one loaded from the other")
def shared_state(cls):
    giver = cls([ones(2)])
    giver.step()
    taker = cls([ones(2)])
    taker.load_state_dict(giver.state_dict())
    before = copy.deepcopy(giver.state_dict())
    taker.step()
    for name, value in giver.state_dict()["state"][0].items():
        assert torch.equal(value, before["state"][0][name]), name


@trap(56, "a parameter that is given twice is accepted")
def repeated(cls):
    param = ones(1)
    for params in ([param, param], [("a", param), ("b", param)]):
        refused(lambda: cls(params))  # noqa: B023
    optimizer = cls([ones(1)])
    refused(lambda: optimizer.add_param_group({"params": [param, param]}))


def sparse(rows, *values, shape=(3, 2)):
    return torch.sparse_coo_tensor([rows], torch.tensor(values)[:, None].expand(-1, 2), shape)


@trap(57, "sparse gradients are refused")
def sparse_gradients(cls):
    for options in ({}, {"weight_decay": 0.1, "maximize": True}):
        params = [ones(3, 2), ones(3, 2)]
        optimizers = [cls([param], **options) for param in params]
        for rows, values in (([0, 0, 2], (1.0, 2.0, 3.0)), ([1], (1.0,)), ([], ())):
            params[0].grad = sparse(rows, *values)
            params[1].grad = params[0].grad.to_dense()
            for optimizer in optimizers:
                optimizer.step()
        # torch, and the kernel for dense gradients, round square roots differently.
        torch.testing.assert_close(*params)
        averages = [it.state[param] for it, param in zip(optimizers, params, strict=True)]
        torch.testing.assert_close(*(it["square_avg"] for it in averages))


@trap(57, "an embedding with sparse gradients can't be trained")
def sparse_embedding(cls):
    tables = [torch.nn.Embedding(5, 2, sparse=it) for it in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    for table in tables:
        optimizer = cls(table.parameters())
        for ids in ([0, 0, 3], [3, 4, 3]):
            optimizer.zero_grad()
            (table(torch.tensor(ids)) ** 2).sum().backward()
            optimizer.step()
    # torch sums repeated rows in a different order.
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


@trap(57, "an error in the second group leaves the first one updated")
def half_a_step(cls):
    params = [ones(3, 2), ones(3, 2)]
    optimizer = cls([{"params": params[:1]}, {"params": params[1:]}])
    if cls is Adadelta:
        optimizer.step()
        optimizer.state[params[1]]["acc_delta"] = torch.zeros(7)
    else:
        params[1].grad = sparse([0], 1.0)
    before = copy.deepcopy((params[0], optimizer.state[params[0]]))
    with pytest.raises((ValueError, RuntimeError)):
        optimizer.step()
    assert torch.equal(params[0], before[0])
    for name, value in before[1].items():
        assert torch.equal(optimizer.state[params[0]][name], value)


@trap(58, "a differentiable step with a tensor rate fails")
def differentiable_rate(cls):
    for options in ({}, {"weight_decay": 0.1}):
        rate = torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
        param = torch.ones(2, dtype=torch.float64, requires_grad=True).clone()
        param.grad = torch.tensor([1.0, -2.0], dtype=torch.float64)
        optimizer = cls([param], lr=rate, differentiable=True, **options)
        optimizer.step()
        param.sum().backward()
        # The parameter is x - rate * step, so the gradient is minus the sum of the steps.
        expected = (param.detach() - 1).sum() / 0.5
        torch.testing.assert_close(rate.grad, expected)


@trap(58, "steps through the state are not differentiable in a tensor rate")
def two_differentiable_steps(cls):
    def final(rate):
        param = torch.ones(2, dtype=torch.float64, requires_grad=True).clone()
        optimizer = cls([param], lr=rate, differentiable=True, weight_decay=0.1)
        for _ in range(2):
            param.grad = param * torch.tensor([1.0, -2.0], dtype=torch.float64)
            optimizer.step()
        return param

    assert torch.autograd.gradcheck(
        final, torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
    )


@trap(59, "there is no choice of a fused kernel")
def fused(cls):
    assert "fused" in inspect.signature(cls).parameters
    for choice in (None, False):
        param = ones(1)
        cls([param], fused=choice).step()
        assert param.item() < 1


@trap(59, "capturable is refused on the CPU")
def capturable(cls):
    param = ones(1)
    cls([param], capturable=True).step()
    assert param.item() < 1


@trap(60, "half-precision averages stand still or drift")
def half_averages(cls):
    cases = (
        (torch.bfloat16, 2.0**-13, {"eps": 1e-7, "rho": 0.95}),
        (torch.float16, 2.0**-13, {"eps": 1e-7, "rho": 0.95}),
        (torch.bfloat16, 1.0, {"rho": 0.999}),
    )
    for dtype, gradient, options in cases:
        states = []
        for its_dtype, its_cls in ((dtype, cls), (torch.float64, torch.optim.Adadelta)):
            param = torch.nn.Parameter(torch.zeros(1, dtype=its_dtype))
            optimizer = its_cls([param], **options)
            for _ in range(200):
                param.grad = torch.full_like(param, gradient)
                optimizer.step()
            states.append(optimizer.state[param])
        for slot in ("square_avg", "acc_delta"):
            ours, right = (state[slot].item() for state in states)
            # 200 roundings to float32.
            assert ours == pytest.approx(right, rel=1e-5)


@trap(60, "one gradient of 2000 stops a float16 parameter for good")
def float16_overflow(cls):
    param = ones(1, dtype=torch.float16)
    optimizer = cls([param], lr=100.0)
    param.grad.fill_(2000.0)
    optimizer.step()
    before = param.item()
    param.grad.fill_(1.0)
    for _ in range(300):
        optimizer.step()
    assert param.item() < before


@trap(60, "loading rounds the averages of half-precision parameters")
def loaded_averages(cls):
    param = ones(3, dtype=torch.bfloat16)
    optimizer = cls([param])
    for value in (1.0, 0.3, 0.7):
        param.grad.fill_(value)
        optimizer.step()
    another = cls([ones(3, dtype=torch.bfloat16)])
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for slot in ("square_avg", "acc_delta"):
        (state,) = another.state.values()
        assert state[slot].dtype == torch.float32
        assert torch.equal(state[slot], optimizer.state[param][slot])


@trap(61, "a finite gradient whose square overflows stops its parameter for good")
def overflow(cls):
    for gradient in (1e20, torch.finfo(torch.float32).max):
        param = ones(2)
        optimizer = cls([param])
        param.grad[0] = gradient
        optimizer.step()
        before = param.detach().clone()
        param.grad[0] = 1.0
        # The average starts at 3e38 and falls by a tenth per step, to 1 after 840 steps.
        for _ in range(1000):
            optimizer.step()
        assert torch.isfinite(param).all() and (before - param).min() > 1e-3


@trap(61, "one gradient that is not finite can't be skipped")
def nonfinite(cls):
    has_option = "skip_nonfinite" in inspect.signature(cls).parameters
    for value in (torch.nan, torch.inf, -torch.inf):
        param = ones(2)
        optimizer = cls([param], **({"skip_nonfinite": True} if has_option else {}))
        param.grad[0] = value
        optimizer.step()
        param.grad[0] = 1.0
        optimizer.step()
        assert torch.isfinite(param).all()


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("run", TRAPS)
def test_ours_holds(run):
    run(Adadelta)


@pytest.mark.parametrize("run", TRAPS)
def test_torchs_own_falls(run):
    with pytest.raises((Exception, pytest.fail.Exception)):
        run(torch.optim.Adadelta)


def test_every_trap_is_here():
    assert {int(param.id.split("-")[0]) for param in TRAPS} == set(range(52, 62))
