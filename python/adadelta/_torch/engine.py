"""The step on torch tensors: by the kernels where they can be used, else by torch's operations.

`Engine.plan` sorts and checks rows without changing anything; `Engine.run` does the work. An
optimizer with several engines plans all of them before it runs the first, so that a step is done
completely or not at all.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adadelta._core.clipping import Factors
from adadelta._core.engine import UNWANTED, Group, alike, factors, no_kernel
from adadelta._core.lazy import AllRows
from adadelta._core.step import COLLECT, FOLLOW, SKIP, UPDATE, Call, Options, Row, columns_of
from adadelta._kernels import cuda, layout, torch_memory
from adadelta._torch import finite, plain, shards
from adadelta._torch import kernel as processor
from adadelta._torch.arrays import arrays_of
from adadelta._torch.lazy import Lazy, Touched

# How many sets of rows are remembered, so that the next step with one of them checks less.
_SETS = 8
_ACTION = Row._fields.index("action")
_NUMBERS = frozenset({float, int, bool, type(None)})


class Part(NamedTuple):
    """Rows with the same action, sorted by how they are updated."""

    action: int
    by_kernel: Sequence[processor.Step] = ()
    # State that is not contiguous, with the copies of it in the kernel's rows.
    stand_ins: Sequence[tuple[Tensor, Tensor]] = ()
    on_gpu: Sequence[Row] = ()
    # Each of these sequences has rows of the same kind, which are updated together.
    together: Sequence[Sequence[Row]] = ()
    alone: Sequence[Row] = ()
    # Rows whose constraints are applied after all updates.
    constrained: Sequence[Row] = ()
    # Parameters of which only some rows are updated.
    touched: Sequence[Touched] = ()

    def and_(self, other: "Part") -> "Part":
        """Return a part with the rows of both, which have the same action."""
        fields: Any = zip(self[1:], other[1:], strict=True)
        return Part(self.action, *([*mine, *its] for mine, its in fields))


class Plan(NamedTuple):
    """A checked step, ready to run."""

    parts: Sequence[Part]
    call: Call
    options: Options
    proceed: Tensor | None = None


class Repeated(NamedTuple):
    """A checked step on the same rows as an earlier one, all of which the kernel updates."""

    step: processor.Step
    groups: Sequence[processor.Group]
    proceed: None = None


class Engine:
    """Makes steps on rows of torch tensors, in place; see `adadelta._core.engine.Engine`."""

    kernel = "cpu"
    operators = "operators of torch"

    def __init__(
        self,
        fused: bool | None = None,
        *,
        foreach: bool | None = None,
        differentiable: bool = False,
        waits: bool = True,
        lazy: Lazy | None = None,
    ) -> None:
        """Make an engine.

        Args:
            fused: None uses a kernel where one works and is proved; True uses one for every row or
                raises an error; False uses none.
            foreach: False updates one tensor at a time, unless `fused` is True.
            differentiable: Whether gradients flow through a step.
            waits: Whether the engine may read the values of tensors, which waits for their device.
            lazy: Notes which rows are behind after sparse gradients; None makes a new one.

        """
        self.lazy = Lazy() if lazy is None else lazy
        self.fused, self.foreach = fused, foreach
        self.differentiable, self.waits = differentiable, waits
        self.reasons: list[str | None] = []
        self._noted: dict[Any, processor.Rows] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What is remembered is about these tensors, and a copy has others.
        return {**self.__dict__, "reasons": [], "_noted": {}}

    def forget(self) -> None:
        """Forget the rows of earlier steps, so that their tensors can be freed."""
        self._noted = {}

    def reason_against_dtype(self, dtype: str) -> str | None:
        """See `adadelta._core.engine.Engine`, as for the methods below."""
        return processor.reason_against_dtype(getattr(torch, dtype))

    def reason_against(self, row: Row) -> str | None:
        """See there. A DTensor is represented by its local shard, as in a step."""
        own = [None if array is None else shards.shard(array) for array in arrays_of(row)]
        return self._reason_against_all() or processor.reason_against(Row(*own))

    def all_finite(self, rows: Sequence[Row], call: Call) -> bool | Tensor:
        """See there. The result is a tensor if the engine must not wait for its value."""
        scale = _number(call.loss_scale) if self.waits else call.loss_scale
        # With a scale below 1, dividing may make a finite gradient overflow although its norm is
        # still finite.
        if self.waits and (scale is None or scale >= 1) and self._reason_against_all() is None:
            again = self._again(rows, UPDATE)
            if again is not None and again.rows.has_gradients:
                return processor.are_finite(again, scale)
        pairs = [(row.parameter, row.gradient) for row in rows if row.gradient is not None]
        found = finite.all_finite(pairs, scale)
        if found is None:
            return True
        return bool(found) if self.waits and not torch.compiler.is_compiling() else found

    def step(self, rows: Sequence[Row], call: Call, options: Options) -> Sequence[Row]:
        """See there. Tensors are changed in place.

        Raises:
            ValueError: A tensor does not fit. Nothing has been changed then.
            RuntimeError: `fused` is True and no kernel can take a row; as above.

        """
        self.run(self.plan(rows, call, options))
        return rows

    def after_step(self) -> contextlib.AbstractContextManager[None]:
        """See there: errors are raised before a step."""
        return contextlib.nullcontext()

    def catch_up(self) -> None:
        """See there."""
        self.lazy.catch_up()

    def plan(
        self, rows: Sequence[Row], call: Call, options: Options, proceed: Tensor | None = None
    ) -> Plan | Repeated:
        """Sort rows by how they are updated, or raise an error if one does not fit.

        Args:
            rows: The rows.
            call: The arguments of this call, such as the rate.
            options: The options of the optimizer.
            proceed: Whether to make the step, as a tensor whose value can't be read here.

        """
        against = self._reason_against_all(call, proceed)
        if torch.compiler.is_compiling():
            part, _ = self._sorted(rows, UPDATE, call, options, against)
            return Plan([part], call, options, proceed)
        if self.waits and not _NUMBERS.issuperset(map(type, call)):
            # The rate stays as it is, since it is rounded to the dtype of the state later.
            call = Call(*call[:2], *map(_number, call[2:]))
        found: list[str | None] = [None] * len(rows)
        if rows and against is None and not self.lazy and options.norm_limit is None:
            actions = columns_of(rows)[_ACTION]
            is_one = actions.count(actions[0]) == len(actions)
            step = self._again(rows, actions[0]) if is_one and actions[0] != SKIP else None
            if step is not None and not step.rows.are_constrained:
                self.reasons = self.reasons if self.reasons == found else found
                return Repeated(step, processor.groups(step, _numbers(call), options))
        parts: list[Part] = []
        for action, places in _places_by_action(rows).items():
            if action == SKIP:
                continue
            its_rows = rows if len(places) == len(rows) else [rows[place] for place in places]
            part, reasons = self._part(its_rows, action, call, options, against)
            parts.append(part)
            for place, reason in zip(places, reasons, strict=True):
                found[place] = reason
        # Keeping the same list object shows that nothing has changed.
        self.reasons = self.reasons if self.reasons == found else found
        return Plan(parts, call, options, proceed)

    def run(self, plan: Plan | Repeated) -> None:
        """Make a planned step."""
        if isinstance(plan, Repeated):
            for group in plan.groups:
                group.step(None)
            processor.tell_autograd(plan.step)
            return
        for part in plan.parts:
            self._run(part, plan)

    def _run(self, part: Part, plan: Plan) -> None:
        _, call, options, proceed = plan
        groups: list[Group] = []
        for those in part.touched:
            those.take()
        for step in part.by_kernel:
            groups += processor.groups(step, _numbers(call), options)
        if part.action == UPDATE:
            groups += [plain.Group(rows, call, options, proceed) for rows in part.together]
            if part.alone:
                groups.append(plain.Alone(part.alone, call, options, proceed, self.differentiable))
        pairs: Sequence[Factors | None] = [None] * len(groups)
        if part.action == UPDATE and options.norm_limit is not None:
            with np.errstate(all="ignore"):
                pairs = factors(groups, options, np)
        for group, pair in zip(groups, pairs, strict=True):
            group.step(pair)
        for step in part.by_kernel:
            processor.tell_autograd(step)
        for tensor, stand_in in part.stand_ins:
            tensor.copy_(stand_in)
        if part.action == UPDATE:
            if part.on_gpu:
                cuda.step(part.on_gpu, call, options)
            for those in part.touched:
                those.put_back()
            for row in part.constrained:
                plain.finish(row, call, options)
            return
        for row in part.alone:
            if part.action == COLLECT:
                plain.collect(row, call)
            else:
                plain.follow(row, call, options)

    def _reason_against_all(self, call: Call | None = None, proceed: Any = None) -> str | None:
        if self.fused is False:
            return UNWANTED
        # As in torch, `foreach=False` alone means one tensor at a time.
        if self.fused is None and self.foreach is False:
            return "`foreach` is False"
        if self.differentiable:
            return "gradients flow through the step"
        if torch.compiler.is_compiling():
            return "torch compiles the step"
        is_unknown = call is not None and isinstance(call.rate, Tensor) and not self.waits
        return "the rate is a tensor on its device" if is_unknown or proceed is not None else None

    def _part(
        self,
        rows: Sequence[Row],
        action: int,
        call: Call,
        options: Options,
        against: str | None,
    ) -> tuple[Part, Sequence[str | None]]:
        """Return rows with the same action and the reasons against kernels, or raise."""
        reasons: list[str | None] = [None] * len(rows)
        again = None if against is not None or self.lazy else self._again(rows, action)
        if again is not None:
            return _repeated_part(again, rows), reasons
        touched: dict[int, Touched] = {}
        all_rows: dict[int, AllRows] = {}
        rest: Sequence[int] = range(len(rows))
        if action == UPDATE:
            touched, all_rows = self.lazy.touched(rows, options.rho, self._reason_for_all_rows())
            if self.lazy:
                rest = [place for place in rest if place not in touched]
                rows = [rows[place] for place in rest]
                again = self._again(rows, action) if against is None else None
        if again is not None:
            part = _repeated_part(again, rows)
        else:
            part, found = self._sorted(rows, action, call, options, against)
            for place, reason in zip(rest, found, strict=True):
                reasons[place] = reason or all_rows.get(place)
        if touched:
            filled = {place: those for place, those in touched.items() if len(those)}
            copies = [those.row for those in filled.values()]
            its_part, found = self._sorted(copies, action, call, options, against, may_note=False)
            reasons_of_touched = dict(zip(filled, found, strict=True))
            for place in touched:
                reasons[place] = reasons_of_touched.get(place)
            part = part.and_(its_part._replace(touched=list(touched.values())))
        return part, reasons

    def _reason_for_all_rows(self) -> str | None:
        if self.differentiable:
            return "gradients flow through the step"
        return None if self.waits else "`capturable` is True"

    def _again(self, rows: Sequence[Row], action: int) -> processor.Step | None:
        """Return the kernel's step of rows that are remembered, and have not changed."""
        noted = self._noted.get(_key(rows)) if rows and action != FOLLOW else None
        return None if noted is None else noted.step(columns_of(rows), action)

    def _sorted(
        self,
        rows: Sequence[Row],
        action: int,
        call: Call,
        options: Options,
        against: str | None,
        may_note: bool = True,
    ) -> tuple[Part, list[str | None]]:
        """Sort rows by how they are updated, with the reasons against kernels, or raise.

        With `may_note`, the next step with these rows checks less.
        """
        compiling = torch.compiler.is_compiling()
        rows = list(map(plain.with_dense_gradient, rows))
        for row in rows:
            _check(row, compiling)
        shared: set[int] = set()
        if rows and not compiling:
            rows, shared = _looked_at(rows, against is None)
            if against is None and torch_memory.is_watched():
                against = "a mode of torch's sees each operation"
        served: list[Row] = []
        on_gpu: list[Row] = []
        rest: list[Row] = []
        alone: list[Row] = []
        stand_ins: list[tuple[Tensor, Tensor]] = []
        reasons: list[str | None] = []
        if action == FOLLOW:
            return Part(action, alone=rows), [None] * len(rows)
        for place, row in enumerate(rows):
            its_row = row if against else processor.with_contiguous_state(row)
            reason, by_gpu = (
                (against, False) if against else self._kernel_for(its_row, call, options)
            )
            if reason is None and place in shared:
                reason = "a tensor shares memory with another"
            if reason is not None and self.fused:
                raise no_kernel(reason, "these tensors")
            reasons.append(reason)
            if reason is None:
                (on_gpu if by_gpu else served).append(its_row)
                pairs = zip(arrays_of(row), arrays_of(its_row), strict=True)
                stand_ins += [pair for pair in pairs if pair[0] is not pair[1]]
                continue
            is_apart = place in shared or type(row.parameter) not in torch_memory.PLAIN
            its_row = plain.real(row)
            is_alone = self.differentiable or compiling or is_apart or action != UPDATE
            (alone if is_alone else rest).append(its_row)
        may_note = may_note and len(served) == len(rows) and not stand_ins
        by_kernel = [self._noting(served, action, may_note)] if served else []
        constrained = [row for row in rows if row.constraint is not None]
        together = [[row] for row in rest]
        if self.foreach is not False:
            kinds = alike(rest, plain.kind_of).values()
            together = [[rest[place] for place in places] for places in kinds]
        return Part(action, by_kernel, stand_ins, on_gpu, together, alone, constrained), reasons

    def _kernel_for(self, row: Row, call: Call, options: Options) -> tuple[str | None, bool]:
        """Return why no kernel can take a row, or None, and whether the GPU's kernel takes it."""
        reason = processor.reason_against(row)
        if reason is None or not self.fused:
            return reason, False
        # Only if the user sets `fused=True`: the Triton kernel is proved in Triton's interpreter,
        # and has not been timed on a GPU yet.
        of_gpu = cuda.reason_against_options(call, options) or cuda.reason_against(row)
        return (
            (None, True) if of_gpu is None else (of_gpu if row.parameter.is_cuda else reason, False)
        )

    def _noting(self, rows: list[Row], action: int, may_note: bool) -> processor.Step:
        key, taken = _key(rows), processor.Rows(rows)
        if may_note and taken.can_repeat:
            if len(self._noted) >= _SETS:
                self._noted.clear()
            self._noted[key] = taken
        return taken.first_step(columns_of(rows), action)


def _key(rows: Sequence[Row]) -> tuple[int, int]:
    # Without making a row of the columns, which takes 1 us.
    return len(rows), id(columns_of(rows)[0][0])


def _repeated_part(step: processor.Step, rows: Sequence[Row]) -> Part:
    constrained = [row for row in rows if row.constraint] if step.rows.are_constrained else ()
    return Part(step.action, (step,), constrained=constrained)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _numbers(call: Call) -> Call:
    return call if _NUMBERS.issuperset(map(type, call)) else Call(*map(_number, call))


def _places_by_action(rows: Sequence[Row]) -> dict[int, Sequence[int]]:
    """Return the indices of the rows by action; all actions are known here."""
    if not rows:
        return {}
    # For 2,000 small rows, a loop over them takes longer than half of their step.
    actions = columns_of(rows)[_ACTION]
    if actions.count(actions[0]) == len(actions):
        return {int(actions[0]): range(len(rows))}
    rows = [row._replace(action=int(row.action)) for row in rows]
    return {action: places for (action, _), places in alike(rows, lambda _: None).items()}


def _looked_at(rows: list[Row], may_fuse: bool) -> tuple[list[Row], set[int]]:
    """Return rows as a kernel needs them, and the indices of rows that share memory, or raise."""
    memory = torch_memory.Rows(columns_of(rows)[: layout.COLUMNS])
    if memory.too_short():
        raise ValueError(
            "the storage of a parameter, a gradient or an average ends before the tensor does; "
            "it must hold all of its elements in a step"
        )
    if not may_fuse:
        return rows, memory.sharing()
    taken = [
        row
        if row.gradient is None
        else row._replace(gradient=processor.as_needed(row.gradient, row.parameter))
        for row in rows
    ]
    if any(new.gradient is not row.gradient for new, row in zip(taken, rows, strict=True)):
        memory = torch_memory.Rows(columns_of(taken)[: layout.COLUMNS])
    return taken, memory.sharing()


def _check(row: Row, compiling: bool) -> None:
    """Raise an error if the tensors of a row do not belong together."""
    param, grad = row.parameter, row.gradient
    dtype = param.dtype
    if not compiling:
        shape, device = param.shape, param.device
        pair = (*shape, 2) if dtype.is_complex else shape
        for tensor in arrays_of(row)[layout.SQUARE_AVG :]:
            if tensor is not None and (
                tensor.device != device or tensor.shape != (shape if tensor.is_complex() else pair)
            ):
                raise ValueError(_what_does_not_fit(row))
        if grad is not None and grad.shape != shape:
            raise ValueError(_what_does_not_fit(row))
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"parameters must be floating point or complex; received {dtype}")


def _what_does_not_fit(row: Row) -> str:
    param, grad, *state = arrays_of(row)
    averages = [average for average in state if average is not None]
    for average in averages:
        if average.device != param.device:
            return (
                f"a parameter is on {param.device} and its state on {average.device}; move "
                "parameters before the optimizer's first step, or load its state again"
            )
    shapes = " and ".join(str(tuple(average.shape)) for average in averages)
    of_gradient = "no gradient" if grad is None else f"a gradient of shape {tuple(grad.shape)}"
    return (
        f"a parameter of shape {tuple(param.shape)} has {of_gradient} and averages of shapes "
        f"{shapes}"
    )
