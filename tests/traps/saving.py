"""A save that is interrupted."""

import os
import tempfile
from unittest import mock

import keras
import numpy as np

import adadelta
from traps.table import trap
from traps.tools import Driver, check, fit, is_ours, model, numpy, variable, weights

ROWS = [[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]]


class Interrupted(Exception):  # noqa: N818 (an event)
    """The disk is full, or the process was killed."""


def _interrupted(save):
    try:
        save()
    except Interrupted:
        return
    check(False, "the save was not interrupted")


@trap(35, "save: an interrupted save of a model destroys the old file")
def interrupted_save(cls):
    optimizer = cls(learning_rate=1.0)
    made = model(optimizer, loss="mse")
    fit(made, ROWS)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")

        def save():
            if is_ours(cls):
                adadelta.save_model(made, path)
            else:
                made.save(path)

        save()
        before = weights(made).copy()
        fit(made, ROWS)

        def interrupt(store):
            raise Interrupted

        optimizer.save_own_variables = interrupt
        _interrupted(save)
        loaded = keras.saving.load_model(path)
        check(np.array_equal(weights(loaded), before), "the old file holds something else")
        check(os.listdir(folder) == ["model.keras"], f"left behind: {os.listdir(folder)}")
    return "the old file is whole"


@trap(35, "save: an interrupted save of the state destroys the old file, or there is none")
def interrupted_save_of_the_state(cls):
    check(is_ours(cls), "the optimizer can't be saved without its model")
    x = variable([1.0], name="x")
    optimizer = cls(learning_rate=1.0)
    run = Driver(optimizer, [x])
    run.call([np.ones(1)])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.safetensors")
        adadelta.save_state(optimizer, path)
        before = numpy(optimizer._accumulated_grads[0]).copy()
        run.call([np.ones(1)])
        for function in ("os.fsync", "os.replace"):
            with mock.patch(function, side_effect=Interrupted):
                _interrupted(lambda: adadelta.save_state(optimizer, path))
            other = cls()
            other.build([variable([1.0], name="x")])
            adadelta.load_state(other, path)
            after = numpy(other._accumulated_grads[0])
            check(np.array_equal(after, before), "the old file holds something else")
    return "the old file is whole"
