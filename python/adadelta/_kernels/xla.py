"""The fused step inside JAX programs on the processor, in place where buffers are donated.

`step` and `norms` are JAX primitives. Compiled for one CPU device, they call `xla_handler.py`.
On a GPU and in programs on several devices they are lowered to `_core/step.py`, which XLA compiles
and partitions itself. `vmap` and differentiation use `_core/step.py`, too.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from adadelta._core import clipping
from adadelta._core.clipping import Factors
from adadelta._core.engine import no_kernel
from adadelta._core.step import Call, Options, Row, mean
from adadelta._kernels import jax_arrays, jax_devices, layout, xla_target
from adadelta._kernels.locks import Lock

Array = Any

_lock = Lock()
# The names of the registered handlers by kind, dtype and whether norms are wide.
_registered: dict[tuple[str, str, bool], str] = {}


class Known(NamedTuple):
    """The static parameters of a step, which are known when its program is compiled.

    Attributes:
        columns: The result of `xla_target.columns_of`.
        decay_mode: As in `Options`.
        is_conditional: Whether the action is only known when the program runs.
        are_decayed: For each row, whether it has weight decay.
        is_required: Whether compiling must fail if the kernel can't be used.

    """

    columns: int
    decay_mode: str
    is_conditional: bool
    are_decayed: tuple[bool, ...]
    is_required: bool = False


def step(
    rows: Sequence[Row],
    call: Call,
    options: Options,
    factors: Factors | None = None,
    is_required: bool = False,
) -> list[Row]:
    """Return the rows after one call.

    Args:
        rows: Rows with the same dtype, the same action, arrays in the same columns, and no
            constraint.
        call: The arguments of this call, such as the rate.
        options: The options of the optimizer.
        factors: The numbers by which gradients are divided and then multiplied: arrays with one
            number for each row, or with one for all.
        is_required: Whether to fail if the program can't use the kernel.

    Raises:
        RuntimeError: The kernel is required, and the program runs on several devices.

    """
    action = rows[0].action
    settings = _settings(rows, call, options, action)
    decays = [row.weight_decay for row in rows]
    own = _row_settings(decays, factors, settings.dtype)
    known = Known(
        xla_target.columns_of([row[: layout.COLUMNS] for row in rows]),
        options.decay_mode,
        isinstance(action, jax.core.Tracer),
        tuple(not isinstance(decay, int | float) or decay != 0 for decay in decays),
        is_required,
    )
    arrays = xla_target.flat([row[: layout.COLUMNS] for row in rows])
    returned = iter(_step(settings, own, *arrays, known=known))
    return [
        Row(
            *(
                next(returned) if column in xla_target.RETURNED and array is not None else array
                for column, array in enumerate(row[: layout.COLUMNS])
            ),
            *row[layout.COLUMNS :],
        )
        for row in rows
    ]


def _settings(rows: Sequence[Row], call: Call, options: Options, action: Any) -> Array:
    state = next(array for array in rows[0][2:6] if array is not None)
    limit = jax_arrays.largest_gradient(options.epsilon, state)
    numbers = layout.settings(options, call, action, limit)
    if not any(hasattr(number, "dtype") for number in numbers):
        return jnp.asarray(np.array(numbers, state.dtype))
    return jnp.stack([jnp.asarray(number).astype(state.dtype) for number in numbers])


def _row_settings(decays: Sequence[Any], factors: Factors | None, dtype: Any) -> Array:
    if all(isinstance(decay, int | float) for decay in decays):
        own = jnp.asarray(layout.row_settings(decays, dtype))
    else:
        own = jnp.ones((len(decays), layout.ROW_SETTINGS), dtype)
        column = jnp.stack([jnp.asarray(decay).astype(dtype) for decay in decays])
        own = own.at[:, layout.WEIGHT_DECAY].set(column)
    if factors is not None:
        both = jnp.stack(factors).astype(dtype).T
        own = own.at[:, layout.CLIP_DIVISOR : layout.CLIP_FACTOR + 1].set(both)
    return own


def norms(
    rows: Sequence[Row], call: Call, options: Options, together: bool, wide: bool = False
) -> Factors:
    """Return the norm of each gradient, or of all together, as two factors in the state's dtype.

    Args:
        rows: As for `step`.
        call: See there.
        options: See there.
        together: Whether to return one norm of all, of shape (1,), instead of one for each.
        wide: Whether to return float64 even if the state is float32.

    """
    settings = _settings(rows, call, options, rows[0].action)
    of_norms, columns = xla_target.for_norms(
        [row[: layout.COLUMNS] for row in rows], together, wide
    )
    is_scaled = call.loss_scale is not None
    factors = _norms(settings, *xla_target.flat(of_norms), columns=columns, is_scaled=is_scaled)
    return factors[:, 0], factors[:, 1]


@functools.partial(jax.jit, static_argnames="known", inline=True)
def _step(settings: Array, row_settings: Array, *arrays: Array, known: Known) -> list[Array]:
    new: list[Array] = _step_primitive.bind(settings, row_settings, *arrays, known=known)
    return new


@functools.partial(jax.jit, static_argnames=("columns", "is_scaled"), inline=True)
def _norms(settings: Array, *arrays: Array, columns: int, is_scaled: bool) -> Array:
    def whole(*operands: Array) -> Array:
        return _norms_primitive.bind(*operands, known=columns)[0]

    found = functools.partial(_norm_of_each, columns=columns, is_scaled=is_scaled)
    numbered = xla_target.split(range(len(arrays)), columns)
    rows = [number for number, row in enumerate(numbered) for array in row if array is not None]
    of_all = bool(columns & layout.TOGETHER)
    return jax_devices.norms(whole, found, [None, *rows], of_all)(settings, *arrays)


def _step_by_rule(
    settings: Array, row_settings: Array, *arrays: Array, known: Known
) -> list[Array]:
    call, options = layout.told(settings, known.decay_mode)
    action = settings[layout.ACTION] if known.is_conditional else layout.UPDATE
    rows = [
        Row(*arrays)._replace(
            weight_decay=own[layout.WEIGHT_DECAY] if is_decayed else 0.0, action=action
        )
        for own, arrays, is_decayed in zip(
            row_settings, xla_target.split(arrays, known.columns), known.are_decayed, strict=True
        )
    ]
    # The sign of the gradient is a setting, too.
    sign = settings[layout.SIGN]
    factors = [(own[layout.CLIP_DIVISOR], own[layout.CLIP_FACTOR] * sign) for own in row_settings]
    made = jax_arrays.step(rows, call, options, factors)
    return [
        row[column] for row in made for column in xla_target.RETURNED if row[column] is not None
    ]


def _norms_by_rule(settings: Array, *arrays: Array, known: int) -> list[Array]:
    found = _norm_of_each(settings, *arrays, columns=known)
    if known & layout.TOGETHER:
        found = jnp.stack(clipping.joined(found[:, :1], found[:, 1:], jnp), axis=1)
    return [found]


def _norm_of_each(settings: Array, *arrays: Array, columns: int, is_scaled: bool = True) -> Array:
    (call, _), result = layout.told(settings), _dtype_of_norms(settings, columns)
    if not is_scaled:
        # XLA would write every gradient to memory after dividing it by 1.
        call = call._replace(loss_scale=None)
    rows = xla_target.split(arrays, columns)

    def of_update() -> Array:
        gradients = []
        for row in rows:
            # Any array with the dtype of the state will do for the averages.
            gradient, window = row[layout.GRADIENT], row[layout.WINDOW]
            given = mean(Row(None, gradient, settings, settings, window=window), call, jax_arrays)
            gradients.append(given.astype(result))
        return jax_devices.norm_of_each(gradients, bool(columns & layout.TOGETHER))

    nothing = jnp.stack([jnp.ones(len(rows), result), jnp.zeros(len(rows), result)], axis=1)
    updates = settings[layout.ACTION] == layout.UPDATE
    return jax.lax.cond(updates, of_update, lambda: nothing)


def _new_primitive(name: str, by_rule: Any, shapes: Any, target: Any) -> Primitive:
    """Return a new primitive that calls the kernel where it can, and elsewhere is `by_rule`."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(shapes)
    plain = mlir.lower_fun(by_rule, multiple_results=True)
    mlir.register_lowering(primitive, plain)

    def lower(context: Any, *operands: Any, known: Any) -> Any:
        devices = getattr(context.module_context.axis_context, "num_devices", None)
        if devices != 1:
            if getattr(known, "is_required", False):
                reason = f"it runs on {devices} devices, where XLA itself makes the step"
                raise no_kernel(reason, "a program")
            return plain(context, *operands, known=known)
        try:
            name, scratch, aliases, columns = target(context, known)
        except (MemoryError, OSError, RuntimeError):
            # The kernel for this dtype can't be compiled, for example because memory is short.
            return plain(context, *operands, known=known)
        results = [*context.avals_out, jax.core.ShapedArray((scratch,), np.dtype("int32"))]
        rule = jax.ffi.ffi_lowering(name, operand_output_aliases=aliases)
        return rule(context.replace(avals_out=results), *operands, columns=np.int64(columns))[:-1]

    mlir.register_lowering(primitive, lower, platform="cpu")

    def batch(operands: Any, axes: Any, known: Any) -> Any:
        function = functools.partial(by_rule, known=known)
        results = jax.vmap(function, in_axes=tuple(axes))(*operands)
        return results, [0] * len(results)

    batching.primitive_batchers[primitive] = batch

    def differentiate(primals: Any, tangents: Any, known: Any) -> Any:
        function = functools.partial(by_rule, known=known)
        return jax.jvp(
            function, primals, tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
        )

    ad.primitive_jvps[primitive] = differentiate
    return primitive


def _shapes_of_step(settings: Any, row_settings: Any, *arrays: Any, known: Known) -> list[Any]:
    rows = xla_target.split(arrays, known.columns)
    return [
        row[column] for row in rows for column in xla_target.RETURNED if row[column] is not None
    ]


def _target_of_step(context: Any, known: Known) -> tuple[str, int, dict[int, int], int]:
    aliases = xla_target.aliases_of_step(len(context.avals_in), known.columns)
    scratch = layout.scratch_size(len(known.are_decayed))
    dtype = str(context.avals_in[next(iter(aliases))].dtype)
    return _registered_handler("step", dtype), scratch, aliases, known.columns


def _shapes_of_norms(settings: Any, *arrays: Any, known: int) -> list[Any]:
    norms = 1 if known & layout.TOGETHER else len(xla_target.split(arrays, known))
    return [jax.core.ShapedArray((norms, 2), _dtype_of_norms(settings, known))]


def _dtype_of_norms(settings: Any, columns: int) -> Any:
    return np.dtype("float64") if columns & layout.WIDE else settings.dtype


def _target_of_norms(context: Any, known: int) -> tuple[str, int, dict[int, int], int]:
    arrays = context.avals_in[1:]
    scratch = xla_target.scratch_of_norms([array.shape for array in arrays], known)
    gradient = xla_target.split(arrays, known)[0][layout.GRADIENT]
    dtype = str((context.avals_in[0] if gradient is None else gradient).dtype)
    return _registered_handler("norms", dtype, bool(known & layout.WIDE)), scratch, {}, known


_step_primitive = _new_primitive("adadelta_step", _step_by_rule, _shapes_of_step, _target_of_step)
_norms_primitive = _new_primitive(
    "adadelta_norms", _norms_by_rule, _shapes_of_norms, _target_of_norms
)


def _registered_handler(kind: str, dtype: str, wide: bool = False) -> str:
    """Return the name under which a handler is registered with XLA; register it if it is new."""
    key = kind, dtype, wide
    with _lock.held():
        if key not in _registered:
            name, place = xla_target.handler(kind, dtype, _version(), wide)
            capsule = jax.ffi.pycapsule(place)
            jax.ffi.register_ffi_target(name, capsule, platform="cpu", api_version=1)
            _registered[key] = name
        return _registered[key]


@functools.cache
def _version() -> tuple[int, int]:
    """Return the version of XLA's interface, from the header of the installed jaxlib."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    major, minor = re.findall(r"#define XLA_FFI_API_M(?:AJOR|INOR) (\d+)", header)
    return int(major), int(minor)


def reason_against_dtype(dtype: str) -> str | None:
    """Return why JAX can't use the kernel of a dtype on this machine or None, or raise an error."""
    if _version()[0] != 0:
        return f"the interface of this jaxlib is of version {_version()}"
    _registered_handler("step", dtype)
    return None if _is_right() else "a step compiled with this jaxlib gives wrong numbers"


@functools.cache
def _is_right() -> bool:
    """Whether a small compiled step gives the results of the rule."""
    # Without a handler the trial would compare the rule with itself.
    _registered_handler("step", "float32")
    row, call, options = xla_target.trial()
    with jax.default_device(jax.devices("cpu")[0]), jax.ensure_compile_time_eval():
        on_jax = Row(*map(jnp.asarray, row[:4]))._replace(weight_decay=row.weight_decay)
        return xla_target.is_right(step([on_jax], call, options)[0], row, call, options)
