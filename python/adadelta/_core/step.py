"""The order of a step, written once: what happens to one parameter, and in which order.

    1. unscale     the gradient is divided by the loss scale
    2. accumulate  while gradients are accumulated, it is added to their sum, and nothing else
                   happens; the last of these calls uses the mean of all their gradients
    3. sign        negated to maximize
    4. clip        by its norm or that of all gradients together, or by value
    5. decay       of the weights: added to the gradient (coupled), or taken from the parameter
                   (decoupled, unscaled)
    6. rule        the equations of `rule.py`
    7. constraint  the parameter is replaced by what its constraint allows
    8. average     the moving average follows the parameter, and replaces it when that is due

The counters (9) belong to the optimizer. `collect` is 1 and 2 of a call that only accumulates,
`advance` is 1 to 6, `constrain` 7 and `follow` 8; `change` is the part of `advance` that gradient
transformations need. They are pure functions of one row, for arrays of any framework. The kernels
are transcriptions of them, and tests compare the two.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

from adadelta._core import clipping, rule
from adadelta._core.rule import Array as Array
from adadelta._core.rule import Number as Number

# What a call does to a row: nothing; accumulate its gradient; update it; or only let the moving
# average follow, in an update in which this row has no gradient.
SKIP, COLLECT, UPDATE, FOLLOW = 0, 1, 2, 3


class Row(NamedTuple):
    """One parameter and what belongs to it. All arrays of a row have the parameter's shape.

    Attributes:
        parameter: The parameter.
        gradient: Its gradient in this call, or None if it has none, which counts as 0.
        square_avg: The average of squared gradients, in the dtype of the state like all below.
        acc_delta: The average of squared updates.
        average: The moving average of the parameter, or None if none is kept.
        window: The sum of the gradients since the last update, or None without accumulation.
        weight_decay: A number of at least 0.
        action: SKIP, COLLECT, UPDATE or FOLLOW.
        constraint: A function that returns the allowed value for a given one, or None.

    """

    parameter: Array
    gradient: Array | None
    square_avg: Array
    acc_delta: Array
    average: Array | None = None
    window: Array | None = None
    weight_decay: Number = 0.0
    action: Number = UPDATE
    constraint: Callable[[Array], Array] | None = None


class Columns(Sequence[Row]):
    """Rows stored by column, for optimizers of thousands of small variables.

    Making 2,000 rows takes as long as half of their step.

    Args:
        columns: For each field of the rows, its values.

    """

    def __init__(self, columns: Sequence[Sequence[Array]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, place: int) -> Row:  # type: ignore[override]  # of no slice
        return Row(*(column[place] for column in self.columns))

    def __iter__(self) -> Iterator[Row]:
        return map(Row, *self.columns)


def columns_of(rows: Sequence[Row]) -> Sequence[Sequence[Array]]:
    """Return the values of each field of the rows."""
    return rows.columns if isinstance(rows, Columns) else list(zip(*rows, strict=True))


@dataclass(frozen=True)
class Options:
    """The options that are fixed when an optimizer is made.

    Attributes:
        rho: Decay rate of both averages.
        epsilon: Added inside both roots.
        maximize: Whether gradients are negated.
        clipnorm: The norm to which each gradient is clipped, or None.
        clipvalue: The magnitude to which each element is clipped, or None.
        global_clipnorm: The norm to which all gradients together are clipped, or None.
        decay_mode: What happens to weight decay: "coupled" (added to the gradient), "decoupled"
            (taken from the parameter, times the rate) or "unscaled" (taken from the parameter).
        ema_momentum: The share of the old moving average that is kept.
        one_minus_rho: 1 - rho as computed before rho was rounded, or None.
        one_minus_ema_momentum: Likewise.

    """

    rho: Number
    epsilon: Number
    maximize: bool = False
    clipnorm: float | None = None
    clipvalue: Number | None = None
    global_clipnorm: float | None = None
    decay_mode: str = "decoupled"
    ema_momentum: Number = 0.0
    one_minus_rho: Number | None = None
    one_minus_ema_momentum: Number | None = None

    @classmethod
    def of(cls, optimizer: object) -> "Options":
        """Return the options of an optimizer that has them as attributes under Keras' names."""
        is_decoupled = getattr(optimizer, "decoupled_weight_decay", False)
        names = (field.name for field in fields(cls) if hasattr(optimizer, field.name))
        given = {name: getattr(optimizer, name) for name in names}
        return cls(decay_mode="decoupled" if is_decoupled else "coupled", **given)

    def are_only(self, *names: str) -> bool:
        """Whether all options other than these are at their defaults.

        Code that supports only some options checks this, so that new ones never reach it.
        """
        others = (field for field in fields(self) if field.name not in ("rho", "epsilon", *names))
        return all(getattr(self, field.name) == field.default for field in others)

    @property
    def norm_limit(self) -> float | None:
        """The norm to clip to, of each gradient or of all together, or None."""
        limit = self.clipnorm if self.global_clipnorm is None else self.global_clipnorm
        return None if limit is None or math.isinf(limit) else limit


class Call(NamedTuple):
    """The arguments of one call of the optimizer.

    Attributes:
        rate: The learning rate.
        loss_scale: The number to divide gradients by, or None.
        steps: The number of calls to average over, or None without accumulation.
        average_starts: Whether this is the first update, which sets moving averages to the
            parameters.
        average_overwrites: Whether the moving averages replace the parameters.

    """

    rate: Number
    loss_scale: Number | None = None
    steps: Number | None = None
    average_starts: Number = False
    average_overwrites: Number = False


class Arrays(Protocol):
    """Operations of a framework on its arrays, besides operators."""

    def sqrt(self, array: Array) -> Array:
        """Return the square root of each element."""

    def clip(self, array: Array, low: Number, high: Number) -> Array:
        """Limit each element to a range."""

    def where(self, condition: Number, if_true: Array, if_false: Array) -> Array:
        """Choose by a condition that is not a Python number."""

    def zeros_like(self, array: Array) -> Array:
        """Return zeros."""

    def number(self, number: Number, like: Array) -> Number:
        """Return a number that can be combined with an array; a Python number stays as it is."""

    def to_state(self, value: Array, like: Array) -> Array:
        """Return a parameter or gradient in the dtype and shape of its averages."""

    def from_state(self, value: Array, like: Array) -> Array:
        """Return an array in the dtype and shape of a parameter: undoes `to_state`."""

    def largest_gradient(self, epsilon: Number, like: Array) -> Number:
        """Return `rule.largest_gradient` for averages of the dtype of an array."""


def unscaled(row: Row, call: Call, arrays: Arrays) -> Array | None:
    """Return the gradient divided by the loss scale, in the dtype of the state."""
    if row.gradient is None:
        return None
    gradient = arrays.to_state(row.gradient, row.square_avg)
    if call.loss_scale is None:
        return gradient
    return gradient / arrays.number(call.loss_scale, gradient)


def collect(row: Row, call: Call, arrays: Arrays) -> Row:
    """Return a row after a call that only accumulates: only its sum of gradients changes."""
    gradient = unscaled(row, call, arrays)
    if gradient is None or row.window is None:
        return row
    return row._replace(window=row.window + gradient)


def mean(row: Row, call: Call, arrays: Arrays) -> Array:
    """Return the gradient of an update: unscaled, and averaged with the accumulated ones.

    Norms are computed from this.
    """
    gradient = unscaled(row, call, arrays)
    if row.window is None:
        return arrays.zeros_like(row.square_avg) if gradient is None else gradient
    total = row.window if gradient is None else row.window + gradient
    return total / arrays.number(call.steps, total)


def clipped(
    row: Row,
    call: Call,
    options: Options,
    arrays: Arrays,
    factors: clipping.Factors | None = None,
) -> Array:
    """Return the gradient of an update with its sign, clipped; arguments as for `change`."""
    gradient = mean(row, call, arrays)
    if options.maximize:
        gradient = -gradient
    if factors is not None:
        divisor, factor = (arrays.number(number, gradient) for number in factors)
        gradient = gradient / divisor * factor
    if options.clipvalue is not None:
        gradient = arrays.clip(gradient, -options.clipvalue, options.clipvalue)
    return gradient


def change(
    row: Row,
    call: Call,
    options: Options,
    arrays: Arrays,
    factors: clipping.Factors | None = None,
) -> tuple[Array, Array, Array]:
    """Return what an update subtracts from the parameter, besides decay, and the new averages.

    All three are in the dtype of the state. The parameter is needed for coupled weight decay only,
    and may be None without it.

    Args:
        row: The row.
        call: The arguments of the call.
        options: The optimizer's options.
        arrays: The operations of the framework.
        factors: The divisor and then the multiplier that clip the gradient by norm.

    """
    state = row.square_avg
    gradient = clipped(row, call, options, arrays, factors)
    if options.decay_mode == "coupled" and not _is_zero(row.weight_decay):
        decay = arrays.number(row.weight_decay, state)
        gradient = gradient + decay * arrays.to_state(row.parameter, state)
    direction, square_avg, acc_delta = rule.update(
        rule.saturated(gradient, arrays.largest_gradient(options.epsilon, state), arrays.clip),
        row.square_avg,
        row.acc_delta,
        arrays.number(options.rho, state),
        arrays.number(options.epsilon, state),
        arrays.sqrt,
        options.one_minus_rho,
    )
    return arrays.number(call.rate, state) * direction, square_avg, acc_delta


def advance(
    row: Row,
    call: Call,
    options: Options,
    arrays: Arrays,
    factors: clipping.Factors | None = None,
) -> Row:
    """Return a row after an update, except for its constraint and moving average.

    Args:
        row: The row.
        call: The arguments of the call.
        options: The optimizer's options.
        arrays: The operations of the framework.
        factors: As for `change`.

    """
    taken, square_avg, acc_delta = change(row, call, options, arrays, factors)
    value = arrays.to_state(row.parameter, row.square_avg)
    if options.decay_mode != "coupled" and not _is_zero(row.weight_decay):
        decay = arrays.number(row.weight_decay, value)
        if options.decay_mode == "decoupled":
            decay = decay * arrays.number(call.rate, value)
        value = value - value * decay
    return row._replace(
        parameter=arrays.from_state(value - taken, row.parameter),
        square_avg=square_avg,
        acc_delta=acc_delta,
        window=None if row.window is None else arrays.zeros_like(row.window),
    )


def constrain(row: Row) -> Row:
    """Return a row with the parameter that its constraint allows."""
    return row if row.constraint is None else row._replace(parameter=row.constraint(row.parameter))


def follow(row: Row, call: Call, options: Options, arrays: Arrays) -> Row:
    """Update the moving average of a row, and replace the parameter by it when that is due."""
    if row.average is None:
        return row
    value = arrays.to_state(row.parameter, row.square_avg)

    def moved() -> Array:
        momentum, rest = options.ema_momentum, options.one_minus_ema_momentum
        rest = 1 - momentum if rest is None else rest
        return momentum * row.average + rest * value

    average = _chosen(call.average_starts, lambda: value, moved, arrays)
    parameter = _chosen(
        call.average_overwrites,
        lambda: arrays.from_state(average, row.parameter),
        lambda: row.parameter,
        arrays,
    )
    return row._replace(parameter=parameter, average=average)


def step(
    row: Row,
    call: Call,
    options: Options,
    arrays: Arrays,
    factors: clipping.Factors | None = None,
) -> Row:
    """Return a row after a call: the whole step, if its action is a Python number."""
    if row.action == SKIP:
        return row
    if row.action == COLLECT:
        return collect(row, call, arrays)
    if row.action == FOLLOW:
        return follow(row, call, options, arrays)
    return follow(constrain(advance(row, call, options, arrays, factors)), call, options, arrays)


def _is_zero(number: Number) -> bool:
    # A decay of 0 must not change values that are not finite: 0 times infinity is NaN.
    return isinstance(number, int | float) and number == 0


def _chosen(
    condition: Number,
    if_true: Callable[[], Array],
    if_false: Callable[[], Array],
    arrays: Arrays,
) -> Array:
    if isinstance(condition, bool | int | float):
        return if_true() if condition else if_false()
    return arrays.where(condition, if_true(), if_false())
