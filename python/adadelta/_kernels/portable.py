"""The fused step of one tensor by the rule: what kernels are held to, and serves without them."""

from typing import Any

from adadelta._core import rule
from adadelta._kernels import layout

Array = Any


def step(
    array: Any,
    settings: Array,
    own: Array,
    parameter: Array,
    gradient: Array | None,
    square_avg: Array,
    acc_delta: Array,
    average: Array | None = None,
    window: Array | None = None,
) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Return what one step makes of a parameter, its averages and its window.

    Args:
        array: A namespace with NumPy's names: numpy or jax.numpy.
        settings: An array of `layout.SETTINGS` values in the dtype of the state.
        own: The tensor's `layout.ROW_SETTINGS` values, likewise.
        parameter: Of the state's dtype, or of one that is half as wide.
        gradient: Of the parameter's dtype; `None` counts as 0.
        square_avg: In the dtype of the state, like all that follow.
        acc_delta: See there.
        average: See there; `None` when it is not used.
        window: See there; `None` when gradients are not collected.

    """
    dtype = settings.dtype
    action, rate = settings[layout.ACTION], settings[layout.RATE]
    old = (parameter, square_avg, acc_delta, average, window)
    given = array.zeros(parameter.shape, dtype) if gradient is None else gradient.astype(dtype)
    given = given / settings[layout.LOSS_SCALE]
    if window is not None:
        collected = window + given
        given = collected / settings[layout.STEPS]
        window = array.where(action == layout.COLLECT, collected, array.zeros_like(window))

    given = given * settings[layout.SIGN]
    is_clipped = (own[layout.CLIP_DIVISOR] != 1) | (own[layout.CLIP_FACTOR] != 1)
    shortened = given / own[layout.CLIP_DIVISOR] * own[layout.CLIP_FACTOR]
    given = array.where(is_clipped, shortened, given)
    limit = settings[layout.CLIP_VALUE]
    given = array.clip(given, -limit, limit)

    value = parameter.astype(dtype)
    decay, mode = own[layout.WEIGHT_DECAY], settings[layout.DECAY_MODE]
    has_decay = decay != 0
    coupled = has_decay & (mode == layout.COUPLED)
    given = array.where(coupled, given + decay * value, given)
    largest = settings[layout.LARGEST_GRADIENT]
    given = rule.saturated(given, largest, array.clip)
    share = array.where(mode == layout.DECOUPLED, decay * rate, decay)
    value = array.where(has_decay & (mode != layout.COUPLED), value - value * share, value)
    rho: Any = _Rho(settings[layout.RHO], settings[layout.ONE_MINUS_RHO])
    change, square_avg, acc_delta = rule.update(
        given,
        square_avg,
        acc_delta,
        rho,
        settings[layout.EPSILON],
        array.sqrt,
    )
    parameter = (value - rate * change).astype(parameter.dtype)
    if average is not None:
        value = parameter.astype(dtype)
        momentum, rest = settings[layout.MOMENTUM], settings[layout.ONE_MINUS_MOMENTUM]
        moved = momentum * average + rest * value
        average = array.where(settings[layout.AVERAGE_STARTS] != 0, value, moved)
        overwritten = average.astype(parameter.dtype)
        parameter = array.where(settings[layout.OVERWRITE] != 0, overwritten, parameter)

    new = (parameter, square_avg, acc_delta, average, window)
    # Of all this, a call that only collects changes the window, and a skipped one nothing.
    happens = [action == layout.UPDATE] * 4 + [action != layout.SKIP]
    return tuple(
        None if after is None else array.where(it_happens, after, before)
        for it_happens, before, after in zip(happens, old, new, strict=True)
    )  # type: ignore[return-value]


class _Rho:
    """A rho whose `1 - rho` was taken before rounding, as where rho is a Python number."""

    def __init__(self, rho: Array, one_minus_rho: Array) -> None:
        self.rho, self.one_minus_rho = rho, one_minus_rho

    def __mul__(self, other: Array) -> Array:
        return self.rho * other

    def __rsub__(self, one: int) -> Array:
        return self.one_minus_rho
