"""Where `brainpy.optim.Adadelta` goes wrong and ours does not; its own is shown to fail."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brainpy")
from brainpy_tools import MODES, Ours, Theirs, bm, brainpy, needs_compiling, stepper, variable
from jax_tools import assert_close, floats


def moved(optimizer, gradients, mode="eager"):
    """Return the value of the variable `w` after each step."""
    step, seen = stepper(optimizer, mode), []
    for gradient in gradients:
        step({"w": jnp.asarray(gradient, optimizer.vars_to_train["w"].dtype).reshape(-1)})
        seen.append(np.asarray(optimizer.vars_to_train["w"].value.astype("float32"))[0])
    return np.array(seen)


# 62

SETTINGS_AFTER = """
import jax
for name, value in {settings!r}.items():
    jax.config.update(name, value)
before = dict(jax.config.values)
import {module}
after = dict(jax.config.values)
print([name for name, value in before.items() if after[name] != value])
"""


def changed_settings(module, **settings):
    code = SETTINGS_AFTER.format(module=module, settings=settings)
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("x64", [False, True])
def test_importing_changes_no_setting_of_jax(x64):
    assert changed_settings("adadelta.brainpy", jax_enable_x64=x64) == "[]"


def test_importing_brainpy_itself_ends_float64():
    assert changed_settings("brainpy", jax_enable_x64=True) == "['jax_enable_x64']"


# 63


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cls", [Ours, Theirs])
def test_the_rate_does_not_scale_the_weight_decay(cls, mode):
    # BrainPy's convention, kept here.
    optimizer = cls(lr=0.0, train_vars={"w": variable([1.0])}, weight_decay=0.1)
    assert_close(moved(optimizer, [1.0, 1.0], mode), [0.9, 0.81], 1e-6)


# 64

RATES = {
    "int": lambda: 1,
    "float": lambda: 1.0,
    "NumPy's float32": lambda: np.float32(1),
    "NumPy's float64": lambda: np.float64(1),
    "NumPy's array": lambda: np.asarray(1.0),
    "JAX's array": lambda: jnp.asarray(1.0),
    "BrainPy's array": lambda: bm.asarray(1.0),
    "a scalar variable": lambda: bm.Variable(jnp.asarray(1.0)),
    "a variable of one element": lambda: bm.Variable(jnp.ones(1)),
    "a scheduler": lambda: brainpy.optim.Constant(1.0),
    "a function": lambda: lambda: 1.0,
    "a function that returns an array": lambda: lambda: jnp.ones(1),
    "a function of the step": lambda: lambda step: 1.0 + 0.0 * step,
}
THEIRS_REFUSES = [
    "NumPy's float32",
    "NumPy's array",
    "JAX's array",
    "BrainPy's array",
    "a variable of one element",
    "a function",
    "a function that returns an array",
    "a function of the step",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", RATES)
def test_rates_of_any_kind(kind, mode):
    plain = moved(Ours(train_vars={"w": variable([1.0])}), [1.0, 2.0])
    optimizer = Ours(RATES[kind](), {"w": variable([1.0])})
    assert_close(moved(optimizer, [1.0, 2.0], mode), plain, 1e-6)


@pytest.mark.parametrize("kind", THEIRS_REFUSES)
def test_brainpys_own_refuses_rates(kind):
    with pytest.raises((TypeError, AssertionError)):
        Theirs(RATES[kind](), {"w": variable([1.0])})


@pytest.mark.parametrize("mode", MODES)
def test_a_function_is_asked_at_every_step(mode):
    answers = iter([1.0, 0.5, 0.0])
    optimizer = Ours(lambda: next(answers), {"w": variable([1.0])})
    halved = Ours(lambda step: 1.0 - 0.5 * step, {"w": variable([1.0])})
    seen = moved(optimizer, [1.0, 1.0, 1.0], mode)
    assert seen[0] < 1 and seen[2] == seen[1] < seen[0]
    assert_close(seen, moved(halved, [1.0, 1.0, 1.0], mode), 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_function_that_answers_nonsense_changes_nothing(mode):
    answers = iter([1.0, -1.0, 1.0])
    optimizer = Ours(lambda: next(answers), {"w": variable([1.0])})
    step = stepper(optimizer, mode)
    step({"w": jnp.ones(1)})
    before = {key: np.asarray(it.value) for key, it in optimizer.vars().items()}
    weight = np.asarray(optimizer.vars_to_train["w"].value)
    with pytest.raises(Exception, match=r"`lr\(\)` must be a finite number of at least 0"):
        step({"w": jnp.ones(1)})
    np.testing.assert_array_equal(optimizer.vars_to_train["w"].value, weight)
    for key, it in optimizer.vars().items():
        np.testing.assert_array_equal(it.value, before[key])
    step({"w": jnp.ones(1)})
    assert int(optimizer.step.value) == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_as_the_rate_can_be_set(mode):
    rate = bm.Variable(jnp.ones(1))
    optimizer = Ours(rate, {"w": variable([1.0])})
    step = stepper(optimizer, mode)
    step({"w": jnp.ones(1)})
    before = float(optimizer.vars_to_train["w"].value[0])
    rate.value = jnp.zeros(1)
    step({"w": jnp.ones(1)})
    assert float(optimizer.vars_to_train["w"].value[0]) == before < 1


# 65


def two():
    return {"a": variable([1.0, 2.0]), "b": variable([3.0])}


def unchanged(optimizer):
    assert int(optimizer.step.value) == 0
    np.testing.assert_array_equal(optimizer.vars_to_train["a"].value, [1.0, 2.0])
    np.testing.assert_array_equal(optimizer.implicit_vars["a_cache"].value, [0.0, 0.0])


BAD_GRADIENTS = [
    ({"a": jnp.ones(2), "c": jnp.ones(1)}, brainpy.errors.MathError, "missing: b; unknown: c"),
    ({"a": jnp.ones(2)}, brainpy.errors.MathError, "missing: b"),
    ({"a": jnp.ones(2), "b": jnp.ones((2, 1))}, ValueError, r"for b must have shape \(1,\)"),
    ({"a": jnp.ones(2), "b": jnp.ones(())}, ValueError, r"for b must have shape \(1,\)"),
    ({"a": jnp.ones(2), "b": "float32"}, TypeError, "for b must be an array of numbers; received"),
    ({"a": jnp.ones(2), "b": jnp.ones(1) * 1j}, TypeError, "for b must be real"),
    ({"a": None, "b": None}, ValueError, "No gradients provided for any variable"),
    ([jnp.ones(2), jnp.ones(1)], TypeError, "`grads` must be a dict of gradients by name"),
]


@pytest.mark.parametrize("gradients, kind, text", BAD_GRADIENTS)
def test_wrong_gradients_are_refused_before_anything_changes(gradients, kind, text):
    optimizer = Ours(train_vars=two())
    with pytest.raises(kind, match=text):
        optimizer.update(gradients)
    unchanged(optimizer)


def test_brainpys_own_changes_half_on_a_wrong_key():
    optimizer = Theirs(train_vars=two())
    with pytest.raises(KeyError):
        optimizer.update({"a": jnp.ones(2), "c": jnp.ones(1)})
    assert np.all(np.asarray(optimizer.vars_to_train["a"].value) < [1.0, 2.0])


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_gradient_leaves_its_variable_alone(mode):
    optimizer = Ours(train_vars=two(), weight_decay=0.1)
    stepper(optimizer, mode)({"a": None, "b": jnp.ones(1)})
    np.testing.assert_array_equal(optimizer.vars_to_train["a"].value, [1.0, 2.0])
    np.testing.assert_array_equal(optimizer.implicit_vars["a_cache"].value, [0.0, 0.0])
    assert float(optimizer.vars_to_train["b"].value[0]) < 3


def test_brainpys_own_fails_on_a_missing_gradient():
    optimizer = Theirs(train_vars=two())
    with pytest.raises(TypeError):
        optimizer.update({"a": jnp.ones(2), "b": None})


# 66 is in test_brainpy_state.py.

# 67


def test_registering_twice_is_refused_before_anything_changes():
    first, other = variable([1.0]), variable([2.0])
    optimizer = Ours(train_vars={"w": first})
    with pytest.raises(ValueError, match='a variable named "w" is registered already'):
        optimizer.register_train_vars({"new": other, "w": variable([3.0])})
    with pytest.raises(ValueError, match='the variable named "v" is registered already, as "w"'):
        optimizer.register_train_vars({"new": other, "v": first})
    with pytest.raises(ValueError, match='the variable named "v" is registered already, as "new"'):
        optimizer.register_train_vars({"new": other, "v": other})
    assert optimizer.vars_to_train == {"w": first}
    assert set(optimizer.implicit_vars) == {"w_cache", "w_delta"}
    optimizer.register_train_vars({"new": other})
    optimizer.update({"w": jnp.ones(1), "new": jnp.ones(1)})
    assert float(other.value[0]) < 2


def test_brainpys_own_changes_when_it_refuses_to_register_twice():
    optimizer = Theirs(train_vars={"w": variable([1.0])})
    with pytest.raises(ValueError):
        optimizer.register_train_vars({"new": variable([2.0]), "w": optimizer.vars_to_train["w"]})
    assert "new" in optimizer.vars_to_train


# 68, like 18

BAD = [
    ("lr", -1.0, ValueError),
    ("lr", float("nan"), ValueError),
    ("lr", float("inf"), ValueError),
    ("lr", "1", TypeError),
    ("lr", None, TypeError),
    ("lr", True, TypeError),
    ("lr", np.ones(2), TypeError),
    ("lr", brainpy.optim.Constant, TypeError),
    ("rho", 1.0, ValueError),
    ("rho", -0.1, ValueError),
    ("rho", float("nan"), ValueError),
    ("rho", "0.9", TypeError),
    ("rho", None, TypeError),
    ("epsilon", 0.0, ValueError),
    ("epsilon", -1.0, ValueError),
    ("epsilon", float("inf"), ValueError),
    ("epsilon", None, TypeError),
    ("weight_decay", -0.1, ValueError),
    ("weight_decay", 1.1, ValueError),
    ("weight_decay", float("nan"), ValueError),
    ("weight_decay", "0.1", TypeError),
    ("name", 3, TypeError),
]


@pytest.mark.parametrize("argument, value, kind", BAD)
def test_bad_arguments_are_refused(argument, value, kind):
    with pytest.raises(kind, match=f"`{argument}` must be .*; received "):
        Ours(**{argument: value})


def test_bad_variables_and_schedulers_are_refused_as_rates():
    for rate in (jnp.ones(2), -jnp.ones(()), jnp.full((), jnp.nan), jnp.ones((), jnp.int32)):
        with pytest.raises(ValueError, match="`lr` must be a variable of one finite number"):
            Ours(bm.Variable(rate))
    with pytest.raises(ValueError, match="`lr` must be a finite number of at least 0"):
        Ours(brainpy.optim.StepLR(-0.1, 2))
    with pytest.raises(ValueError, match=r"`lr\(\)` must be a finite number"):
        schedule = brainpy.optim.PolynomialDecayLR(0.1, 1, -1.0, last_call=5)
        Ours(schedule, {"w": variable([1.0])}).update({"w": jnp.ones(1)})


def test_bad_variables_are_refused():
    for bad, kind, text in (
        ({"w": jnp.ones(1)}, TypeError, r'`train_vars\["w"\]` must be a brainpy.math.Variable'),
        ({"w": bm.Variable(jnp.ones(1, jnp.int32))}, TypeError, "floating or complex dtype"),
        ({1: variable([1.0])}, TypeError, "`train_vars` must be named by strings"),
    ):
        with pytest.raises(kind, match=text):
            Ours(train_vars=bad)


# BrainPy also refuses a weight decay that is out of range.
TAKEN = [
    (argument, value)
    for argument, value, kind in BAD
    if kind is ValueError and (argument != "weight_decay" or np.isnan(value))
]


@pytest.mark.parametrize("argument, value", TAKEN)
def test_brainpys_own_takes_bad_numbers(argument, value):
    Theirs(**{argument: value})


# 69, like 15


@pytest.mark.parametrize("mode", MODES)
def test_a_rate_that_is_set_is_honoured_by_compiled_steps(mode):
    for rate in (1.0, brainpy.optim.StepLR(1.0, 1000), bm.Variable(jnp.ones(1))):
        optimizer = Ours(rate, {"w": variable([1.0])})
        step = stepper(optimizer, mode)
        step({"w": jnp.ones(1)})
        before = float(optimizer.vars_to_train["w"].value[0])
        optimizer.lr.set_value(0.0)
        step({"w": jnp.ones(1)})
        assert float(optimizer.vars_to_train["w"].value[0]) == before < 1


def test_a_rate_that_is_set_is_checked():
    optimizer = Ours(1.0, {"w": variable([1.0])})
    for bad in (-1.0, float("nan"), "1"):
        with pytest.raises((TypeError, ValueError), match="`lr` must be a finite number"):
            optimizer.lr.set_value(bad)
    optimizer.lr.set_value(np.float32(0.5))
    assert float(optimizer.lr()) == 0.5
    with pytest.raises(ValueError, match="`lr` is a function"):
        Ours(lambda: 1.0).lr.set_value(0.5)


@needs_compiling
def test_brainpys_own_ignores_what_is_set_after_compiling():
    def run(change):
        optimizer = Theirs(train_vars={"w": variable([1.0])})
        step = stepper(optimizer, "jit")
        step({"w": jnp.ones(1)})
        change(optimizer)
        step({"w": jnp.ones(1)})
        return float(optimizer.vars_to_train["w"].value[0])

    assert run(lambda it: it.lr.set_value(0.0)) == run(lambda it: None)
    assert run(lambda it: setattr(it, "epsilon", 1.0)) == run(lambda it: None)


def test_arguments_can_be_changed_before_compiling():
    changed, made = Ours(train_vars={"w": variable([1.0])}), None
    for name, value in {"epsilon": 0.1, "rho": 0.5, "weight_decay": 0.1}.items():
        setattr(changed, name, value)
    made = Ours(train_vars={"w": variable([1.0])}, epsilon=0.1, rho=0.5, weight_decay=0.1)
    np.testing.assert_array_equal(moved(changed, [1.0, 2.0]), moved(made, [1.0, 2.0]))
    with pytest.raises(ValueError, match="`rho` must be"):
        changed.rho = 1.0
    assert changed.rho == 0.5


@needs_compiling
def test_arguments_can_not_be_changed_once_compiled():
    optimizer = Ours(train_vars={"w": variable([1.0])})
    moved(optimizer, [1.0], "jit")
    for name in ("epsilon", "rho", "weight_decay"):
        with pytest.raises(ValueError, match=f"`{name}` can't be changed once a compiled"):
            setattr(optimizer, name, 0.5)
    optimizer.rho = 0.95
    assert optimizer.epsilon == 1e-6


# 70, like 29


@pytest.mark.parametrize("mode", MODES)
def test_complex_variables_are_pairs_of_real_ones(mode):
    start = np.array([1 + 2j, -0.5 + 0.25j], "complex64")
    w, pair = variable(start, "complex64"), variable([start.real, start.imag])
    optimizers = [Ours(train_vars={"w": it}, weight_decay=0.01) for it in (w, pair)]
    steps = [stepper(it, mode) for it in optimizers]
    for _ in range(20):
        for step, it in zip(steps, (w, pair), strict=True):
            step({"w": bm.as_jax(it)})
    assert_close(np.stack([w.value.real, w.value.imag]), pair.value, 1e-6)


def converged(cls):
    w = variable([1 + 2j], "complex64")
    optimizer = cls(train_vars={"w": w}, epsilon=1e-3)
    for _ in range(300):
        optimizer.update({"w": bm.as_jax(w)})
    return abs(complex(w.value[0]))


def test_complex_variables_converge():
    assert converged(Ours) < 1e-3


def test_brainpys_own_diverges_on_complex_variables():
    assert converged(Theirs) > abs(1 + 2j)


# 13, 20 and 38 are avoided here too.

LARGE = [("float16", 1000.0), ("float32", 1e20)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype, large", LARGE)
def test_a_large_gradient_does_not_freeze_the_variable(dtype, large, mode):
    optimizer = Ours(train_vars={"w": variable([0.0], dtype)}, rho=0.5)
    seen = moved(optimizer, [large] + [1.0] * 200, mode)
    assert seen[-1] < seen[-2] < seen[1]


@pytest.mark.parametrize("dtype, large", LARGE)
def test_brainpys_own_freezes_after_a_large_gradient(dtype, large):
    optimizer = Theirs(train_vars={"w": variable([0.0], dtype)}, rho=0.5)
    assert len(set(moved(optimizer, [large] + [1.0] * 200))) == 1


def test_averages_of_half_precision_are_float32():
    optimizer = Ours(train_vars={"w": variable([1.0], "bfloat16")}, rho=0.999)
    moved(optimizer, [1.0] * 400)
    cache = optimizer.implicit_vars["w_cache"].value
    assert cache.dtype == jnp.float32
    assert_close(cache, [1 - 0.999**400], 1e-4)


def test_the_counter_stays_at_the_largest_number():
    optimizer = Ours(train_vars={"w": variable([1.0])})
    largest = jnp.iinfo(jnp.int32).max
    optimizer.step.value = jnp.asarray(largest, jnp.int32)
    moved(optimizer, [1.0])
    assert int(optimizer.step.value) == largest


def test_float64_variables_get_a_float64_rate():
    with floats("float64"):
        w = variable([1.0], "float64")
        optimizer = Ours(0.1, {"w": w})
        assert float(optimizer.lr()) == 0.1
        assert isinstance(bm.as_jax(optimizer.lr()), jax.Array)
