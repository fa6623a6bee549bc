"""Messages that other languages can make in their own words."""

from typing import Any


class Message(str):
    """A text for Python, with what it says as data.

    Exceptions and warnings take it in the place of a text. R makes its own sentence of `kind` and
    `fields`, so the text can be reworded freely, and a new kind needs a sentence in R/messages.R.

    Args:
        text: What Python shows.
        kind: Which message this is.
        **fields: What it is about, such as the name of an argument and the value that came.

    Example:
        >>> message = Message("`rho` must be less than 1; received 2", "argument", argument="rho")
        >>> message.fields["argument"]
        'rho'

    """

    kind: str
    fields: dict[str, Any]

    def __new__(cls, text: str, kind: str, **fields: Any) -> "Message":
        """Make a message."""
        message = super().__new__(cls, text)
        message.kind, message.fields = kind, fields
        return message

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Go to another process as a plain text: what came may be anything, such as a lambda."""
        return str, (str(self),)


def message_of(problem: BaseException) -> str:
    """Return what an exception or a warning says, with its data where it has them."""
    first = problem.args[0] if problem.args else None
    return first if isinstance(first, Message) else str(problem)
