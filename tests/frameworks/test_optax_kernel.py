"""The fused form gives the same numbers with and without the kernel, on every parameter type."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta.optax
from adadelta._jax import engine
from jax_tools import assert_close, floats

# XLA may round `a * b + c` once where the kernel rounds twice. So half-precision parameters differ
# by one rounding now and then, and with them their gradients and averages.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14, "float16": 2**-10, "bfloat16": 2**-7}


def run(arguments, params, steps=5):
    """Return parameters and state after some steps, and the kernels that the program calls."""
    made = adadelta.optax.fused_adadelta(**arguments)
    state = made.init(params)
    apply = jax.jit(made.apply).lower(params, state, params).compile()
    for step in range(steps):
        factor = step % 3 - 0.7
        gradients = jax.tree.map(lambda it, factor=factor: (it * factor).astype(it.dtype), params)
        params, state = apply(params, state, gradients)
    return (params, state), set(re.findall(r"adadelta_step_(\w+)", apply.as_text()))


def with_and_without(arguments, params):
    """Return the results with and without the kernel, and the dtypes that the kernel updated."""
    reason = engine.reason_against_machine()
    if reason is not None:
        pytest.skip(reason)
    ours, served = run(arguments, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "reason_against_machine", lambda: "not here")
        plain, none = run(arguments, params)
    assert not none
    return ours, plain, served


@pytest.mark.parametrize("decay", [0.0, 0.1, lambda count: 0.1 / (1.0 + count)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_kernel_and_the_rule_agree(dtype, decay):
    with floats(dtype):
        generator = np.random.default_rng(0)
        params = {
            "matrix": jnp.asarray(generator.normal(size=(7, 5)), dtype),
            "scalar": jnp.asarray(generator.normal(), dtype),
            "empty": jnp.zeros((0, 3), dtype),
        }
        mask = {"matrix": True, "scalar": False, "empty": True}
        arguments = {"weight_decay": decay, "weight_decay_mask": mask}
        ours, plain, served = with_and_without(arguments, params)
        assert served == {dtype}
        assert jax.tree.structure(ours) == jax.tree.structure(plain)
        for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
            assert one.dtype == two.dtype
            one, two = (np.asarray(it).astype("float64") for it in (one, two))
            assert_close(one, two, TOLERANCE[dtype])


def test_the_kernel_leaves_what_it_can_not_serve_to_the_rule():
    params = {
        "complex": jnp.array([1 + 2j, -3j], "complex64"),
        "half": jnp.array([1.0, -2.0], "bfloat16"),
        "full": jnp.array([1.0, -2.0]),
    }
    ours, plain, served = with_and_without({}, params)
    assert served == {"bfloat16", "float32"}
    assert_close(ours[0]["complex"], plain[0]["complex"], 0)
    # A float32 gradient of a bfloat16 parameter keeps its precision.
    made = adadelta.optax.fused_adadelta()
    gradient = jnp.array([1 + 2.0**-10])
    _, state = made.apply(params["half"][:1], made.init(params["half"][:1]), gradient)
    _, wide = made.apply(params["full"][:1], made.init(params["full"][:1]), gradient)
    np.testing.assert_array_equal(state.e_g, wide.e_g)


def test_it_works_under_vmap_and_scan():
    params = jnp.arange(6.0).reshape(3, 2) + 1
    rates = jnp.array([1.0, 0.5, 0.25])

    def one(params, rate):
        made = adadelta.optax.fused_adadelta(rate, weight_decay=0.1)

        def step(carry, _):
            return made.apply(carry[0], carry[1], carry[0]), None

        (params, _), _ = jax.lax.scan(step, (params, made.init(params)), length=3)
        return params

    together = jax.vmap(one)(params, rates)
    for row, rate, expected in zip(params, rates, together, strict=True):
        assert_close(one(row, float(rate)), expected, 1e-6)


def test_kernel_info_says_what_makes_the_step_of_each_parameter():
    params = {"dense": {"kernel": jnp.ones((2, 3))}, "phase": jnp.ones(2, "complex64")}
    kernel, phase = adadelta.kernel_info(adadelta.optax.fused_adadelta(), params)
    assert (kernel["variable"], kernel["shape"]) == ("dense/kernel", (2, 3))
    expected = engine.reason_against_machine()
    assert (kernel["engine"] == "xla", kernel["reason"]) == (expected is None, expected)
    assert phase["engine"] == "operators of JAX"
    assert phase["reason"] == (expected or "it is complex64")

    plain, _ = adadelta.kernel_info(adadelta.optax.adadelta(), params)
    assert "fused_adadelta" in plain["reason"]


def test_kernel_info_takes_the_parameters_where_they_are_not_known():
    with pytest.raises(TypeError, match="`params` must be the tree of parameters"):
        adadelta.kernel_info(adadelta.optax.fused_adadelta())
