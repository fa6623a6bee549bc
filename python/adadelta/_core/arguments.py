"""The constructor's arguments as attributes."""

from typing import Any

from adadelta._core import hyperparameters


class Checked:
    """An argument as an attribute: checked whenever it is set, fixed once the optimizer is built.

    Compiled training would go on with the old value, so a change that could go unnoticed is
    refused.
    """

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
        value = hyperparameters.check(self.name, value)
        if getattr(instance, "built", False) and value != arguments[self.name]:
            raise ValueError(
                f"`{self.name}` can't be changed once the optimizer is built, since compiled "
                "training would not see it; make a new optimizer, for example with "
                f"from_config(); received {hyperparameters.received(value)}"
            )
        arguments[self.name] = value
