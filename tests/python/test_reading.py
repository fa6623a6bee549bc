"""The elements that a monitor reads."""

import keras
import numpy as np
import pytest

from adadelta._keras import reading

VALUES = np.arange(3000.0).reshape(50, 60)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_sample_is_of_the_elements_at_its_places(dtype):
    values = VALUES + (1j * VALUES[::-1] if dtype == "complex64" else 0)
    sampled = reading._elements(keras.Variable(values, dtype=dtype), 1000)
    expected = values.ravel()[reading._places(3000, 1000)].astype(dtype)
    np.testing.assert_array_equal(sampled, expected.view("float32"))


def test_a_small_variable_is_read_as_a_whole():
    sampled = reading._elements(keras.Variable(VALUES[:2], dtype="float32"), 1000)
    np.testing.assert_array_equal(sampled, VALUES[:2].ravel())


def test_other_processes_look_at_the_same_places():
    places = reading._places(3000, 1000)
    reading._places.cache_clear()
    np.testing.assert_array_equal(places, reading._places(3000, 1000))
    assert len(places) > 800 and np.all((places >= 0) & (places < 3000))
