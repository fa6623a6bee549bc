"""What makes the step of each parameter."""

from typing import Any

import jax
import jax.numpy as jnp

from adadelta._core.step import Row
from adadelta._jax.engine import Engine
from adadelta._kernels import report
from adadelta._optax.state import name_of


def kernel_report(params: Any, reason: str | None = None) -> list[report.Served]:
    """Return the rows of `adadelta.kernel_info()` for a tree of parameters.

    Args:
        params: The tree.
        reason: Why no kernel can update any of them, or None.

    """
    rows, devices = {}, {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name, parameter = name_of(path), jnp.asarray(leaf)
        rows[name] = Row(parameter, None, None, None)
        devices[name] = ", ".join(sorted(map(str, parameter.devices())))
    return report.served(Engine(), rows, devices, dict.fromkeys(rows, reason))
