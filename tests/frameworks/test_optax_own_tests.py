"""optax' tests of its own optimizers, applied to ours."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta.optax
from jax_tools import assert_close, floats

optax = pytest.importorskip("optax")

make = adadelta.optax.adadelta


def parabola(dtype):
    start = jnp.array([-1.0, 10.0, 1.0], dtype)
    end = jnp.array([1.0, -1.0, 1.0], dtype) * (1 + 1j if jnp.iscomplexobj(start) else 1)
    return start, end, lambda x: jnp.sum(jnp.abs(x - end) ** 2)


def rosenbrock(dtype):
    start = jnp.array([0.0, 0.0], dtype)
    a = 1 + 1j if jnp.iscomplexobj(start) else 1.0
    end = jnp.array([a, a**2], dtype)
    square = lambda x: jnp.real(x * jnp.conj(x))  # noqa: E731
    return start, end, lambda x: square(a - x[0]) + 100 * square(x[1] - x[0] ** 2)


def gradient_of(objective, params):
    # Gradients of complex parameters are conjugated in JAX.
    return jax.tree.map(jnp.conj, jax.grad(objective)(params))


def minimize(transformation, start, objective, steps):
    def step(carry, _):
        params, state = carry
        updates, state = transformation.update(gradient_of(objective, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = start, transformation.init(start)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(carry)
    return params


@pytest.mark.parametrize(
    "target, dtype, arguments",
    [
        (parabola, "float32", {"learning_rate": 0.1}),
        (rosenbrock, "float32", {"learning_rate": 0.1}),
        (parabola, "complex64", {"learning_rate": 0.1}),
        # optax' tests leave these out: its own class ascends by default.
        (parabola, "float32", {}),
        (parabola, "complex64", {}),
    ],
)
def test_it_finds_the_minimum(target, dtype, arguments):
    start, end, objective = target(dtype)
    found = minimize(make(**arguments), start, objective, 10000)
    # The number of steps and the tolerance are those of optax' own test.
    np.testing.assert_allclose(found, end, rtol=3e-2, atol=3e-2)


def test_it_comes_near_the_minimum_of_the_complex_rosenbrock_function():
    # optax' tests leave this one out too. In the valley, steps are slow: after 10000 of them, the
    # second parameter, whose optimum is 2i, is 1.89i.
    start, end, objective = rosenbrock("complex64")
    found = minimize(make(0.1), start, objective, 10000)
    np.testing.assert_allclose(found, end, atol=0.15)


def test_optax_own_climbs_by_default_and_fails_on_complex_parameters():
    start, end, objective = parabola("float32")
    found = minimize(optax.adadelta(), start, objective, 100)
    assert objective(found) > objective(start)
    start, end, objective = parabola("complex64")
    found = minimize(optax.adadelta(0.1), start, objective, 10000)
    assert not np.allclose(found, end, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("form", ["adadelta", "fused_adadelta"])
def test_the_second_step_compiles_nothing(form, caplog):
    start, _, objective = rosenbrock("float32")
    made = getattr(adadelta.optax, form)(0.1)

    @jax.jit
    def step(params, state):
        gradient = gradient_of(objective, params)
        if form == "fused_adadelta":
            return made.apply(params, state, gradient)
        updates, state = made.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        params, state = step(start, made.init(start))
        assert any("compil" in record.getMessage() for record in caplog.records)
        caplog.clear()
        step(params, state)
        assert not [it for it in caplog.records if "Finished" in it.getMessage()]


def test_tree_map_params_works():
    params = {"a": jnp.ones(3), "b": jnp.ones(2, jnp.complex64)}
    transformation = make(0.1)
    state = transformation.init(params)
    doubled = optax.tree_utils.tree_map_params(transformation, lambda it: it + 1, state)
    assert int(doubled.count) == 0
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves((doubled.e_g, doubled.e_x)))


def test_unexpected_arguments_by_name_are_ignored():
    params = jnp.ones(3)
    transformation = make()
    state = transformation.init(params)
    updates, _ = transformation.update(params, state, params, value=1.0, unexpected=2)
    expected, _ = transformation.update(params, state, params)
    np.testing.assert_array_equal(updates, expected)
    wrapped = optax.with_extra_args_support(transformation)
    np.testing.assert_array_equal(wrapped.update(params, state, params, value=1)[0], expected)


INJECTED = {
    "rate": {"learning_rate": 0.1},
    "defaults": {},
    "decay": {"learning_rate": 0.1, "weight_decay": 0.1},
    "schedule": {"learning_rate": lambda count: 1 / (1 + count), "eps": 1e-3, "rho": 0.5},
}


@pytest.mark.parametrize("arguments", INJECTED.values(), ids=INJECTED)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_inject_hyperparams(arguments, compiled):
    params = [-jnp.ones((2, 3)), jnp.ones((2, 5, 2))]
    gradients = [jnp.ones((2, 3)), -jnp.ones((2, 5, 2))]
    plain = make(**arguments)
    injected = optax.inject_hyperparams(make)(**arguments)
    jit = jax.jit if compiled else lambda function: function
    state, injected_state = jit(plain.init)(params), jit(injected.init)(params)
    for _ in range(3):
        updates, state = jit(plain.update)(gradients, state, params)
        injected_updates, injected_state = jit(injected.update)(gradients, injected_state, params)
        # One of the two rounds 1 - rho to float32.
        pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(injected_updates), strict=True)
        for one, two in pairs:
            assert_close(two, one, 1e-5)
    for one, two in zip(
        jax.tree.leaves(state), jax.tree.leaves(injected_state.inner_state), strict=True
    ):
        assert_close(two, one, 1e-5)


def test_an_injected_rate_can_be_changed_between_compiled_steps():
    params = jnp.ones(3)
    injected = optax.inject_hyperparams(make)(learning_rate=1.0)
    state = injected.init(params)
    update = jax.jit(injected.update)
    first, _ = update(params, state, params)
    state.hyperparams["learning_rate"] = jnp.asarray(0.25)
    second, _ = update(params, state, params)
    assert_close(second, first / 4, 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_updates_have_the_dtype_of_the_gradients(dtype):
    params = jnp.array([1.0, 2.0], dtype)
    transformation = make(0.1)
    state = jax.jit(transformation.init)(params)
    for given in ((), (params,)):
        updates, _ = jax.jit(transformation.update)(params, state, *given)
        assert updates.dtype == dtype


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
)
@pytest.mark.parametrize("form", ["adadelta", "fused_adadelta"])
def test_state_keeps_shape_and_dtype(dtype, form):
    with floats(dtype):
        start, _, objective = parabola(dtype)
        made = getattr(adadelta.optax, form)(0.1)

        @jax.jit
        def step(params, state, go_on):
            gradient = gradient_of(objective, params)
            if form == "fused_adadelta":
                return jax.lax.cond(
                    go_on, lambda: made.apply(params, state, gradient), lambda: (params, state)
                )
            updates, state = jax.lax.cond(
                go_on, lambda: made.update(gradient, state, params), lambda: (params, state)
            )
            return optax.apply_updates(params, updates), state

        params, state = step(start, made.init(start), True)
        assert params.dtype == dtype
        assert jax.tree.leaves(state.e_g)[0].shape == start.shape


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_multi_steps(dtype):
    params = jnp.array([1.0, 2.0], dtype)
    steps = optax.MultiSteps(make(0.5), every_k_schedule=4)
    state = jax.jit(steps.init)(params)
    update = jax.jit(steps.update)
    for _ in range(3):
        updates, state = update(params, state, params)
        np.testing.assert_array_equal(updates, jnp.zeros_like(params))
    updates, state = update(params, state, params)
    plain = make(0.5)
    expected, _ = plain.update(params, plain.init(params), params)
    # The mean of four equal bfloat16 numbers is exact.
    np.testing.assert_allclose(updates.astype("float32"), expected.astype("float32"), rtol=1e-2)
    assert int(state.inner_opt_state.count) == 1


def test_chain_masked_and_multi_transform():
    params = {"a": jnp.ones(3), "b": {"c": jnp.ones(2), "d": jnp.ones(())}}
    gradients = jax.tree.map(lambda it: 3 * it, params)
    chained = optax.chain(optax.clip(1.0), make(0.5), optax.scale(2.0))
    updates, _ = jax.jit(chained.update)(gradients, chained.init(params), params)
    plain = make(1.0)
    expected, _ = plain.update(params, plain.init(params))
    for one, two in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)

    both = optax.multi_transform(
        {"adadelta": make(1.0, weight_decay=0.1), "freeze": optax.set_to_zero()},
        {"a": "adadelta", "b": {"c": "freeze", "d": "adadelta"}},
    )
    state = both.init(params)
    updates, state = jax.jit(both.update)(gradients, state, params)
    assert np.all(updates["a"] < 0) and updates["b"]["d"] < 0
    np.testing.assert_array_equal(updates["b"]["c"], jnp.zeros(2))

    masked = optax.masked(make(1.0), {"a": True, "b": False})
    updates, _ = masked.update(gradients, masked.init(params), params)
    np.testing.assert_array_equal(updates["b"]["c"], gradients["b"]["c"])
    assert np.all(updates["a"] < 0)


def test_vmap_over_parameters_and_rates():
    params = jnp.arange(6.0).reshape(3, 2) + 1
    rates = jnp.array([1.0, 0.5, 0.25])

    def one(params, rate):
        transformation = make(rate)
        updates, _ = transformation.update(params, transformation.init(params), params)
        return updates

    together = jax.vmap(one)(params, rates)
    for row, rate, expected in zip(params, rates, together, strict=True):
        np.testing.assert_allclose(one(row, float(rate)), expected, rtol=1e-6)


def test_apply_if_finite_and_a_flat_tree():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    transformation = optax.apply_if_finite(optax.flatten(make(1.0)), 5)
    state = transformation.init(params)
    bad = {"a": jnp.full((2, 2), jnp.nan), "b": jnp.ones(3)}
    updates, state = jax.jit(transformation.update)(bad, state, params)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(updates))
    updates, state = jax.jit(transformation.update)(params, state, params)
    assert all(np.all(leaf < 0) for leaf in jax.tree.leaves(updates))
