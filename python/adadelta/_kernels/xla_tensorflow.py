"""The fused step of TensorFlow's variables on the processor, in place, called by TensorFlow's XLA.

The handler is an XLA custom call in a small module that TensorFlow compiles as part of a function
with `jit_compile=True`, whose variables XLA updates in place. If such a function is called inside
another one, it becomes a part of that.
"""

import ctypes
import functools
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.eager import context, record

from adadelta._core import precision
from adadelta._core.step import Row
from adadelta._kernels import layout, xla_target
from adadelta._kernels.locks import Lock

Array = Any
Rows = Sequence[Sequence[Any]]

# The version of the operation XlaCallModule that supports XLA's typed interface.
_VERSION = 5
_TYPED = 4
_MLIR = {
    "bfloat16": "bf16",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "int32": "i32",
}

# Offsets in XLA_FFI_Api, in units of 8 bytes, and how many bytes of it the handlers need.
_MAJOR_AND_MINOR, _REGISTER, _NEEDED = 4, 9, 8 * 19

_lock = Lock()
# The names of the registered handlers by kind, dtype and whether norms are wide.
_registered: dict[tuple[str, str, bool], str] = {}


def reason_against_here() -> str | None:
    """Return why XLA can't compile our programs where this is called, or None when it can."""
    if tf.distribute.has_strategy():
        return "under a distribution strategy a variable is several in one"
    if tf.config.functions_run_eagerly():
        return "TensorFlow's functions run eagerly, so that XLA compiles none"
    # Callbacks on each operation, as of tf.debugging.enable_check_numerics(), would also become
    # part of our programs, and XLA can't compile them.
    if context.context().op_callbacks:
        return "XLA can't compile what looks at each operation, as tf.debugging does"
    if not tf.executing_eagerly() and not tf.compat.v1.get_default_graph().building_function:
        return "in a graph of TensorFlow 1 operations are run one by one"
    return None


def is_compiled_here() -> bool:
    """Whether XLA will compile the function that is being traced where this is called."""
    # The graph does not say; the tf.function that traces it does. A wrong answer only costs speed.
    frame = inspect.currentframe()
    while frame is not None:
        if getattr(frame.f_locals.get("self"), "_jit_compile", None) is True:
            return True
        frame = frame.f_back
    return False


def reason_against_variable(variable: Any) -> str | None:
    """Return why the kernel can't read and write a variable, or None when it can."""
    if not isinstance(variable, tf.Variable):
        return "it is no tf.Variable"
    # A variable made under a strategy consists of several variables outside of it, too.
    if getattr(variable, "_distribute_strategy", None) is not None:
        return "it was made under a distribution strategy"
    if isinstance(variable, tf.experimental.dtensor.DVariable):
        return "it lies on a mesh of DTensor"
    return None if _is_the_processor(variable.device) else f"it lies on {variable.device}"


@functools.lru_cache(maxsize=64)
def _is_the_processor(device: str) -> bool:
    # If the processor is split into several logical devices, the programs run on the first.
    place = tf.DeviceSpec.from_string(device)
    return place.device_type in (None, "CPU") and not place.device_index


def together(numbers: Sequence[Any], dtype: str) -> Array:
    """Return numbers and scalar tensors as one array, or as one tensor inside a graph."""
    if tf.executing_eagerly():
        return np.array([np.asarray(number) for number in numbers], dtype)
    return tf.stack(
        [
            tf.cast(number, dtype)
            if tf.is_tensor(number)
            else tf.constant(np.asarray(number, dtype))
            for number in numbers
        ]
    )


class Program:
    """The compiled step of some variables of one dtype.

    Args:
        rows: For each parameter the `tf.Variable` of each column of the kernel's table, or `None`
            if there is none and for the gradient. All have variables in the same columns.

    """

    def __init__(self, rows: Rows) -> None:
        self.rows = [list(row) for row in rows]
        self._device = self.rows[0][layout.PARAMETER].device
        self._compiled: dict[Any, Any] = {}

    def step(self, settings: Array, row_settings: Array, gradients: Sequence[Array]) -> None:
        """Make one step.

        Args:
            settings: The result of `layout.settings()`, in the dtype of the state.
            row_settings: The same dtype, of shape (parameters, layout.ROW_SETTINGS).
            gradients: One for each parameter, of its shape and dtype.

        """
        self._run(self._traced_step, settings, row_settings, *gradients)

    def norms(
        self, settings: Array, gradients: Sequence[Array], together: bool, wide: bool = False
    ) -> tuple[Array, Array]:
        """Return the norm of each gradient, or of all together, as two factors.

        Args:
            settings: As for `step`. Gradients are divided by the loss scale and steps in them.
            gradients: As for `step`.
            together: Whether to return one norm of all, of shape (1,).
            wide: Whether to return float64 instead of the state's dtype.

        """
        key = together, wide

        def traced(settings: Array, *gradients: Array) -> tuple[Array, Array]:
            return norms(settings, self._rows_with(gradients), *key)

        divisor, norm = self._run(traced, settings, *gradients, key=key)
        return divisor, norm

    def _run(self, function: Any, *arrays: Any, key: Any = "step") -> Any:
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        # A gradient tape around the step must not record it: it has no gradient.
        with record.stop_recording(), tf.device(self._device):
            if key not in self._compiled:
                specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
                # All calls have these shapes, so TensorFlow need not look for another trace nor
                # warn about retracing.
                self._compiled[key] = tf.function(
                    function, jit_compile=True, autograph=False
                ).get_concrete_function(*specs)
            return self._compiled[key](*tensors)

    def _rows_with(self, gradients: Sequence[Array]) -> list[list[Any]]:
        return [
            [*row[: layout.GRADIENT], gradient, *row[layout.GRADIENT + 1 :]]
            for row, gradient in zip(self.rows, gradients, strict=True)
        ]

    def _traced_step(self, settings: Array, row_settings: Array, *gradients: Array) -> None:
        values = [
            [None if array is None else tf.convert_to_tensor(array) for array in row]
            for row in self._rows_with(gradients)
        ]
        for row, new in zip(self.rows, step(settings, row_settings, values), strict=True):
            for variable, value in zip(row, new, strict=True):
                if value is not None:
                    variable.assign(value)


def step(settings: Array, row_settings: Array, rows: Rows) -> list[list[Array | None]]:
    """Return the tensors after one step, inside a function that XLA compiles.

    Args:
        settings: See `Program.step`.
        row_settings: See there.
        rows: For each parameter its tensors in the order of the table's columns, or `None` for a
            column without one.

    """
    columns = xla_target.columns_of(rows)
    operands = [settings, row_settings, *xla_target.flat(rows)]
    aliases = xla_target.aliases_of_step(len(operands), columns)
    results = [(operands[operand].shape.as_list(), operands[operand].dtype) for operand in aliases]
    results.append(([layout.scratch_size(len(rows))], tf.int32))
    dtype = rows[0][layout.PARAMETER].dtype.name
    returned = iter(_call("step", dtype, operands, results, columns, aliases))
    return [
        [
            next(returned) if columns >> column & 1 and column in xla_target.RETURNED else None
            for column in range(layout.COLUMNS)
        ]
        for _ in rows
    ]


def norms(settings: Array, rows: Rows, together: bool, wide: bool = False) -> tuple[Array, Array]:
    """Return norms of gradients as two factors, inside a function that XLA compiles."""
    rows, columns = xla_target.for_norms(rows, together, wide)
    flat = [tf.convert_to_tensor(array) for array in xla_target.flat(rows)]
    dtype = flat[0].dtype.name
    size = xla_target.scratch_of_norms([array.shape.as_list() for array in flat], columns)
    result = tf.float64 if wide else settings.dtype
    results = [([1 if together else len(rows), 2], result), ([size], tf.int32)]
    factors, _ = _call("norms", dtype, [settings, *flat], results, columns, {})
    return factors[:, 0], factors[:, 1]


def _call(
    kind: str, dtype: str, operands: Any, results: Any, columns: int, aliases: dict[int, int]
) -> list[Array]:
    """Call a handler and return its results, whose shapes and dtypes are given."""
    given = [(tuple(operand.shape.as_list()), operand.dtype.name) for operand in operands]
    returned = [(tuple(shape), dtype.name) for shape, dtype in results]
    target = _registered_handler(kind, dtype, bool(columns & layout.WIDE))
    called = xla.call_module(
        operands,
        version=_VERSION,
        module=_module(target, tuple(given), tuple(returned), columns, tuple(aliases.items())),
        Tout=[dtype for _, dtype in results],
        Sout=[shape for shape, _ in results],
        platforms=["CPU"],
    )
    return list(called)


@functools.lru_cache(maxsize=64)
def _module(
    target: str, operands: Any, results: Any, columns: int, aliases: Sequence[tuple[int, int]]
) -> str:
    """Return a StableHLO module that calls a handler."""

    def described(arrays: Any) -> str:
        return ", ".join(
            f"tensor<{''.join(f'{size}x' for size in shape)}{_MLIR[dtype]}>"
            for shape, dtype in arrays
        )

    names = [f"%operand{i}" for i in range(len(operands))]
    types = described(operands).split(", ")
    arguments = ", ".join(f"{name}: {kind}" for name, kind in zip(names, types, strict=True))
    places = ", ".join(
        f"#stablehlo.output_operand_alias<output_tuple_indices = [{result}], "
        f"operand_index = {operand}, operand_tuple_indices = []>"
        for operand, result in aliases
    )
    returned = described(results)
    values = ", ".join(f"%called#{i}" for i in range(len(results)))
    return f"""
module @adadelta {{
  func.func public @main({arguments}) -> ({returned}) {{
    %called:{len(results)} = stablehlo.custom_call @{target}({", ".join(names)}) {{
      api_version = {_TYPED} : i32,
      backend_config = {{columns = {columns} : i64}},
      output_operand_aliases = [{places}]
    }} : ({described(operands)}) -> ({returned})
    return {values} : {returned}
  }}
}}
"""


class _Text(ctypes.Structure):
    _fields_ = (("start", ctypes.c_char_p), ("size", ctypes.c_size_t))


class _Registration(ctypes.Structure):
    """The struct XLA_FFI_Handler_Register_Args of XLA's `xla/ffi/api/c_api.h`."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("name", _Text),
        ("platform", _Text),
        ("instantiate", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("initialize", ctypes.c_void_p),
        ("execute", ctypes.c_void_p),
        ("traits", ctypes.c_uint32),
    )


def _registered_handler(kind: str, dtype: str, wide: bool = False) -> str:
    """Return the name of a handler in TensorFlow's XLA; register it if it is new."""
    key = kind, dtype, wide
    with _lock.held():
        if key not in _registered:
            name, place = xla_target.handler(kind, dtype, _version_of_interface(), wide)
            text = _Text(name.encode(), len(name))
            arguments = _Registration(
                ctypes.sizeof(_Registration), None, text, _Text(b"Host", 4), None, None, None, place
            )
            function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(_api()[_REGISTER])
            if function(ctypes.addressof(arguments)):
                raise RuntimeError(f"TensorFlow's XLA refuses the handler {name}")
            _registered[key] = name
        return _registered[key]


@functools.cache
def _api() -> Any:
    """Return the struct XLA_FFI_Api of TensorFlow's XLA as a pointer to int64."""
    path = next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_framework.*"))
    function = ctypes.CDLL(str(path)).XLA_FFI_GetApi
    function.restype = ctypes.POINTER(ctypes.c_int64)
    return function()


@functools.cache
def _version_of_interface() -> tuple[int, int]:
    """Return the version of XLA's interface."""
    version = _api()[_MAJOR_AND_MINOR]
    return version & 0xFFFFFFFF, version >> 32


@functools.cache
def reason_against_dtype(dtype: str, kind: str = "step") -> str | None:
    """Return why TensorFlow can't use a kind of handler for a dtype, or None when it can."""
    try:
        if _version_of_interface()[0] != 0 or _api()[0] < _NEEDED:
            return f"XLA's interface in this TensorFlow is of version {_version_of_interface()}"
        if not _is_right():
            return "a step compiled with this TensorFlow gives wrong numbers"
        _registered_handler(kind, dtype)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@functools.cache
def _is_right() -> bool:
    """Whether a small compiled step gives the results of the rule."""
    # Another thread is free of the caller's graph, strategy and device.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_trial).result()


def _trial() -> bool:
    row, call, options = xla_target.trial()
    limit = precision.largest_gradient(options.epsilon, "float32")
    settings = np.array(layout.settings(options, call, row.action, limit), np.float32)
    with tf.device("CPU:0"):
        parameter, square_avg, acc_delta = map(tf.Variable, (row[0], *row[2:4]))
        variables = Row(parameter, None, square_avg, acc_delta)
        program = Program([variables[: layout.COLUMNS]])
        own = layout.row_settings([row.weight_decay], np.float32)
        program.step(settings, own, [row.gradient])
        made = variables._replace(gradient=row.gradient)
        return xla_target.is_right(made, row, call, options)
