"""A step that TensorFlow refuses when a function runs changes no weight, average or counter."""

import keras
import numpy as np
import pytest

import adadelta

if keras.config.backend() != "tensorflow":
    pytest.skip("elsewhere a step is refused before it is made", allow_module_level=True)

import tensorflow as tf

ROWS, WIDTH = 40, 3
# Large enough for the kernel, which does not take the sparse gradient.
LARGE = 2**15
OPTIONS = {
    "nothing": {},
    "average": {"use_ema": True, "ema_overwrite_frequency": 1},
    "accumulation": {"gradient_accumulation_steps": 2},
    "skipping": {"skip_nonfinite": True},
    "dynamic loss scale": {"loss_scale_factor": "dynamic"},
    "clipping": {"global_clipnorm": 1.0},
}


def late(value):
    """Return the value after a long computation; what does not wait for it runs first."""
    matrix = tf.ones((400, 400)) / 400
    for _ in range(20):
        matrix = matrix @ matrix
    return value + tf.cast(matrix[0, 0] * 0, value.dtype)


@tf.custom_gradient
def failing(value, fails):
    def gradient(given):
        given = late(given)
        refusal = tf.debugging.Assert(tf.logical_not(fails), ["the gradient fails"])
        with tf.control_dependencies([refusal]):
            return tf.identity(given), None

    return tf.identity(value), gradient


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that can't be computed if `fails` is set."""

    def __init__(self):
        self.fails = tf.Variable(False)

    def __call__(self, step):
        refusal = tf.debugging.Assert(tf.logical_not(self.fails), ["the schedule fails"])
        with tf.control_dependencies([refusal]):
            return late(tf.constant(0.5))


class Run:
    """Steps of a table with sparse gradients and of a large variable with dense ones."""

    def __init__(self, compiled_by_xla=False, rate=0.5, **arguments):
        random = np.random.default_rng(4)
        self.variables = [
            keras.Variable(random.normal(size=shape), dtype="float32", name=name)
            for name, shape in (("table", (ROWS, WIDTH)), ("large", (LARGE,)))
        ]
        self.optimizer = adadelta.Adadelta(rate, **arguments)
        self.optimizer.build(self.variables)
        self.step = tf.function(self._step, jit_compile=compiled_by_xla)

    def _step(self, values, indices, dense, fails):
        with tf.GradientTape() as tape:
            large = self.variables[1]
            loss = tf.reduce_sum(failing(large.value + 0, fails) * dense)
        (gradient,) = tape.gradient(loss, [large.value])
        given = tf.IndexedSlices(values, late(indices), (ROWS, WIDTH))
        self.optimizer.apply([given, gradient + 0 * dense], self.variables)

    def call(self, values=(2, WIDTH), indices=(3, 5), dense=LARGE, fails=False):
        self.step(tf.ones(values), tf.constant(indices), tf.ones(dense), tf.constant(fails))

    def state(self):
        return [np.array(each) for each in (*self.variables, *self.optimizer.variables)]

    def is_refused(self, error, match, **given):
        before = self.state()
        with pytest.raises(error, match=match):
            self.call(**given)
        for old, new, variable in zip(
            before, self.state(), [*self.variables, *self.optimizer.variables], strict=True
        ):
            np.testing.assert_array_equal(old, new, err_msg=variable.path)


def check_goes_on(run, other):
    """Compare a run in which a step was refused with one that never had it."""
    for each in (run, other):
        each.call()
        each.call(indices=(5, 5))
    for mine, expected in zip(run.state(), other.state(), strict=True):
        np.testing.assert_array_equal(mine, expected)


REFUSED = {
    "row": ({"indices": (3, ROWS)}, "rows of the gradient for table must be from 0 to 39"),
    "gradient": ({"fails": True}, "the gradient fails"),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("refused", REFUSED)
def test_nothing_changes(refused, options):
    run, other = (Run(**OPTIONS[options]) for _ in range(2))
    given, match = REFUSED[refused]
    for each in (run, other):
        each.call()
    run.is_refused(tf.errors.InvalidArgumentError, match, **given)
    check_goes_on(run, other)


def test_nothing_changes_if_the_rate_fails():
    schedule = Schedule()
    run, other = Run(rate=schedule), Run(rate=Schedule())
    for each in (run, other):
        each.call()
    schedule.fails.assign(True)
    run.is_refused(tf.errors.InvalidArgumentError, "the schedule fails")
    schedule.fails.assign(False)
    check_goes_on(run, other)


class Shapes(Run):
    """The shapes of gradients are only known when the function runs."""

    def __init__(self, compiled_by_xla=False, **arguments):
        super().__init__(compiled_by_xla, **arguments)
        unknown = [None, None], [None], [None]
        kinds = tf.float32, tf.int32, tf.float32
        self.step = tf.function(
            self._step, [tf.TensorSpec(*each) for each in zip(unknown, kinds, strict=True)],
            jit_compile=compiled_by_xla,
        )  # fmt: skip

    def _step(self, values, indices, dense):
        given = tf.IndexedSlices(values, late(indices), (ROWS, WIDTH))
        self.optimizer.apply([given, late(dense)], self.variables)

    def call(self, values=(2, WIDTH), indices=(3, 5), dense=LARGE):
        self.step(tf.ones(values), tf.constant(indices), tf.ones(dense))


@pytest.mark.parametrize("options", ["nothing", "accumulation"])
@pytest.mark.parametrize("by_xla", [False, True])
@pytest.mark.parametrize(
    "given",
    [{"values": (3, WIDTH)}, {"values": (2, WIDTH + 1)}, {"values": (2, 1)}, {"dense": 1},
     {"dense": LARGE - 1}],
)  # fmt: skip
def test_a_shape_that_is_only_known_then(given, by_xla, options):
    run, other = (Shapes(by_xla, **OPTIONS[options]) for _ in range(2))
    for each in (run, other):
        each.call()
    run.is_refused((tf.errors.InvalidArgumentError, ValueError), None, **given)
    check_goes_on(run, other)
