"""Where Keras' own Adadelta goes wrong, as code: `report.py` shows it, test_traps.py tests it.

Each trap is a function of an optimizer class. It raises when the class falls into the trap, and
returns in a few words what happened when it does not.
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
