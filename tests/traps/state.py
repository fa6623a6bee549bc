"""State is restored by name, not by position, and never from a different model."""

import os
import tempfile
import warnings

import keras
import numpy as np

from traps.table import trap
from traps.tools import Driver, calls, check, close, fit, model, numpy, refused, variable, weights

ROWS = [[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]]


class Store(dict):
    """A store like the one that Keras passes."""


def _trained(cls, variables, **options):
    optimizer = cls(learning_rate=1.0, **options)
    calls(Driver(optimizer, variables), [[np.ones(v.shape) for v in variables]] * 3)
    return optimizer


def _saved(optimizer):
    store = Store()
    optimizer.save_own_variables(store)
    return store


def _left_alone(cls, store, variables, what, **options):
    """Load into a new optimizer, which must say so and stay as it was; return what it says."""
    optimizer = cls(learning_rate=0.25, **options)
    optimizer.build(variables)
    before = [numpy(v).copy() for v in optimizer.variables]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = refused(lambda: optimizer.load_own_variables(store))
    for old, new in zip(before, optimizer.variables, strict=True):
        check(np.array_equal(old, numpy(new)), f"{what} is loaded, or half of it")
    check(error is None, f"{what} stops the loading of the model: {error}")
    check(caught, f"{what} is left out without a word")
    return str(caught[0].message)


@trap(36, "state: an average is loaded as a window's sum")
def average_into_window(cls):
    x = variable([1.0])
    store = _saved(_trained(cls, [x], use_ema=True))
    text = _left_alone(cls, store, [x], "the average", gradient_accumulation_steps=4)
    return f"left out: {text}"


@trap(36, "state: Adam's is loaded into Adadelta")
def adam_into_adadelta(cls):
    x = variable([1.0])
    adam = keras.optimizers.Adam()
    calls(Driver(adam, [x]), [[[1.0]]] * 3)
    _left_alone(cls, _saved(adam), [x], "Adam's state")
    check(refused(lambda: cls.from_config(adam.get_config())) is not None, "Adam's configuration")
    return "left out; Adam's configuration is refused"


@trap(36, "state: weights in another order get each other's")
def another_order(cls):
    x, y = variable([1.0], name="one"), variable([1.0], name="two")
    optimizer = cls(learning_rate=1.0)
    calls(Driver(optimizer, [x, y]), [[[1.0], [10.0]]] * 3)
    other = cls(learning_rate=1.0)
    other.build([y, x])
    other.load_own_variables(_saved(optimizer))
    close(numpy(other._accumulated_grads[0]), numpy(optimizer._accumulated_grads[1]), "square_avg")
    return "by name"


@trap(36, "state: a wrong shape leaves half of the state loaded")
def wrong_shape(cls):
    store = _saved(_trained(cls, [variable([1.0], name="x"), variable([1.0, 2.0], name="y")]))
    others = [variable([1.0], name="x"), variable([1.0, 2.0, 3.0], name="y")]
    text = _left_alone(cls, store, others, "state of another shape")
    check("y" in text, f"the message does not name the weight: {text}")
    return "left out, all of it"


@trap(36, "state: set_weights() takes a list that is too short")
def short_list(cls):
    x = variable([1.0])
    optimizer = cls()
    optimizer.build([x])
    error = refused(lambda: optimizer.set_weights([np.asarray(7)]))
    check(error is not None, "accepted")
    check(int(numpy(optimizer._iterations)) == 0, "part of it is taken")
    return "refused"


@trap(36, "state: a file of keras.optimizers.Adadelta does not load", falls=())
def file_of_keras(cls):
    theirs = model(keras.optimizers.Adadelta(learning_rate=0.5))
    fit(theirs, ROWS)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        theirs.save(path)
        made = model(cls(learning_rate=1.0))
        made.optimizer.build(made.trainable_variables)
        made.load_weights(path)
    theirs, optimizer = theirs.optimizer, made.optimizer
    close(numpy(optimizer._accumulated_grads[0]), numpy(theirs._accumulated_grads[0]), "v")
    close(
        numpy(optimizer._accumulated_delta_vars[0]), numpy(theirs._accumulated_delta_vars[0]), "u"
    )
    check(int(numpy(optimizer._iterations)) == 2, "the counter")
    return "it loads"


@trap(
    37,
    "state: a built optimizer goes over to a second model with what it knows of the first",
    falls=("jax",),
)
def second_model(cls):
    optimizer = cls(learning_rate=1.0)
    first = model(optimizer)
    fit(first, ROWS)
    second = model(optimizer)
    before = weights(second).copy()
    error = refused(lambda: fit(second, ROWS))
    check(error is not None, "accepted by fit(), with the first model's state")
    close(weights(second), before, "the second model's weight after the refusal")
    return "refused"


@trap(
    37, "state: a built optimizer goes over to a second model in train_on_batch()", falls=("jax",)
)
def second_model_by_batch(cls):
    optimizer = cls(learning_rate=1.0)
    first = model(optimizer)
    fit(first, ROWS)
    second = model(optimizer)
    x = np.asarray(ROWS, "float32")
    error = refused(lambda: second.train_on_batch(x, np.zeros((2, 1), "float32")))
    check(error is not None, "accepted, with the first model's state")
    return "refused"
