"""The examples in the docstrings of `adadelta.optax` run and print what they show."""

import doctest

import pytest

import adadelta.optax
from adadelta._optax import exchange

EXAMPLES = [
    test
    # `adadelta.optax` has the functions of `exchange`, too.
    for module in (adadelta.optax, exchange)
    for test in doctest.DocTestFinder().find(module)
    if test.examples
]


def test_every_public_function_has_an_example():
    named = {test.name.rpartition(".")[2] for test in EXAMPLES}
    assert {"adadelta", "fused_adadelta", "export_state", "import_state"} <= named


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_examples_run(example):
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
