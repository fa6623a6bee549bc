"""The state of the torch front end: torch's checkpoints in both directions, and portable state."""

import copy
import io

import numpy as np
import pytest
import torch

import adadelta
from adadelta.state import OptimizerState, StateMismatchError
from adadelta.torch import Adadelta

OPTIONS = [
    {},
    {"lr": 0.5, "rho": 0.95, "eps": 1e-8},
    {"weight_decay": 0.1, "maximize": True},
    {"lr": torch.tensor(0.5), "foreach": True},
]
CLASSES = {"ours": Adadelta, "torch's": torch.optim.Adadelta}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3), (4,), ())
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes
    ]


def train(optimizer, calls, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(calls):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()


def copies_of(params):
    return [torch.nn.Parameter(param.detach().clone()) for param in params]


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("to", CLASSES)
@pytest.mark.parametrize("giver", CLASSES)
def test_checkpoints_of_each_class_load_into_the_other(giver, to, options):
    params = parameters()
    first = CLASSES[giver](params, **copy.deepcopy(options))
    train(first, 5, seed=1)
    others = copies_of(params)
    # The saved options apply, not those given to the constructor.
    second = CLASSES[to](others, lr=0.123)
    second.load_state_dict(through_a_file(first.state_dict()))
    train(first, 5, seed=2)
    train(second, 5, seed=2)
    # The two classes differ by rounding; within one class, training continues bit for bit.
    tolerance = 0 if giver == to else 1e-6
    for one, other in zip(params, others, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        assert first.state[one].keys() == second.state[other].keys()
        assert first.state[one]["step"] == second.state[other]["step"] == 10


def test_a_rate_in_a_float32_tensor_is_exported_as_its_shortest_decimal():
    optimizer = Adadelta(parameters(), lr=torch.tensor(0.1))
    train(optimizer, 1, seed=1)
    assert adadelta.export_state(optimizer).hyperparameters["learning_rate"] == 0.1


def test_the_state_dict_is_torchs_but_for_our_options():
    dicts = []
    for cls in CLASSES.values():
        optimizer = cls([("a", parameters()[0])])
        train(optimizer, 2, seed=1)
        dicts.append(optimizer.state_dict())
    ours, theirs = dicts
    assert ours.keys() == theirs.keys()
    own = ours["param_groups"][0].keys() - theirs["param_groups"][0].keys()
    assert own == {"fused", "decoupled_weight_decay", "skip_nonfinite"}
    for name, value in theirs["param_groups"][0].items():
        assert ours["param_groups"][0][name] == value, name
    for name, value in theirs["state"][0].items():
        its = ours["state"][0][name]
        assert (its.dtype, its.shape, its.device) == (value.dtype, value.shape, value.device)
    assert list(ours["state"][0]) == list(theirs["state"][0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_resumed_bit_for_bit(dtype):
    params = parameters(dtype)
    first = Adadelta(params)
    train(first, 5, seed=1)
    others = copies_of(params)
    second = Adadelta(others)
    second.load_state_dict(through_a_file(first.state_dict()))
    train(first, 5, seed=2)
    train(second, 5, seed=2)
    for one, other in zip(params, others, strict=True):
        assert torch.equal(one, other)
        assert second.state[other]["square_avg"].dtype == torch.float32


def test_half_precision_checkpoints_of_torch_go_on_in_float32():
    params = parameters(torch.bfloat16)
    theirs = torch.optim.Adadelta(params)
    train(theirs, 3, seed=1)
    ours = Adadelta(copies_of(params))
    ours.load_state_dict(theirs.state_dict())
    for one, other in zip(params, ours.param_groups[0]["params"], strict=True):
        average = ours.state[other]["square_avg"]
        assert average.dtype == torch.float32
        assert torch.equal(average, theirs.state[one]["square_avg"].float())


def test_checkpoints_of_older_torch_load():
    optimizer = torch.optim.Adadelta(parameters())
    train(optimizer, 3, seed=1)
    saved = optimizer.state_dict()
    for name in ("foreach", "maximize", "differentiable", "capturable"):
        saved["param_groups"][0].pop(name)
    for state in saved["state"].values():
        state["step"] = 3
    ours = Adadelta(parameters(), skip_nonfinite=True)
    ours.load_state_dict(saved)
    train(ours, 1, seed=2)
    assert [float(state["step"]) for state in ours.state.values()] == [4, 4, 4]
    assert ours.param_groups[0]["skip_nonfinite"] and ours.skipped == 0


def test_a_pickle_without_our_options_is_completed():
    optimizer = Adadelta(parameters())
    state = optimizer.__getstate__()
    for group in state["param_groups"]:
        for name in ("fused", "foreach", "decoupled_weight_decay", "skip_nonfinite"):
            del group[name]
    restored = Adadelta.__new__(Adadelta)
    restored.__setstate__(state)
    train(restored, 1, seed=1)


@pytest.mark.parametrize("names", [(True, False), (False, True)], ids=str)
def test_without_names_on_both_sides_position_counts(names):
    made = []
    for has_names in names:
        params = parameters()
        made.append(Adadelta(list(zip("abc", params, strict=True)) if has_names else params))
    first, second = made
    train(first, 2, seed=1)
    second.load_state_dict(first.state_dict())
    assert [float(it["step"]) for it in second.state.values()] == [2, 2, 2]
    assert second.param_groups[0]["param_names"] == ["a", "b", "c"]


def test_names_may_be_in_other_groups():
    params = dict(zip("abc", parameters(), strict=True))
    first = Adadelta([{"params": [("a", params["a"]), ("b", params["b"])], "lr": 0.5},
                      {"params": [("c", params["c"])], "lr": 0.25}])  # fmt: skip
    train(first, 2, seed=1)
    others = dict(zip("abc", parameters(), strict=True))
    second = Adadelta([{"params": [("c", others["c"]), ("a", others["a"])]},
                       {"params": [("b", others["b"])]}])  # fmt: skip
    second.load_state_dict(first.state_dict())
    for name in "abc":
        expected = first.state[params[name]]["acc_delta"]
        assert torch.equal(second.state[others[name]]["acc_delta"], expected)
    assert [group["lr"] for group in second.param_groups] == [0.5, 0.25]


def test_a_refused_state_dict_changes_nothing_and_is_not_changed():
    giver = Adadelta(parameters())
    train(giver, 2, seed=1)
    optimizer = Adadelta(parameters())
    train(optimizer, 1, seed=2)
    before = copy.deepcopy(optimizer.state_dict())
    wrong = copy.deepcopy(giver.state_dict())
    wrong["param_groups"][0]["rho"] = 1.5
    del wrong["state"][0]["square_avg"]
    wrong["state"][1]["acc_delta"] = torch.zeros(7)
    kept = copy.deepcopy(wrong)
    with pytest.raises(StateMismatchError) as raised:
        optimizer.load_state_dict(wrong)
    for part in ("rho", "parameter 0 has no square_avg", "the acc_delta of parameter 1 must"):
        assert part in "; ".join(raised.value.problems)
    assert str(wrong) == str(kept)
    assert str(optimizer.state_dict()) == str(before)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("square_avg", "text"),
        ("acc_delta", np.zeros((2, 3), "float32")),
        ("step", "text"),
        ("step", torch.zeros(2)),
    ],
)
def test_state_of_another_kind_is_refused_before_anything_changes(slot, value):
    optimizer = Adadelta(parameters())
    train(optimizer, 1, seed=2)
    before = copy.deepcopy(optimizer.state_dict())
    wrong = copy.deepcopy(optimizer.state_dict())
    wrong["state"][0][slot] = value
    with pytest.raises(StateMismatchError, match=f"the {slot} of parameter 0 must be"):
        optimizer.load_state_dict(wrong)
    assert str(optimizer.state_dict()) == str(before)


class TestPortableState:
    """`adadelta.export_state` and `import_state`."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_a_run_goes_on_bit_for_bit(self, options, dtype, tmp_path):
        params = parameters(dtype)
        first = Adadelta(list(zip("abc", params, strict=True)), **copy.deepcopy(options))
        train(first, 3, seed=1)
        adadelta.save_state(first, tmp_path / "state.safetensors")
        others = copies_of(params)
        # In a different order.
        second = Adadelta(
            list(zip("cba", others[::-1], strict=True)), **{**copy.deepcopy(options), "lr": 0.123}
        )
        adadelta.load_state(second, tmp_path / "state.safetensors")
        assert adadelta.export_state(second).parameters.keys() == set("abc")
        second.param_groups[0]["params"].reverse()
        second.param_groups[0]["param_names"].reverse()
        train(first, 3, seed=2)
        train(second, 3, seed=2)
        assert all(map(torch.equal, params, others))
        assert adadelta.export_state(first) == adadelta.export_state(second)

    def test_what_is_known(self):
        optimizer = Adadelta(parameters(), lr=0.5, skip_nonfinite=True)
        train(optimizer, 2, seed=1)
        optimizer.param_groups[0]["params"][0].grad[0, 0] = torch.nan
        optimizer.step()
        state = adadelta.export_state(optimizer)
        assert (state.step, state.update, state.skipped) == (3, 2, 1)
        assert list(state.parameters) == ["0", "1", "2"]
        assert state.hyperparameters == {
            **{"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-6, "weight_decay": 0.0},
            **{"maximize": False, "decoupled_weight_decay": False, "skip_nonfinite": True},
        }
        another = Adadelta(parameters(), skip_nonfinite=True)
        adadelta.import_state(another, state)
        assert another.skipped == 1 and another.param_groups[0]["lr"] == 0.5
        assert adadelta.export_state(another) == state

    def test_the_arrays_are_copies(self):
        optimizer = Adadelta(parameters())
        train(optimizer, 1, seed=1)
        state = adadelta.export_state(optimizer)
        kept = copy.deepcopy(state)
        adadelta.import_state(optimizer, state)
        train(optimizer, 1, seed=1)
        assert state == kept

    def test_what_had_no_gradient_yet_is_zero(self):
        optimizer = Adadelta(parameters())
        state = adadelta.export_state(optimizer)
        assert state.step == 0 and not np.any(state.parameters["0"]["square_avg"])
        assert state.parameters["0"]["square_avg"].shape == (2, 3)

    def test_complex_state_is_real_with_a_last_axis_of_two(self):
        params = parameters(torch.complex64)
        optimizer = Adadelta(params)
        train(optimizer, 2, seed=1)
        state = adadelta.export_state(optimizer)
        assert state.parameters["0"]["square_avg"].shape == (2, 3, 2)
        another = Adadelta(copies_of(params))
        adadelta.import_state(another, state)
        assert adadelta.export_state(another) == state

    def test_every_group_gets_its_rate_back(self):
        def made(*rates):
            groups = zip(parameters(), rates, strict=True)
            return Adadelta([{"params": [param], "lr": rate} for param, rate in groups])

        giver = made(0.5, torch.tensor(0.25), 0.125)
        state = adadelta.export_state(giver)
        taker = made(1.0, torch.tensor(1.0), 1.0)
        own = taker.param_groups[1]["lr"]
        adadelta.import_state(taker, state)
        assert [float(group["lr"]) for group in taker.param_groups] == [0.5, 0.25, 0.125]
        assert taker.param_groups[1]["lr"] is own
        # One exported rate says nothing about groups with different rates.
        adadelta.import_state(giver, adadelta.export_state(Adadelta(parameters(), lr=0.1)))
        assert [float(group["lr"]) for group in giver.param_groups] == [0.5, 0.25, 0.125]

    def test_a_state_from_another_framework(self):
        averages = {"square_avg": np.ones(2, "float32"), "acc_delta": np.ones(2, "float32")}
        param = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = Adadelta([("weight", param)])
        state = OptimizerState(
            step=7, update=7, hyperparameters={"learning_rate": 0.25, "rho": 0.5},
            parameters={"weight": averages},
        )  # fmt: skip
        adadelta.import_state(optimizer, state)
        assert optimizer.param_groups[0]["lr"] == 0.25
        assert optimizer.param_groups[0]["rho"] == 0.9  # the group's own value
        assert optimizer.state[param]["square_avg"].dtype == torch.float64
        assert optimizer.state[param]["step"] == 7

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"parameters": {}}, "missing: a, b, c"),
            ({"skipped": 1, "step": 3}, "without `skip_nonfinite`"),
            ({"step": 8}, "2 updates in 8 calls"),
            ({"step": 2**63, "update": 2**63}, "counts up to"),
            ({"window": 1}, "a window of 1 calls open"),
            ({"loss_scale": 8.0, "finite_calls": 1}, "a dynamic loss scale"),
            ({"hyperparameters": {"learning_rate": -1.0}}, "`lr` must be"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_refused_before_anything_changes(self, change, text):
        optimizer = Adadelta(list(zip("abc", parameters(), strict=True)))
        train(optimizer, 2, seed=1)
        state = adadelta.export_state(optimizer)
        for name, value in change.items():
            setattr(state, name, value)
        before = str(optimizer.state_dict())
        with pytest.raises(StateMismatchError, match=text):
            adadelta.import_state(optimizer, state)
        assert str(optimizer.state_dict()) == before

    def test_wrong_shapes_and_names_are_listed(self):
        giver = Adadelta(list(zip("abd", parameters(), strict=True)))
        params = parameters()
        params[0] = torch.nn.Parameter(torch.zeros(3, 2))
        taker = Adadelta(list(zip("abc", params, strict=True)))
        with pytest.raises(StateMismatchError) as raised:
            adadelta.import_state(taker, adadelta.export_state(giver))
        for part in ("missing: c", "not in this optimizer: d", "(2, 3) instead of (3, 2)"):
            assert part in str(raised.value)
        assert not taker.state

    def test_names_that_are_not_unique_are_refused(self):
        first, second, _ = parameters()
        optimizer = Adadelta([("weight", first), ("weight", second)])
        with pytest.raises(StateMismatchError, match="more than once: weight"):
            adadelta.export_state(optimizer)
