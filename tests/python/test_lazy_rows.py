"""A step of a sparse gradient leaves the other rows' averages behind; nobody can see that.

They catch up when they are used, read, saved, loaded or changed.
"""

import copy

import keras
import numpy as np
import pytest

import adadelta
from adadelta._core import rule
from driver import BACKEND, MODES, Driver, numpy, sparse, tensor

pytestmark = pytest.mark.skipif(
    BACKEND == "jax", reason="on this backend gradients of rows become dense"
)

ROWS, WIDTH = 40, 3
ARGUMENTS = {"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-6}


class Dense:
    """The steps of dense gradients, in NumPy."""

    def __init__(self, values):
        self.values = np.array(values)
        self.square_avg, self.acc_delta = np.zeros_like(self.values), np.zeros_like(self.values)

    def call(self, gradient):
        given = ARGUMENTS["rho"], ARGUMENTS["epsilon"], np.sqrt
        step, *averages = rule.update(
            gradient.astype(self.values.dtype), self.square_avg, self.acc_delta, *given
        )
        self.square_avg, self.acc_delta = averages
        self.values = self.values - ARGUMENTS["learning_rate"] * step

    @property
    def averages(self):
        return [self.square_avg, self.acc_delta]


class Pair:
    """An optimizer that gets gradients of some rows, and the steps of dense ones."""

    def __init__(self, mode="eager", dtype="float64", seed=0, **arguments):
        self.random, self.dtype = np.random.default_rng(seed), dtype
        start = self.random.normal(size=(ROWS, WIDTH)).astype(dtype)
        self.dense = Dense(start)
        self.variable = keras.Variable(start, dtype=dtype, name="table")
        self.optimizer = adadelta.Adadelta(**ARGUMENTS | arguments)
        self.run = Driver(self.optimizer, [self.variable], mode)

    def call(self, indices):
        values = self.random.normal(size=(len(indices), WIDTH)).astype(self.dtype)
        whole = np.zeros((ROWS, WIDTH), self.dtype)
        np.add.at(whole, indices, values)
        self.dense.call(whole)
        shape = (ROWS, WIDTH)
        self.run.call([sparse(tensor(indices, "int32"), tensor(values, self.dtype), shape)])

    def call_some(self, count):
        """Make calls with 6 rows each, of which some repeat and most are from a few."""
        for _ in range(count):
            self.call(self.random.zipf(1.5, size=6) % ROWS)

    def call_dense(self):
        whole = self.random.normal(size=(ROWS, WIDTH)).astype(self.dtype)
        self.dense.call(whole)
        self.run.call([whole])

    def check(self, tolerance=1e-12):
        """Compare variables, then averages, to those of dense steps."""
        found = [numpy(variable) for variable in averages_of(self.optimizer)]
        self.check_averages(found, tolerance)
        # A weight near 0 has lost digits in the steps that led there.
        np.testing.assert_allclose(
            numpy(self.variable), self.dense.values, rtol=tolerance, atol=tolerance
        )

    def check_averages(self, found, tolerance=1e-12):
        for mine, expected in zip(found, self.dense.averages, strict=True):
            close(mine, expected, tolerance)


def close(found, expected, tolerance):
    # The averages of rows that were not touched for long are small; zeros must be zeros.
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-300)


def averages_of(optimizer):
    return [variable for variable in optimizer.variables if len(variable.shape) == 2]


def is_behind(optimizer):
    """Whether the test tests something: the averages themselves are not those of dense steps."""
    average = optimizer._accumulated_grads[0]
    before = numpy(average)
    assert optimizer.variables
    return not np.array_equal(before, numpy(average))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_as_dense_steps(mode):
    pair = Pair(mode)
    for calls in range(40):
        pair.call_some(25)
        if calls % 10 == 3:
            pair.call_dense()
        if calls % 10 == 7:
            pair.check()
    pair.check()


@pytest.mark.parametrize("mode", MODES)
def test_float32_differs_by_the_rounding_of_dense_steps(mode):
    pair = Pair(mode, "float32")
    pair.call_some(200)
    # Each of 200 dense steps rounds an average by at most half of a unit in the last place, which
    # is up to 1.2e-7 of it; 4e-7 was seen.
    pair.check(tolerance=200 / 2 * 1.2e-7)


@pytest.mark.parametrize("mode", MODES)
def test_an_average_that_overflowed_elsewhere_stays_infinite(mode, monkeypatch):
    monkeypatch.setitem(ARGUMENTS, "rho", 0.3)
    pair = Pair(mode, "float32")
    pair.call([0, 1])
    pair.dense.square_avg[1] = np.inf
    averages_of(pair.optimizer)[0].assign(tensor(pair.dense.square_avg, "float32"))
    # 0.3 ** 100 is too small for float32 and becomes 0, and infinity times 0 would be NaN.
    for _ in range(100):
        pair.call([0])
    pair.call([1])
    pair.check(tolerance=1e-5)
    assert np.isfinite(numpy(pair.variable)).all()


def store_of(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return [store[name] for name in ("table|square_avg", "table|acc_delta")]


def checkpoint_of(optimizer, tmp_path):
    import tensorflow as tf

    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    names = [name for name, shape in tf.train.list_variables(path) if len(shape) == 2]
    averages = [name for name in names if "/_variables/" in name]
    return [tf.train.load_variable(path, name) for name in sorted(averages)]


READERS = {
    "variables": lambda optimizer, _: [numpy(each) for each in averages_of(optimizer)],
    "get_weights": lambda optimizer, _: [each for each in optimizer.get_weights() if each.ndim],
    "export_state": lambda optimizer, _: [
        adadelta.export_state(optimizer).parameters["table"][slot]
        for slot in ("square_avg", "acc_delta")
    ],
    "save_own_variables": lambda optimizer, _: store_of(optimizer),
    "deepcopy": lambda optimizer, _: store_of(copy.deepcopy(optimizer)),
    **({"checkpoint": checkpoint_of} if BACKEND == "tensorflow" else {}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_the_state_finds_that_of_dense_steps(reader, mode, tmp_path):
    # Checkpoints of a Keras optimizer for float64 variables do not work in TensorFlow.
    dtype, tolerance = ("float32", 6e-6) if reader == "checkpoint" else ("float64", 1e-12)
    pair = Pair(mode, dtype)
    pair.call_some(9)
    pair.check_averages(READERS[reader](pair.optimizer, tmp_path), tolerance)
    # And nothing catches up twice.
    pair.check_averages(READERS[reader](pair.optimizer, tmp_path), tolerance)
    pair.call_some(9)
    pair.check(tolerance)


def test_rows_are_behind_between_reads():
    """Without this, the tests above would test nothing."""
    pair = Pair()
    pair.call_some(9)
    assert is_behind(pair.optimizer)
    assert not is_behind(pair.optimizer)


def test_summary_shows_the_averages_of_dense_steps():
    pair = Pair()
    pair.call_some(9)
    found = pair.optimizer.summary()
    assert not is_behind(pair.optimizer)
    assert repr(found) == repr(pair.optimizer.summary())


@pytest.mark.parametrize("mode", MODES)
def test_what_is_loaded_stays_as_it_is(mode, tmp_path):
    pair, other = Pair(mode, "float32"), Pair(mode, "float32", seed=1)
    other.call_some(5)
    averages = [numpy(each) for each in averages_of(other.optimizer)]
    state, weights = adadelta.export_state(other.optimizer), other.optimizer.get_weights()
    store = {}
    other.optimizer.save_own_variables(store)
    loaders = [
        lambda: adadelta.import_state(pair.optimizer, state),
        lambda: pair.optimizer.set_weights(weights),
        lambda: pair.optimizer.load_own_variables(store),
    ]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        path = tf.train.Checkpoint(optimizer=other.optimizer).write(str(tmp_path / "checkpoint"))
        loaders.append(lambda: tf.train.Checkpoint(optimizer=pair.optimizer).read(path))
    for load in loaders:
        pair.call_some(9)
        load()
        for mine, expected in zip(averages_of(pair.optimizer), averages, strict=True):
            np.testing.assert_array_equal(numpy(mine), expected)


def test_the_state_is_that_of_dense_steps_and_of_keras():
    pair = Pair()
    pair.call_some(9)
    hosts = keras.optimizers.Adadelta(**ARGUMENTS)
    hosts.build([pair.variable])
    expected = [(each.name, each.shape) for each in hosts.variables]
    assert [(each.name, each.shape) for each in pair.optimizer.variables] == expected
    for mine, theirs in zip(pair.optimizer.variables, hosts.variables, strict=True):
        theirs.assign(mine)
    pair.check_averages([numpy(each) for each in averages_of(hosts)])


@pytest.mark.parametrize("first", ["dense", "sparse"])
@pytest.mark.parametrize("mode", MODES)
def test_dense_gradients_in_between(mode, first):
    """A compiled step of dense gradients may have been traced before any row was behind."""
    pair = Pair(mode)
    by_kind = {
        "dense": Driver(pair.optimizer, [pair.variable], mode),
        "sparse": Driver(pair.optimizer, [pair.variable], mode),
    }
    kinds = ["sparse", "sparse", "dense", "sparse", "dense", "dense", "sparse"]
    for kind in [first, *kinds]:
        pair.run = by_kind[kind]
        pair.call_dense() if kind == "dense" else pair.call_some(3)
    pair.check()


def test_steps_of_several_functions_and_eager_ones():
    pair = Pair()
    drivers = [Driver(pair.optimizer, [pair.variable], mode) for mode in MODES]
    for driver in drivers * 3:
        pair.run = driver
        pair.call_some(3)
    pair.check()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="functions of TensorFlow")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_function_reads_and_sets_the_state_of_now(mode, first):
    import tensorflow as tf

    pair = Pair(mode)
    pair.optimizer.build([pair.variable])

    @tf.function
    def read():
        return [tf.identity(each.value) for each in averages_of(pair.optimizer)]

    @tf.function
    def reset():
        for each in averages_of(pair.optimizer):
            each.assign(tf.ones_like(each.value))

    if first:
        read()
    for _ in range(3):
        pair.call_some(5)
        pair.check_averages([numpy(each) for each in read()])
        pair.call_some(5)
        reset()
        pair.dense.square_avg = pair.dense.acc_delta = np.ones((ROWS, WIDTH))
        pair.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_skipped_step_is_none_that_rows_miss(mode):
    pair = Pair(mode, skip_nonfinite=True)
    shape = (ROWS, WIDTH)
    for _ in range(5):
        pair.call_some(2)
        values = np.full((2, WIDTH), np.nan)
        pair.run.call([sparse(tensor([0, 5], "int32"), tensor(values, "float64"), shape)])
    pair.check()
    assert pair.optimizer.skipped == 5


@pytest.mark.parametrize("mode", MODES)
def test_clipping_counts_repeated_rows_once(mode):
    one, other = (Pair(mode, clipnorm=0.5) for _ in range(2))
    for indices in ([0, 0, 3, 3], [3, 0, 3, 9], [5, 5, 5, 5], [0, 1, 2, 3]):
        values = one.random.normal(size=(4, WIDTH))
        whole = np.zeros((ROWS, WIDTH))
        np.add.at(whole, indices, values)
        given = sparse(tensor(indices, "int32"), tensor(values, "float64"), (ROWS, WIDTH))
        one.run.call([given])
        other.run.call([whole])
    close(numpy(one.variable), numpy(other.variable), 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_rows_without_any(mode):
    pair = Pair(mode)
    pair.call_some(2)
    pair.call(np.zeros(0, int))
    pair.call_some(2)
    pair.check()


@pytest.mark.parametrize("mode", [mode for mode in ("eager", "function") if mode in MODES])
@pytest.mark.parametrize("wrong", [-1, ROWS])
def test_a_row_that_the_variable_lacks_changes_nothing(wrong, mode):
    pair = Pair(mode)
    first = keras.Variable(np.ones((ROWS, WIDTH)), dtype="float64", name="first")
    optimizer = adadelta.Adadelta(**ARGUMENTS)
    run = Driver(optimizer, [first, pair.variable], mode)
    shape, values = (ROWS, WIDTH), tensor(np.ones((2, WIDTH)), "float64")
    good, bad = (sparse(tensor([1, row], "int32"), values, shape) for row in (2, wrong))
    run.call([good, good])
    before = [numpy(each) for each in (first, pair.variable)]
    before += [numpy(each) for each in averages_of(optimizer)]
    error: type[Exception] = ValueError
    words = rf"the gradient for .* must be from 0 to {ROWS - 1}; received {wrong}"
    if mode == "function":
        import tensorflow as tf

        error, words = tf.errors.InvalidArgumentError, "rows of the gradient"
    with pytest.raises(error, match=words):
        run.call([good, bad])
    after = [numpy(each) for each in (first, pair.variable)]
    after += [numpy(each) for each in averages_of(optimizer)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA compiles for TensorFlow")
@pytest.mark.parametrize("wrong", [-1, ROWS, ROWS + 5])
def test_xla_leaves_out_a_row_that_the_variable_lacks(wrong):
    pair, values = Pair("xla"), np.arange(1.0, 10.0).reshape(3, WIDTH)
    for _ in range(3):
        pair.call([2, 5])
        whole = np.zeros((ROWS, WIDTH))
        whole[[2, 5]] = values[::2]
        pair.dense.call(whole)
        rows = tensor([2, wrong, 5], "int32")
        pair.run.call([sparse(rows, tensor(values, "float64"), (ROWS, WIDTH))])
    pair.check()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="torch checks this itself")
@pytest.mark.parametrize(
    ("rows", "error"), [([1, 2, 3], ValueError), (np.array([1.0, 2.0]), TypeError)]
)
def test_rows_that_do_not_fit_their_values_change_nothing(rows, error):
    pair = Pair()
    first = keras.Variable(np.ones((ROWS, WIDTH)), dtype="float64", name="first")
    optimizer = adadelta.Adadelta(**ARGUMENTS)
    run = Driver(optimizer, [first, pair.variable])
    values = tensor(np.ones((2, WIDTH)), "float64")
    good = sparse(tensor([1, 2], "int32"), values, (ROWS, WIDTH))
    bad = sparse(tensor(rows, np.asarray(rows).dtype), values, (ROWS, WIDTH))
    run.call([good, good])
    before = [numpy(each) for each in (first, pair.variable, *optimizer.variables)]
    with pytest.raises(error, match="gradient for table must"):
        run.call([good, bad])
    for old, new in zip(before, (first, pair.variable, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(old, numpy(new))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_other_dtypes(dtype):
    variables = [keras.Variable(np.ones((ROWS, WIDTH)), dtype=dtype) for _ in range(2)]
    optimizers = [adadelta.Adadelta(**ARGUMENTS) for _ in range(2)]
    random = np.random.default_rng(3)
    for _ in range(9):
        indices = random.integers(0, ROWS, 5)
        values = np.round(random.normal(size=(5, WIDTH)) * 4) / 4
        whole = np.zeros((ROWS, WIDTH))
        np.add.at(whole, indices, values)
        rows = sparse(tensor(indices, "int32"), tensor(values, dtype), (ROWS, WIDTH))
        for optimizer, variable, gradient in zip(
            optimizers, variables, (rows, tensor(whole, dtype)), strict=True
        ):
            optimizer.apply([gradient], [variable])
    states = [
        [numpy(keras.ops.cast(each, "float32")) for each in optimizer.variables[2:]]
        for optimizer in optimizers
    ]
    for mine, expected in zip(*states, strict=True):
        # As above, for 9 steps.
        np.testing.assert_allclose(mine, expected, rtol=2e-6, atol=1e-30)
    mine, expected = (numpy(keras.ops.cast(each, "complex64")) for each in variables)
    # A half-precision weight is rounded once in each step, from almost the same float32 number.
    np.testing.assert_allclose(mine, expected, rtol=1e-6 if dtype == "complex64" else 2**-7)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"weight_decay": 0.1}, "weight decay"),
        ({"use_ema": True}, "moving average"),
        ({"gradient_accumulation_steps": 2}, "accumulation"),
    ],
)
def test_kernel_info_says_what_needs_all_rows(arguments, word):
    pair = Pair(**arguments)
    pair.call_some(2)
    reason = adadelta.kernel_info(pair.optimizer)[0]["reason"]
    assert reason.startswith("a sparse gradient updates all rows:") and word in reason
    assert not is_behind(pair.optimizer)
    assert adadelta.kernel_info(Pair().optimizer) == []


def test_kernel_info_says_it_for_the_variables_of_each_step():
    variables = [keras.Variable(np.ones((ROWS, WIDTH), "float32")) for _ in range(2)]
    optimizer = adadelta.Adadelta(**ARGUMENTS, weight_decay=0.1)
    optimizer.build(variables)
    values = tensor(np.ones((1, WIDTH)), "float32")
    for variable in variables:
        gradient = sparse(tensor([1], "int32"), values, (ROWS, WIDTH))
        optimizer.apply([gradient], [variable])
    reasons = [row["reason"] for row in adadelta.kernel_info(optimizer)]
    assert reasons[0] == reasons[1] and "weight decay" in reasons[0]


def test_what_a_step_adds_is_not_part_of_the_optimizer():
    pair = Pair()
    pair.call_some(3)
    names = [each.name for each in pair.optimizer.variables]
    expected = ["iteration", "learning_rate", "table_accumulated_grad"]
    assert names == [*expected, "table_accumulated_delta_var"]
