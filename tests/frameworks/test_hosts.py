"""The numbers of other frameworks that the vignette on differences shows are what they do today."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "vignettes" / "hosts.py"
SPECIFICATION = importlib.util.spec_from_file_location("hosts", SCRIPT)
hosts = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(hosts)
TABLES = json.loads(hosts.FILE.read_text(encoding="ascii"))["tables"]
# Other processors round a few of 60 or 300 operations in float32 otherwise, 6e-8 each; in half
# precision one rounding in 300 steps is up to 2^-9 of the way.
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
