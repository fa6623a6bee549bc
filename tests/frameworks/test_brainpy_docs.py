"""The examples in the docstrings of `adadelta.brainpy` run and print what they show."""

import doctest

import pytest

pytest.importorskip("brainpy")
import adadelta.brainpy

EXAMPLES = [test for test in doctest.DocTestFinder().find(adadelta.brainpy) if test.examples]


def test_the_class_has_an_example():
    assert "adadelta.brainpy.Adadelta" in {test.name for test in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_examples_run(example):
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
