"""tf_keras on a DTensor mesh gives the numbers of one device."""

from pathlib import Path

import pytest
from programs import answer_of

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("how", ["compiled", "eagerly"])
def test_the_numbers_are_those_of_one_device(how):
    off = answer_of(HERE / "tensorflow_mesh.py", how)
    assert len(off) == 8
    # 6 steps of a weight of about 1 in float32: each rounds it by 6e-8.
    wrong = {name: it for name, it in off.items() if not isinstance(it, float) or it > 2e-6}
    assert not wrong
