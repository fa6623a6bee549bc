"""Where `optax.adadelta` goes wrong and ours does not; the second half of each test shows both."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta.optax
from jax_tools import assert_close

try:
    import optax
except ModuleNotFoundError:
    optax = None

FORMS = ["adadelta", "fused_adadelta"]
needs_optax = pytest.mark.skipif(optax is None, reason="optax is not installed")


def one_step(form, gradients, params, arguments=None, compiled=False, state=None):
    """Return parameters and state after one step."""
    made = getattr(adadelta.optax, form)(**(arguments or {}))
    state = made.init(params) if state is None else state
    if form == "fused_adadelta":
        return (jax.jit(made.apply) if compiled else made.apply)(params, state, gradients)
    updates, state = (jax.jit(made.update) if compiled else made.update)(gradients, state, params)
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates), state


# 71


@pytest.mark.parametrize("form", FORMS)
def test_the_default_descends(form):
    params, _ = one_step(form, jnp.ones(2), jnp.ones(2))
    assert np.all(params < 1)


@needs_optax
def test_optax_own_default_climbs():
    params = jnp.ones(2)
    updates, _ = optax.adadelta().update(params, optax.adadelta().init(params), params)
    assert np.all(updates > 0)


def test_no_learning_rate_is_refused():
    with pytest.raises(TypeError, match="`learning_rate` must be a finite number of at least 0"):
        adadelta.optax.adadelta(learning_rate=None)


# 72


def test_parameters_are_needed_only_with_weight_decay():
    params = jnp.ones(2)
    transformation = adadelta.optax.adadelta(weight_decay=0.0)
    state = transformation.init(params)
    without, _ = transformation.update(params, state)
    with_params, _ = transformation.update(params, state, params)
    np.testing.assert_array_equal(without, with_params)
    decaying = adadelta.optax.adadelta(weight_decay=0.1)
    with pytest.raises(ValueError, match="`params` must be given, since there is weight decay"):
        decaying.update(params, decaying.init(params))


@needs_optax
def test_optax_own_needs_parameters_always():
    params = jnp.ones(2)
    transformation = optax.adadelta(1.0, weight_decay=0.0)
    with pytest.raises(ValueError):
        transformation.update(params, transformation.init(params))


# 73


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 3), (), (1,)])
def test_a_gradient_of_another_shape_is_refused(form, shape):
    with pytest.raises(ValueError, match=r"\['w'\]` must have shape \(3,\); received \("):
        one_step(form, {"w": jnp.ones(shape)}, {"w": jnp.ones(3)})


@needs_optax
def test_optax_own_changes_the_shape_of_the_parameter():
    params = jnp.ones(3)
    transformation = optax.adadelta(1.0)
    updates, _ = transformation.update(jnp.ones((2, 3)), transformation.init(params), params)
    assert optax.apply_updates(params, updates).shape == (2, 3)


# 74


def test_missing_gradients_pass_through():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    gradients = {"a": None, "b": jnp.ones(3)}
    for arguments in ({}, {"weight_decay": 0.1, "weight_decay_mask": {"a": True, "b": False}}):
        transformation = adadelta.optax.adadelta(**arguments)
        state = transformation.init(params)
        updates, after = jax.jit(transformation.update)(gradients, state, params)
        assert updates["a"] is None and np.all(updates["b"] < 0)
        np.testing.assert_array_equal(after.e_g["a"], state.e_g["a"])
        fused, after = one_step("fused_adadelta", gradients, params, arguments)
        np.testing.assert_array_equal(fused["a"], params["a"])
        assert np.all(fused["b"] < 1) and np.all(after.e_g["b"] > 0)


def test_missing_parameters_pass_through():
    params = {"a": None, "b": jnp.ones(3)}
    for form in FORMS:
        after, state = one_step(form, params, params, {"weight_decay": 0.1})
        assert after["a"] is None and state.e_g["a"] is None and np.all(after["b"] < 1)


@needs_optax
def test_optax_own_fails_on_missing_gradients():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    transformation = optax.adadelta(1.0)
    with pytest.raises(ValueError):
        transformation.update({"a": None, "b": params["b"]}, transformation.init(params), params)


# 75

BAD = [
    ("learning_rate", -1.0, ValueError),
    ("learning_rate", float("nan"), ValueError),
    ("learning_rate", float("inf"), ValueError),
    ("learning_rate", "0.1", TypeError),
    ("learning_rate", True, TypeError),
    ("learning_rate", jnp.array([1.0, 2.0]), TypeError),
    ("learning_rate", jnp.array(-1.0), ValueError),
    ("rho", 1.0, ValueError),
    ("rho", -0.1, ValueError),
    ("rho", float("nan"), ValueError),
    ("rho", None, TypeError),
    ("rho", "0.9", TypeError),
    ("eps", 0.0, ValueError),
    ("eps", -1e-6, ValueError),
    ("eps", float("inf"), ValueError),
    ("eps", None, TypeError),
    ("weight_decay", -0.1, ValueError),
    ("weight_decay", float("nan"), ValueError),
    ("weight_decay", "0.1", TypeError),
    ("weight_decay_mask", {"a": 1}, TypeError),
    ("weight_decay_mask", "all", TypeError),
    ("weight_decay_mask", float, TypeError),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("argument, value, kind", BAD)
def test_bad_arguments_are_refused(form, argument, value, kind):
    with pytest.raises(kind, match=f"`{argument}` must be .*; received "):
        getattr(adadelta.optax, form)(**{argument: value})


@needs_optax
@pytest.mark.parametrize(
    "argument, value", [(name, value) for name, value, kind in BAD if kind is ValueError]
)
def test_optax_own_takes_bad_numbers(argument, value):
    optax.adadelta(**{"learning_rate": 1.0, argument: value})


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_numbers_of_any_kind_are_taken(number):
    for value in (number, np.asarray(number), jnp.asarray(number)):
        params, _ = one_step("adadelta", jnp.ones(2), jnp.ones(2), {"learning_rate": value})
        assert np.all(params < 1)


def test_what_a_schedule_returns_is_checked_where_it_is_known():
    with pytest.raises(ValueError, match=r"`learning_rate\(0\)` must be .*received -1.0"):
        one_step("adadelta", jnp.ones(2), jnp.ones(2), {"learning_rate": lambda count: -1.0})


@pytest.mark.parametrize("form", FORMS)
def test_other_bad_input_is_refused(form):
    params = {"w": jnp.ones(3)}
    with pytest.raises(TypeError, match=r"`params\['w'\]` must be an array of a floating"):
        one_step(form, params, {"w": jnp.ones(3, jnp.int32)})
    with pytest.raises(TypeError, match=r"\['w'\]` must be real, as the parameter is"):
        one_step(form, {"w": jnp.ones(3, jnp.complex64)}, params)
    with pytest.raises(TypeError, match=r"\['w'\]` must be an array of numbers; received"):
        one_step(form, {"w": "float32"}, params)
    with pytest.raises(TypeError, match=r"`params\['w'\]` must be an array of a floating"):
        one_step(form, params, {"w": "float32"})
    with pytest.raises(ValueError, match="must have the structure of"):
        one_step(form, {"v": jnp.ones(3)}, params)
    with pytest.raises(TypeError, match="`state` must be what init"):
        one_step(form, params, params, state=(1, 2))
    mask = {"weight_decay": 0.1, "weight_decay_mask": {"v": True}}
    with pytest.raises(ValueError, match="`weight_decay_mask` must be a tree with the structure"):
        one_step(form, params, params, mask)
    mask["weight_decay_mask"] = lambda params: 1
    with pytest.raises(TypeError, match="`weight_decay_mask` must be a tree of True and False"):
        one_step(form, params, params, mask)


def test_the_fused_form_needs_parameters():
    made = adadelta.optax.fused_adadelta()
    with pytest.raises(ValueError, match="`params` must be the parameters; received None"):
        made.apply(None, made.init(jnp.ones(2)), jnp.ones(2))


# 76


def minimized(make, params, steps=500):
    transformation = make(1.0, eps=1e-3)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for _ in range(steps):
        updates, state = update(params, state, params)
        params = params + updates
    return params


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_complex_parameters_are_pairs_of_real_ones(form, compiled):
    params = jnp.array([1 + 2j, -0.5 + 0.25j], jnp.complex64)
    pair = jnp.stack([params.real, params.imag])
    arguments = {"weight_decay": 0.1}
    state = pair_state = None
    for _ in range(20):
        params, state = one_step(form, params, params, arguments, compiled, state)
        pair, pair_state = one_step(form, pair, pair, arguments, compiled, pair_state)
    assert_close(jnp.stack([params.real, params.imag]), pair, 1e-6)
    assert_close(jnp.stack([state.e_x.real, state.e_x.imag]), pair_state.e_x, 1e-6)


def test_complex_parameters_converge():
    params = jnp.array([2 + 1j], jnp.complex64)
    assert abs(minimized(adadelta.optax.adadelta, params)[0]) < 1e-3


@needs_optax
def test_optax_own_diverges_on_complex_parameters():
    params = jnp.array([1 + 2j], jnp.complex64)
    assert abs(minimized(optax.adadelta, params)[0]) > abs(params[0])


# 77, like 13 and 20


def run(make, gradients, dtype, **arguments):
    """Return the values of a parameter that starts at 0, after each step."""
    transformation = make(1.0, **arguments)
    params = jnp.zeros(1, dtype)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    seen = []
    for gradient in gradients:
        updates, state = update(jnp.full(1, gradient, dtype), state, params)
        params = (params + updates).astype(dtype)
        seen.append(float(params[0]))
    return np.array(seen), state


LARGE = [("float16", 1000.0), ("float32", 1e20), ("float32", 3e38)]


@pytest.mark.parametrize("dtype, large", LARGE)
def test_a_large_gradient_does_not_freeze_the_parameter(dtype, large):
    seen, state = run(adadelta.optax.adadelta, [large] + [1.0] * 200, dtype, rho=0.5)
    assert seen[-1] < seen[-2] < seen[1] and np.all(np.isfinite(state.e_g))


@needs_optax
@pytest.mark.parametrize("dtype, large", LARGE)
def test_optax_own_freezes_after_a_large_gradient(dtype, large):
    seen, _ = run(optax.adadelta, [large] + [1.0] * 200, dtype, rho=0.5)
    assert len(set(seen)) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_averages_of_half_precision_are_float32(dtype):
    _, state = run(adadelta.optax.adadelta, [1.0] * 400, dtype, rho=0.999)
    assert state.e_g.dtype == state.e_x.dtype == jnp.float32
    assert_close(state.e_g, [1 - 0.999**400], 1e-4)


@needs_optax
def test_optax_own_averages_of_bfloat16_drift():
    _, state = run(optax.adadelta, [1.0] * 400, "bfloat16", rho=0.999)
    e_g = float(optax.tree_utils.tree_get(state, "e_g")[0])
    assert abs(e_g / (1 - 0.999**400) - 1) > 0.1


def test_a_small_epsilon_keeps_its_value_in_float16():
    seen, _ = run(adadelta.optax.adadelta, [0.0, 1.0], "float16", eps=1e-8)
    assert np.all(np.isfinite(seen))


@needs_optax
def test_optax_own_small_epsilon_gives_nan_in_float16():
    seen, _ = run(optax.adadelta, [0.0, 1.0], "float16", eps=1e-8)
    assert np.isnan(seen[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_stays_visible(bad):
    # As in optax, clipping the gradient must not hide a NaN.
    seen, _ = run(adadelta.optax.adadelta, [bad], "float32")
    assert np.isnan(seen[0])


def test_the_counter_stays_at_the_largest_number():
    transformation = adadelta.optax.adadelta()
    state = transformation.init(jnp.ones(2))
    largest = jnp.iinfo(jnp.int32).max
    _, state = transformation.update(jnp.ones(2), state._replace(count=jnp.asarray(largest)))
    assert int(state.count) == largest


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_odd_shapes_work(form, shape):
    params, _ = one_step(form, jnp.ones(shape), jnp.ones(shape), {"weight_decay": 0.1}, True)
    assert params.shape == shape and np.all(params < 1)


def test_half_precision_is_rounded_once_in_the_fused_form():
    generator = np.random.default_rng(0)
    params = jnp.asarray(generator.normal(size=1000), "bfloat16")
    gradient = jnp.asarray(generator.normal(size=1000), "bfloat16")
    fused, _ = one_step("fused_adadelta", gradient, params)
    wide = [it.astype("float32") for it in (gradient, params)]
    exact, _ = one_step("fused_adadelta", *wide)
    np.testing.assert_array_equal(fused, exact.astype("bfloat16"))


def test_donated_parameters_and_state_are_updated_in_place():
    made = adadelta.optax.fused_adadelta(weight_decay=0.1)
    params = {"a": jnp.ones(1000), "b": jnp.ones((10, 10))}
    state = made.init(params)
    compiled = jax.jit(made.apply, donate_argnums=(0, 1)).lower(params, state, params).compile()
    # Every result array reuses the buffer of an argument.
    text = compiled.as_text()
    assert text.count("may-alias") == 7
    # No copies come first; XLA copies if a parameter's buffer is paired with that of an average.
    assert not re.findall(r"f32\[\d[^ ]* copy\(", text)
    gradients = jax.tree.map(jnp.copy, params)
    compiled(params, state, gradients)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))
