"""Rows of a parameter that had no gradient catch up with the steps that they missed.

In a step with a gradient of 0, the parameter stays and both averages are multiplied by rho. So a
step with a sparse gradient may leave all other rows alone, if each of them is decayed for all the
steps it missed before it is used or read. A dense step rounds each product, and this rounds twice
for all of them: after n missed steps the two differ by at most about n / 2 units in the last place.
"""

import math

from adadelta._core.rule import Array, Number
from adadelta._core.step import Arrays, Row


class AllRows(str):
    """Why the kernel updates all rows of a parameter although its gradient has only some."""

    __slots__ = ()


def updates_all_rows(reason: str) -> str:
    """Return what `kernel_info()` says about a sparse gradient that updates all rows."""
    return f"a sparse gradient updates all rows: {reason}"


def reason_against(row: Row) -> str | None:
    """Return which option changes all rows of a parameter in each step, or None if none does."""
    changing = {
        "weight decay": row.weight_decay != 0,
        "the moving average": row.average is not None,
        "accumulation": row.window is not None,
        "the constraint": row.constraint is not None,
    }
    return next((f"{name} needs all rows" for name, changes in changing.items() if changes), None)


def caught_up(average: Array, missed: Array, rho: Number, arrays: Arrays) -> Array:
    """Return one of the two averages of some rows after steps without a gradient.

    Args:
        average: The average, in a real dtype.
        missed: How many steps each row has missed: integers, in a shape that broadcasts to that of
            `average`, such as `(rows, 1)`. Where it is 0, the average keeps its bits.
        rho: The decay rate in these steps.
        arrays: The operations of the framework.

    """
    decay = arrays.number(rho, average) ** arrays.to_state(missed, average)
    # An average that overflowed in another implementation stays infinite in dense steps, also when
    # the product of their factors is rounded to 0.
    return arrays.where(average < math.inf, average * decay, average)
