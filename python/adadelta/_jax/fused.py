"""The step of many parameters: by the kernel for all that it can serve, else one by one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adadelta._core import precision
from adadelta._jax import step
from adadelta._kernels import choose, layout

Array = Any

_MODES = {"coupled": layout.COUPLED, "unscaled": layout.UNSCALED}


def reason_against() -> str | None:
    """Why the kernel can't serve on this machine, or None when it can."""
    if jax.default_backend() != "cpu":
        return f"on a {jax.default_backend()} JAX itself fuses the step"
    return choose.reason_against("xla")


def apply(
    rows: Sequence[Sequence[Array]],
    rate: Any,
    rho: Any,
    epsilon: Any,
    weight_decays: Sequence[Any],
    weight_decay_mode: str | None,
) -> list[tuple[Array, Array, Array]]:
    """Return the new parameter and averages of each row.

    Args:
        rows: Gradient, parameter and the two averages of each parameter.
        rate: As for `step.apply`, like all that follow.
        rho: See there.
        epsilon: See there.
        weight_decays: One for each row, `None` for none.
        weight_decay_mode: See there.

    """
    groups: dict[str, list[int]] = {}
    if reason_against() is None:
        for index, (gradient, parameter, *_) in enumerate(rows):
            if _serves(gradient, parameter):
                groups.setdefault(str(parameter.dtype), []).append(index)
    results: dict[int, tuple[Array, Array, Array]] = {}
    for dtype, indices in groups.items():
        group = [rows[index] for index in indices]
        decays = [weight_decays[index] for index in indices]
        new = _by_kernel(group, dtype, rate, rho, epsilon, decays, weight_decay_mode)
        results.update(zip(indices, new, strict=True))
    for index, row in enumerate(rows):
        if index not in results:
            results[index] = step.apply(
                *row, rate, rho, epsilon, weight_decays[index], weight_decay_mode
            )
    return [results[index] for index in range(len(rows))]


def _serves(gradient: Array, parameter: Array) -> bool:
    dtype = str(parameter.dtype)
    # A wider gradient of a half-precision parameter keeps its digits only without the kernel.
    fits = dtype in (precision.state_dtype(dtype), str(jnp.result_type(gradient)))
    return fits and dtype in layout.DTYPES


def _by_kernel(
    rows: Sequence[Sequence[Array]],
    dtype: str,
    rate: Any,
    rho: Any,
    epsilon: Any,
    decays: Sequence[Any],
    mode: str | None,
) -> list[tuple[Array, Array, Array]]:
    from adadelta._kernels import xla

    state = rows[0][2].dtype
    limit = step.largest_gradient(epsilon, state)
    numbers = layout.settings(rate, rho, epsilon, limit, decay_mode=_MODES[mode or "coupled"])
    settings = jnp.stack([jnp.asarray(it).astype(state) for it in numbers])
    one = jnp.ones((), state)
    row_settings = jnp.stack(
        [
            jnp.stack([jnp.asarray(0.0 if decay is None else decay).astype(state), one, one])
            for decay in decays
        ]
    )
    table = [
        [parameter, jnp.asarray(gradient).astype(dtype), square_avg, acc_delta, None, None]
        for gradient, parameter, square_avg, acc_delta in rows
    ]
    return [
        (row[layout.PARAMETER], row[layout.SQUARE_AVG], row[layout.ACC_DELTA])
        for row in xla.step(settings, row_settings, table)
    ]
