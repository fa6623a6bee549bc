"""Random arguments of the torch front end: constructor, groups, assignments, function, loading."""

import functools

import pytest
import torch

import adadelta.torch
from adadelta.torch import Adadelta
from argument_sets import (
    EPSILON,
    FLAG,
    OTHERS,
    RATE,
    RHO,
    Argument,
    ChangedError,
    Way,
    beyond_float32,
    failures,
)
from framework_candidates import of_torch

CHOICE = Argument((None, False), flag=True, optional=True)
ARGUMENTS = {
    "lr": RATE,
    "rho": RHO,
    "eps": EPSILON,
    "weight_decay": Argument((0, 0.01), RATE.accepts),
    "maximize": FLAG,
    "capturable": FLAG,
    "foreach": CHOICE,
    "differentiable": FLAG,
    "fused": CHOICE,
    "decoupled_weight_decay": FLAG,
    "skip_nonfinite": FLAG,
}


def parameter(dtype=torch.float32):
    x = torch.nn.Parameter(torch.ones(2, dtype=dtype))
    x.grad = torch.ones(2, dtype=dtype)
    return x


def plain(group, names):
    values = {name: group[name] for name in names}
    if isinstance(values.get("lr"), torch.Tensor):
        values["lr"] = float(values["lr"])
    return values


def stepped(optimizer, values):
    if any(group["differentiable"] is True for group in optimizer.param_groups):
        # A differentiable step needs parameters that are not leaves.
        for group in optimizer.param_groups:
            for x in group["params"]:
                x.grad = None
    optimizer.step()
    x = optimizer.param_groups[0]["params"][0]
    assert not torch.isnan(x).any()
    return plain(optimizer.param_groups[-1], values)


def constructed(values):
    return stepped(Adadelta([parameter()], **values), values)


def of_a_group(values):
    return stepped(Adadelta([{"params": [parameter()], **values}]), values)


def added(values):
    optimizer = Adadelta([parameter()])
    try:
        optimizer.add_param_group({"params": [parameter()], **values})
    except (TypeError, ValueError) as error:
        if len(optimizer.param_groups) != 1:
            raise ChangedError from error
        raise
    return stepped(optimizer, values)


def assigned(values):
    """Assign the values to the second group after the optimizer has made a step."""
    first, second = parameter(), parameter()
    optimizer = Adadelta([{"params": [first]}, {"params": [second]}])
    optimizer.step()
    before = first.tolist(), second.tolist(), [int(it["step"]) for it in optimizer.state.values()]
    optimizer.param_groups[1].update(values)
    try:
        return stepped(optimizer, values)
    except (TypeError, ValueError) as error:
        steps = [int(it["step"]) for it in optimizer.state.values()]
        if (first.tolist(), second.tolist(), steps) != before:
            raise ChangedError from error
        raise


def called(values):
    x, averages, count = torch.ones(2), [torch.zeros(2), torch.zeros(2)], torch.zeros(())
    defaults = {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0, "maximize": False}
    adadelta.torch.adadelta(
        [x], [torch.ones(2)], *([it] for it in averages), [count], **{**defaults, **values}
    )
    assert not torch.isnan(x).any()
    return {}


def loaded(values):
    optimizer, other = Adadelta([parameter()], lr=0.7), Adadelta([parameter()])
    saved = other.state_dict()
    saved["param_groups"][0].update(values)
    before = plain(optimizer.param_groups[0], ARGUMENTS)
    try:
        optimizer.load_state_dict(saved)
    except ValueError as error:
        if plain(optimizer.param_groups[0], ARGUMENTS) != before:
            raise ChangedError from error
        raise
    return stepped(optimizer, values)


def has_several_options(given):
    """Whether more than one of the options that exclude each other is given."""
    return sum(it in given for it in ("foreach", "differentiable", "fused")) > 1


def test_torch():
    small = {name: it for name, it in ARGUMENTS.items() if name != "skip_nonfinite"}
    way = functools.partial(Way, dtype="float32", may_refuse=has_several_options)
    ways = [
        way("Adadelta", ARGUMENTS, constructed),
        way("group", ARGUMENTS, of_a_group),
        way("add_param_group", ARGUMENTS, added),
        way("assigned", ARGUMENTS, assigned),
        way("function", small, called),
        # Its message lists every value that does not fit.
        way("load_state_dict", ARGUMENTS, loaded, longest=700),
    ]
    assert not failures("torch", ways, of_torch())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize(("name", "value"), beyond_float32("eps"))
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """In float32 such a number would become 0, infinity or 1, and the step NaN or 0."""
    x = parameter(dtype)
    good = Adadelta([x])
    if dtype == torch.float64:
        Adadelta([x], **{name: value}).step()
        assert torch.isfinite(x).all()
        return
    with pytest.raises(ValueError, match=f"`{name}` must be .* for parameters of {dtype}"):
        Adadelta([x], **{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        good.add_param_group({"params": [parameter(dtype)], name: value})
    good.param_groups[0][name] = value
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        good.step()
    assert torch.equal(x.detach(), torch.ones_like(x)) and not good.state


@pytest.mark.parametrize("value", [1e39, 1e308])
def test_a_weight_decay_beyond_float32_is_refused(value):
    with pytest.raises(ValueError, match=r"`weight_decay` must be at most 3\.40282e"):
        Adadelta([parameter()], weight_decay=value)


@pytest.mark.parametrize("name", ["lr", "rho", "eps", "weight_decay"])
def test_what_is_masked_is_refused_in_a_group(name):
    optimizer = Adadelta([parameter()])
    optimizer.param_groups[0][name] = OTHERS["masked"]()
    with pytest.raises(TypeError, match=f"`{name}` must be .*; received masked"):
        optimizer.step()


def test_a_rate_without_a_value_is_refused_after_steps_as_well():
    optimizer = Adadelta([parameter()])
    optimizer.step()
    # The changed weight decay makes the group be checked again.
    optimizer.param_groups[0].update(lr=torch.tensor(0.5, device="meta"), weight_decay=0.5)
    with pytest.raises(ValueError, match="`lr` must be a tensor with a value"):
        optimizer.step()


def test_a_value_that_is_missing_in_a_group_is_named():
    optimizer = Adadelta([parameter()])
    del optimizer.param_groups[0]["rho"]
    with pytest.raises(ValueError, match="`rho` must be in every group"):
        optimizer.step()


def test_a_number_of_another_kind_assigned_to_a_group_is_taken():
    optimizer = Adadelta([parameter()])
    optimizer.param_groups[0]["rho"] = torch.tensor(0.75, dtype=torch.bfloat16)
    optimizer.step()
    assert optimizer.param_groups[0]["rho"] == 0.75
    assert type(optimizer.param_groups[0]["rho"]) is float
