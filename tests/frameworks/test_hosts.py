"""Our statements about other frameworks hold for their current versions."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from adadelta._core.hyperparameters import CONVENTIONS

SCRIPT = Path(__file__).resolve().parents[2] / "vignettes" / "hosts.py"
SPECIFICATION = importlib.util.spec_from_file_location("hosts", SCRIPT)
hosts = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(hosts)
TABLES = json.loads(hosts.FILE.read_text(encoding="ascii"))["tables"]
# Other processors round some of the 60 or 300 float32 operations differently, by 6e-8 each. In half
# precision, one rounding in 300 steps can be 2^-9 of the distance.
TOLERANCE = 1e-5
HALF = 2**-7


def same(actual, expected, tolerance=TOLERANCE):
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(
            same(actual[key], expected[key], HALF if "float16" in key else tolerance)
            for key in expected
        )
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    if isinstance(expected, (str, type(None))) or isinstance(actual, str):
        return actual == expected
    return math.isclose(actual, expected, rel_tol=tolerance, abs_tol=1e-6)


@pytest.mark.parametrize("host", [*hosts.HOSTS, *hosts.OTHER_KERAS])
def test_a_host_still_gives_the_numbers_of_the_file(host):
    answers = hosts.answers(host)
    for name, answer in answers.items():
        assert same(answer, TABLES[name].get(host)), f"{name}: {answer}"


def test_the_file_has_nothing_else():
    asked = {*hosts.HOSTS, *hosts.OTHER_KERAS}
    assert set(TABLES) == {table.__name__ for table in hosts.TABLES}
    assert all(set(by_host) <= asked for by_host in TABLES.values())


# The arguments of our front ends that the hosts do not have.
ADDED = {
    "keras": {"kwargs"},
    "tf_keras": {"maximize", "decoupled_weight_decay", "skip_nonfinite", "kwargs"},
    "tf1": {"kwargs"},
    "brainpy": set(),
    "torch": {"fused", "decoupled_weight_decay", "skip_nonfinite", "process_group"},
    "optax": set(),
}


@pytest.mark.parametrize("framework", ADDED)
def test_the_table_of_conventions_has_the_arguments_of_each_front_end(framework):
    name = "adadelta" if framework == "optax" else "Adadelta"
    code = (
        f"import inspect, adadelta.{framework} as home;"
        f"print(*inspect.signature(home.{name}).parameters)"
    )
    # In a separate process, since TensorFlow and torch can't share one.
    asked = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    arguments = set(asked.stdout.split()) - ADDED[framework]
    if framework == "tf1":
        # The front end for TF 1.13 has them among the keyword arguments.
        arguments |= {"clipnorm", "clipvalue"}
    convention = CONVENTIONS[framework]
    assert arguments == {*convention.names.values(), *convention.others}
