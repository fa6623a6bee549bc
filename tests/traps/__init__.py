"""Where Keras' own Adadelta goes wrong, as code: `report.py` prints it, test_traps.py tests it.

Each trap is a function of an optimizer class. It raises an error if the class falls into the trap;
otherwise it returns a few words on what happened.
"""

from traps import (  # noqa: F401 (each adds its traps to the table)
    accumulation,
    arguments,
    averages,
    checks,
    clipping,
    learning_rate,
    nonfinite,
    precision,
    saving,
    sparse,
    state,
)
from traps.table import ALL, TRAPS, Trap, Trapped, run

__all__ = ["ALL", "TRAPS", "Trap", "Trapped", "run"]
