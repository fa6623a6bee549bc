"""BrainPy's tests of its own optimizers, applied to ours: alone, in networks, and in training."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brainpy")
from brainpy_tools import MODES, Ours, Theirs, bm, brainpy, needs_compiling, stepper, variable
from jax_tools import assert_close


def trained(optimizer, variables, steps=5):
    for _ in range(steps):
        optimizer.update({name: bm.as_jax(it.value) for name, it in variables.items()})
    return {name: np.asarray(bm.as_jax(it.value)) for name, it in variables.items()}


def test_it_is_an_optimizer():
    optimizer = Ours(train_vars={"w": variable(2.0)})
    assert isinstance(optimizer, brainpy.optim.Optimizer)
    assert isinstance(optimizer.lr, brainpy.optim.Constant)
    assert float(optimizer.lr()) == 1.0
    assert "rho=0.95" in repr(optimizer) and "epsilon=1e-06" in repr(optimizer)


@pytest.mark.parametrize("decay", [None, 0.02])
def test_it_goes_towards_the_minimum(decay):
    w = variable(2.0)
    out = trained(Ours(lr=1.0, train_vars={"w": w}, weight_decay=decay), {"w": w})
    assert np.isfinite(out["w"]) and 0 < out["w"] < 2


def test_the_rate_scales_the_step():
    steps = []
    for rate in (1.0, 0.1):
        w = variable(0.0)
        Ours(lr=rate, train_vars={"w": w}).update({"w": np.asarray(1.0, "float32")})
        steps.append(abs(float(w.value)))
    assert steps[0] > 0 and np.isclose(steps[1], 0.1 * steps[0], rtol=1e-4)


def test_variables_must_be_in_a_dict():
    with pytest.raises(brainpy.errors.MathError, match="`train_vars` must be a dict of variables"):
        Ours(train_vars=[variable(1.0)])


def test_the_number_of_gradients_is_checked():
    optimizer = Ours(train_vars={"w": variable(1.0)})
    with pytest.raises(brainpy.errors.MathError):
        optimizer.update({})
    with pytest.raises(brainpy.errors.MathError):
        optimizer.check_grads({})


def test_the_old_name_of_register_train_vars_warns():
    optimizer = Ours()
    with pytest.warns(UserWarning):
        optimizer.register_vars({"w": variable(1.0)})
    assert list(optimizer.vars_to_train) == ["w"]


def test_a_scheduler_that_counts_calls():
    w = variable(2.0)
    schedule = brainpy.optim.ExponentialDecayLR(lr=0.1, decay_steps=1, decay_rate=0.99)
    trained(Ours(lr=schedule, train_vars={"w": w}), {"w": w})
    assert int(schedule.last_call.value) == 4 and float(w.value) < 2


def test_what_brainpy_asks_of_every_object():
    bm.clear_name_cache()
    optimizer, theirs = Ours(train_vars={"w": variable(1.0)}), Theirs(name="other")
    theirs.register_train_vars({"w": variable(1.0)})
    assert optimizer.name == "Adadelta0"
    assert optimizer.unique_name() == "Adadelta1"
    assert optimizer.unique_name(type_="sgd") == "sgd0"
    assert list(optimizer.nodes()) == ["Adadelta0", optimizer.lr.name]
    assert len(optimizer.train_vars()) == len(theirs.train_vars()) == 0
    # The variables of BrainPy's own optimizer, plus the number of steps and the learning rate.
    relative = set(optimizer.vars(method="relative"))
    assert relative == set(theirs.vars(method="relative")) | {"step", "lr.lr"}
    assert {"Adadelta0.w_cache", "Adadelta0.w_delta"} <= set(optimizer.vars())
    assert Ours(name="mine").name == "mine"
    with pytest.raises(brainpy.errors.UniqueNameError):
        keep = Ours(name="mine_too")
        Ours(name=keep.name)


def test_the_state_dict_goes_out_and_comes_back():
    first = variable([1.0, 2.0])
    optimizer = Ours(train_vars={"w": first})
    trained(optimizer, {"w": first}, 3)
    saved = optimizer.save_state()
    w = variable(first.value)
    other = Ours(train_vars={"w": w})
    renamed = {key.replace(optimizer.name, other.name): it for key, it in saved.items()}
    missing, unexpected = other.load_state(renamed)
    assert not missing and not unexpected
    for one in (optimizer, other):
        one.update({"w": jnp.ones(2)})
    np.testing.assert_array_equal(first.value, w.value)


@pytest.mark.parametrize("mode", MODES)
def test_halves_and_gradients_of_brainpys_arrays(mode):
    w = variable([1.0, -1.0], "bfloat16")
    optimizer = Ours(train_vars={"w": w})
    step = stepper(optimizer, mode)
    step({"w": bm.asarray([1.0, 2.0])})
    assert w.dtype == jnp.bfloat16 and float(w.value[0]) < 1


@needs_compiling
def test_the_steps_of_a_for_loop_are_those_of_eager_calls():
    runs = []
    for loop in (True, False):
        w = variable([3.0, -2.0])
        optimizer = Ours(train_vars={"w": w}, weight_decay=0.01)
        gradient = bm.grad(lambda w=w: bm.sum(w.value**2), grad_vars={"w": w}, return_value=True)

        def step(_, optimizer=optimizer, gradient=gradient):
            grads, loss = gradient()
            optimizer.update(grads)
            return loss

        if loop:
            losses = bm.for_loop(step, jnp.arange(20))
            assert losses.shape == (20,) and losses[-1] < losses[0]
        else:
            for index in range(20):
                step(index)
        assert int(optimizer.step.value) == 20
        runs.append(np.asarray(w.value))
    assert_close(runs[0], runs[1], 1e-6)


class Classifier(brainpy.DynamicalSystem):
    def __init__(self):
        super().__init__(mode=bm.training_mode)
        self.cell = brainpy.dyn.RNNCell(3, 8, train_state=True, mode=bm.training_mode)
        self.out = brainpy.dnn.Dense(8, 1, mode=bm.training_mode)

    def update(self, x):
        return self.out(self.cell(x))


@needs_compiling
def test_training_with_bptt():
    bm.random.seed(1)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(16, 10, 3)).astype("float32")
    targets = np.cumsum(inputs.sum(axis=-1, keepdims=True), axis=1) / 5
    network = Classifier()
    schedule = brainpy.optim.ExponentialLR(2.0, 0.99)
    optimizer = Ours(lr=schedule, epsilon=1e-4)

    def loss(predicted, wanted):
        return brainpy.losses.mean_squared_error(predicted, wanted)

    trainer = brainpy.BPTT(network, loss_fun=loss, optimizer=optimizer, progress_bar=False)
    trainer.fit(lambda: iter([(inputs, targets)] * 5), num_epoch=40)
    losses = trainer.get_hist_metric(phase="fit")
    assert losses[-1] < 0.5 * losses[0]
    assert int(optimizer.step.value) == 200 and int(schedule.last_epoch.value) == 39
    trainer.fit(lambda: iter([(inputs, targets)] * 5), num_epoch=1)
    assert int(optimizer.step.value) == 205
