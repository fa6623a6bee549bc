"""The interface between front ends and the engine of their framework."""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

from adadelta._core import clipping
from adadelta._core.clipping import Factors
from adadelta._core.rule import Number
from adadelta._core.step import Call, Options, Row

Kind = TypeVar("Kind", bound=Hashable)

# The reason that `kernel_info()` gives when the user has turned kernels off.
UNWANTED = "`fused` is False"


def no_kernel(reason: str, whose: str = "a variable") -> RuntimeError:
    """Return the error for `fused=True` if there is no kernel.

    Args:
        reason: Why there is none.
        whose: What there is no kernel for.

    """
    return RuntimeError(
        f"`fused=True` needs a kernel, and there is none for {whose}: {reason}; `fused=None` takes "
        "what there is"
    )


class Engine(Protocol):
    """Makes the steps of an optimizer: with the kernel where it can, and else with `step.py`.

    Attributes:
        kernel: The name of its kernel, as in `kernel_info()`.
        operators: What makes the step without the kernel, in words.
        reasons: For each row of the last step, why the kernel was not used, or None.

    """

    kernel: str
    operators: str
    reasons: list[str | None]

    def reason_against_dtype(self, dtype: str) -> str | None:
        """Return why the kernel can't update parameters of a dtype on this machine, or None."""

    def reason_against(self, row: Row) -> str | None:
        """Return why the kernel can't update a row, or None; the row's gradient may be None."""

    def all_finite(self, rows: Sequence[Row], call: Call) -> Number:
        """Whether all gradients are finite, before and after they are unscaled."""

    def step(self, rows: Sequence[Row], call: Call, options: Options) -> Sequence[Row]:
        """Return the rows after a call, in their order.

        If arrays are changed in place, these are the given rows.

        Raises:
            RuntimeError: `fused=True`, but the kernel can't update a row. Nothing has changed then.

        """

    def after_step(self) -> contextlib.AbstractContextManager[object]:
        """Return a context for what must change only if the last step was made.

        In a graph of TensorFlow, a step may be refused when the graph runs.
        """

    def catch_up(self) -> None:
        """Let all rows catch up with the steps of sparse gradients; see `lazy.py`.

        This must be called before anything but a step reads or changes averages.
        """


class Group(Protocol):
    """Rows of one call that are updated together."""

    @property
    def dtype(self) -> str:
        """The dtype of their state, by name."""

    def norms(self, together: bool, wide: bool) -> Factors:
        """Return the norms of their gradients, for `clipping.factors_of_groups`."""

    def step(self, factors: Factors | None) -> object:
        """Make their step, with gradients divided and then multiplied by these factors."""


def alike(rows: Sequence[Row], kind_of: Callable[[Row], Kind]) -> dict[tuple[int, Kind], list[int]]:
    """Group rows that have the same action and are of the same kind; return their indices.

    An action that is only known when a compiled program runs is the same as itself only.

    Args:
        rows: The rows.
        kind_of: Returns the kind of a row.

    """
    places: dict[tuple[int, Kind], list[int]] = {}
    for place, row in enumerate(rows):
        action = row.action if isinstance(row.action, int) else id(row.action)
        places.setdefault((action, kind_of(row)), []).append(place)
    return places


def may_grow(call: Call) -> bool:
    """Whether a finite gradient may leave the range of its dtype when it is unscaled."""
    scale = call.loss_scale
    return isinstance(scale, int | float) and scale < 1


def factors(groups: Sequence[Group], options: Options, array: object) -> list[Factors | None]:
    """Return the divisor and then the multiplier for the gradients of each group.

    Args:
        groups: All groups of a call.
        options: The optimizer's options.
        array: The array namespace, as for `clipping`.

    """
    limit, together = options.norm_limit, options.global_clipnorm is not None
    if limit is None:
        return [None] * len(groups)
    dtypes = [group.dtype for group in groups]
    wide = together and clipping.is_wide(dtypes)
    norms = [group.norms(together, wide) for group in groups]
    return list(clipping.factors_of_groups(norms, dtypes, limit, array, together))
