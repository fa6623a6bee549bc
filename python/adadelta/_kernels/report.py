"""Report which engine makes the step of each variable of an optimizer, and why not the kernel."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from adadelta._core import hyperparameters
from adadelta._core.engine import Engine
from adadelta._core.lazy import AllRows, updates_all_rows
from adadelta._core.loss_scaling import unwrapped
from adadelta._core.step import Row
from adadelta._core.table import aligned
from adadelta._kernels import choose


class Served(NamedTuple):
    """The report on one variable; its fields are the columns of the table."""

    variable: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    engine: str
    reason: str | None


class KernelInfo(list[dict[str, Any]]):
    """The engine that makes the step of each variable: a list of rows that prints as a table.

    Each row is a dict of:

    - `variable`, its name; `shape`; `dtype`; and `device`, on which it is;
    - `engine`: the name of the kernel, as in `kernel_info()`, or the operators of the framework;
    - `reason`: why the kernel is not used for it, or None when it is; also why a sparse gradient
      updates all of its rows.

    Example:
        >>> import keras, adadelta
        >>> optimizer = adadelta.Adadelta(fused=False)
        >>> optimizer.build([keras.Variable([1.0, 2.0], name="x")])
        >>> adadelta.kernel_info(optimizer)[0]["reason"]
        '`fused` is False'

    """

    def __init__(self, rows: Iterable[Served]) -> None:
        super().__init__(row._asdict() for row in rows)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a dict of columns, which `pandas.DataFrame` accepts."""
        return {column: [row[column] for row in self] for column in Served._fields}

    def __repr__(self) -> str:
        if not self:
            return "Adadelta, not yet built: the first step builds it, or build(variables)"
        rows = [
            tuple("" if value is None else str(value) for value in row.values()) for row in self
        ]
        return "\n".join(aligned([Served._fields, *rows]))

    def __reduce__(self) -> Any:
        return KernelInfo, ([Served(**row) for row in self],)


def served(
    engine: Engine,
    rows: Mapping[str, Row],
    found: Mapping[str, str | None],
) -> list[Served]:
    """Return the report on variables.

    Args:
        engine: The engine of their optimizer.
        rows: Their rows by name. Gradients may be None.
        found: For the variables of the last step, why the kernel did not take them.

    """
    result = []
    for name, row in rows.items():
        reason = engine.reason_against(row) or found.get(name)
        made_by = engine.kernel if reason is None else engine.operators
        if isinstance(reason, AllRows):
            made_by, reason = engine.kernel, updates_all_rows(reason)
        dtype = row.parameter.dtype
        dtype = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
        shape = tuple(row.parameter.shape)
        device = _device_of(row.parameter)
        result.append(Served(name, shape, dtype, device, made_by, reason))
    return result


def _device_of(parameter: Any) -> str:
    """Return the device of an array, as its framework names it."""
    # A JAX array can be on several devices.
    several = hyperparameters.attribute(parameter, "devices")
    devices = several() if callable(several) else {parameter.device}
    return ", ".join(sorted(map(str, devices)))


def kernel_info(optimizer: object = None, params: Any = None) -> Any:
    """Report which kernels work on this machine, or which one makes the step of each variable.

    Args:
        optimizer: None, or an optimizer of this package, also inside a `LossScaleOptimizer`.
        params: The parameters, for a gradient transformation of `adadelta.optax`, which does not
            hold them itself; None for all other optimizers.

    Returns:
        Without an optimizer, a dict for each kernel: `serves` is True if the kernel works on this
        machine, `reason` says why not (or is None), and `for` describes its use. `cache` is the
        directory that keeps its machine code, so that it is compiled once per machine. If `cache`
        is None, every process compiles its own code, and `cache_reason` says why: for example,
        other users can write to the directory. Both are None for "cuda" and if `serves` is False.

        With an optimizer, a `KernelInfo`: a list with a row for each variable, which prints as a
        table. It is empty before the optimizer is built. Reasons that only a step reveals, such
        as a gradient that the kernel can't take, are reported after the step.

    Raises:
        TypeError: `optimizer` is no optimizer of this package, or `params` are missing or not
            needed.

    Example:
        >>> import adadelta
        >>> sorted(adadelta.kernel_info())
        ['cpu', 'cuda', 'tensorflow', 'xla']

    """
    if optimizer is None:
        return choose.kernels()
    inner, _ = unwrapped(optimizer)
    report, report_of = (
        hyperparameters.attribute(inner, name) for name in ("_kernel_report", "_kernel_report_of")
    )
    if isinstance(optimizer, type) or not (callable(report) or callable(report_of)):
        requirement = "None or an optimizer of adadelta"
        raise TypeError(hyperparameters.refusal("optimizer", requirement, optimizer))
    if callable(report):
        if params is not None:
            requirement = "None for an optimizer that knows its parameters"
            raise TypeError(hyperparameters.refusal("params", requirement, params))
        return KernelInfo(report())
    if params is None:
        raise TypeError(hyperparameters.refusal("params", "the tree of parameters", params))
    return KernelInfo(report_of(params))
