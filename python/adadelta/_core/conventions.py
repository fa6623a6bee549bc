"""The arguments of Adadelta in each framework, and their translation between frameworks."""

import math
from collections.abc import Mapping
from typing import Any

from adadelta._core import hyperparameters
from adadelta._core.hyperparameters import CONVENTIONS, Convention
from adadelta._core.messages import Message
from adadelta._core.table import aligned

# The default of keras.config.epsilon(). The target program is unknown at this point, so the value
# that is set in this one does not matter.
KERAS_EPSILON = 1e-7

_DECAYS = {
    "coupled": "g + weight_decay * x takes the place of the gradient",
    "decoupled": "x loses learning_rate * weight_decay * x",
    "unscaled": "x loses weight_decay * x",
}
# Why an argument can't be translated if the other framework has none of its kind.
_REFUSALS = {
    **dict.fromkeys(
        ("clipnorm", "clipvalue", "global_clipnorm"),
        "it has no such clipping; clip the gradients before the step",
    ),
    "use_ema": "it keeps no average of the weights",
    "loss_scale_factor": "it scales nothing; divide the gradients before the step",
    "gradient_accumulation_steps": "it collects no gradients; give it their mean",
    "maximize": "it only descends; negate the gradients before the step",
    "skip_nonfinite": "it skips no step; look at the gradients before it",
    "name": "it takes no name",
}
# Arguments that say how a step is computed, or that matter only together with `use_ema`.
_LEFT_OUT = ("fused", "ema_momentum", "ema_overwrite_frequency")
# Values without effect, besides None, False and infinity.
_NEUTRAL = {"loss_scale_factor": 1, "gradient_accumulation_steps": 1}
_SHOWN = ("learning_rate", "rho", "epsilon", "weight_decay")


class Conventions(list[dict[str, Any]]):
    """The table that `conventions()` returns: a list with one dict per framework."""

    def __repr__(self) -> str:
        head = ("framework", *_SHOWN, "the decay")
        rows = [head]
        for row in self:
            cells = (
                "" if row[f"{name}_name"] is None else f"{row[f'{name}_name']} = {row[name]}"
                for name in _SHOWN
            )
            rows.append((row["framework"], *cells, row["weight_decay_mode"] or ""))
        lines = [*aligned(rows), "", *(f"{mode}: {meaning}" for mode, meaning in _DECAYS.items())]
        return "\n".join([*lines, "epsilon = None: keras.config.epsilon(), which is 1e-07"])


def conventions() -> Conventions:
    """Return the names and defaults of Adadelta's arguments in each framework, and its decay.

    Returns:
        A list with one dict per framework, which prints as a table. `framework` is its name.
        `learning_rate`, `rho`, `epsilon` and `weight_decay` are its defaults; with `_name`
        appended, the names of these arguments there, or None if it has none. `weight_decay_mode`
        is "coupled" (the decay is added to the gradient and so enters the averages), "decoupled"
        (it is subtracted from the weights, times the learning rate), "unscaled" (it is subtracted
        from the weights as it is) or None. An `epsilon` of None means `keras.config.epsilon()`.
        "paper" is Zeiler 2012, section 4.1.

    Example:
        >>> import adadelta
        >>> table = adadelta.conventions()
        >>> {row["framework"]: row["rho"] for row in table}["torch"]
        0.9
        >>> table  # doctest: +ELLIPSIS
        framework  learning_rate          rho ...
        keras      learning_rate = 0.001  rho = 0.95  epsilon = 1e-07 ...

    """
    return Conventions(
        {
            "framework": framework,
            **{name: getattr(convention, name) for name in _SHOWN},
            **{f"{name}_name": convention.names.get(name) for name in _SHOWN},
            "weight_decay_mode": convention.weight_decay_mode,
        }
        for framework, convention in CONVENTIONS.items()
    )


def translate(from_: str, to: str, **arguments: Any) -> dict[str, Any]:
    """Translate the arguments of Adadelta from one framework to another.

    With the result, both make the same steps in exact arithmetic. Defaults that differ between the
    two are included. Arguments that change how a step is computed but not its result, such as
    torch's `foreach`, are left out. The frameworks are those of `conventions()`: "keras" is
    `adadelta.Adadelta`, which has arguments that `keras.optimizers.Adadelta` lacks.

    There are three kinds of weight decay. Coupled decay is translated to "keras" with
    `decoupled_weight_decay=False`. Decay that is not scaled by the learning rate is converted to
    decay that is, and back, at the learning rate given here. If the learning rate changes during
    training, the two differ.

    Args:
        from_: The framework that the arguments are for.
        to: The framework to translate them for.
        **arguments: Arguments of `from_`, by their names there. The learning rate must be a number,
            since schedules and functions belong to their framework.

    Returns:
        The arguments for `to`, by their names there.

    Raises:
        TypeError: An argument is unknown or of the wrong kind.
        ValueError: A framework is unknown, an argument is out of range, or `to` has no equal for
            one. The message names it and says why.

    Example:
        >>> import adadelta
        >>> adadelta.translate("torch", "keras", lr=0.5)
        {'learning_rate': 0.5, 'rho': 0.9, 'epsilon': 1e-06}
        >>> adadelta.translate("brainpy", "keras", lr=0.5, weight_decay=0.01)["weight_decay"]
        0.02
        >>> adadelta.translate("torch", "tf1", weight_decay=0.01)
        Traceback (most recent call last):
        ValueError: `weight_decay` of torch has no equal in tf1: it has no weight decay

    """
    source, target = convention_of("from_", from_), convention_of("to", to)
    given = _given(from_, source, arguments)
    if from_ == to:
        return dict(arguments)
    for argument, reason in source.others.items():
        value = arguments.get(argument)
        is_off = value is None or value is False or hyperparameters.as_number(value) == 0
        if reason and not is_off:
            raise _without_equal(argument, from_, to, reason)

    found = {}
    for argument, default in _defaults(target).items():
        value = given.get(argument, _defaults(source)[argument])
        if argument in given or value != default:
            found[argument] = value
    rate = given.get("learning_rate", source.learning_rate)
    found.update(_decay(from_, source, to, target, given, rate))
    for argument, value in given.items():
        if argument in (*_SHOWN, "decoupled_weight_decay"):
            continue
        if argument in target.names:
            found[argument] = value
        elif argument in _LEFT_OUT or value in (None, False, math.inf, _NEUTRAL.get(argument)):
            continue
        else:
            reason = _REFUSALS.get(argument, "it has nothing like it")
            raise _without_equal(source.names[argument], from_, to, reason)
    return {
        target.names[argument]: found[argument] for argument in target.names if argument in found
    }


def convention_of(argument: str, framework: Any) -> Convention:
    """Return the convention of a framework, or raise if there is no such framework."""
    convention = CONVENTIONS.get(hyperparameters.as_text(framework) or "")
    if convention is None:
        names = ", ".join(f'"{name}"' for name in CONVENTIONS)
        raise ValueError(hyperparameters.refusal(argument, f"one of {names}", framework))
    return convention


def _defaults(convention: Convention) -> dict[str, float]:
    epsilon = KERAS_EPSILON if convention.epsilon is None else convention.epsilon
    return {"learning_rate": convention.learning_rate, "rho": convention.rho, "epsilon": epsilon}


# Schedules and functions belong to their framework.
_CHECKS: Mapping[str, hyperparameters.Check] = {
    **hyperparameters.ARGUMENTS,
    "learning_rate": hyperparameters.FIXED_RATE,
}


def _given(framework: str, source: Convention, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by our own names, checked."""
    ours = {name: argument for argument, name in source.names.items()}
    given = {}
    for name, value in arguments.items():
        if name in source.others:
            continue
        if name not in ours:
            raise _unknown(name, framework, source)
        argument = ours[name]
        if argument == "epsilon" and value is None and source.epsilon is None:
            value = KERAS_EPSILON
        if argument == "learning_rate" and callable(value):
            raise ValueError(
                hyperparameters.refusal(
                    name, "a number: schedules and functions belong to their framework", value
                )
            )
        given[argument] = _CHECKS[argument](name, value)
    hyperparameters.check_clips({**dict.fromkeys(hyperparameters.ARGUMENTS), **given})
    return given


def _unknown(name: str, framework: str, source: Convention) -> TypeError:
    known = [*source.names.values(), *source.others]
    elsewhere = [
        source.names[argument]
        for convention in CONVENTIONS.values()
        for argument, theirs in convention.names.items()
        if theirs == name and argument in source.names
    ]
    return hyperparameters.unknown_argument(name, framework, known, next(iter(elsewhere), None))


def _decay(
    from_: str,
    source: Convention,
    to: str,
    target: Convention,
    given: dict[str, Any],
    rate: float,
) -> dict[str, Any]:
    """Return the weight decay arguments of the target."""
    decay = given.get("weight_decay", source.weight_decay)
    mode, wanted = source.weight_decay_mode, target.weight_decay_mode
    if given.get("decoupled_weight_decay") is False:
        mode = "coupled"
    if not decay:
        is_said = "weight_decay" in given and "weight_decay" in target.names
        return {"weight_decay": target.weight_decay} if is_said else {}
    if mode == wanted:
        return {"weight_decay": decay}
    if mode == "coupled" and "decoupled_weight_decay" in target.names:
        return {"weight_decay": decay, "decoupled_weight_decay": False}
    if wanted is None:
        reason = "it has no weight decay"
    elif mode == "coupled":
        reason = "there the decay is taken from the weights and does not enter the averages"
    elif wanted == "coupled":
        reason = "there the decay is added to the gradient and enters the averages"
        if to == "torch":
            reason += "; adadelta.torch.Adadelta takes `decoupled_weight_decay=True`"
    elif wanted == "unscaled":
        return {"weight_decay": decay * rate}
    elif rate == 0:
        reason = "there the decay is scaled by the learning rate, which is 0"
    else:
        return {"weight_decay": hyperparameters.check("weight_decay", decay / rate)}
    raise _without_equal(source.names["weight_decay"], from_, to, reason)


def _without_equal(name: str, from_: str, to: str, reason: str) -> ValueError:
    text = f"`{name}` of {from_} has no equal in {to}: {reason}"
    fields = {"argument": name, "source": from_, "target": to, "reason": reason}
    return ValueError(Message(text, "no_equal", **fields))
