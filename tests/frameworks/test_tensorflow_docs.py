"""The examples in the docstrings of the TensorFlow front ends run and print what they show."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["adadelta.tf_keras", "adadelta.tf1"])
def test_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)
    assert results.failed == 0 and results.attempted > 2
    assert doctest.DocTestFinder().find(module.Adadelta, "Adadelta", module=False)[0].examples
