"""With any input, a call works or raises a clear error before anything changes."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import adadelta.tf_keras

OURS = adadelta.tf_keras.Adadelta
BAD = [
    ("learning_rate", -1.0, ValueError, "a finite number of at least 0"),
    ("learning_rate", math.nan, ValueError, "a finite number of at least 0"),
    ("learning_rate", math.inf, ValueError, "a finite number of at least 0"),
    ("learning_rate", "abc", TypeError, "a finite number of at least 0"),
    ("learning_rate", None, TypeError, "a finite number of at least 0"),
    ("learning_rate", tf_keras.optimizers.SGD, TypeError, "an instance, not a class"),
    ("lr", -1.0, ValueError, "a finite number of at least 0"),
    ("rho", 1.0, ValueError, "a number of at least 0 and less than 1"),
    ("rho", -0.1, ValueError, "a number of at least 0 and less than 1"),
    ("rho", "a", TypeError, "a number of at least 0 and less than 1"),
    ("epsilon", 0, ValueError, "a finite number greater than 0"),
    ("epsilon", math.inf, ValueError, "a finite number greater than 0"),
    ("weight_decay", -0.1, ValueError, "a finite number of at least 0"),
    ("weight_decay", math.nan, ValueError, "a finite number of at least 0"),
    ("clipnorm", -1, ValueError, "a number greater than 0"),
    ("clipvalue", math.nan, ValueError, "a number greater than 0"),
    ("global_clipnorm", "1", TypeError, "a number greater than 0"),
    ("use_ema", "yes", TypeError, "True or False"),
    ("ema_momentum", 1.5, ValueError, "a number of at least 0 and at most 1"),
    ("ema_overwrite_frequency", 0, ValueError, "a whole number of at least 1"),
    ("ema_overwrite_frequency", 1.5, ValueError, "a whole number of at least 1"),
    ("jit_compile", "no", TypeError, "True or False"),
    ("name", "a/b", ValueError, "a string that is not empty"),
    ("maximize", 1, TypeError, "True or False"),
    ("skip_nonfinite", None, TypeError, "True or False"),
]


@pytest.mark.parametrize(("argument", "value", "error", "message"), BAD)
def test_an_argument_is_refused(argument, value, error, message):
    name = "learning_rate" if argument == "lr" else argument
    with pytest.raises(error, match=f"`{name}` must be {message}.*received"):
        OURS(**{argument: value})


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match=r"`rate` is not an argument of adadelta\.tf_keras"):
        OURS(rate=1.0)
    with pytest.raises(TypeError, match="did you mean `weight_decay`"):
        OURS(weight_decy=1.0)
    with pytest.raises(ValueError, match="decay is deprecated"):
        OURS(decay=0.1)
    with pytest.raises(TypeError, match="`nam` is not an argument of apply_gradients"):
        OURS().apply_gradients([(tf.ones(1), tf.Variable([1.0]))], nam="x")


def unchanged_by(action, error, match, x, y, optimizer):
    before = [x.numpy(), y.numpy(), *optimizer.get_weights()]
    with pytest.raises(error, match=match):
        action()
    for old, new in zip(before, [x.numpy(), y.numpy(), *optimizer.get_weights()], strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("gradient", "error", "match"),
    [
        (tf.ones((2, 3)), ValueError, r"must have shape \(3,\); received \(2, 3\)"),
        (tf.ones(()), ValueError, r"must have shape \(3,\); received \(\)"),
        (tf.constant(["a"] * 3), TypeError, "must be a tensor of numbers"),
        (object(), TypeError, "must be a tensor of numbers"),
        (tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), (3, 2)), ValueError, "have shape"),
        (tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0])), ValueError, "must have shape"),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_gradient_that_does_not_fit_changes_nothing(gradient, error, match, compiled):
    x, y = tf.Variable([1.0]), tf.Variable([1.0, 2.0, 3.0], name="weight")
    optimizer = OURS(1.0, use_ema=True)
    optimizer.build([x, y])

    def step():
        optimizer.apply_gradients([(tf.ones(1), x), (gradient, y)])

    action = tf.function(step) if compiled else step
    unchanged_by(action, error, match, x, y, optimizer)


@pytest.mark.parametrize(
    "arguments", [{}, {"use_ema": True, "ema_overwrite_frequency": 1}, {"skip_nonfinite": True}]
)
@pytest.mark.parametrize(
    ("row", "size", "match"), [(3, 1, "must be from 0 to 2"), (1, 2, "not compatible")]
)
def test_a_graph_that_refuses_a_step_changes_nothing(row, size, match, arguments):
    x, y = tf.Variable([1.0]), tf.Variable([1.0, 2.0, 3.0], name="weight")
    optimizer = OURS(1.0, **arguments)
    optimizer.build([x, y])

    @tf.function(input_signature=[tf.TensorSpec([None]), tf.TensorSpec([], tf.int32)])
    def step(gradient, row):
        # A long computation, so that everything that does not wait for it runs first.
        matrix = tf.ones((400, 400)) / 400
        for _ in range(20):
            matrix = matrix @ matrix
        rows = tf.stack([row + tf.cast(matrix[0, 0] * 0, tf.int32)])
        given = tf.IndexedSlices(tf.ones(1), rows, (3,))
        optimizer.apply_gradients([(gradient + matrix[0, 0] * 0, x), (given, y)])

    step(tf.ones(1), tf.constant(1))
    unchanged_by(
        lambda: step(tf.ones(size), tf.constant(row)),
        tf.errors.InvalidArgumentError,
        match,
        x,
        y,
        optimizer,
    )


def test_variables_that_can_not_be_updated_change_nothing():
    x, y, optimizer = tf.Variable([1.0]), tf.Variable([1.0]), OURS(1.0)
    optimizer.build([x, y])
    twice = [(tf.ones(1), x), (tf.ones(1), x)]
    unchanged_by(
        lambda: optimizer.apply_gradients(twice), ValueError, "more than once", x, y, optimizer
    )
    other = [(tf.ones(1), x), (tf.ones(1), tf.Variable([1.0], name="other"))]
    unchanged_by(
        lambda: optimizer.apply_gradients(other),
        KeyError,
        "recognize variable other",
        x,
        y,
        optimizer,
    )
    with pytest.raises(ValueError, match="must be of a floating dtype; received int32"):
        OURS().apply_gradients([(tf.ones(1), tf.Variable([1]))])
    with pytest.raises(ValueError, match="`epsilon` must be at least"):
        OURS(epsilon=1e-40).build([x])
    OURS(epsilon=1e-40).build([tf.Variable([1.0], dtype="float64")])


@pytest.mark.parametrize(
    "argument", ["rho", "epsilon", "weight_decay", "clipnorm", "ema_momentum", "maximize"]
)
def test_arguments_can_not_be_changed_once_built(argument):
    optimizer = OURS()
    value = True if argument == "maximize" else 0.5
    setattr(optimizer, argument, value)
    assert optimizer.get_config()[argument] == value
    with pytest.raises((ValueError, TypeError), match=f"`{argument}` must be"):
        setattr(optimizer, argument, "a")
    optimizer.build([tf.Variable([1.0])])
    with pytest.raises(ValueError, match="can't be changed once the optimizer is built"):
        setattr(optimizer, argument, False if argument == "maximize" else 0.25)


def test_weights_that_do_not_fit_change_nothing():
    optimizer = OURS()
    with pytest.raises(ValueError, match="has not yet been built"):
        optimizer.set_weights([])
    x = tf.Variable([1.0, 2.0])
    optimizer.apply_gradients([(tf.ones(2), x)])
    before = optimizer.get_weights()
    with pytest.raises(ValueError, match="must be a list of 3 arrays"):
        optimizer.set_weights(before[:2])
    with pytest.raises(ValueError, match=r"must have shape \(2,\); received \(3,\)"):
        optimizer.set_weights([5, np.zeros(2), np.zeros(3)])
    for old, new in zip(before, optimizer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("names", [3, [1], [""], {"a": 1}.values()])
def test_what_is_excluded_is_checked(names):
    with pytest.raises(TypeError, match="`var_names` must be a string or a list of strings"):
        OURS().exclude_from_weight_decay(var_names=names)
    with pytest.raises(TypeError, match="`var_list` must be a list of variables, or None"):
        OURS().exclude_from_weight_decay(var_list="bias")
