"""The constructor's arguments as attributes, which are checked whenever they are set.

Compiled training would keep using the old value, so a change that could go unnoticed is refused.
"""

from typing import Any

from adadelta._core import hyperparameters
from adadelta._core.messages import Message


def checked(optimizer: object, name: str, value: Any) -> Any:
    """Return a value for an attribute as the optimizer keeps it, or raise; for `__setattr__`."""
    value = hyperparameters.check(name, value)
    if getattr(optimizer, "built", False):
        reason = (
            "once the optimizer is built, since compiled training would not see it; make a new "
            "one, for example with from_config()"
        )
        refuse_change(optimizer, name, value, reason)
    hyperparameters.check_clips({**vars(optimizer), name: value})
    return value


def refuse_change(optimizer: object, name: str, value: Any, reason: str) -> None:
    """Raise an error with this reason, unless the attribute has this value already."""
    if value != getattr(optimizer, name):
        text = hyperparameters.with_received(f"`{name}` can't be changed {reason}", value)
        raise ValueError(Message(text, "fixed", argument=name, received=value))
