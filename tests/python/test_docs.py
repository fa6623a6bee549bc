"""The examples in docstrings run and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import adadelta

# Their frameworks are not always installed; tests/frameworks runs their examples.
FRONT_ENDS = ("torch", "tf_keras", "tf1", "brainpy", "optax", "scipy")


def modules_with_examples():
    folder = Path(adadelta.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(("adadelta", *path.relative_to(folder).with_suffix("").parts))
        if ">>>" in path.read_text(encoding="utf-8") and path.stem not in FRONT_ENDS:
            yield name.removesuffix(".__init__")


MODULES = list(modules_with_examples())


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder()
    found = finder.find(module)
    # These set their own name to adadelta.Adadelta etc., so the finder takes them for imported.
    public = {"adadelta.keras": "Adadelta", "adadelta._watch.monitor": "Monitor"}.get(name)
    if public:
        found += finder.find(getattr(adadelta, public), f"adadelta.{public}", module=False)
    runner = doctest.DocTestRunner()
    for test in found:
        result = runner.run(test)
        assert result.failed == 0, test.name


def test_the_class_and_the_rule_have_examples():
    finder = doctest.DocTestFinder()
    rule = importlib.import_module("adadelta._core.rule")
    for thing in (adadelta.Adadelta, adadelta.Monitor, rule):
        assert any(test.examples for test in finder.find(thing, "it", module=False))
