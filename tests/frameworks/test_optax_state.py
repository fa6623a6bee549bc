"""The state of `adadelta.optax` is exported and imported by name, all or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adadelta
import adadelta.optax
from adadelta.state import OptimizerState, StateMismatchError, read_state, write_state

export, restore = adadelta.optax.export_state, adadelta.optax.import_state

PARAMS = {
    "dense": {"kernel": jnp.arange(6.0).reshape(2, 3) + 1, "bias": jnp.ones(3, "bfloat16")},
    "phases": jnp.array([1 + 2j, 3 - 1j], jnp.complex64),
    "layers": [jnp.ones(2), jnp.zeros(())],
}
NAMES = ["dense/bias", "dense/kernel", "layers/0", "layers/1", "phases"]


def trained(made, steps, params=PARAMS, state=None):
    state = made.init(params) if state is None else state
    apply = jax.jit(made.apply)
    for step in range(int(state.count), int(state.count) + steps):
        factor = step % 3 - 0.7
        gradients = jax.tree.map(lambda it, factor=factor: it * factor, params)
        params, state = apply(params, state, gradients)
    return params, state


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_names_slots_and_counters():
    _, state = trained(adadelta.optax.fused_adadelta(), 5)
    exported = export(state)
    assert sorted(exported.parameters) == NAMES
    assert exported.step == exported.update == 5
    kernel = exported.parameters["dense/kernel"]
    np.testing.assert_array_equal(kernel["square_avg"], state.e_g["dense"]["kernel"])
    np.testing.assert_array_equal(kernel["acc_delta"], state.e_x["dense"]["kernel"])
    # As in every front end, a complex parameter is stored as pairs along a last axis of length two.
    pairs = exported.parameters["phases"]["square_avg"]
    assert pairs.shape == (2, 2) and pairs.dtype == np.float32
    np.testing.assert_array_equal(pairs[:, 0], state.e_g["phases"].real)
    np.testing.assert_array_equal(pairs[:, 1], state.e_g["phases"].imag)


def test_exported_arrays_are_copies():
    made = adadelta.optax.fused_adadelta()
    _, state = trained(made, 2)
    exported = export(state)
    before = exported.parameters["dense/kernel"]["square_avg"].copy()
    apply = jax.jit(made.apply, donate_argnums=(0, 1))
    apply(jax.tree.map(jnp.copy, PARAMS), state, PARAMS)
    np.testing.assert_array_equal(exported.parameters["dense/kernel"]["square_avg"], before)


def test_a_run_stopped_and_resumed_is_the_run_that_was_not_stopped(tmp_path):
    made = adadelta.optax.fused_adadelta(lambda count: 1 / (1 + count), weight_decay=0.01)
    whole, whole_state = trained(made, 6)
    half, state = trained(made, 3)
    write_state(export(state), tmp_path / "state.safetensors")
    again = restore(made.init(half), read_state(tmp_path / "state.safetensors"))
    same(again, state)
    params, again = trained(made, 3, half, again)
    same(params, whole)
    same(again, whole_state)


def test_the_state_goes_on_in_keras_and_comes_back():
    keras = pytest.importorskip("keras")
    made = adadelta.optax.fused_adadelta(1.0, rho=0.95, eps=1e-7)
    params = {"x": jnp.array([1.0, -2.0, 3.0])}
    params, state = trained(made, 4, params)
    x = keras.Variable(np.asarray(params["x"]), name="x")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build([x])
    adadelta.import_state(optimizer, export(state))
    gradient = jnp.array([0.5, 1.0, -1.0])
    optimizer.apply([keras.ops.convert_to_tensor(np.asarray(gradient))], [x])
    params, state = made.apply(params, state, {"x": gradient})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(x), params["x"], rtol=1e-6)
    back = restore(state, adadelta.export_state(optimizer))
    assert int(back.count) == 5
    np.testing.assert_allclose(back.e_g["x"], state.e_g["x"], rtol=1e-6)


def test_inside_other_states():
    optax = pytest.importorskip("optax")
    params = {"a": jnp.ones(3), "b": {"c": jnp.ones(2), "d": jnp.ones(())}}
    labels = {"a": "one", "b": {"c": "two", "d": "frozen"}}
    transformation = optax.chain(
        optax.clip(1.0),
        optax.multi_transform(
            {
                "one": optax.inject_hyperparams(adadelta.optax.adadelta)(learning_rate=1.0),
                "two": adadelta.optax.adadelta(0.5),
                "frozen": optax.set_to_zero(),
            },
            labels,
        ),
    )
    state = transformation.init(params)
    for _ in range(3):
        _, state = transformation.update(params, state, params)
    exported = export(state)
    assert sorted(exported.parameters) == ["a", "b/c"] and exported.step == 3
    again = restore(transformation.init(params), exported)
    assert export(again) == exported
    assert jax.tree.structure(again) == jax.tree.structure(state)


def test_a_single_array_has_a_name():
    state = adadelta.optax.adadelta().init(jnp.ones(3))
    assert list(export(state).parameters) == ["params"]
    same(restore(state, export(state)), state)


def without(name, slot=None):
    exported = export(trained(adadelta.optax.fused_adadelta(), 2)[1])
    if slot is None:
        del exported.parameters[name]
    else:
        del exported.parameters[name][slot]
    return exported


def changed(**values):
    exported = export(trained(adadelta.optax.fused_adadelta(), 2)[1])
    for name, value in values.items():
        setattr(exported, name, value)
    return exported


def with_array(slot, array):
    exported = changed()
    exported.parameters["dense/bias"][slot] = array
    return exported


MISFITS = {
    "missing: dense/bias": lambda: without("dense/bias"),
    r"missing: dense/bias \(acc_delta\)": lambda: without("dense/bias", "acc_delta"),
    "not in this optimizer: more": lambda: changed(
        parameters={**changed().parameters, "more": changed().parameters["dense/bias"]}
    ),
    r"of another shape: dense/bias \(acc_delta\) \(4,\) instead of \(3,\)": lambda: with_array(
        "acc_delta", np.zeros(4, "float32")
    ),
    "of another dtype: dense/bias": lambda: with_array("square_avg", np.zeros(3)),
    "negative": lambda: with_array("square_avg", -np.ones(3, "float32")),
    "it has average": lambda: with_array("average", np.ones(3, "float32")),
    "it has a window of 1 calls open": lambda: changed(window=1),
    "it has 1 updates in 2 calls": lambda: changed(update=1),
    "it has a dynamic loss scale": lambda: changed(loss_scale=2.0),
    "counts up to": lambda: changed(step=2**40, update=2**40),
}


@pytest.mark.parametrize("text", MISFITS)
def test_what_does_not_fit_is_refused(text):
    state = adadelta.optax.adadelta().init(PARAMS)
    with pytest.raises(StateMismatchError, match=text):
        restore(state, MISFITS[text]())


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="`state` must be what init"):
        export((1, {"a": jnp.ones(2)}))
    state = adadelta.optax.adadelta().init(PARAMS)
    with pytest.raises(TypeError, match="`exported` must be an OptimizerState"):
        restore(state, {"step": 1})
    with pytest.raises(StateMismatchError, match="two parameters in `state` have the name a/b"):
        export(adadelta.optax.adadelta().init({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}))
    with pytest.raises(StateMismatchError, match="different numbers of steps: 0, 1"):
        export((state, state._replace(count=jnp.asarray(1))))
    with pytest.raises(StateMismatchError, match="two parameters"):
        export((state, state))
    assert isinstance(export(state), OptimizerState)
