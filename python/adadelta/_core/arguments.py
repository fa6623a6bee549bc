"""The constructor's arguments as attributes."""

from typing import Any

from adadelta._core import hyperparameters
from adadelta._core.messages import Message


def checked(owner: type, name: str, value: Any) -> Any:
    """Return a value for an attribute, checked if the attribute is an argument.

    For `__setattr__` of classes whose host inspects a value before the attribute's own check.
    """
    argument = getattr(owner, name, None)
    return argument.check(value) if isinstance(argument, Checked) else value


class Checked:
    """An argument as an attribute: checked whenever it is set, fixed once the optimizer is built.

    Compiled training would keep using the old value, so a change is refused if it could go
    unnoticed.
    """

    def check(self, value: Any) -> Any:
        """Return the value as the optimizer keeps it, or raise."""
        return hyperparameters.check(self.name, value)

    def reason_against_change(self, instance: Any) -> str | None:
        """Return why the value can't be changed any more, or None if it can."""
        if not getattr(instance, "built", False):
            return None
        return (
            "once the optimizer is built, since compiled training would not see it; make a new "
            "one, for example with from_config()"
        )

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__["_arguments"][self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        arguments = instance.__dict__.setdefault("_arguments", {})
        value = self.check(value)
        reason = self.reason_against_change(instance)
        if reason is not None and value != arguments[self.name]:
            text = hyperparameters.with_received(f"`{self.name}` can't be changed {reason}", value)
            raise ValueError(Message(text, "fixed", argument=self.name, received=value))
        hyperparameters.check_clips({**arguments, self.name: value})
        arguments[self.name] = value
