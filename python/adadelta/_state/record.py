"""`OptimizerState`: the state of an optimizer, independent of its framework."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from adadelta._core import hyperparameters
from adadelta._state.summary import Averages, Summary, progress, summarize

# The averages of squares, which every optimizer has.
AVERAGES = ("square_avg", "acc_delta")
# The arrays that a parameter may have, and the argument that adds each, if there is one.
SLOTS = {
    **dict.fromkeys(AVERAGES),
    "average": "use_ema",
    "window_sum": "gradient_accumulation_steps",
}

_DTYPES = (np.dtype("float32"), np.dtype("float64"))


class StateMismatchError(ValueError):
    """A state does not fit an optimizer or a mapping, and nothing has changed.

    Args:
        message: What is wrong, with as many of the problems as a short message has room for.
        problems: Everything that does not fit, each in a few words, if there is a list of it.

    Example:
        >>> import adadelta.state, numpy as np
        >>> one = {"square_avg": np.ones(1, "float32"), "acc_delta": np.ones(1, "float32")}
        >>> state = adadelta.state.OptimizerState(parameters={"kernel": one, "bias": one})
        >>> try:
        ...     adadelta.convert_state(state, {"kernal": "weight"})
        ... except adadelta.state.StateMismatchError as error:
        ...     print(*error.problems, sep="\\n")
        unknown: kernal (did you mean kernel?)
        not in the mapping: kernel, bias

    """

    def __init__(self, message: str = "", problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class StateWarning(UserWarning):
    """A model was loaded without its optimizer's state, because that does not fit.

    `load_model()`, `load_weights()` and callbacks such as `BackupAndRestore` give this warning,
    which names the first problem. Functions that load a state by name, such as `load_state()`,
    raise a `StateMismatchError`, whose `problems` lists all.
    """


@dataclass(eq=False, repr=False)
class OptimizerState:
    """The state of an optimizer, by the names of the parameters.

    Args:
        step: The number of calls so far.
        update: How many of them updated the parameters.
        skipped: How many of them were skipped.
        hyperparameters: The arguments of the optimizer, as its `get_config()` returns them, but
            not its name.
        parameters: For each parameter's name its arrays, float32 or float64, by slot:
            `square_avg` and `acc_delta` (the averages of the squared gradients and updates), and
            if they are used, `average` (the moving average of the parameter) and `window_sum`
            (the sum of the gradients accumulated for the next update).
        window: How many calls were accumulated since the last update; `None` without accumulation.
        window_gradients: The names of the parameters that had a gradient in these calls.
        loss_scale: The dynamic loss scale; `None` if it is not used.
        finite_calls: How many finite calls there were since it last changed; `None` likewise.

    Two states are equal when they are the same bit for bit.

    Raises:
        TypeError: A counter is no whole number, the loss scale is no number, or an array is not
            float32 or float64.
        ValueError: A counter is negative, or a slot has an unknown name.

    Example:
        >>> import numpy as np
        >>> import adadelta
        >>> one = np.ones(3, "float32")
        >>> parameters = {"dense/bias": {"square_avg": one, "acc_delta": one}}
        >>> adadelta.OptimizerState(step=7, update=7, parameters=parameters)
        OptimizerState(step=7, update=7, 1 parameter, slots: square_avg, acc_delta)

    """

    step: int = 0
    update: int = 0
    skipped: int = 0
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    window: int | None = None
    window_gradients: tuple[str, ...] = ()
    loss_scale: float | None = None
    finite_calls: int | None = None

    def __post_init__(self) -> None:
        for name in ("step", "update", "skipped"):
            setattr(self, name, _count(name, getattr(self, name)))
        for name in ("window", "finite_calls"):
            if getattr(self, name) is not None:
                setattr(self, name, _count(name, getattr(self, name)))
        if self.loss_scale is not None:
            self.loss_scale = _float("loss_scale", self.loss_scale)
        self.hyperparameters = dict(self.hyperparameters)
        self.parameters = {
            str(name): {slot: _array(name, slot, value) for slot, value in slots.items()}
            for name, slots in self.parameters.items()
        }
        self.window_gradients = tuple(sorted(self.window_gradients))

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots that any of the parameters has."""
        return tuple(
            slot for slot in SLOTS if any(slot in arrays for arrays in self.parameters.values())
        )

    def counters(self) -> dict[str, Any]:
        """Return everything but the arrays and the hyperparameters, by name."""
        names = [field.name for field in fields(self)]
        return {
            name: getattr(self, name)
            for name in names
            if name not in ("hyperparameters", "parameters")
        }

    def summary(self, learning_rate: float | None = None, epsilon: float | None = None) -> Summary:
        """Return a table of how far the gradients of each parameter move it.

        Args:
            learning_rate: The learning rate; `None` for the one in `hyperparameters`, if that is a
                number.
            epsilon: The number added inside the roots; `None` likewise.

        Returns:
            What `adadelta.Adadelta.summary()` returns. The shapes are those of the averages,
            which have a last axis of 2 for complex parameters.

        Raises:
            TypeError: An argument is no number.
            ValueError: It is out of range, or it is `None` and `hyperparameters` has no number.

        Example:
            >>> import numpy as np
            >>> import adadelta
            >>> one = np.ones(3, "float32")
            >>> parameters = {"dense/bias": {"square_avg": one, "acc_delta": one}}
            >>> state = adadelta.state.OptimizerState(step=7, update=7, parameters=parameters)
            >>> state.summary(learning_rate=0.5, epsilon=1e-7)[0]["rate_median"]
            0.5

        """
        numbers = {
            name: hyperparameters.check(name, self._given(name, value))
            for name, value in {"learning_rate": learning_rate, "epsilon": epsilon}.items()
        }
        averages = [
            Averages(name, arrays["square_avg"].shape, arrays["square_avg"], arrays["acc_delta"])
            for name, arrays in self.parameters.items()
            if "square_avg" in arrays and "acc_delta" in arrays
        ]
        count = sum(
            arrays["square_avg"].size
            for arrays in self.parameters.values()
            if "square_avg" in arrays
        )
        text = progress(len(self.parameters), count, self.step, self.update)
        return summarize(averages, progress=text, **numbers)

    def _given(self, name: str, value: Any) -> Any:
        if value is not None:
            return value
        saved = [group.get(name) for group in self.hyperparameters.get("groups", ())]
        saved = saved or [self.hyperparameters.get(name)]
        if any(hyperparameters.as_number(number) is None or number != saved[0] for number in saved):
            raise ValueError(
                f"`{name}` must be given, since the state's hyperparameters have no number for it "
                "that holds for all parameters"
            )
        return saved[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OptimizerState):
            return NotImplemented
        return (
            self.counters() == other.counters()
            and self.hyperparameters == other.hyperparameters
            and self.parameters.keys() == other.parameters.keys()
            and all(
                _same(arrays, other.parameters[name]) for name, arrays in self.parameters.items()
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        number = len(self.parameters)
        parts = [f"step={self.step}", f"update={self.update}"]
        parts += [f"skipped={self.skipped}"] if self.skipped else []
        parts += [f"window={self.window}"] if self.window is not None else []
        parts += [f"loss_scale={self.loss_scale:g}"] if self.loss_scale is not None else []
        parts += [f"{number} parameter" if number == 1 else f"{number} parameters"]
        return f"OptimizerState({', '.join(parts)}, slots: {', '.join(self.slots) or 'none'})"


def refuse_no_state(argument: str, value: Any) -> None:
    """Refuse a value that is no state."""
    if not isinstance(value, OptimizerState):
        raise TypeError(f"`{argument}` must be an OptimizerState; received {type(value).__name__}")


def _count(name: str, value: Any) -> int:
    number = hyperparameters.as_number(value)
    if not isinstance(number, int):
        raise TypeError(hyperparameters.refusal(name, "a whole number", value))
    if number < 0:
        raise ValueError(hyperparameters.refusal(name, "at least 0", value))
    return number


def _float(name: str, value: Any) -> float:
    number = hyperparameters.as_number(value)
    if number is None:
        raise TypeError(hyperparameters.refusal(name, "a number", value))
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _array(name: str, slot: str, value: Any) -> np.ndarray:
    if slot not in SLOTS:
        raise ValueError(f"the slots of {name} can be {', '.join(SLOTS)}; received {slot!r}")
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(f"the {slot} of {name} must be float32 or float64; received {array.dtype}")
    return array


def _same(mine: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    # Compared as bits: 0 and -0 are equal as numbers, and NaN is equal to nothing.
    return mine.keys() == other.keys() and all(
        array.dtype == other[slot].dtype
        and array.shape == other[slot].shape
        and array.tobytes() == other[slot].tobytes()
        for slot, array in mine.items()
    )
