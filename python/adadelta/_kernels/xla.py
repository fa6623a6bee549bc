"""The fused step inside JAX programs on the processor, in place where buffers are given away.

`step` and `norms` are JAX primitives. Compiled for one CPU device they call `xla_handler.py`.
Anywhere else, on a GPU or in a program that is spread over devices, they are `portable.py`, which
XLA compiles and partitions itself; so they are under `vmap` and differentiation.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from adadelta._kernels import layout, portable, xla_target
from adadelta._kernels.locks import Lock

Array = Any

_lock = Lock()
# By kind, dtype and whether norms are wide, the names that XLA knows.
_registered: dict[tuple[str, str, bool], str] = {}


def step(
    settings: Array, row_settings: Array, rows: Sequence[Sequence[Array | None]]
) -> list[list[Array | None]]:
    """Return what one step makes of tensors.

    Args:
        settings: What `layout.settings()` returned, as an array in the dtype of the state.
        row_settings: The same dtype, of shape (tensors, layout.ROW_SETTINGS).
        rows: For each tensor its arrays in the order of the table's columns, `None` where there
            is none. All have the same dtype, and arrays in the same columns.

    """
    columns = xla_target.columns_of(rows)
    returned = iter(_step(settings, row_settings, *xla_target.flat(rows), columns=columns))
    return [
        [
            next(returned) if columns >> column & 1 and column in xla_target.RETURNED else None
            for column in range(layout.COLUMNS)
        ]
        for _ in rows
    ]


def norms(
    settings: Array, rows: Sequence[Sequence[Array | None]], together: bool, wide: bool = False
) -> tuple[Array, Array]:
    """Return the norm of each gradient, or the one of all, as two factors in the state's dtype.

    Args:
        settings: As for `step`. They say what a gradient is divided by.
        rows: For each tensor an array or `None` in each column, as for `step`; only gradients
            and windows count.
        together: Whether the norm of all is wanted, of shape (1,), instead of one for each.
        wide: Whether the factors are to be float64 in any case.

    """
    rows, columns = xla_target.for_norms(rows, together, wide)
    flat = xla_target.flat(rows)

    def scaled(scale: float) -> Array:
        return _norms(settings.at[layout.NORM_SCALE].set(scale), *flat, columns=columns)

    plain = scaled(1.0)
    if settings.dtype == jnp.float32:
        return plain[:, 0], plain[:, 1]
    # Squares of float64 may leave its range; the sums of float32's are in float64 and do not.
    norm = _product(plain)
    small, large = norm < 1e-125, norm > 1e125

    def careful() -> tuple[Array, Array]:
        scale = jnp.where(large, 2.0**-600, jnp.where(small, 2.0**600, 1.0))
        again = jnp.where(large, _product(scaled(2.0**-600)), _product(scaled(2.0**600)))
        return 1 / scale, jnp.where(small | large, again, norm)

    return jax.lax.cond(jnp.any(small | large), careful, lambda: (jnp.ones_like(norm), norm))


def _product(norms: Array) -> Array:
    # The handler's divisors are 1 in float64; those of the rule are not.
    return norms[:, 0] * norms[:, 1]


@functools.partial(jax.jit, static_argnames="columns", inline=True)
def _step(settings: Array, row_settings: Array, *arrays: Array, columns: int) -> list[Array]:
    return _step_primitive.bind(settings, row_settings, *arrays, columns=columns)


@functools.partial(jax.jit, static_argnames="columns", inline=True)
def _norms(settings: Array, *arrays: Array, columns: int) -> Array:
    return _norms_primitive.bind(settings, *arrays, columns=columns)[0]


def _step_by_rule(
    settings: Array, row_settings: Array, *arrays: Array, columns: int
) -> list[Array]:
    results = []
    for own, row in zip(row_settings, xla_target.split(arrays, columns), strict=True):
        new = portable.step(jnp, settings, own, *row)
        results += [array for array in new if array is not None]
    return results


def _norms_by_rule(settings: Array, *arrays: Array, columns: int) -> list[Array]:
    dtype, result = settings.dtype, _dtype_of_norms(settings, columns)
    updates = settings[layout.ACTION] == layout.UPDATE
    squares, divisors = [], []
    for row in xla_target.split(arrays, columns):
        gradient, window = row[layout.GRADIENT], row[layout.WINDOW]
        given = jnp.zeros((), dtype)
        if gradient is not None:
            given = gradient.astype(dtype) / settings[layout.LOSS_SCALE]
        if window is not None:
            given = (window + given) / settings[layout.STEPS]
        given = (given * settings[layout.NORM_SCALE]).astype(result)
        magnitude = jnp.max(jnp.abs(given), initial=0)
        usable = (magnitude > 0) & jnp.isfinite(magnitude)
        divisors.append(jnp.where(usable, magnitude, 1))
        squares.append(jnp.sum(jnp.square(given / divisors[-1])))
    norm, divisor = jnp.sqrt(jnp.stack(squares)), jnp.stack(divisors)
    if columns & layout.TOGETHER:
        largest = jnp.max(divisor, keepdims=True)
        norm = jnp.sqrt(jnp.sum(jnp.square(norm * (divisor / largest)), keepdims=True))
        divisor = largest
    norm = jnp.where(updates, norm, 0)
    return [jnp.stack([divisor, norm], axis=1)]


def _new_primitive(name: str, by_rule: Any, shapes: Any, target: Any) -> Primitive:
    """Make a primitive that is `by_rule` wherever nothing better is known."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(shapes)
    plain = mlir.lower_fun(by_rule, multiple_results=True)
    mlir.register_lowering(primitive, plain)

    def lower(context: Any, *operands: Any, columns: int) -> Any:
        where = context.module_context.axis_context
        if getattr(where, "num_devices", None) != 1:
            return plain(context, *operands, columns=columns)
        try:
            name, scratch, aliases = target(context, columns)
        except (MemoryError, OSError, RuntimeError):
            # There is no machine code for this dtype: no memory to compile it, for example.
            return plain(context, *operands, columns=columns)
        results = [*context.avals_out, jax.core.ShapedArray((scratch,), np.dtype("int32"))]
        rule = jax.ffi.ffi_lowering(name, operand_output_aliases=aliases)
        return rule(context.replace(avals_out=results), *operands, columns=np.int64(columns))[:-1]

    mlir.register_lowering(primitive, lower, platform="cpu")

    def batch(operands: Any, axes: Any, columns: int) -> Any:
        function = functools.partial(by_rule, columns=columns)
        results = jax.vmap(function, in_axes=tuple(axes))(*operands)
        return results, [0] * len(results)

    batching.primitive_batchers[primitive] = batch

    def differentiate(primals: Any, tangents: Any, columns: int) -> Any:
        function = functools.partial(by_rule, columns=columns)
        return jax.jvp(function, primals, tuple(ad.instantiate_zeros(it) for it in tangents))

    ad.primitive_jvps[primitive] = differentiate
    return primitive


def _shapes_of_step(settings: Any, row_settings: Any, *arrays: Any, columns: int) -> list[Any]:
    rows = xla_target.split(arrays, columns)
    return [
        row[column] for row in rows for column in xla_target.RETURNED if row[column] is not None
    ]


def _target_of_step(context: Any, columns: int) -> tuple[str, int, dict[int, int]]:
    aliases = xla_target.aliases_of_step(len(context.avals_in), columns)
    rows = len(xla_target.split(context.avals_in[2:], columns))
    dtype = str(context.avals_in[next(iter(aliases))].dtype)
    return _registered_handler("step", dtype), layout.scratch_size(rows), aliases


def _shapes_of_norms(settings: Any, *arrays: Any, columns: int) -> list[Any]:
    rows = xla_target.split(arrays, columns)
    norms = 1 if columns & layout.TOGETHER else len(rows)
    return [jax.core.ShapedArray((norms, 2), _dtype_of_norms(settings, columns))]


def _dtype_of_norms(settings: Any, columns: int) -> Any:
    return np.dtype("float64") if columns & layout.WIDE else settings.dtype


def _target_of_norms(context: Any, columns: int) -> tuple[str, int, dict[int, int]]:
    arrays = context.avals_in[1:]
    scratch = xla_target.scratch_of_norms([array.shape for array in arrays], columns)
    gradient = xla_target.split(arrays, columns)[0][layout.GRADIENT]
    dtype = str((context.avals_in[0] if gradient is None else gradient).dtype)
    return _registered_handler("norms", dtype, bool(columns & layout.WIDE)), scratch, {}


_step_primitive = _new_primitive("adadelta_step", _step_by_rule, _shapes_of_step, _target_of_step)
_norms_primitive = _new_primitive(
    "adadelta_norms", _norms_by_rule, _shapes_of_norms, _target_of_norms
)


def _registered_handler(kind: str, dtype: str, wide: bool = False) -> str:
    """Return the name under which XLA knows a handler, after making it known."""
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
    """Return the version of XLA's interface, from the header of the jaxlib at hand."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    major, minor = re.findall(r"#define XLA_FFI_API_M(?:AJOR|INOR) (\d+)", header)
    return int(major), int(minor)


@functools.cache
def reason_against_dtype(dtype: str) -> str | None:
    """Why there is no handler of a step for a dtype, or None when there is one."""
    try:
        _registered_handler("step", dtype)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@functools.cache
def reason_against() -> str | None:
    """Why JAX can't use the kernel on this machine, or None when it can.

    Runs one small step of each dtype's handler, compiled, and compares it with the rule.
    """
    try:
        if _version()[0] != 0:
            return f"the interface of this jaxlib is of version {_version()}"
        # Without a handler the trial would be made by the rule.
        _registered_handler("step", "float32")
        settings, row_settings, row, right = xla_target.trial()
        with jax.default_device(jax.devices("cpu")[0]), jax.ensure_compile_time_eval():
            (made,) = step(jnp.asarray(settings), jnp.asarray(row_settings), [row])
            if not all(xla_target.is_right(made[column], exact) for column, exact in right):
                return "a step compiled with this jaxlib gives wrong numbers"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
