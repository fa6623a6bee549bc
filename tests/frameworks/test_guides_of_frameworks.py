"""The guides for other frameworks run, each in a separate process, and print what they show."""

import re
from importlib.util import find_spec

import guides
import pytest

HOSTS = {"tf1": "tensorflow", "optax": "jax"}


@pytest.mark.parametrize(
    "guide", [it for it in guides.GUIDES if guides.of_another_framework(it)], ids=lambda it: it.stem
)
def test_guide_runs_and_prints_what_it_shows(guide, tmp_path, monkeypatch):
    for name in re.findall(r"^import adadelta\.(\w+)", guide.read_text("utf-8"), re.M):
        if name != "state" and find_spec(HOSTS.get(name, name)) is None:
            pytest.skip(f"{name} is not in this environment")
        if name == "brainpy":
            from brainpy_tools import COMPILES, NEEDS_JAX

            if not COMPILES:
                pytest.skip(NEEDS_JAX)
    guides.check(guide, tmp_path, monkeypatch)
