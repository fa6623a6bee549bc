"""Convert a state to other names and layouts: the whole state is converted, or nothing is.

Training that continues from it gives the same numbers.
"""

import copy

import keras
import numpy as np
import pytest

import adadelta
from adadelta.state import OptimizerState, StateMismatchError, layout_mapping
from driver import numpy

SLOTS = ("square_avg", "acc_delta", "average", "window_sum")


def array(*shape, dtype="float32"):
    return np.random.default_rng(len(shape)).random(shape).astype(dtype)


def state_of(**shapes):
    return OptimizerState(
        step=7,
        update=3,
        skipped=1,
        hyperparameters={"rho": 0.9},
        parameters={
            name: {slot: array(*shape) + i for i, slot in enumerate(SLOTS)}
            for name, shape in shapes.items()
        },
        window=1,
        window_gradients=("kernel",),
        loss_scale=8.0,
        finite_calls=2,
    )


def test_names_and_layouts_change_and_nothing_else():
    state = state_of(kernel=(2, 3), bias=(3,))
    mapping = {"kernel": ("weight", np.transpose), "bias": "b"}
    moved = adadelta.convert_state(state, mapping)
    assert list(moved.parameters) == ["weight", "b"]
    assert moved.window_gradients == ("weight",)
    for slot in SLOTS:
        np.testing.assert_array_equal(
            moved.parameters["weight"][slot], state.parameters["kernel"][slot].T
        )
        np.testing.assert_array_equal(moved.parameters["b"][slot], state.parameters["bias"][slot])
    rest = {**state.counters(), "window_gradients": ("weight",)}
    assert moved.counters() == rest and moved.hyperparameters == state.hyperparameters
    back = adadelta.convert_state(moved, {"weight": ("kernel", np.transpose), "b": "bias"})
    assert back == state


def test_the_old_state_shares_nothing_with_the_new_one():
    state = state_of(kernel=(2, 3), bias=(3,))
    before = copy.deepcopy(state)
    assert adadelta.convert_state(state, {}, keep_others=True) == before

    def careless(slot):
        slot[...] = slot[::-1].copy()
        return slot

    moved = adadelta.convert_state(state, {"kernel": ("kernel", careless), "bias": "bias"})
    assert state == before
    moved.parameters["bias"]["average"][:] = 0
    moved.hyperparameters["rho"] = 0
    assert state == before


def test_names_can_change_places():
    state = state_of(kernel=(2,), bias=(3,))
    moved = adadelta.convert_state(state, {"kernel": "bias", "bias": "kernel"})
    assert moved.parameters["bias"]["average"].shape == (2,)


def test_a_parameter_may_have_a_new_name_and_another_order_of_axes():
    state = state_of(kernel=(2, 3), bias=(3,))
    mapping = layout_mapping({"kernel": "weight", "bias": "b"}, {"kernel": None})
    moved = adadelta.convert_state(state, mapping)
    assert moved.parameters["weight"]["average"].shape == (3, 2) and "b" in moved.parameters


def test_what_is_not_named_is_refused_unless_it_is_kept():
    state = state_of(kernel=(2, 3), bias=(3,))
    with pytest.raises(StateMismatchError, match=r"not in the mapping: bias$"):
        adadelta.convert_state(state, {"kernel": "weight"})
    moved = adadelta.convert_state(state, {"kernel": "weight"}, keep_others=True)
    assert list(moved.parameters) == ["weight", "bias"]
    with pytest.raises(StateMismatchError, match=r"more than one would be called: bias$"):
        adadelta.convert_state(state, {"kernel": "bias"}, keep_others=True)


def test_float32_may_become_float64():
    state = state_of(kernel=(2, 3))
    moved = adadelta.convert_state(state, {"kernel": ("k", lambda it: it.astype("float64"))})
    assert moved.parameters["k"]["average"].dtype == np.float64


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda it: it[:1], r"kernel \(square_avg\) made \(1, 3\) of \(2, 3\)"),
        (lambda it: it.astype("float16"), "made float16 of float32"),
        (lambda it: it.astype("longdouble"), "made .* of float32"),
        (lambda it: it * 2, "changed numbers, and may only move them"),
        (lambda it: np.zeros_like(it), "changed numbers"),
        (lambda it: it.nothing, "failed: AttributeError: .* 'nothing'"),
        (lambda it: None, "made .* of"),
    ],
)
def test_functions_that_do_more_than_move_are_refused(function, message):
    state = state_of(kernel=(2, 3))
    with pytest.raises(StateMismatchError, match=message) as error:
        adadelta.convert_state(state, {"kernel": ("k", function)})
    assert all(f"kernel ({slot})" in "; ".join(error.value.problems) for slot in SLOTS)


def test_all_that_is_wrong_is_listed():
    state = state_of(kernel=(2, 3), bias=(3,), gamma=(3,), beta=(3,))
    mapping = {"kernel": ("x", np.ravel), "kernal": "y", "bias": "x", "gamma": ("z", np.negative)}
    with pytest.raises(StateMismatchError) as error:
        adadelta.convert_state(state, mapping)
    for part in (
        "unknown: kernal (did you mean kernel?)",
        "not in the mapping: beta",
        "more than one would be called: x",
        "gamma (acc_delta) changed numbers",
    ):
        assert part in "; ".join(error.value.problems)


@pytest.mark.parametrize(
    ("state", "mapping", "options", "message"),
    [
        ({}, {}, {}, "`state` must be an OptimizerState; received dict"),
        (OptimizerState(), ["a"], {}, "`mapping` must be a mapping of names"),
        (OptimizerState(), {"a": 1}, {}, "its new name, or a tuple of that and a function"),
        (OptimizerState(), {"a": ("b", 3)}, {}, "must be a function; received 3"),
        (OptimizerState(), {"a": ("b",)}, {}, "its new name, or a tuple"),
        (OptimizerState(), {"a": ""}, {}, "its new name, or a tuple"),
        (OptimizerState(), {}, {"keep_others": 1}, "`keep_others` must be True or False"),
    ],
)
def test_what_is_no_state_or_mapping(state, mapping, options, message):
    with pytest.raises(TypeError, match=message):
        adadelta.convert_state(state, mapping, **options)


OPTIONS = {
    "plain": {},
    "average and window": {"use_ema": True, "gradient_accumulation_steps": 3},
    "clipping and decay": {"global_clipnorm": 0.5, "weight_decay": 0.1},
    "skipping": {"skip_nonfinite": True},
}


def variables(kernel, bias, names):
    # On torch a transposed array gives a variable that is not contiguous and so has no kernel; the
    # rule in torch's operators rounds the root differently.
    values = np.ascontiguousarray(kernel), bias
    return [keras.Variable(value, name=name) for value, name in zip(values, names, strict=True)]


@pytest.mark.parametrize("name", OPTIONS)
def test_k_steps_moved_and_k_more_are_2k_steps(name):
    options, k = OPTIONS[name], 4
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(2 * k, 4, 4)).astype("float32")
    if "skip_nonfinite" in options:
        gradients[1, 0, 0] = np.nan
    # Square, so that a forgotten transposition would still fit in shape.
    start = rng.normal(size=(3, 3)).astype("float32"), rng.normal(size=3).astype("float32")

    def train(optimizer, variables, these, transposed):
        for it in these:
            kernel = it[:3, :3].T if transposed else it[:3, :3]
            optimizer.apply([keras.ops.array(kernel), keras.ops.array(it[3, :3])], variables)

    whole = adadelta.Adadelta(1.0, **options)
    ours = variables(*start, ("kernel", "bias"))
    train(whole, ours, gradients, transposed=False)

    first = adadelta.Adadelta(1.0, **options)
    before = variables(*start, ("kernel", "bias"))
    train(first, before, gradients[:k], transposed=False)
    second = adadelta.Adadelta(1.0, **options)
    after = variables(numpy(before[0]).T, numpy(before[1]), ("weight", "b"))
    second.build(after)
    old, new = adadelta.export_state(first), adadelta.export_state(second)
    mapping = dict(zip(old.parameters, new.parameters, strict=True))
    kernel = next(iter(mapping))
    mapping[kernel] = (mapping[kernel], np.transpose)
    adadelta.import_state(second, adadelta.convert_state(old, mapping))
    train(second, after, gradients[k:], transposed=True)

    # The global norm adds the same squares in another order: one rounding of float32.
    tolerance = 1e-6 if "global_clipnorm" in options else 0
    np.testing.assert_allclose(numpy(after[0]).T, numpy(ours[0]), rtol=tolerance)
    np.testing.assert_allclose(numpy(after[1]), numpy(ours[1]), rtol=tolerance)
    if not tolerance:
        back = {
            new: (old, np.transpose if old == kernel else None)
            for old, new in zip(old.parameters, new.parameters, strict=True)
        }
        end = adadelta.convert_state(adadelta.export_state(second), back)
        assert end == adadelta.export_state(whole)
