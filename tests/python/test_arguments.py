"""Every argument: which values are accepted, what they become, and the message when refused.

The cases are in tests/vectors/arguments.json; tests/testthat/test-arguments.R runs them from R.
"""

import inspect
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from adadelta import Adadelta
from adadelta._core import hyperparameters

FILE = Path(__file__).resolve().parent.parent / "vectors" / "arguments.json"


def refuse(constant):
    raise ValueError(f"{constant} is no strict JSON")


CASES = json.loads(FILE.read_text(encoding="ascii"), parse_constant=refuse)["cases"]
SIGNATURE = inspect.signature(Adadelta).parameters
NAMES = [name for name, it in SIGNATURE.items() if it.kind is not inspect.Parameter.VAR_KEYWORD]


def half():
    return 0.5


def evaluate(case):
    names = {"Adadelta": Adadelta, "half": half, "keras": keras, "math": math, "np": np}
    return eval(case["python"], names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case):
    if "error" in case:
        with pytest.raises((TypeError, ValueError)) as error:
            evaluate(case)
        assert str(error.value) == case["error"]
        return
    if case["config"].get("name") == "adadelta":
        keras.utils.clear_session()  # where names were given, Keras numbers those that follow
    config = evaluate(case).get_config()
    for key, expected in case["config"].items():
        if expected == "Inf":
            expected = math.inf
        assert config[key] == expected
        assert type(config[key]) is type(expected)


def test_every_case_has_its_own_name():
    names = [case["name"] for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("argument", NAMES)
def test_every_argument_has_cases(argument):
    cases = [case for case in CASES if case["argument"] == argument]
    assert len([case for case in cases if "config" in case]) >= 2
    assert len([case for case in cases if "error" in case]) >= 2


@pytest.mark.parametrize("argument", NAMES)
def test_the_default_is_what_the_configuration_says(argument):
    default = SIGNATURE[argument].default
    if argument == "name":
        default = "adadelta"
        keras.utils.clear_session()
    assert Adadelta().get_config()[argument] == default
    assert type(Adadelta().get_config()[argument]) is type(default)


def test_the_configuration_holds_the_arguments_and_no_more():
    assert sorted(Adadelta().get_config()) == sorted(NAMES)


def test_the_defaults_are_those_of_the_keras_convention():
    convention = hyperparameters.CONVENTIONS["keras"]
    for argument in ("learning_rate", "rho", "epsilon", "weight_decay"):
        assert SIGNATURE[argument].default == getattr(convention, argument)
    assert SIGNATURE["decoupled_weight_decay"].default is True
    assert convention.weight_decay_mode == "decoupled"
