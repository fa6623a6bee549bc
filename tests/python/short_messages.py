"""Check that every message of ours that a test provokes is short enough for a terminal."""

from pathlib import Path

import pytest

import adadelta

LONGEST = 200
_PACKAGE = str(Path(adadelta.__file__).parent)


class _Measured:
    """A `pytest.raises()` that fails when the error is ours and its message is too long."""

    def __init__(self, expected):
        self._expected = expected

    def __enter__(self):
        return self._expected.__enter__()

    def __exit__(self, kind, error, traceback):
        is_expected = self._expected.__exit__(kind, error, traceback)
        if is_expected and _is_own(error):
            message = str(error)
            # TensorFlow puts the position in its compiler before the original message.
            if message.startswith("in user code:"):
                message = message.rpartition(f"{type(error).__name__}: ")[2]
            assert len(message) <= LONGEST, f"{len(message)} characters: {message}"
        return is_expected


def _is_own(error):
    # Messages of the operating system contain the whole path of the file.
    if isinstance(error, OSError):
        return False
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_frame.f_code.co_filename.startswith(_PACKAGE)


@pytest.fixture(autouse=True)
def messages_are_short(monkeypatch):
    """Measure the message of every error that `pytest.raises()` finds in a test."""
    raises = pytest.raises

    def measured(expected, *arguments, **options):
        found = raises(expected, *arguments, **options)
        return found if arguments else _Measured(found)

    monkeypatch.setattr(pytest, "raises", measured)
