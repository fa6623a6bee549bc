"""Adadelta for JAX, as a gradient transformation with the conventions of optax.

optax itself is not needed. `adadelta` replaces `optax.adadelta`. `fused_adadelta` returns the new
parameters, and so replaces both `update()` and `optax.apply_updates()`.

On several devices, `update()` and `apply()` work on each element by itself, so under `jax.jit` they
need no communication, and state stays sharded like its parameter. XLA then makes the step, without
the kernel.

- `init()` called directly puts the averages on the devices of the parameters. `jax.jit(init)` puts
  them all on one device, as with optax' own transformations, unless you pass `out_shardings`, as in
  the example below.
- Inside `jax.shard_map`, a step on the shards is the same as a step on the whole arrays. Give the
  averages the `PartitionSpec` of their parameter, and `count` the empty one. This holds for
  Adadelta alone: `optax.clip_by_global_norm` computes the norm of one device's shards there, and so
  clips differently on each device. Clip under `jax.jit`, or compute the norm with `jax.lax.psum`
  over the axes of the mesh.

Example:
    >>> import jax, jax.numpy as jnp, adadelta.optax
    >>> from jax.sharding import NamedSharding, PartitionSpec
    >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
    >>> rows = NamedSharding(mesh, PartitionSpec("data"))
    >>> params = {"w": jax.device_put(jnp.ones((16, 4)), rows)}
    >>> transformation = adadelta.optax.adadelta()
    >>> like_params = jax.tree.map(lambda param: param.sharding, params)
    >>> everywhere = NamedSharding(mesh, PartitionSpec())
    >>> shardings = adadelta.optax.AdadeltaState(everywhere, like_params, like_params)
    >>> state = jax.jit(transformation.init, out_shardings=shardings)(params)
    >>> state.e_g["w"].sharding == params["w"].sharding
    True

"""

from collections.abc import Callable
from typing import Any, NamedTuple

from adadelta._core.packages import needed_by

with needed_by("adadelta.optax", extra="optax"):
    import jax
    import jax.numpy as jnp

from adadelta._core import hyperparameters, parameters, step
from adadelta._core.step import Call, Options, Row
from adadelta._jax import precision
from adadelta._jax.engine import Engine, next_count
from adadelta._kernels import jax_arrays, report
from adadelta._optax import arguments
from adadelta._optax.exchange import export_state, import_state
from adadelta._optax.state import AdadeltaState, name_of

__all__ = [
    "AdadeltaState",
    "FusedOptimizer",
    "GradientTransformation",
    "adadelta",
    "export_state",
    "fused_adadelta",
    "import_state",
]

_CONVENTION = hyperparameters.CONVENTIONS["optax"]


class GradientTransformation(NamedTuple):
    """A pair of pure functions that optax accepts as a gradient transformation.

    Attributes:
        init: `init(params)` returns the state before the first step.
        update: `update(updates, state, params=None)` returns the updates to add to the parameters,
            and the next state. It ignores other keyword arguments.

    """

    init: Callable[..., Any]
    update: Callable[..., Any]

    def _kernel_report_of(self, params: Any) -> list[report.Served]:
        reason = "it returns updates, which no kernel makes; `fused_adadelta` has one"
        return _kernel_report(params, reason)


class FusedOptimizer(NamedTuple):
    """A pair of pure functions that return new parameters instead of updates.

    Attributes:
        init: `init(params)` returns the state before the first step.
        apply: `apply(params, state, gradients)` returns the next parameters and the next state.

    """

    init: Callable[..., Any]
    apply: Callable[..., Any]

    def _kernel_report_of(self, params: Any) -> list[report.Served]:
        return _kernel_report(params)


def adadelta(
    learning_rate: Any = _CONVENTION.learning_rate,
    rho: Any = _CONVENTION.rho,
    eps: Any = _CONVENTION.epsilon,
    weight_decay: Any = _CONVENTION.weight_decay,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """Adadelta (Zeiler 2012) with the signature of `optax.adadelta`.

    For a parameter x with gradient g, and averages e_g and e_x that start at 0:

        g <- g + weight_decay x
        e_g <- rho e_g + (1 - rho) g^2
        d <- sqrt(e_x + eps) / sqrt(e_g + eps) g
        e_x <- rho e_x + (1 - rho) d^2
        update <- -learning_rate d

    It works in `optax.chain`, `inject_hyperparams`, `multi_transform` and `MultiSteps`, and under
    `jax.jit`, `vmap` and `lax.scan`.

    Float16 and bfloat16 parameters are updated in float32 and have float32 state. A complex
    parameter is treated as a pair of real ones. As in all of optax, its gradient is the conjugate
    of what `jax.grad` returns. Updates have the dtype of the gradients, or that of the parameters
    if these are passed and their dtype is wider. A gradient that is `None` gives the update `None`
    and changes nothing.

    Args:
        learning_rate: A finite number of at least 0, or a schedule, which takes the number of
            steps so far. The default descends, while optax' own, `None`, climbs.
        rho: The decay rate of both averages, at least 0 and less than 1. The larger it is, the
            more slowly they change.
        eps: Added inside both square roots, greater than 0. The first step is about
            `learning_rate * sqrt(eps / (1 - rho))` long, unless the gradient is smaller than that
            root.
        weight_decay: L2 penalty: a number of at least 0, a schedule, or `None` for 0.
            `weight_decay * parameter` is added to the gradient. `update()` needs the parameters
            only if there is weight decay.
        weight_decay_mask: `None`, or which parameters decay: a tree of `True` and `False` with the
            structure of the parameters or a prefix of it, or a function that is given the
            parameters and returns such a tree.

    Raises:
        TypeError: An argument is of the wrong kind. In `init()` and `update()`: a parameter is not
            of a floating or complex dtype, or a gradient is not an array of numbers.
        ValueError: An argument is out of range. In `init()` and `update()`: a gradient does not
            have the shape of its parameter, the trees differ in structure, or the averages' dtype
            can't hold `rho` or `eps`. In compiled functions, the range of traced arguments and of
            what schedules return can't be checked.

    References:
        M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701.
        Arguments: https://optax.readthedocs.io/en/latest/api/optimizers.html#optax.adadelta

    Example:
        >>> import jax, jax.numpy as jnp, adadelta.optax
        >>> transformation = adadelta.optax.adadelta(rho=0.75, eps=0.25)
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> state = transformation.init(params)
        >>> gradients = {"w": jnp.array([1.0, -1.0])}
        >>> updates, state = transformation.update(gradients, state, params)
        >>> params = jax.tree.map(jnp.add, params, updates)  # as optax.apply_updates() does
        >>> print(params["w"].round(4))
        [0.2929 2.7071]

    """
    make = _Adadelta(learning_rate, rho, eps, weight_decay, weight_decay_mask)
    return GradientTransformation(make.init, make.update)


def fused_adadelta(
    learning_rate: Any = _CONVENTION.learning_rate,
    rho: Any = _CONVENTION.rho,
    eps: Any = _CONVENTION.epsilon,
    weight_decay: Any = _CONVENTION.weight_decay,
    weight_decay_mask: Any = None,
) -> FusedOptimizer:
    """Adadelta that returns the new parameters instead of updates.

    A gradient transformation must write its updates to memory, and `optax.apply_updates` reads them
    again. This optimizer makes the whole step at once: on the processor, it updates all parameters
    in one pass over memory, where `adadelta.kernel_info(optimizer, params)` says so. Compiled with
    `donate_argnums=(0, 1)`, it reuses the buffers of the old parameters and state. JAX pairs
    buffers by their order, so the parameters come first among the arguments and the results.
    Half-precision parameters are rounded once instead of twice.

    The state is that of `adadelta`, so either can continue where the other stopped.

    Args:
        learning_rate: As for `adadelta`.
        rho: As for `adadelta`.
        eps: As for `adadelta`.
        weight_decay: As for `adadelta`.
        weight_decay_mask: As for `adadelta`.

    Raises:
        TypeError: As for `adadelta`.
        ValueError: As for `adadelta`.

    Example:
        >>> import jax, jax.numpy as jnp, adadelta.optax
        >>> optimizer = adadelta.optax.fused_adadelta(rho=0.75, eps=0.25)
        >>> apply = jax.jit(optimizer.apply, donate_argnums=(0, 1))
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> state = optimizer.init(params)
        >>> params, state = apply(params, state, {"w": jnp.array([1.0, -1.0])})
        >>> print(params["w"].round(4))
        [0.2929 2.7071]

    """
    make = _Adadelta(learning_rate, rho, eps, weight_decay, weight_decay_mask)
    return FusedOptimizer(make.init, make.apply)


class _Adadelta:
    """The checked arguments, and the functions that use them."""

    def __init__(
        self, learning_rate: Any, rho: Any, eps: Any, weight_decay: Any, weight_decay_mask: Any
    ) -> None:
        self.learning_rate = arguments.number_or_schedule("learning_rate", learning_rate)
        self.rho = arguments.number("rho", rho)
        self.eps = arguments.number("eps", eps)
        self.weight_decay = arguments.number_or_schedule("weight_decay", weight_decay)
        self.weight_decay_mask = arguments.mask(weight_decay_mask)
        # A traced decay counts as weight decay, whatever its value will be.
        is_number = isinstance(self.weight_decay, float)
        self.decays = self.weight_decay != 0 if is_number else self.weight_decay is not None

    def init(self, params: Any) -> AdadeltaState:
        for path, parameter in jax.tree_util.tree_flatten_with_path(params)[0]:
            _refuse_parameter(path, parameter)
            self._refuse_numbers(precision.state_dtype(precision.dtype_of(parameter)))
        return AdadeltaState(
            jnp.zeros((), jnp.int32),
            jax.tree_util.tree_map(precision.zeros_like, params),
            jax.tree_util.tree_map(precision.zeros_like, params),
        )

    def update(
        self, updates: Any, state: AdadeltaState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, AdadeltaState]:
        del extra_args
        rows, structure = self._rows("updates", updates, state, params)
        call, options = self._told(state.count)

        def one(row: Row) -> tuple[Any, Any, Any]:
            e_g = row.square_avg
            if row.gradient is None:
                return None, e_g, row.acc_delta
            dtype = _dtype_of_update(row.gradient, row.parameter, e_g)
            arrays = step.change(precision.with_pairs(row), call, options, jax_arrays)
            taken, *averages = (precision.from_pairs(array, e_g) for array in arrays)
            return (-taken).astype(dtype), *averages

        return _trees(map(one, rows), structure, state)

    def apply(self, params: Any, state: AdadeltaState, gradients: Any) -> tuple[Any, AdadeltaState]:
        if params is None:
            raise ValueError(hyperparameters.refusal("params", "the parameters", params))
        rows, structure = self._rows("gradients", gradients, state, params)
        call, options = self._told(state.count)
        given = [
            precision.with_pairs(row)._replace(parameter=jnp.asarray(row.parameter))
            for row in rows
            if row.gradient is not None
        ]
        made = iter(Engine().step(given, call, options))
        new = [
            row if row.gradient is None else precision.without_pairs(next(made), row)
            for row in rows
        ]
        results = [(row.parameter, row.square_avg, row.acc_delta) for row in new]
        return _trees(results, structure, state)

    def _rows(self, name: str, gradients: Any, state: Any, params: Any) -> tuple[list[Row], Any]:
        """Return the rows of all leaves and the structure of the trees, or raise."""
        rows, structure = _rows(name, gradients, state, params)
        # The state may be from a transformation with other numbers, as in `inject_hyperparams`.
        for dtype in {row.square_avg.dtype for row in rows if row.square_avg is not None}:
            self._refuse_numbers(dtype)
        decays = self._decays_at(state.count, params, len(rows))
        return [
            row._replace(weight_decay=decay) for row, decay in zip(rows, decays, strict=True)
        ], structure

    def _refuse_numbers(self, dtype: Any) -> None:
        """Refuse numbers that averages of `dtype` can't hold."""
        numbers = {"rho": self.rho, "eps": self.eps}
        parameters.check_numbers(str(dtype), numbers, f"averages of dtype {dtype}")

    def _told(self, count: Any) -> tuple[Call, Options]:
        mode = str(_CONVENTION.weight_decay_mode)
        rate = arguments.at("learning_rate", self.learning_rate, count)
        return Call(rate), Options(self.rho, self.eps, decay_mode=mode)

    def _decays_at(self, count: Any, params: Any, size: int) -> list[Any]:
        """Return the weight decay of each leaf, 0 where it has none."""
        if not self.decays:
            return [0.0] * size
        if params is None:
            raise ValueError(
                "`params` must be given, since there is weight decay: "
                "update(updates, state, params); received None"
            )
        decay = arguments.at("weight_decay", self.weight_decay, count)
        flags = arguments.masked(self.weight_decay_mask, params)
        return [decay if flag and decay is not None else 0.0 for flag in flags]


def _refuse_parameter(path: Any, parameter: Any) -> None:
    try:
        dtype = precision.dtype_of(parameter)
    except Exception:
        dtype = type(parameter).__name__
    else:
        if precision.can_be_trained(dtype):
            return
    raise TypeError(
        f"`params{jax.tree_util.keystr(path)}` must be an array of a floating or complex dtype; "
        f"received {dtype}"
    )


def _rows(name: str, gradients: Any, state: Any, params: Any) -> tuple[list[Row], Any]:
    """Return a row for each leaf and the structure of the trees, or raise."""
    if not isinstance(state, AdadeltaState):
        raise TypeError(hyperparameters.refusal("state", "what init(params) returned", state))
    with_paths, structure = jax.tree_util.tree_flatten_with_path(gradients, arguments.is_none)
    paths = [path for path, _ in with_paths]
    columns = {name: [gradient for _, gradient in with_paths]}
    for other, tree in (("params", params), ("state.e_g", state.e_g), ("state.e_x", state.e_x)):
        if other == "params" and params is None:
            columns[other] = [None] * len(paths)
            continue
        leaves, found = jax.tree_util.tree_flatten(tree, arguments.is_none)
        if found != structure:
            raise ValueError(
                f"`{name}` must have the structure of `{other}`, which is {found}; "
                f"received {structure}"
            )
        columns[other] = leaves
    in_order = (columns[tree] for tree in ("params", name, "state.e_g", "state.e_x"))
    rows = [Row(*arrays) for arrays in zip(*in_order, strict=True)]
    for path, row in zip(paths, rows, strict=True):
        gradient, parameter, e_g = row.gradient, row.parameter, row.square_avg
        if gradient is None:
            continue
        where = jax.tree_util.keystr(path)
        if e_g is None:
            raise ValueError(f"`{name}{where}` must be None, as its parameter is in `state`")
        problem = precision.problem_with_gradient(gradient, e_g)
        if problem:
            kind, text = problem
            raise kind(f"`{name}{where}` {text}")
        if params is not None and jnp.shape(parameter) != jnp.shape(e_g):
            raise ValueError(
                f"`params{where}` must have shape {jnp.shape(e_g)}, as in `state`; "
                f"received {jnp.shape(parameter)}"
            )
    return rows, structure


def _kernel_report(params: Any, reason: str | None = None) -> list[report.Served]:
    """Return the rows of `kernel_info()`, with a reason why no kernel can update a parameter."""
    rows = {
        name_of(path): Row(jnp.asarray(leaf), None, None, None)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    return report.served(Engine(), rows, dict.fromkeys(rows, reason))


def _dtype_of_update(gradient: Any, parameter: Any, average: Any) -> Any:
    dtype = jnp.result_type(gradient)
    if not precision.can_be_trained(dtype):
        dtype = average.dtype
    return dtype if parameter is None else jnp.promote_types(dtype, jnp.result_type(parameter))


def _trees(results: Any, structure: Any, state: AdadeltaState) -> tuple[Any, AdadeltaState]:
    """Put the results of the leaves back into trees, and count the step."""
    columns = list(zip(*results, strict=True)) or [(), (), ()]
    first, e_g, e_x = (jax.tree_util.tree_unflatten(structure, column) for column in columns)
    return first, AdadeltaState(next_count(state.count), e_g, e_x)
