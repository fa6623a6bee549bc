"""The guides for Keras run and print what they show; tests/frameworks has the other guides."""

import os

import guides
import pytest


@pytest.mark.parametrize(
    "guide",
    [it for it in guides.GUIDES if not guides.of_another_framework(it)],
    ids=lambda it: it.stem,
)
def test_guide_runs_and_prints_what_it_shows(guide, tmp_path, monkeypatch):
    is_jax = os.environ["KERAS_BACKEND"] == "jax"
    guides.check(guide, tmp_path, monkeypatch, are_numbers_shown=is_jax)
