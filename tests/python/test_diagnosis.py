"""The numbers behind the monitor's warnings, for cases that are hard to reach by training."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import adadelta
from adadelta._keras import loss_scale, reading
from adadelta._watch import diagnosis


def read(name="x", size=1, weights=1.0, square_avg=0.0, acc_delta=0.0):
    arrays = (np.array([value]) for value in (square_avg, acc_delta, weights, 1.0))
    return reading.Reading(name, size, *arrays, learning_rate=1.0)


def watched(*readings, start=1.0, optimizer=None, **last):
    weights = {it.variable: np.array([start]) for it in readings}
    found = diagnosis.Watched(weights, 0, 0, 0, optimizer)
    found.readings, found.last = list(readings), last
    return found


def test_weights_count_by_how_many_they_are():
    both = watched(read("large", 24, weights=2.0), read("small", 1, weights=1.0))
    assert np.isclose(diagnosis._change_of_weights(both), (24 / 25) ** 0.5)


def test_a_mean_loss_counts_by_how_many_batches_it_is_of():
    found = watched()
    found.losses = [(1, 1.0), (3, 2.0), (1, 2.0), (3, 1.0)]
    assert np.isclose(diagnosis._change_of_loss(found), (1.75 - 1.25) / 1.75)


def test_the_loss_since_the_last_record_is_told_from_the_mean_of_the_epoch():
    monitor = adadelta.Monitor()
    monitor.on_epoch_begin(0)
    monitor._last_batch = 1
    assert monitor._since_last_record(3.0) == (2, 3.0)
    monitor._last_batch = 4
    assert monitor._since_last_record(4.2) == (3, 5.0)
    # The repeated record at the end of training covers no batches of its own.
    assert monitor._since_last_record(4.2) == (5, 4.2)


@pytest.mark.parametrize(
    ("averages", "warns"),
    [
        ({}, False),
        ({"square_avg": 1e20}, False),
        ({"square_avg": 1e30}, True),
        ({"acc_delta": 1e30}, False),
        ({"acc_delta": 1e37}, True),
    ],
)
def test_either_average_may_be_near_its_limit(averages, warns):
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build([keras.Variable([1.0], name="x", dtype="float32")])
    message = diagnosis.saturated(watched(read(**averages), optimizer=optimizer))
    assert (message is not None) == warns


def test_a_loss_scale_may_skip_one_call_for_each_time_that_it_doubled():
    optimizer = SimpleNamespace(loss_scale_factor="dynamic")
    halvings = math.log2(loss_scale.FIRST / loss_scale.SMALLEST)
    skipped = int(halvings) + 3
    few, many = (times * loss_scale.CALLS_TO_GROW for times in (1, 2))
    assert diagnosis.calls_are_skipped(watched(optimizer=optimizer, skipped=skipped, step=few))
    assert not diagnosis.calls_are_skipped(watched(optimizer=optimizer, skipped=skipped, step=many))


@pytest.mark.parametrize("average", ["square_avg", "acc_delta"])
def test_nan_in_either_average(average):
    message = diagnosis.averages_are_lost(watched(read(**{average: math.nan})))
    assert 'the averages of "x" became NaN' in message


def test_of_many_variables_the_first_are_named():
    found = watched(*(read(f"x{number}", acc_delta=math.nan) for number in range(20)))
    message = diagnosis.averages_are_lost(found)
    assert '"x3", "x4" and 15 more became NaN' in message and '"x5"' not in message


def test_a_message_has_room_for_long_names():
    names = ["block_" * 20 + str(number) for number in range(7)]
    optimizer = adadelta.Adadelta(1.0)
    optimizer.build([keras.Variable([1.0], name=name, dtype="float32") for name in names])
    for find, average in ((diagnosis.averages_are_lost, math.nan), (diagnosis.saturated, 1e37)):
        found = watched(*(read(name, acc_delta=average) for name in names), optimizer=optimizer)
        assert "... and 6 more" in find(found) and len(find(found)) <= 200
