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
    rows = {
        name_of(path): Row(jnp.asarray(leaf), None, None, None)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    return report.served(Engine(), rows, dict.fromkeys(rows, reason))
