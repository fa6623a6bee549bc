"""The BrainPy optimizer's state is exported and imported by the user's names, all or nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brainpy")
import adadelta
from adadelta.state import StateFileError, StateMismatchError
from brainpy_tools import Ours, Theirs, bm, brainpy, variable


def named(dtype="float32"):
    return {"kernel": variable([[1.0, 2.0], [3.0, 4.0]], dtype), "bias": variable([0.5], dtype)}


def trained(optimizer, calls, start=0):
    for call in range(start, start + calls):
        optimizer.update(
            {name: bm.as_jax(it) * (call % 3 - 0.7) for name, it in optimizer.vars_to_train.items()}
        )
        optimizer.lr.step_epoch()
    return optimizer


def copies(variables):
    return {name: variable(it.value, it.dtype) for name, it in variables.items()}


SCHEDULERS = {
    "a number": lambda: 0.5,
    "StepLR": lambda: brainpy.optim.StepLR(0.5, 2, 0.5),
    "ExponentialDecayLR": lambda: brainpy.optim.ExponentialDecayLR(0.5, 2, 0.5),
    "a function of the step": lambda: lambda step: 1.0 / (1.0 + step),
}


@pytest.mark.parametrize("rate", SCHEDULERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_a_fresh_optimizer_goes_on_bit_for_bit(rate, dtype, tmp_path):
    make = SCHEDULERS[rate]
    whole = trained(Ours(make(), named(dtype), weight_decay=0.01), 6)
    first = trained(Ours(make(), named(dtype), weight_decay=0.01), 3)
    first.save_states(tmp_path / "states.safetensors")
    again = Ours(make(), copies(first.vars_to_train), weight_decay=0.01)
    again.load_states(tmp_path / "states.safetensors")
    trained(again, 3, start=3)
    for name, it in whole.vars_to_train.items():
        np.testing.assert_array_equal(again.vars_to_train[name].value, it.value)
    assert adadelta.export_state(again) == adadelta.export_state(whole)


def test_brainpys_own_loads_nothing_into_a_fresh_instance():
    optimizer = trained(Theirs(train_vars=named()), 3)
    assert not hasattr(optimizer, "save_states") and not hasattr(optimizer, "load_states")
    fresh = Theirs(train_vars=named())
    missing, unexpected = fresh.load_state(optimizer.save_state())
    assert missing and unexpected
    assert not np.any(np.asarray(fresh.implicit_vars["bias_cache"].value))


@pytest.mark.parametrize("compatible", ["v2", "v1"])
@pytest.mark.parametrize("rate", SCHEDULERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_a_state_dict_goes_on_bit_for_bit_in_a_fresh_optimizer(rate, dtype, compatible):
    make = SCHEDULERS[rate]
    whole = trained(Ours(make(), named(dtype), weight_decay=0.01), 6)
    first = trained(Ours(make(), named(dtype), weight_decay=0.01), 3)
    saved = first.state_dict() if compatible == "v2" else first.vars().unique().dict()
    again = Ours(make(), copies(first.vars_to_train), weight_decay=0.01)
    # Sorted names, as some file formats return them.
    result = again.load_state_dict(dict(sorted(saved.items())), compatible=compatible)
    assert result == ([], []) and result.missing_keys == []
    assert int(again.step.value) == 3
    trained(again, 3, start=3)
    for name, it in whole.vars_to_train.items():
        np.testing.assert_array_equal(again.vars_to_train[name].value, it.value)
    assert adadelta.export_state(again) == adadelta.export_state(whole)


def test_a_state_dict_of_names_that_brainpy_numbers():
    first = trained(Ours(0.5, {"Dense0.W": variable([1.0]), "Dense1.W_cache": variable([2.0])}), 2)
    again = Ours(0.1, {"Dense4.W": variable([1.0]), "Dense5.W_cache": variable([2.0])})
    again.load_state_dict(first.state_dict())
    theirs, mine = first.implicit_vars, again.implicit_vars
    np.testing.assert_array_equal(
        mine["Dense5.W_cache_delta"].value, theirs["Dense1.W_cache_delta"].value
    )
    assert float(again.lr()) == 0.5


def renamed(values):
    return {f"other.{key.partition('.')[2]}": value for key, value in values.items()}


def broken(change):
    saved = trained(Ours(0.5, named()), 2).state_dict()
    (ours, averages), (lr, rate) = saved.items()
    changes = {
        "of another shape: bias": lambda: averages.update({f"{ours}.bias_cache": jnp.ones(3)}),
        "of another dtype: bias": lambda: averages.update({f"{ours}.bias_cache": np.ones(1)}),
        "negative": lambda: averages.update({f"{ours}.bias_cache": -jnp.ones(1)}),
        "missing: bias": lambda: [averages.pop(f"{ours}.bias_{it}") for it in ("cache", "delta")],
        "not in this optimizer: w": lambda: averages.update(
            {f"{ours}.w_{it}": jnp.ones(1) for it in ("cache", "delta")}
        ),
        "one adadelta.brainpy.Adadelta and of its scheduler, and has 0": lambda: saved.pop(ours),
        "and has 2 and 1": lambda: saved.update(other=renamed(averages)),
        "and has 1 and 2": lambda: saved.update(other=renamed(rate)),
        "not in this optimizer: Net0": lambda: saved.update(Net0={"Net0.w": jnp.ones(1)}),
        "and has 0 and 1": lambda: averages.pop(f"{ours}.step"),
        "`lr` must be a finite number": lambda: rate.update({f"{lr}.lr": jnp.asarray(-1.0)}),
    }
    changes[change]()
    return saved


@pytest.mark.parametrize(
    "text",
    [
        "of another shape: bias",
        "of another dtype: bias",
        "negative",
        "missing: bias",
        "not in this optimizer: w",
        "one adadelta.brainpy.Adadelta and of its scheduler, and has 0",
        "and has 2 and 1",
        "and has 1 and 2",
        "not in this optimizer: Net0",
        "and has 0 and 1",
        "`lr` must be a finite number",
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(text):
    optimizer = trained(Ours(0.25, named()), 1)
    before = adadelta.export_state(optimizer)
    with pytest.raises(StateMismatchError, match=text):
        optimizer.load_state_dict(broken(text))
    assert adadelta.export_state(optimizer) == before


@pytest.mark.parametrize("saved", [None, 3, [1], {1: 2}, {}])
def test_what_is_no_state_dict(saved):
    optimizer = trained(Ours(0.25, named()), 1)
    before = adadelta.export_state(optimizer)
    with pytest.raises((TypeError, StateMismatchError), match=r"`state_dict` must be|it must have"):
        optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match="`compatible` must be"):
        optimizer.load_state_dict(optimizer.state_dict(), compatible="v3")
    assert adadelta.export_state(optimizer) == before


class Network(brainpy.BrainPyObject):
    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer


def test_an_optimizer_in_a_model_is_loaded_with_it():
    network = Network(trained(Ours(0.5, named()), 3))
    before = adadelta.export_state(network.optimizer)
    saved = network.state_dict()
    trained(network.optimizer, 2)
    assert network.load_state_dict(saved) == ([], [])
    assert adadelta.export_state(network.optimizer) == before
    # The part of the state that belongs to another optimizer, loaded alone.
    other = Ours(0.5, named())
    assert other.load_state(network.optimizer.save_state()) == ([], [])
    assert adadelta.export_state(other) == before


def test_a_model_takes_its_weights_where_the_optimizer_does_not_fit():
    network = Network(trained(Ours(0.5, named()), 3))
    before, saved = adadelta.export_state(network.optimizer), network.state_dict()
    name = network.optimizer.name
    saved[name] = {**saved[name], f"{name}.bias_cache": jnp.ones(3)}
    with pytest.warns(adadelta.StateWarning, match="of another shape: bias"):
        network.load_state_dict(saved)
    saved[name][f"{name}.bias_cache"] = jnp.ones(1, int)
    with pytest.warns(adadelta.StateWarning, match="must be float32 or float64"):
        network.load_state_dict(saved)
    assert adadelta.export_state(network.optimizer) == before
    del saved[name]
    with pytest.warns(UserWarning, match="Missing keys in state_dict"):
        missing = network.load_state_dict(saved).missing_keys
    assert len(missing) == 5 and adadelta.export_state(network.optimizer) == before


def test_what_is_exported():
    optimizer = trained(Ours(0.1, named(), weight_decay=0.01), 3)
    state = adadelta.export_state(optimizer)
    assert list(state.parameters) == ["kernel", "bias"] and state.step == state.update == 3
    assert state.hyperparameters == {
        "learning_rate": 0.1,
        "rho": 0.95,
        "epsilon": 1e-6,
        "weight_decay": 0.01,
    }
    kernel = state.parameters["kernel"]
    np.testing.assert_array_equal(
        kernel["square_avg"], optimizer.implicit_vars["kernel_cache"].value
    )
    before = kernel["square_avg"].copy()
    trained(optimizer, 1)
    np.testing.assert_array_equal(kernel["square_avg"], before)


def test_the_rate_comes_along_when_both_are_numbers():
    optimizer = trained(Ours(1.0, named()), 2)
    optimizer.lr.set_value(0.25)
    state = adadelta.export_state(optimizer)
    other = Ours(1.0, named())
    adadelta.import_state(other, state)
    assert float(other.lr()) == 0.25
    shared = Ours(bm.Variable(jnp.ones(1)), named())
    adadelta.import_state(shared, state)
    assert float(shared.lr()) == 0.25
    scheduled = Ours(brainpy.optim.StepLR(0.5, 2), named())
    adadelta.import_state(scheduled, state)
    assert float(scheduled.lr.lr) == 0.5


def test_names_may_differ_in_the_numbers_that_brainpy_gives():
    def network(first):
        return {
            f"Dense{first}.W": variable([1.0]),
            f"Dense{first}.b": variable([2.0]),
            f"Dense{first + 1}.W": variable([3.0]),
        }

    optimizer = trained(Ours(train_vars=network(0)), 2)
    other = Ours(train_vars=network(4))
    adadelta.import_state(other, adadelta.export_state(optimizer))
    np.testing.assert_array_equal(
        other.implicit_vars["Dense5.W_cache"].value, optimizer.implicit_vars["Dense1.W_cache"].value
    )
    # Names chosen by the user are never mistaken for numbered ones.
    mine = trained(Ours(train_vars={"w1": variable([1.0]), "w2": variable([2.0])}), 1)
    yours = Ours(train_vars={"w2": variable([1.0]), "w3": variable([2.0])})
    with pytest.raises(StateMismatchError, match="missing: w3; not in this optimizer: w1"):
        adadelta.import_state(yours, adadelta.export_state(mine))


def test_the_state_goes_to_keras_and_comes_back():
    keras = pytest.importorskip("keras")
    x = variable([1.0, -2.0])
    optimizer = trained(Ours(1.0, {"x": x}, epsilon=1e-7), 3)
    keras_x = keras.Variable(np.asarray(x.value), name="x")
    core = adadelta.Adadelta(1.0)
    core.build([keras_x])
    adadelta.import_state(core, adadelta.export_state(optimizer))
    gradient = np.array([0.5, -0.5], "float32")
    core.apply([keras.ops.convert_to_tensor(gradient)], [keras_x])
    optimizer.update({"x": gradient})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras_x), x.value, rtol=1e-6)
    back = Ours(1.0, {"x": variable(x.value)}, epsilon=1e-7)
    adadelta.import_state(back, adadelta.export_state(core))
    assert int(back.step.value) == 4
    np.testing.assert_allclose(
        back.implicit_vars["x_delta"].value, optimizer.implicit_vars["x_delta"].value, rtol=1e-6
    )


def changed(**values):
    state = adadelta.export_state(trained(Ours(train_vars=named()), 2))
    for name, value in values.items():
        setattr(state, name, value)
    return state


def with_array(slot, array):
    state = changed()
    state.parameters["bias"][slot] = array
    return state


MISFITS = {
    "missing: kernel, bias; not in this optimizer: w": lambda: changed(
        parameters={"w": changed().parameters["bias"]}
    ),
    "of another shape: bias": lambda: with_array("acc_delta", np.zeros(4, "float32")),
    "of another dtype: bias": lambda: with_array("square_avg", np.zeros(1)),
    "negative": lambda: with_array("square_avg", -np.ones(1, "float32")),
    "it has average": lambda: with_array("average", np.ones(1, "float32")),
    "it has a window of 1 calls open": lambda: changed(window=1),
    "it has 1 updates in 2 calls": lambda: changed(update=1),
    "it has a dynamic loss scale": lambda: changed(loss_scale=2.0),
    "counts up to": lambda: changed(step=2**40, update=2**40),
    "`lr` must be a finite number of at least 0": lambda: changed(
        hyperparameters={"learning_rate": -1.0}
    ),
}


@pytest.mark.parametrize("text", MISFITS)
def test_what_does_not_fit_is_refused_and_changes_nothing(text):
    optimizer = trained(Ours(train_vars=named()), 1)
    before = adadelta.export_state(optimizer)
    with pytest.raises(StateMismatchError, match=text):
        adadelta.import_state(optimizer, MISFITS[text]())
    assert adadelta.export_state(optimizer) == before


def test_a_damaged_file_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "states.safetensors"
    trained(Ours(train_vars=named()), 2).save_states(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    optimizer = trained(Ours(train_vars=named()), 1)
    before = adadelta.export_state(optimizer)
    with pytest.raises(StateFileError, match="is damaged"):
        optimizer.load_states(path)
    with pytest.raises(FileNotFoundError):
        optimizer.load_states(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="`path` must be the name of a file"):
        optimizer.save_states(3)
    assert adadelta.export_state(optimizer) == before
