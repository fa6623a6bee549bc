"""A step of a sparse gradient leaves the other rows' averages behind; nobody can see that."""

import copy

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import adadelta
import adadelta.tf1
import adadelta.tf_keras
from adadelta._core import rule

SHAPE = (20, 3)
MODES = ["eager", "function", "xla"]


class Pair:
    """An optimizer that gets gradients of some rows, and in NumPy the steps of dense ones."""

    def __init__(self, mode="eager", **arguments):
        self.random = np.random.default_rng(5)
        self.values, self.averages = self.random.normal(size=SHAPE), [np.zeros(SHAPE)] * 2
        self.variable = tf.Variable(self.values, name="table")
        self.optimizer = adadelta.tf_keras.Adadelta(0.5, rho=0.9, epsilon=1e-6, **arguments)
        self.step = self.apply
        if mode != "eager":
            self.optimizer.build([self.variable])
            self.step = tf.function(self.apply, jit_compile=mode == "xla")

    def apply(self, indices, values):
        gradient = tf.IndexedSlices(values, indices, SHAPE)
        self.optimizer.apply_gradients([(gradient, self.variable)])

    def call_some(self, count):
        for _ in range(count):
            indices = self.random.zipf(1.5, size=4) % SHAPE[0]
            values = self.random.normal(size=(4, SHAPE[1]))
            whole = np.zeros(SHAPE)
            np.add.at(whole, indices, values)
            taken, *self.averages = rule.update(whole, *self.averages, 0.9, 1e-6, np.sqrt)
            self.values = self.values - 0.5 * taken
            self.step(tf.constant(indices, tf.int32), tf.constant(values))

    def check(self):
        self.check_averages(READERS["variables"](self.optimizer, None))
        np.testing.assert_allclose(self.variable.numpy(), self.values, rtol=1e-12, atol=1e-12)

    def check_averages(self, found):
        for mine, expected in zip(found, self.averages, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-12)


def stored(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return [store[name] for name in ("table|square_avg", "table|acc_delta")]


def checkpointed(optimizer, tmp_path):
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    names = [name for name, shape in tf.train.list_variables(path) if len(shape) == 2]
    return [tf.train.load_variable(path, name) for name in sorted(names) if "/_variables/" in name]


READERS = {
    "variables": lambda optimizer, _: [
        each.numpy() for each in optimizer.variables if each.shape.rank
    ],
    "get_weights": lambda optimizer, _: [each for each in optimizer.get_weights() if each.ndim],
    "export_state": lambda optimizer, _: [
        adadelta.export_state(optimizer).parameters["table"][slot]
        for slot in ("square_avg", "acc_delta")
    ],
    "save_own_variables": lambda optimizer, _: stored(optimizer),
    "deepcopy": lambda optimizer, _: stored(copy.deepcopy(optimizer)),
    "checkpoint": checkpointed,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_the_state_finds_that_of_dense_steps(reader, mode, tmp_path):
    pair = Pair(mode)
    pair.call_some(9)
    average = pair.optimizer._accumulated_grads[0]
    assert not np.allclose(average.numpy(), pair.averages[0]), "nothing is behind"
    pair.check_averages(READERS[reader](pair.optimizer, tmp_path))
    pair.check_averages(READERS[reader](pair.optimizer, tmp_path))
    pair.call_some(9)
    pair.check()


@pytest.mark.parametrize("mode", MODES)
def test_what_is_loaded_stays_as_it_is(mode, tmp_path):
    pair = Pair(mode)
    pair.call_some(5)
    expected = READERS["get_weights"](pair.optimizer, None)
    state, weights = adadelta.export_state(pair.optimizer), pair.optimizer.get_weights()
    checkpoint = tf.train.Checkpoint(optimizer=pair.optimizer)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    for load in (
        lambda: adadelta.import_state(pair.optimizer, state),
        lambda: pair.optimizer.set_weights(weights),
        lambda: checkpoint.read(path),
    ):
        pair.call_some(9)
        load()
        for mine, value in zip(READERS["variables"](pair.optimizer, None), expected, strict=True):
            np.testing.assert_array_equal(mine, value)


def test_steps_with_other_options():
    """`update_step()` does not clip; here nothing is large enough to be clipped."""
    pair = Pair(clipvalue=100.0)

    def update(indices, values):
        gradient = tf.IndexedSlices(values, indices, SHAPE)
        pair.optimizer.update_step(gradient, pair.variable)

    for step in (pair.apply, update) * 3:
        pair.step = step
        pair.call_some(3)
    pair.check()


def test_the_state_is_loaded_by_the_hosts_own_class():
    pair = Pair()
    pair.call_some(9)
    hosts = tf_keras.optimizers.Adadelta()
    hosts.build([pair.variable])
    weights = [each for each in pair.optimizer.get_weights() if each.ndim]
    hosts.set_weights([hosts.iterations.numpy(), *weights])
    pair.check_averages([each.numpy() for each in hosts.variables if each.shape.rank])


def test_a_row_that_the_variable_lacks_changes_nothing():
    pair = Pair()
    pair.call_some(3)
    with pytest.raises(ValueError, match="for table must be from 0 to 19; received 20"):
        pair.step(tf.constant([1, 20]), tf.ones((2, 3), tf.float64))
    assert int(pair.optimizer.iterations) == 3
    pair.check()


def test_what_needs_all_rows_is_named():
    pair = Pair(weight_decay=0.1)
    pair.call_some(1)
    reason = adadelta.kernel_info(pair.optimizer)[0]["reason"]
    assert reason == "a sparse gradient updates all rows: weight decay needs all rows"


@pytest.mark.parametrize(
    "read",
    [
        lambda optimizer: [each.numpy() for each in optimizer.weights],
        lambda optimizer: optimizer.get_weights(),
        lambda optimizer: list(adadelta.export_state(optimizer).parameters["table"].values()),
    ],
)
def test_tf1(read):
    """In eager mode; in a graph with a session all averages decay in each step."""
    variable = tf.Variable(np.ones(SHAPE), name="table")
    optimizer = adadelta.tf1.Adadelta(lr=0.5, rho=0.9, epsilon=1e-6)
    averages = [np.zeros(SHAPE)] * 2
    for row in (0, 4, 4, 2, 0, 7):
        optimizer.get_updates(
            lambda row=row: tf.reduce_sum(tf.gather(variable, [row, row])), [variable]
        )
        whole = np.zeros(SHAPE)
        whole[row] = 2
        _, *averages = rule.update(whole, *averages, 0.9, 1e-6, np.sqrt)
    assert not np.allclose(optimizer._weights[0].numpy(), averages[0]), "nothing is behind"
    for mine, expected in zip(read(optimizer), averages, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-12)
