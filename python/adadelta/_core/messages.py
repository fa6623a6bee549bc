"""Messages whose data lets other languages use their own words."""

from typing import Any


class Message(str):
    """The text of a message for Python, with its content as data.

    Exceptions and warnings accept it in place of a string. R makes its own sentence from `kind` and
    `fields`, so the text can be reworded freely, and a new kind needs a sentence in R/messages.R.

    Args:
        text: What Python shows.
        kind: Which message this is.
        **fields: Its data, such as the name of an argument and the value received.

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
        """Pickle as a plain string: the value received may be anything, such as a lambda."""
        return str, (str(self),)


def message_of(problem: BaseException) -> str:
    """Return the message of an exception or a warning, with its data if it has any."""
    first = problem.args[0] if problem.args else None
    return first if isinstance(first, Message) else str(problem)
