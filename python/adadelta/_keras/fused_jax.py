"""The step by the kernel in JAX programs."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from keras import ops

from adadelta._core import clipping
from adadelta._keras import fused, precision, sparse
from adadelta._kernels import layout, xla


def as_needed(gradient: Any, variable: Any) -> Any:
    """Return a gradient as the kernel takes it, or None when it can't serve the variable."""
    dtype, given = precision.dtype_of(variable), precision.dtype_of(gradient)
    if sparse.is_rows(gradient) or precision.is_complex(dtype) or precision.is_complex(given):
        return None
    if dtype == given:
        return ops.convert_to_tensor(gradient)
    # A wider gradient of a half-precision variable keeps its digits only without the kernel.
    return ops.cast(gradient, dtype) if dtype == precision.state_dtype(dtype) else None


def all_finite(optimizer: Any, gradients: dict[int, Any]) -> Any:
    """Whether all gradients are finite, also when they are unscaled."""
    scale = optimizer.loss_scale_factor
    if isinstance(scale, float) and scale < 1:
        gradients = {
            index: gradient.astype(precision.state_dtype(gradient.dtype.name)) / scale
            for index, gradient in gradients.items()
        }
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(it)) for it in gradients.values()]))


def step(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> None:
    """Do to the variables what a call does."""
    calls = []
    for (name, averaged), indices in fused.groups(optimizer, gradients).items():
        dtype = precision.state_dtype(name)
        numbers = fused.settings(optimizer, name, action, rate)
        settings = jnp.stack([precision.as_dtype(_value(it), dtype) for it in numbers])
        variables = [fused.arrays(optimizer, index, averaged) for index in indices]
        rows = [[None if it is None else _value(it) for it in row] for row in variables]
        for row, index in zip(rows, indices, strict=True):
            row[layout.GRADIENT] = gradients[index]
        decay = np.array([optimizer._decay_of(row[layout.PARAMETER]) for row in variables], dtype)
        calls.append((settings, decay, variables, rows))

    factors = _factors(optimizer, calls)
    for (settings, decay, variables, rows), (divisor, factor) in zip(calls, factors, strict=True):
        ones = jnp.ones(len(rows), settings.dtype)
        own = [jnp.asarray(decay), ones * divisor, ones * factor]
        row_settings = jnp.stack(own, axis=1).astype(settings.dtype)
        for row, new in zip(variables, xla.step(settings, row_settings, rows), strict=True):
            for variable, value in zip(row, new, strict=True):
                if variable is not None:
                    variable.assign(value)


def _value(variable: Any) -> Any:
    return variable if isinstance(variable, int | float) else ops.convert_to_tensor(variable)


def _factors(optimizer: Any, calls: Any) -> list[tuple[Any, Any]]:
    """Return by what the gradients of each call are to be divided, and then multiplied."""
    limit = fused.norm_limit(optimizer)
    if limit is None:
        return [(1.0, 1.0)] * len(calls)
    together = optimizer.global_clipnorm is not None
    dtypes = [settings.dtype for settings, *_ in calls]
    wide = together and fused.are_wide(dtypes)
    norms = [xla.norms(settings, rows, together, wide) for settings, _, _, rows in calls]
    if together:
        norms = [clipping.combined(norms, jnp)] * len(calls)
    factors = [clipping.factors(*norm, limit, jnp, together) for norm in norms]
    return [
        clipping.narrowed(*its_factors, jnp) if wide and dtype == jnp.float32 else its_factors
        for its_factors, dtype in zip(factors, dtypes, strict=True)
    ]
