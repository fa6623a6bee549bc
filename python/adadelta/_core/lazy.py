"""How rows of a parameter that had no gradient catch up with the steps that they missed.

In a step with a gradient of 0 the parameter stays, and both averages decay by rho. So a step with
a sparse gradient may leave all other rows alone: before one of them is used or read, it decays by
as many steps as it missed. A dense
step rounds once, so after n missed steps the averages differ by at most about n / 2 units in the
last place from those of n dense steps.
"""

from adadelta._core.rule import Array, Number
from adadelta._core.step import Arrays


def caught_up(average: Array, missed: Array, rho: Number, arrays: Arrays) -> Array:
    """Return an average after steps without a gradient.

    The averages of a row catch up separately, each by this function.

    Args:
        average: A real array of averages.
        missed: How many steps each row has missed: integers, in a shape that broadcasts to that of
            `average`, such as `(rows, 1)`. A row that missed 0 steps keeps its bits.
        rho: Decay rate, as in the steps that were missed.
        arrays: The operations of the framework.

    """
    decay = arrays.number(rho, average) ** arrays.to_state(missed, average)
    return average * decay
