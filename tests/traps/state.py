"""State: by name and not by position, and never of another model."""

import keras
import numpy as np

from traps.table import trap
from traps.tools import Driver, calls, check, close, fit, model, numpy, refused, variable, weights

ROWS = [[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]]


class Store(dict):
    """A place to save to, as Keras gives one."""


def _trained(cls, variables, **options):
    optimizer = cls(learning_rate=1.0, **options)
    calls(Driver(optimizer, variables), [[np.ones(v.shape) for v in variables]] * 3)
    return optimizer


def _saved(optimizer):
    store = Store()
    optimizer.save_own_variables(store)
    return store


def _left_alone(cls, store, variables, what, **options):
    """Load into a new optimizer, which must refuse and stay as it was."""
    optimizer = cls(learning_rate=0.25, **options)
    optimizer.build(variables)
    before = [numpy(v).copy() for v in optimizer.variables]
    error = refused(lambda: optimizer.load_own_variables(store))
    for old, new in zip(before, optimizer.variables, strict=True):
        check(np.array_equal(old, numpy(new)), f"{what} is loaded, or half of it")
    check(error is not None, f"{what} is left out with a warning and training starts anew")
    return error


@trap(36, "state: an average is loaded as a window's sum")
def average_into_window(cls):
    x = variable([1.0])
    store = _saved(_trained(cls, [x], use_ema=True))
    error = _left_alone(cls, store, [x], "the average", gradient_accumulation_steps=4)
    return f"refused: {error}"


@trap(36, "state: Adam's is loaded into Adadelta")
def adam_into_adadelta(cls):
    x = variable([1.0])
    adam = keras.optimizers.Adam()
    calls(Driver(adam, [x]), [[[1.0]]] * 3)
    made = cls()
    made.build([x])
    if cls is keras.optimizers.Adadelta:
        _left_alone(cls, _saved(adam), [x], "Adam's state")
        return "refused"
    # Keras' files hold numbers alone, in which Adam's and Adadelta's can't be told apart; files
    # of ours hold names. What must not happen is ours being taken for another's.
    store = _saved(_trained(cls, [x]))
    check(not any(name.isdigit() for name in store), "saved by position")
    check(refused(lambda: cls.from_config(adam.get_config())) is not None, "Adam's configuration")
    return "saved by name; Adam's configuration is refused"


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
    error = _left_alone(cls, store, others, "state of another shape")
    check("y" in str(error), f"the message does not name the weight: {error}")
    return "refused, and nothing has changed"


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
    x = variable([1.0, -2.0])
    theirs = keras.optimizers.Adadelta(learning_rate=0.5)
    calls(Driver(theirs, [x]), [[[1.0, 2.0]]] * 3)
    optimizer = cls(learning_rate=1.0)
    optimizer.build([x])
    optimizer.load_own_variables(_saved(theirs))
    close(numpy(optimizer._accumulated_grads[0]), numpy(theirs._accumulated_grads[0]), "v")
    close(
        numpy(optimizer._accumulated_delta_vars[0]), numpy(theirs._accumulated_delta_vars[0]), "u"
    )
    check(int(numpy(optimizer._iterations)) == 3, "the counter")
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
