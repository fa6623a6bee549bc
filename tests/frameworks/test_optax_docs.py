"""The examples in the docstrings of `adadelta.optax` run and print what they show."""

import doctest

import pytest

import adadelta.optax

EXAMPLES = [test for test in doctest.DocTestFinder().find(adadelta.optax) if test.examples]


def test_every_public_function_has_an_example():
    named = {test.name.rpartition(".")[2] for test in EXAMPLES}
    assert {"adadelta", "fused_adadelta", "export_state", "import_state"} <= named


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_examples_run(example):
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
