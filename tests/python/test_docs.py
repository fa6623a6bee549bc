"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import adadelta

# These need a framework that is not always installed; tests/frameworks runs their examples.
ELSEWHERE = ("torch", "tf_keras", "tf1", "tensorflow", "brainpy", "optax", "scipy", "_kernels.cuda")
MODULES = [
    info.name
    for info in pkgutil.walk_packages(adadelta.__path__, "adadelta.")
    if info.name.removeprefix("adadelta.").removeprefix("_").split(".")[0] not in ELSEWHERE
    and info.name.removeprefix("adadelta.")
    not in (*ELSEWHERE, "_kernels.tensorflow", "_kernels.triton_step", "_keras.fused_torch")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder()
    found = finder.find(module)
    # These call themselves adadelta.Adadelta and so on, so the finder takes them for imported.
    public = {"adadelta.keras": "Adadelta", "adadelta._keras.monitor": "Monitor"}.get(name)
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
