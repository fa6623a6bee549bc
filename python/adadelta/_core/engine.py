"""What front ends ask of the engine of their framework."""

from collections.abc import Sequence
from typing import Protocol

from adadelta._core.rule import Number
from adadelta._core.step import Call, Options, Row

# Why there is no kernel where none is wanted.
UNWANTED = "`fused` is False"


def no_kernel(reason: str, whose: str = "a variable") -> RuntimeError:
    """Return the error of `fused=True` where there is no kernel.

    Args:
        reason: Why there is none.
        whose: For what there is none.

    """
    return RuntimeError(
        f"`fused=True` needs a kernel, and there is none for {whose}: {reason}; `fused=None` takes "
        "what there is"
    )


class Engine(Protocol):
    """Makes the steps of an optimizer: by the kernel what it can take, by `step.py` the rest.

    Attributes:
        kernel: The name of its kernel, as in `kernel_info()`.
        operators: What makes the step otherwise, in words.
        reasons: For each row of the last step, why the kernel did not take it, or None.

    """

    kernel: str
    operators: str
    reasons: list[str | None]

    def reason_against_dtype(self, dtype: str) -> str | None:
        """Return why the kernel can't take parameters of a dtype on this machine, or None."""

    def reason_against(self, row: Row) -> str | None:
        """Return why the kernel can't take a row, or None when it can; its gradient may be None."""

    def all_finite(self, rows: Sequence[Row], call: Call) -> Number:
        """Whether all gradients are finite, also when they are unscaled."""

    def step(self, rows: Sequence[Row], call: Call, options: Options) -> Sequence[Row]:
        """Return what a call makes of rows, in their order.

        Where arrays are changed in place it is what was given.

        Raises:
            RuntimeError: The kernel is asked for, and can't take a row. Nothing has changed then.

        """
