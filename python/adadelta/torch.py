"""Adadelta for torch, as a class and as a function, with the conventions of `torch.optim`."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from adadelta._core.packages import needed_by

with needed_by("adadelta.torch", extra="torch"):
    import torch
    from torch import Tensor
    from torch.optim.optimizer import Optimizer, _use_grad_for_differentiable

from adadelta._core import hyperparameters, interrupts
from adadelta._core.hyperparameters import CONVENTIONS
from adadelta._core.step import UPDATE, Call, Columns, Options, Row
from adadelta._kernels import report
from adadelta._torch import agreement, arguments, loading, shards
from adadelta._torch.engine import Engine, Plan, Repeated
from adadelta._torch.lazy import Lazy

__all__ = ["Adadelta", "adadelta"]

_HOST: Any = CONVENTIONS["torch"]
_STATE = ("square_avg", "acc_delta", "step")
_ONE = torch.ones((), dtype=torch.float32, device="cpu")

# Named after CUDA alone until torch 2.9.
_check_capture: Any = getattr(
    Optimizer, "_accelerator_graph_capture_health_check", None
) or getattr(Optimizer, "_cuda_graph_capture_health_check", None)


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012) with the signature, defaults and state of `torch.optim.Adadelta`.

    For a parameter x with gradient g, and averages v and u that start at 0:

        g <- g + weight_decay x
        v <- rho v + (1 - rho) g^2
        d <- sqrt(u + eps) / sqrt(v + eps) g
        u <- rho u + (1 - rho) d^2
        x <- x - lr d

    The state has torch's layout, `step`, `square_avg` and `acc_delta`, so checkpoints of either
    class load into the other.

    What differs from `torch.optim.Adadelta`:

    * A step updates all groups, or none of them if it raises an error.
    * The values of a group are checked when the optimizer is created, in `add_param_group()`, when
      they are loaded, and, if they were assigned to `param_groups`, at the next step. `rho = 1`,
      `eps = 0`, infinite values and repeated parameters raise an error, as do values of `rho` and
      `eps` that the averages can't hold: in float32, `eps` must be at least 1.18e-38.
    * A tensor given as `lr` is copied for each group, so a scheduler changes neither your tensor
      nor another group's. To set a rate later, assign to or fill `param_groups[i]["lr"]`.
    * Float16 and bfloat16 parameters are updated in float32 and have float32 averages.
    * After a finite gradient whose square overflows, `square_avg` stays finite and the parameter
      keeps moving; in torch it never moves again.
    * Sparse gradients give the same result as dense ones; see below. A complex parameter is treated
      as a pair of real ones, as in torch.
    * `differentiable` works with a tensor as `lr`, which then gets a gradient.
    * `load_state_dict()` matches named parameters by name, keeps float32 averages in float32,
      copies all tensors, and raises an error before anything changes if the state does not fit.
    * To clip gradients, use `torch.nn.utils.clip_grad_norm_`, as with any optimizer of torch.

    On several devices, with DDP, FSDP, tensor parallelism or `ZeroRedundancyOptimizer`, the
    parameters and their state are the same as on one device with the same global batch:

    * Each process updates its own shards of DTensors (FSDP2, tensor parallelism), with the fused
      kernel where it supports them. Nothing is gathered. State is sharded like its parameter, so
      `torch.distributed.checkpoint` can save it and load it on another number of processes. A
      gradient that is sharded differently from its parameter is redistributed first.
    * With `skip_nonfinite`, the processes that share a step decide together whether to skip it, by
      a reduction of one number over each process group. All of them must call `step()` together,
      including those without parameters or gradients. Nothing is communicated in a single process,
      or if `skip_nonfinite` is False.
    * `load_state_dict()` accepts whole tensors for DTensors; each process keeps its part.
      `adadelta.export_state()` gathers the averages of DTensors, one parameter after the other.

    A step with a sparse gradient, such as that of `torch.nn.Embedding(sparse=True)`, takes as long
    as its rows need, however many rows the parameter has:

    * The averages of the other rows decay later: when their row gets a gradient, and all of them
      when `optimizer.state` is read, as `state_dict()`, pickling and `adadelta.export_state()` do.
      So what you read, save or copy is the state after as many dense steps. A dictionary or a
      tensor that you got before a step is behind until you read `optimizer.state` again; do so
      before you read or set it.
    * Between two reads, each parameter needs an int32 number for each of its rows.
    * All rows are updated in each step if `weight_decay` is not 0, if the optimizer is `capturable`
      or `differentiable`, for a DTensor, for parameters that share memory, and for averages in
      shared memory. `adadelta.kernel_info(optimizer)` says so. The functional form `adadelta`
      also updates all rows.

    Args:
        params: Parameters, pairs of names and parameters (`model.named_parameters()`), or
            dictionaries of parameter groups with values of their own.
        lr: The learning rate: a finite number of at least 0, or a tensor of one element.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        eps: Added inside both square roots, greater than 0.
        weight_decay: L2 penalty, at least 0: `weight_decay * parameter` is added to the gradient.
        foreach: `False` updates one parameter at a time, which takes the least memory. `None` and
            `True` update small ones together.
        capturable: Whether to keep `step` on the device of the parameters, so that a step can be
            captured in a CUDA graph.
        maximize: Whether to maximize the loss. The gradient is negated before weight decay.
        differentiable: Whether gradients can be computed through `step()`.
        fused: `None` uses a compiled kernel for the tensors on the processor that it supports,
            unless `foreach` is `False`. `True` uses a kernel for every tensor, also on an NVIDIA
            GPU, which requires Triton; a step raises an error where a tensor is not supported.
            `False` never uses it. `adadelta.kernel_info(optimizer)` shows what makes the step of
            each tensor, and why.
        decoupled_weight_decay: Whether to subtract `lr * weight_decay * parameter` from the
            parameter instead of adding to the gradient.
        skip_nonfinite: Whether to skip a step, for all groups, if a gradient of this group is NaN
            or infinite, and count it in `skipped`. With `False`, such a gradient makes parameters
            NaN, as in torch.
        process_group: The processes that decide about a step together, for `skip_nonfinite`.
            `None` means those of the device meshes of the parameters, or, if no parameter is a
            DTensor, all processes. Name the group if you gave one to FSDP or
            `ZeroRedundancyOptimizer` (there by `optimizer.optim.process_group = group`, since the
            argument is its own). For processes that train independently, or that run out of data
            at different times (`torch.distributed.algorithms.Join`), give each its own:
            `torch.distributed.new_subgroups(group_size=1)[0]`. It is not saved or copied with the
            optimizer.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range. The message names it, what it accepts and what was
            given. Nothing has changed then.
        RuntimeError: Raised by a step if `fused` is True and no kernel supports a tensor. Nothing
            has changed then.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html

    Example:
        >>> import torch, adadelta.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = adadelta.torch.Adadelta([x], rho=0.75, eps=0.25)
        >>> x.grad = torch.tensor([1.0, -1.0])
        >>> optimizer.step()
        >>> [round(value, 4) for value in x.tolist()]
        [0.2929, 2.7071]

    """

    state_exchange = "adadelta._torch.exchange"

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = _HOST.learning_rate,
        rho: float = _HOST.rho,
        eps: float = _HOST.epsilon,
        weight_decay: float = _HOST.weight_decay,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        skip_nonfinite: bool = False,
        process_group: Any = None,
    ) -> None:
        self._lazy = Lazy()
        self.process_group = process_group
        defaults = arguments.checked(
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "capturable": capturable,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
                "skip_nonfinite": skip_nonfinite,
            }
        )
        defaults["lr"] = arguments.copy_of_rate(defaults["lr"], defaults["differentiable"])
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault("_lazy", Lazy())
        super().__setstate__(state)
        for group in self.param_groups:
            # Values that older versions of torch, and torch's own class, do not save.
            for name in ("foreach", "fused"):
                group.setdefault(name, None)
            for name in (*loading.OPTIONS, *loading.OWN_OPTIONS):
                group.setdefault(name, False)
            for param in group["params"]:
                its_state = self.state.get(param)
                if its_state and not isinstance(its_state["step"], Tensor):
                    count = loading.new_step(param, group["capturable"])
                    its_state["step"] = count.fill_(float(its_state["step"]))

    def __copy__(self) -> "Adadelta":
        # A shallow copy shares the averages, so it must also share which rows are behind.
        copied = type(self).__new__(type(self))
        state: Any = self.__getstate__()
        copied.__setstate__(state)
        copied._lazy = self._lazy
        return copied

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, and check its values.

        Args:
            param_group: A dictionary with "params" and the values that differ from the optimizer's.

        Raises:
            TypeError: `param_group` is not a dictionary, or a value is of the wrong kind.
            ValueError: A value is out of range, or the optimizer already has a parameter.

        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            super().add_param_group(param_group)  # raises torch's error
        group = dict(param_group)
        if not isinstance(group["params"], Tensor | set):
            group["params"] = list(group["params"])
            arguments.refuse_repeated(group["params"])
        params = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
        group.update(arguments.checked({**self.defaults, **group}, params))
        group["lr"] = arguments.copy_of_rate(group["lr"], group["differentiable"])
        if group["skip_nonfinite"]:
            group["skipped"] = torch.zeros((), dtype=torch.int64)
        super().add_param_group(group)

    @property
    def state(self) -> Any:
        """The state of each parameter, as torch's own class has it.

        After steps with sparse gradients, the averages of all rows catch up when this is read. What
        you got from it before those steps is behind until then.
        """
        self._lazy.catch_up()
        return self.__dict__["state"]

    @state.setter
    def state(self, state: Any) -> None:
        self._lazy.catch_up()
        self.__dict__["state"] = state

    @property
    def process_group(self) -> Any:
        """The processes that decide together whether to skip a step, or None; see the argument."""
        return self.__dict__.get("_process_group")

    @process_group.setter
    def process_group(self, group: Any) -> None:
        self._process_group = agreement.checked(group)

    @property
    def skipped(self) -> int:
        """The number of steps that were skipped because a gradient was NaN or infinite."""
        return max((int(group.get("skipped", 0)) for group in self.param_groups), default=0)

    def _kernel_report(self) -> list[report.Served]:
        """Return the rows of `kernel_info()` for the parameters."""
        names = iter(loading.names_of(self.param_groups))
        found = []
        for place, group in enumerate(self.param_groups):
            noted = self.__dict__.get("_known", {}).get(place, {})
            rows, reasons = {}, {}
            for param, name in zip(group["params"], names, strict=False):
                state = self.__dict__["state"].get(param) or loading.new_state(
                    param, group["capturable"]
                )
                rows[name] = Row(param, None, state["square_avg"], state["acc_delta"])
                reasons[name] = noted.get("reasons", {}).get(param)
            found += report.served(_engine_of(group, {}, None), rows, reasons)
        return found

    def _tensors_of(self, group: dict[str, Any], new: dict[Tensor, Any]) -> list[list[Tensor]]:
        """Return the tensors for a step of this group; put state that is missing into `new`."""
        params, grads = group["params"], [param.grad for param in group["params"]]
        if type(None) in map(type, grads):
            params = [it for it, grad in zip(params, grads, strict=True) if grad is not None]
            grads = [grad for grad in grads if grad is not None]
        states = list(map(self.__dict__["state"].get, params))
        if not all(states):
            for place, param in enumerate(params):
                if not states[place]:
                    states[place] = new[param] = loading.new_state(param, group["capturable"])
        return [params, grads, *([state[name] for state in states] for name in _STATE)]

    def _init_group(self, group: dict[str, Any], *columns: list[Tensor]) -> None:
        # torch.compile calls it by this name, outside the code that it traces.
        for column, tensors in zip(columns, self._tensors_of(group, self.state), strict=True):
            column.extend(tensors)

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step.

        Args:
            closure: A function that recomputes the loss and its gradients, and returns the loss.

        Returns:
            What `closure` returned.

        Raises:
            TypeError, ValueError, RuntimeError: A value of a group, a gradient or a state tensor
                does not fit. Nothing has changed then.

        """
        _check_capture(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        compiling = torch.compiler.is_compiling()
        # What a step notes about each group, so that the next one has less to check.
        known: list[Any] = [None] * len(self.param_groups)
        if not compiling:
            kept = self.__dict__.setdefault("_known", {})
            known = [kept.setdefault(place, {}) for place in range(len(known))]
            # All are checked before the first is changed.
            new_values = list(map(arguments.check_again, self.param_groups, known))
            for group, values in zip(self.param_groups, new_values, strict=True):
                group.update(values)
        new: dict[Tensor, Any] = {}
        given: list[_Given] = []
        for group in self.param_groups:
            if compiling:
                columns: list[list[Tensor]] = [[], [], [], [], []]
                self._init_group(group, *columns)
            else:
                columns = self._tensors_of(group, new)
            given.append(_given(columns, group))
        proceed = self._all_finite(given, known, compiling)
        if proceed is False:
            return loss
        planned = [
            _planned(tensors, group, proceed, noted, self._lazy)
            for tensors, group, noted in zip(given, self.param_groups, known, strict=True)
        ]
        with contextlib.nullcontext() if compiling else interrupts.Deferred():
            if new:
                self.__dict__["state"].update(new)
            for step in planned:
                step.run()
        return loss

    def _all_finite(self, given: Sequence["_Given"], known: Sequence[Any], compiling: bool) -> Any:
        """Return None to make the step, False to skip it, or a tensor if that is not known yet."""
        if not [group for group in self.param_groups if group["skip_nonfinite"]]:
            return None
        asking = [
            (tensors, group, noted)
            for tensors, group, noted in zip(given, self.param_groups, known, strict=True)
            if group["skip_nonfinite"]
        ]
        every = (param for group in self.param_groups for param in group["params"])
        sharing = agreement.groups(every, self.process_group)
        ask = not compiling and not any(group["capturable"] for group in self.param_groups)
        with torch.no_grad():
            finite = agreement.all_of(
                [
                    _engine_of(group, noted or {}, self._lazy).all_finite(
                        _rows(tensors, group), Call(0.0)
                    )
                    for tensors, group, noted in asking
                ],
                sharing,
                waits=ask,
            )
            if finite is True or (ask and bool(finite)):
                return None
            with contextlib.nullcontext() if compiling else interrupts.Deferred():
                for _, group, _ in asking:
                    count = group.setdefault("skipped", torch.zeros((), dtype=torch.int64))
                    count += (
                        finite.logical_not().to(count.device) if isinstance(finite, Tensor) else 1
                    )
        return False if ask else finite

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict()` of this class or of `torch.optim.Adadelta` returned.

        Parameters are matched by name if they have names on both sides, else by position. Values of
        a group that were not saved stay as they are.

        Args:
            state_dict: The state. It is not changed, and shares no tensor with the optimizer.

        Raises:
            ValueError: The state is another optimizer's, has other parameters or other shapes, or
                has values that are out of range. The error's `problems` lists everything that does
                not fit. Nothing has changed then.

        """
        fitted: dict[str, Any] = {}

        def fit(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            fitted.update(loading.fit(self, state_dict))
            return fitted

        # Inside torch's method: after the user's pre-hooks and before the user's post-hooks.
        handles = (
            self.register_load_state_dict_pre_hook(fit),
            self.register_load_state_dict_post_hook(
                lambda optimizer: loading.take(self, fitted), prepend=True
            ),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()


def adadelta(
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    acc_deltas: list[Tensor],
    state_steps: list[Tensor],
    capturable: bool = False,
    foreach: bool | None = None,
    differentiable: bool = False,
    has_complex: bool = False,
    *,
    lr: float | Tensor,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    fused: bool | None = None,
    decoupled_weight_decay: bool = False,
) -> None:
    """Make one step on lists of tensors, in place: the functional form of `Adadelta`.

    Args:
        params: The parameters.
        grads: A gradient for each of them; they are not changed.
        square_avgs: Their averages of squared gradients.
        acc_deltas: Their averages of squared steps.
        state_steps: For each of them a tensor that counts its steps.
        capturable: As for `Adadelta`.
        foreach: As for `Adadelta`.
        differentiable: As for `Adadelta`.
        has_complex: Ignored; accepted because torch's function has it.
        lr: As for `Adadelta`.
        rho: As for `Adadelta`.
        eps: As for `Adadelta`.
        weight_decay: As for `Adadelta`.
        maximize: As for `Adadelta`.
        fused: As for `Adadelta`.
        decoupled_weight_decay: As for `Adadelta`.

    Raises:
        TypeError, ValueError: A value is invalid. Nothing has changed then.
        RuntimeError: An element of `state_steps` is not a tensor, or `fused` is True and no kernel
            supports a tensor.

    Example:
        >>> import torch, adadelta.torch
        >>> x, v, u = torch.ones(1), torch.zeros(1), torch.zeros(1)
        >>> adadelta.torch.adadelta(
        ...     [x], [torch.ones(1)], [v], [u], [torch.zeros(())],
        ...     lr=1.0, rho=0.75, eps=0.25, weight_decay=0.0, maximize=False,
        ... )
        >>> v
        tensor([0.2500])

    """
    group: dict[str, Any] = {
        "lr": lr,
        "rho": rho,
        "eps": eps,
        "weight_decay": weight_decay,
        "maximize": maximize,
        "capturable": capturable,
        "foreach": foreach,
        "differentiable": differentiable,
        "fused": fused,
        "decoupled_weight_decay": decoupled_weight_decay,
        "skip_nonfinite": False,
    }
    compiling = torch.compiler.is_compiling()
    if not compiling:
        group = arguments.checked(group, params, read_rate=capturable is not True)
        if not all(isinstance(count, Tensor) for count in state_steps):
            raise RuntimeError(
                "`state_steps` argument must contain a list of singleton tensors; received "
                f"{hyperparameters.received(state_steps)}"
            )
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        given = _given([params, grads, square_avgs, acc_deltas, state_steps], group)
        step = _planned(given, group, proceed=None)
        with contextlib.nullcontext() if compiling else interrupts.Deferred():
            step.run()
            if not compiling:
                step.engine.catch_up()


class _Given(NamedTuple):
    """The tensors of one group for a step, in which shards stand for DTensors."""

    params: list[Tensor]
    # Parameters, gradients and both averages.
    columns: list[list[Tensor]]
    counts: list[Tensor]


def _given(columns: list[list[Tensor]], group: dict[str, Any]) -> _Given:
    tensors = columns[:-1]
    # Gradients that flow through a step need torch's own operations.
    if not group["differentiable"]:
        tensors = shards.local(tensors)
    return _Given(columns[0], tensors, columns[-1])


def _rows(given: _Given, group: dict[str, Any]) -> Sequence[Row]:
    size = len(given.params)
    none = [None] * size
    decays, actions = [group["weight_decay"]] * size, [UPDATE] * size
    return Columns([*given.columns, none, none, decays, actions, none])


class _Planned(NamedTuple):
    """The step of a group, ready to be made."""

    engine: Engine
    plan: Plan | Repeated
    given: _Given

    def run(self) -> None:
        """Make the step."""
        _count(self.given.counts, self.plan.proceed)
        self.engine.run(self.plan)
        if self.given.columns[0] is not self.given.params:
            shards.mark_changed(self.given.params)


def _planned(
    given: _Given,
    group: dict[str, Any],
    proceed: Any,
    known: dict[str, Any] | None = None,
    lazy: Lazy | None = None,
) -> _Planned:
    known = {} if known is None else known
    settled = known.get("settled")
    if settled is None:
        as_tensor = group["capturable"] or group["differentiable"] or torch.compiler.is_compiling()
        call = Call(arguments.rate_of_step(group["lr"], as_tensor))
        mode = "decoupled" if group["decoupled_weight_decay"] else "coupled"
        options = Options(group["rho"], group["eps"], maximize=group["maximize"], decay_mode=mode)
        settled = _engine_of(group, known, lazy), call, options
        # The value of a tensor may change without notice.
        if not isinstance(group["lr"], Tensor):
            known["settled"] = settled
    engine, call, options = settled
    plan = engine.plan(_rows(given, group), call, options, proceed)
    if not torch.compiler.is_compiling():
        # The same reasons may now be those of other parameters.
        ends = given.params[:1] + given.params[-1:]
        noted = engine.reasons, len(given.params), list(map(id, ends))
        if noted != known.get("noted"):
            pairs = zip(given.params, engine.reasons, strict=True)
            known.update(noted=noted, reasons=dict(pairs) if any(engine.reasons) else {})
    return _Planned(engine, plan, given)


def _engine_of(group: dict[str, Any], known: dict[str, Any], lazy: Lazy | None) -> Engine:
    """Return the engine of a group, which is kept until the group's settings change."""
    kind = [group[name] for name in ("fused", "foreach", "differentiable", "capturable")]
    if known.get("kind") != kind:
        fused, foreach, differentiable, capturable = kind
        engine = Engine(
            fused,
            foreach=foreach,
            differentiable=differentiable,
            waits=not capturable,
            lazy=lazy,
        )
        known.update(kind=kind, engine=engine)
    engine = known["engine"]
    return engine


def _count(counts: list[Tensor], proceed: Tensor | None) -> None:
    if not counts:
        return
    if proceed is not None:
        torch._foreach_add_(counts, [proceed.to(count.device, count.dtype) for count in counts])
    elif not torch.compiler.is_compiling() and counts[0].is_cpu:
        # torch would convert a number for each of them: 2.7 us a parameter instead of 0.4.
        one = _ONE if type(counts[0]) is Tensor else torch.ones(())
        torch._foreach_add_(counts, one, alpha=1.0)
    else:
        torch._foreach_add_(counts, 1)
