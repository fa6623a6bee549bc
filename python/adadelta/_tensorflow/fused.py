"""The step of one of TensorFlow's variables by the kernel."""

from typing import Any

import numpy as np

from adadelta._core.precision import largest_gradient
from adadelta._kernels import choose, layout
from adadelta._tensorflow import precision


def can_serve(variable: Any, gradient: Any) -> bool:
    """Whether the kernel makes the step: for a large variable, with a gradient of its dtype."""
    if choose.reason_against("tensorflow") is not None:
        return False
    from adadelta._kernels import xla_tensorflow

    return (
        variable.dtype == gradient.dtype
        and not gradient.dtype.is_complex
        and (variable.shape.num_elements() or 0) >= xla_tensorflow.WORTHWHILE
        and xla_tensorflow.can_serve(variable)
    )


def update(
    variable: Any,
    gradient: Any,
    square_avg: Any,
    acc_delta: Any,
    rate: Any,
    rho: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Decay a variable and update it and its averages; see `adadelta._tensorflow.step.update`."""
    from adadelta._kernels import xla_tensorflow

    dtype = precision.dtype_of(variable)
    numbers = layout.settings(
        rate,
        rho,
        epsilon,
        largest_gradient(epsilon, dtype),
        decay_mode=layout.DECOUPLED if decoupled else layout.COUPLED,
    )
    # The average is the optimizer's own, so what is kept with it lives as long.
    program = getattr(square_avg, "_adadelta_program", None)
    if program is None or program.rows[0][layout.PARAMETER] is not variable:
        program = xla_tensorflow.Program([[variable, None, square_avg, acc_delta, None, None]])
        square_avg._adadelta_program = program
    row_settings = np.array([[weight_decay, 1, 1]], dtype)
    program.step(xla_tensorflow.together(numbers, dtype), row_settings, [gradient])
