"""Outside its traps, ours gives the numbers of TF 1.13's class as it lives on today.

TF 1.13 can't be installed beside this Python. Its class lives on in tf_keras as
`optimizer_v1.Adadelta`; `tf.compat.v1.train.AdadeltaOptimizer` has the same rule.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from programs import answer_of
from tf_keras.src.optimizers import optimizer_v1

import adadelta.tf1

OURS = adadelta.tf1.Adadelta
LEGACY = tf_keras.optimizers.legacy.Adadelta
V1 = tf.compat.v1
HERE = Path(__file__).resolve().parent
STEPS = 300
# Relative to the largest displacement. In float32 both round every operation by 6e-8, in different
# orders, and 300 steps add up. In float64 it is 1e-16.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
SHAPES = ((7,), (3, 4), (1,))


def in_a_graph(make_updates, dtype, constraint=None):
    """Return how far variables move in 300 runs of what `make_updates(loss, variables)` returns.

    It returns operations, or lists of operations, that are run one after the other.
    """
    generator = np.random.default_rng(1)
    with tf.Graph().as_default(), V1.Session() as session:
        starts = [generator.normal(size=shape) for shape in SHAPES]
        variables = [
            V1.Variable(start, dtype=dtype, use_resource=True, constraint=constraint)
            for start in starts
        ]
        given = [V1.placeholder(dtype, shape) for shape in SHAPES]
        pairs = zip(given, variables, strict=True)
        loss = tf.add_n([tf.reduce_sum(gradient * variable) for gradient, variable in pairs])
        updates = make_updates(loss, variables)
        session.run(V1.global_variables_initializer())
        for _ in range(STEPS):
            gradients = [generator.normal(size=shape) * 3 for shape in SHAPES]
            for operations in updates:
                session.run(operations, dict(zip(given, gradients, strict=True)))
        moved = [
            value - start.astype(dtype)
            for value, start in zip(session.run(variables), starts, strict=True)
        ]
    return np.concatenate([value.ravel() for value in moved])


def updates_of(cls, options, loss, variables):
    optimizer = cls(**options)
    updates = optimizer.get_updates(loss, variables)
    # The host's first operation counts the call. Its others read the count before or after that,
    # in no fixed order: with a decay, 300 steps end up to 0.3 % apart. So the counting runs last
    # here, and the others read the number of earlier calls.
    return [updates] if cls is OURS else [updates[1:], updates[:1]]


def same(ours, theirs, dtype):
    assert np.max(np.abs(theirs)) > 1e-3
    atol = TOLERANCE[dtype] * np.max(np.abs(theirs))
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


CLIPS = ({}, {"clipnorm": 1.0}, {"clipvalue": 0.5})
DECAYS = ({}, {"decay": 0.125})
RATES = ({}, {"lr": 0.5, "rho": 0.875, "epsilon": 2.0**-10})


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("constraint", [None, tf.nn.relu], ids=["free", "constrained"])
@pytest.mark.parametrize(
    "parts",
    list(itertools.product(RATES, CLIPS, DECAYS)),
    ids=lambda it: str({**it[0], **it[1], **it[2]}),
)
def test_same_numbers_on_every_combination_of_options(parts, constraint, dtype):
    options = {name: value for part in parts for name, value in part.items()}
    before = tf_keras.backend.floatx()
    try:
        # The host's state and rates have this dtype, whatever that of the variables.
        tf_keras.backend.set_floatx(dtype)
        ours, theirs = (
            in_a_graph(
                lambda loss, variables, cls=cls: updates_of(cls, options, loss, variables),
                dtype,
                constraint,
            )
            for cls in (OURS, optimizer_v1.Adadelta)
        )
    finally:
        tf_keras.backend.set_floatx(before)
    same(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_same_numbers_as_tensorflows_optimizer(dtype):
    # Exact in float32, the precision in which TensorFlow's optimizer keeps them.
    def theirs(loss, variables):
        optimizer = V1.train.AdadeltaOptimizer(0.5, rho=0.875, epsilon=2.0**-10)
        return [optimizer.minimize(loss, var_list=variables)]

    def ours(loss, variables):
        return [OURS(0.5, rho=0.875, epsilon=2.0**-10).get_updates(loss, variables)]

    same(in_a_graph(ours, dtype), in_a_graph(theirs, dtype), dtype)


@pytest.mark.parametrize("options", [{}, {"clipnorm": 1.0}, {"clipvalue": 0.5}, {"decay": 0.125}])
def test_same_numbers_as_the_legacy_class_eagerly(options):
    generator = np.random.default_rng(1)
    start = generator.normal(size=(3, 4)).astype("float32")
    x, y = tf.Variable(start), tf.Variable(start)
    ours = OURS(0.5, epsilon=1e-3, **options)
    theirs = LEGACY(0.5, epsilon=1e-3, **options)
    for _ in range(STEPS):
        gradient = tf.constant(generator.normal(size=(3, 4)) * 3, "float32")
        ours.get_updates(lambda gradient=gradient: tf.reduce_sum(gradient * x), [x])
        theirs.apply_gradients([(gradient, y)])
    same(x.numpy() - start, y.numpy() - start, "float32")


def trained_in_graph_mode(which, folder):
    return answer_of(HERE / "tf1_graph_mode.py", which, folder)


def test_models_of_tf_keras_in_graph_mode(tmp_path):
    ours, theirs = (trained_in_graph_mode(which, tmp_path) for which in ("ours", "host"))
    for name in ("plain", "decay", "clipnorm", "clipvalue"):
        assert ours[name]["iterations"] == theirs[name]["iterations"] == 40
        assert ours[name]["losses"][-1] < 0.9 * ours[name]["losses"][0]
        if name == "decay":
            continue  # the host sometimes counts too early, see above
        # After 40 float32 steps.
        np.testing.assert_allclose(ours[name]["losses"], theirs[name]["losses"], rtol=1e-4)
        for slot in ("weights", "state"):
            for got, expected in zip(ours[name][slot], theirs[name][slot], strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
        config = theirs[name]["config"]
        assert ours[name]["config"].keys() == config.keys()
        assert ours[name]["config"] == pytest.approx(config)
    assert ours["loaded"]["class"] == "adadelta.tf1.Adadelta"
    assert ours["loaded"]["state"] == ours["clipvalue"]["state"]
    assert ours["moved with lr 0"] == 0
