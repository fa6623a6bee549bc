"""What an optimizer shows of itself: its summary and its `repr()`. Nothing here changes it."""

import math
import re
from collections.abc import Iterator
from typing import Any

import keras

from adadelta._core import hyperparameters
from adadelta._keras import exchange
from adadelta._keras import learning_rate as rates
from adadelta._keras.state import parameter_names
from adadelta._state import summary


def summary_of(optimizer: Any) -> summary.Summary:
    """Return the summary of an optimizer, built or not."""
    if not optimizer.built:
        return summary.Summary([], None, progress_of(optimizer))
    # First, since it says so when compiled training has the state.
    progress = progress_of(optimizer)
    return summary.summarize(
        _averages(optimizer), _rate_of_now(optimizer), optimizer.epsilon, progress
    )


def progress_of(optimizer: Any) -> str:
    """Say what an optimizer is built on and how far it has come."""
    if not optimizer.built:
        return "not yet built"
    variables = optimizer._trainable_variables
    return summary.progress(
        variables=len(variables),
        numbers=sum(math.prod(variable.shape) for variable in variables),
        calls=exchange.number_of(optimizer._iterations),
        updates=exchange.number_of(optimizer.iterations),
    )


def representation(optimizer: Any) -> str:
    """Return `repr()` of an optimizer: settings that are not the defaults, then how far it is."""
    settings = [
        f"{name}={value}"
        for name, value in _settings(optimizer)
        if value != hyperparameters.received(hyperparameters.DEFAULTS.get(name))
    ]
    name = type(optimizer).__name__
    if settings:
        text = f"{name} {', '.join(settings)}, the rest at its defaults"
    else:
        text = f"{name}, all settings at their defaults"
    return f"<{text}; {progress_of(optimizer)}>"


def _averages(optimizer: Any) -> Iterator[summary.Averages]:
    slots = exchange.slots_of(optimizer)
    variables = optimizer._trainable_variables
    for name, variable in zip(parameter_names(variables), variables, strict=True):
        own = {
            slot: exchange.array_of(slots[name][slot], copy=False)
            for slot in ("square_avg", "acc_delta")
            if slot in slots.get(name, {})
        }
        yield summary.Averages(
            name, tuple(variable.shape), own.get("square_avg"), own.get("acc_delta")
        )


def _rate_of_now(optimizer: Any) -> float:
    rate = optimizer._learning_rate
    callable_rate = rates.callable_rate_of(rate)
    if callable_rate is not None:
        # Not through the optimizer, which would note what goes wrong for the end of training.
        return callable_rate.answer(exchange.number_of(optimizer._iterations))
    if rates.is_schedule(rate):
        return float(keras.ops.convert_to_numpy(rate(optimizer._iterations)))
    return float(optimizer._rate_config())


def _settings(optimizer: Any) -> Iterator[tuple[str, str]]:
    """The settings as text, in the order of the constructor."""
    received = hyperparameters.received
    for name in hyperparameters.ARGUMENTS:
        if name == "learning_rate":
            yield name, _rate_as_text(optimizer)
        # A name that Keras has made up is no setting.
        elif name != "name" or not re.fullmatch(r"adadelta(_\d+)?", optimizer.name):
            yield name, received(getattr(optimizer, name))
    excluded = optimizer._exclusions.as_text()
    if excluded:
        yield "exclude_from_weight_decay", received(excluded)


def _rate_as_text(optimizer: Any) -> str:
    rate = optimizer._learning_rate
    callable_rate = rates.callable_rate_of(rate)
    if callable_rate is not None:
        return hyperparameters.received(callable_rate.function)
    if not rates.is_schedule(rate):
        return hyperparameters.received(optimizer._rate_config())
    settings = {
        name: value
        for name, value in rate.get_config().items()
        if value is not None and value != type(rate).__name__
    }
    arguments = ", ".join(f"{name}={hyperparameters.received(settings[name])}" for name in settings)
    return f"{type(rate).__name__}({arguments})"
