"""The guides of the documentation, and a check that a guide prints the output it shows."""

import re
from pathlib import Path

import programs
import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "python" / "guides").glob("*.md"))
# Stands in a guide for the end of a long output.
LEFT_OUT = " ..."
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
# The numbers of short trainings, to two digits: other versions of a framework round differently.
_CLOSE = 0.1


def of_another_framework(guide):
    """Whether a guide needs a framework that only tests/frameworks uses."""
    return re.search(r"^(import|from) adadelta\.(?!state)\w", guide.read_text("utf-8"), re.M)


def check(guide, folder, monkeypatch, are_numbers_shown=True):
    """Run a guide in an empty folder, and compare the output it shows with the output it prints.

    Args:
        guide: The path of the guide.
        folder: The folder.
        monkeypatch: The fixture of pytest.
        are_numbers_shown: Whether the guide shows the numbers of this framework. Others start
            with other random weights.

    """
    monkeypatch.chdir(folder)
    # Two tests run at a time. On two cores, torch's threads then wait for each other: the quick
    # start took 118 s with them, 21 s without.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    program = Path(__file__).with_name("guide_program.py")
    compared = programs.answer_of(program, guide)
    for line, shown, printed in compared:
        if shown.endswith(LEFT_OUT):
            shown = shown.removesuffix(LEFT_OUT)
            printed = " ".join(printed.split()[: len(shown.split())])
        where = f"{guide.name}, the block in line {line}"
        assert _words(printed) == _words(shown), where
        if are_numbers_shown:
            assert _numbers(printed) == pytest.approx(_numbers(shown), rel=_CLOSE), where
    for picture in folder.glob("*.png"):
        assert (guide.parent / picture.name).exists(), f"the picture of {guide.name} is not kept"


def _words(text):
    return _NUMBER.sub("0", text).split()


def _numbers(text):
    return [float(number) for number in _NUMBER.findall(text)]
