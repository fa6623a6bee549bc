"""The traps of tests/traps: ours passes each, and Keras' own class fails where the table says.

The second test proves the first: a trap that no class fails would test nothing.
"""

import sys
from pathlib import Path

import keras
import pytest

import adadelta

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import traps

HERE = [entry for entry in traps.TRAPS if keras.config.backend() in entry.backends]
FALLING = [entry for entry in HERE if keras.config.backend() in entry.falls]


@pytest.mark.parametrize("entry", HERE, ids=lambda entry: entry.slug)
def test_ours_holds(entry):
    outcome = traps.run(entry, adadelta.Adadelta)
    assert outcome.holds, outcome.text


@pytest.mark.parametrize("entry", FALLING, ids=lambda entry: entry.slug)
def test_keras_own_falls(entry):
    outcome = traps.run(entry, keras.optimizers.Adadelta)
    assert not outcome.holds, outcome.text


@pytest.mark.parametrize(
    "entry",
    [it for it in HERE if it not in FALLING and keras.config.backend() not in it.depends],
    ids=lambda entry: entry.slug,
)
def test_keras_own_holds_where_the_table_says_so(entry):
    outcome = traps.run(entry, keras.optimizers.Adadelta)
    assert outcome.holds, outcome.text


def test_every_trap_is_in_the_table():
    assert {entry.number for entry in traps.TRAPS} == set(range(40))


def test_every_name_is_its_own():
    slugs = [entry.slug for entry in traps.TRAPS]
    assert sorted(set(slugs)) == sorted(slugs)
