"""The step by a kernel: for which variables, and with which numbers.

A kernel does all that a call does to a variable with a dense gradient in one pass over memory,
from the loss scale to the moving average. It leaves counters, constraints, and variables that it
can't serve to the rest of the step.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from adadelta._core import hyperparameters
from adadelta._keras import precision
from adadelta._kernels import choose, layout


def reason_against() -> str | None:
    """Return why no kernel serves on this backend and machine, or None when one does."""
    backend = keras.config.backend()
    if backend not in choose.FOR_KERAS:
        return f"there is no kernel for Keras' backend {backend}"
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return f"on a {jax.default_backend()} JAX itself fuses the step"
    return choose.reason_against(choose.FOR_KERAS[backend])


def reason_against_dtype(dtype: str) -> str | None:
    """Return why the kernel can't serve variables of a dtype, or None when it can."""
    # A complex number is a pair of real ones.
    real = precision.state_dtype(dtype) if precision.is_complex(dtype) else dtype
    return choose.reason_against_dtype(choose.FOR_KERAS[keras.config.backend()], real)


def is_on(fused: bool | None, variables: Sequence[Any]) -> bool:
    """Return whether kernels are used, or raise when they are asked for and can't be.

    Args:
        fused: The argument of the optimizer.
        variables: The variables that it is to be built on.

    """
    if fused is False:
        return False
    reason = reason_against()
    if reason is None and fused:
        # With `fused=None` a variable whose dtype has no kernel takes the plain path alone.
        dtypes = sorted(set(map(precision.dtype_of, variables)) & set(layout.DTYPES))
        reason = next(filter(None, map(reason_against_dtype, dtypes)), None)
    if reason is not None and fused:
        raise ValueError(
            f"`fused` can't be {hyperparameters.received(True)} here: {reason}; None uses kernels "
            "where they can be used"
        )
    return reason is None


def served(optimizer: Any, gradients: dict[int, Any]) -> dict[int, Any]:
    """Return the gradients, as the kernel takes them, of the variables that it can serve.

    Args:
        optimizer: The optimizer, built.
        gradients: By the index of their variables.

    """
    if not optimizer._uses_kernel:
        return {}
    fits = _backend().as_needed
    fitting = {
        index: fits(gradient, optimizer._trainable_variables[index])
        for index, gradient in gradients.items()
    }
    fitting = {index: gradient for index, gradient in fitting.items() if gradient is not None}
    if keras.config.backend() != "jax":
        fitting = _backend().servable(optimizer, fitting)
    if optimizer.global_clipnorm is not None:
        # One norm is of all gradients, also those that came earlier in the window.
        windows = optimizer.gradient_accumulation_steps
        needed = len(optimizer._trainable_variables) if windows else len(gradients)
        return fitting if len(fitting) == needed else {}
    return fitting


def all_finite(optimizer: Any, gradients: dict[int, Any]) -> Any:
    """Whether all served gradients are finite, also when they are unscaled."""
    return _backend().all_finite(optimizer, gradients)


def step(optimizer: Any, gradients: dict[int, Any], action: Any, rate: Any) -> None:
    """Do to the served variables what a call does: `action` is SKIP, COLLECT or UPDATE."""
    _backend().step(optimizer, gradients, action, rate)


def settings(optimizer: Any, dtype: str, action: Any, rate: Any) -> list[Any]:
    """Return `layout.settings()` of a call for state of `dtype`, tensors where they change."""
    average = {}
    if optimizer.use_ema:
        updates = precision.tensor_of(optimizer.iterations)
        every = optimizer.ema_overwrite_frequency
        average = {
            "momentum": optimizer.ema_momentum,
            "average_starts": ops.equal(updates, 0),
            "overwrite": False if every is None else ops.equal((updates + 1) % every, 0),
        }
    return layout.settings(
        rate,
        optimizer.rho,
        optimizer.epsilon,
        precision.largest_gradient(optimizer.epsilon, dtype),
        action=action,
        loss_scale=_loss_scale(optimizer),
        steps=optimizer.gradient_accumulation_steps or 1,
        maximize=optimizer.maximize,
        clip_value=optimizer.clipvalue or math.inf,
        decay_mode=layout.DECOUPLED if optimizer.decoupled_weight_decay else layout.COUPLED,
        **average,
    )


def _loss_scale(optimizer: Any) -> Any:
    scale = optimizer.loss_scale_factor
    return optimizer._loss_scale if scale == "dynamic" else scale or 1.0


def norm_limit(optimizer: Any) -> float | None:
    """The norm to clip to, of each gradient or of all together, or None."""
    limit = optimizer.clipnorm if optimizer.global_clipnorm is None else optimizer.global_clipnorm
    return None if limit == math.inf else limit


def are_wide(dtypes: Iterable[Any]) -> bool:
    """Whether the norm of all gradients is float64: where the state of one of them is."""
    return any(dtype == "float64" for dtype in dtypes)


def groups(optimizer: Any, indices: Any) -> dict[tuple[str, bool], list[int]]:
    """Sort variables by what a call of the kernel must have in common: dtype and average."""
    found: dict[tuple[str, bool], list[int]] = {}
    for index in indices:
        dtype = precision.dtype_of(optimizer._trainable_variables[index])
        # An average is of the constrained value, so the kernel leaves it alone then.
        averaged = bool(optimizer.use_ema and index not in optimizer._constrained)
        found.setdefault((dtype, averaged), []).append(index)
    return found


def arrays(optimizer: Any, index: int, averaged: bool) -> list[Any]:
    """The Keras variables of a row of the kernel's table, `None` for the gradient."""
    return [
        optimizer._trainable_variables[index],
        None,
        optimizer._accumulated_grads[index],
        optimizer._accumulated_delta_vars[index],
        optimizer._model_variables_moving_average[index] if averaged else None,
        optimizer._accumulated_gradients[index] if optimizer.gradient_accumulation_steps else None,
    ]


def _backend() -> Any:
    backend = keras.config.backend()
    if backend == "jax":
        from adadelta._keras import fused_jax

        return fused_jax
    if backend == "tensorflow":
        from adadelta._keras import fused_tensorflow

        return fused_tensorflow
    from adadelta._keras import fused_torch

    return fused_torch
