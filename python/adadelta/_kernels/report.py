"""Which engine makes the step of each variable of an optimizer, and why not the kernel."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from adadelta._core import hyperparameters
from adadelta._core.engine import Engine
from adadelta._core.step import Row
from adadelta._core.table import aligned
from adadelta._kernels import choose


class Served(NamedTuple):
    """What is known of one variable; the columns of the table."""

    variable: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    engine: str
    reason: str | None


class KernelInfo(list[dict[str, Any]]):
    """Which engine makes the step of each variable: a list of rows that prints as a table.

    Each row is a dict of:

    - `variable`, its name; `shape`; `dtype`; and `device`, where it lies;
    - `engine`: the name of the kernel, as in `kernel_info()`, or the operators of the framework;
    - `reason`: why the kernel does not take it, or None when it does.

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
        """Return the columns by name, as `pandas.DataFrame` takes them."""
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
    """Return what is known of variables.

    Args:
        engine: The engine of their optimizer.
        rows: Their rows by name. Gradients may be None.
        found: For those of the last step, why the kernel did not take them.

    """
    result = []
    for name, row in rows.items():
        reason = engine.reason_against(row) or found.get(name)
        made_by = engine.kernel if reason is None else engine.operators
        dtype = row.parameter.dtype
        dtype = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
        shape = tuple(row.parameter.shape)
        device = _device_of(row.parameter)
        result.append(Served(name, shape, dtype, device, made_by, reason))
    return result


def _device_of(parameter: Any) -> str:
    """Return where an array lies, in the words of its framework."""
    # An array of JAX can lie on several devices.
    several = hyperparameters.attribute(parameter, "devices")
    devices = several() if callable(several) else {parameter.device}
    return ", ".join(sorted(map(str, devices)))


def kernel_info(optimizer: Any = None, params: Any = None) -> Any:
    """Say which kernels can make the step on this machine, or which makes that of each variable.

    Args:
        optimizer: None, or an optimizer of this package.
        params: The parameters, for what `adadelta.optax` makes, which does not know them; None
            for all others.

    Returns:
        Without an optimizer, for each kernel a dict: `serves` is True or False, `reason` says why
        not (or is None), `for` says for whom it is. `cache` is the directory in which its machine
        code is kept, so that it is compiled once per machine. Where `cache` is None, every process
        compiles its own, and `cache_reason` says why: other users could put their code into the
        directory, for example. Both are None for kernels that do not serve, and for "cuda".

        With an optimizer, a `KernelInfo`: a list with a row for each variable, that prints as a
        table. It is empty before the optimizer knows its variables. What shows only in a step,
        such as a gradient that the kernel can't take, is known after the step.

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
    report, report_of = (
        hyperparameters.attribute(optimizer, name)
        for name in ("_kernel_report", "_kernel_report_of")
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
