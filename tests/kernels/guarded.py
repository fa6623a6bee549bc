"""Arrays beside inaccessible memory, and XLA's side of a call of our handlers.

Each array has its own pages, with an inaccessible page before and behind. The array touches one of
the two, so that an access one element too far is a segmentation fault; the bytes on its other side
must stay unchanged. `test_guarded.py` runs the programs that use this module, and reports their
crashes.
"""

import contextlib
import ctypes
import functools
import mmap
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from adadelta._core import precision
from adadelta._kernels import compiled, layout, xla_handler, xla_target

PAGE = mmap.PAGESIZE
BEHIND, BEFORE = "behind", "before"
_MARK = 0xA5
_MARKS = bytes([_MARK]) * PAGE
_NONE, _READ_AND_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _protect(address: int, size: int, access: int) -> None:
    if _libc.mprotect(address, size, access):
        raise OSError(ctypes.get_errno(), "mprotect")


class _Slot:
    """Pages between two inaccessible ones."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.size = PAGE * pages
        self._map = mmap.mmap(-1, self.size + 2 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + PAGE
        _protect(self.address - PAGE, PAGE, _NONE)
        _protect(self.address + self.size, PAGE, _NONE)
        self.bytes = np.frombuffer(self._map, np.uint8)[PAGE:-PAGE]

    def allow(self, access: int) -> None:
        _protect(self.address, self.size, access)


class Placed:
    """An array in guarded memory."""

    def __init__(self, slot: _Slot, side: str, array: np.ndarray) -> None:
        self.slot = slot
        self.original = array
        self.begin = slot.size - array.nbytes if side == BEHIND else 0
        self.end = self.begin + array.nbytes
        self.address = slot.address + self.begin
        self.array = slot.bytes[self.begin : self.end].view(array.dtype).reshape(array.shape)
        slot.bytes[: self.begin] = _MARK
        slot.bytes[self.end :] = _MARK
        self.restore()

    def restore(self) -> None:
        """Restore the original content of the array."""
        self.array[...] = self.original

    def is_unchanged(self) -> bool:
        return self.array.tobytes() == self.original.tobytes()

    def is_clean_around(self) -> bool:
        before, behind = self.slot.bytes[: self.begin], self.slot.bytes[self.end :]
        return all(it.tobytes() == _MARKS[: len(it)] for it in (before, behind))


class Memory:
    """Place arrays at one side of their pages, which are reused after `release`."""

    def __init__(self) -> None:
        self.side = BEHIND
        self._free: dict[int, list[_Slot]] = {}
        self.used: list[Placed] = []

    def place(self, array: np.ndarray) -> Placed:
        """Return a copy of an array in guarded memory."""
        array = np.ascontiguousarray(array)
        pages = max(1, -(-array.nbytes // PAGE))
        free = self._free.setdefault(pages, [])
        placed = Placed(free.pop() if free else _Slot(pages), self.side, array)
        self.used.append(placed)
        return placed

    def release(self, mark: int = 0) -> None:
        """Check the bytes around all arrays placed from number `mark` on, and free their pages."""
        self.check(mark)
        for placed in self.used[mark:]:
            self._free[placed.slot.pages].append(placed.slot)
        del self.used[mark:]

    def check(self, mark: int = 0) -> None:
        for placed in self.used[mark:]:
            assert placed.is_clean_around(), "something was written beside an array"

    @contextlib.contextmanager
    def scope(self) -> Any:
        """Free the arrays that are placed inside."""
        mark = len(self.used)
        yield
        self.release(mark)

    @contextlib.contextmanager
    def closed(self) -> Any:
        """Make all arrays inaccessible, as when a call has ended and its arrays are gone."""
        for placed in self.used:
            placed.slot.allow(_NONE)
        yield
        for placed in self.used:
            placed.slot.allow(_READ_AND_WRITE)


class GuardedNumPy:
    """NumPy for a module whose new arrays should be guarded."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def _placed(self, array: np.ndarray) -> np.ndarray:
        return self._memory.place(array).array if array.size else array

    def array(self, *arguments: Any, **options: Any) -> np.ndarray:
        return self._placed(np.array(*arguments, **options))

    def zeros(self, *arguments: Any, **options: Any) -> np.ndarray:
        return self._placed(np.zeros(*arguments, **options))

    def cumsum(self, *arguments: Any, **options: Any) -> np.ndarray:
        return self._placed(np.cumsum(*arguments, **options))


class Buffer(NamedTuple):
    """XLA's description of an array."""

    address: int
    dtype: str
    shape: tuple[int, ...]


# Fills the unused half of 8 bytes that hold a field of 4 bytes.
_REST = 0x5A5A5A5A << 32
_ERROR = 0x1234_5678_0000
_CONTEXT = 0x4321_0000
_EXECUTE = 3

# How XLA's threads respond.
MODES = (
    "one thread",
    "no threads",
    "refuses",
    "refuses some",
    "at once",
    "on threads",
    "late",
)


def _words(address: int, count: int) -> Any:
    return (ctypes.c_int64 * count).from_address(address)


class Xla:
    """Call handlers in guarded memory, as XLA does."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.mode = MODES[0]
        self.has_memory = True
        self._threads = ThreadPoolExecutor(2)
        self._allocations = Memory()
        self._allocated: dict[int, Placed] = {}
        self._tasks: list[Any] = []
        self._scheduled = 0
        self._complaints: list[str] = []
        self.errors = 0
        one = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
        # Referenced here, since C has only their addresses.
        self._functions = {
            xla_handler._CREATE_ERROR: one(self._create_error),
            xla_handler._DESTROY_ERROR: one(self._destroy_error),
            xla_handler._SCHEDULE: one(self._schedule),
            xla_handler._NUMBER_OF_THREADS: one(self._number_of_threads),
            "malloc": one(self._malloc),
            "free": one(self._free),
            "yield": one(lambda _: 0),
        }
        self._api = np.zeros(24, np.int64)
        for place, function in self._functions.items():
            if isinstance(place, int):
                self._api[place] = self._address(function)

    @staticmethod
    def _address(function: Any) -> int:
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    # Functions that the handlers call. An exception would be lost there.

    def _expect(self, is_so: bool, complaint: str) -> None:
        if not is_so:
            self._complaints.append(complaint)

    def _create_error(self, arguments: int) -> int:
        size, extension, message, code = _words(arguments, 4)
        self._expect((size, extension, code & 0xFFFFFFFF) == (28, 0, 3), "an error of other form")
        self._expect(b"do not belong together" in ctypes.string_at(message), "another message")
        self.errors += 1
        return _ERROR

    def _destroy_error(self, arguments: int) -> int:
        self._expect(list(_words(arguments, 3)) == [24, 0, _ERROR], "an error destroyed otherwise")
        self.errors -= 1
        return 0

    def _fails(self) -> int:
        self.errors += 1
        return _ERROR

    def _number_of_threads(self, arguments: int) -> int:
        size, extension, context, place = _words(arguments, 4)
        self._expect((size, extension, context) == (32, 0, _CONTEXT), "threads asked otherwise")
        if self.mode == "no threads":
            return self._fails()
        _words(place, 1)[0] = 1 if self.mode == "one thread" else 3
        return 0

    def _schedule(self, arguments: int) -> int:
        size, extension, context, function, data = _words(arguments, 5)
        self._expect((size, extension, context) == (40, 0, _CONTEXT), "scheduled otherwise")
        self._scheduled += 1
        if self.mode == "refuses" or (self.mode == "refuses some" and self._scheduled % 2):
            return self._fails()
        task = ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)
        if self.mode == "on threads":
            self._tasks.append(self._threads.submit(task, data).result)
        elif self.mode == "late":
            self._tasks.append(lambda: self._threads.submit(task, data).result())
        else:
            task(data)
        return 0

    def _malloc(self, size: int) -> int:
        if not self.has_memory:
            return 0
        placed = self._allocations.place(np.zeros(size, np.uint8))
        self._allocated[placed.address] = placed
        return placed.address

    def _free(self, address: int) -> int:
        placed = self._allocated.pop(address, None)
        if placed is None:
            self._expect(False, "freed what was not allocated")
        else:
            self._expect(placed.is_clean_around(), "something was written beside shared memory")
            # Reading it from now on is a crash.
            placed.slot.allow(_NONE)
        return 0

    # Calls of the handlers.

    def known(self, dtype: str, version: int) -> Placed:
        """Return the data that `xla_target.handler` gives a handler, with functions of ours."""
        known = np.zeros(layout.KNOWN, np.int64)
        known[layout.WORKER], known[layout.TASK] = compiled.addresses(
            ("fused", dtype), ("xla_handler", "task")
        )
        for place, name in (
            (layout.MALLOC, "malloc"),
            (layout.FREE, "free"),
            (layout.YIELD, "yield"),
        ):
            known[place] = self._address(self._functions[name])
        known[layout.VERSION] = version
        known[layout.DTYPE] = layout.XLA_DTYPES[dtype]
        known[layout.STATE_DTYPE] = layout.XLA_DTYPES[precision.state_dtype(dtype)]
        known[layout.REFUSAL] = ctypes.addressof(xla_target._REFUSAL)
        return self.memory.place(known)

    def call(
        self,
        kind: str,
        dtype: str,
        operands: list[Buffer],
        results: list[Buffer],
        attributes: list[int],
        *,
        with_real_memory: bool,
    ) -> bool:
        """Call the handler of "step", "norms" or "wide norms"; return whether it accepted it."""
        frame = self._frame(operands, results, attributes)
        handler, arguments = self._handler(kind, dtype, frame, with_real_memory)
        read_only = [it for it in self.memory.used if it.original.dtype == np.int64]
        self._tasks, self._scheduled, self._complaints, self.errors = [], 0, [], 0
        error = handler(*arguments)
        if self._tasks:
            # XLA's threads may run after the call has ended.
            with self.memory.closed():
                for task in self._tasks:
                    task()
        assert not self._complaints, self._complaints
        assert error in (0, _ERROR), error
        assert self.errors == bool(error), "an error of XLA's was not destroyed"
        assert not self._allocated, "memory was not freed"
        for placed in self._allocations.used:
            placed.slot.allow(_READ_AND_WRITE)
        self._allocations.release()
        assert all(it.is_unchanged() for it in read_only), "what XLA says of a call was changed"
        return not error

    def _handler(
        self, kind: str, dtype: str, frame: Placed, with_real_memory: bool
    ) -> tuple[Any, tuple[int, ...]]:
        if with_real_memory:
            return self._handler_as_made(kind, dtype), (frame.address,)
        state = precision.state_dtype(dtype)
        function = {"norms": f"norms_{state}", "wide norms": "norms_float64"}.get(kind, kind)
        (address,) = compiled.addresses(("xla_handler", function))
        known = self.known(dtype, 1 << 32)
        return compiled.call(address, arguments=2), (frame.address, known.address)

    @functools.cache  # noqa: B019 - there is one object of this class
    def _handler_as_made(self, kind: str, dtype: str) -> Any:
        wide = kind == "wide norms"
        _, address = xla_target.handler("norms" if wide else kind, dtype, (0, 1), wide)
        return compiled.call(address, arguments=1)

    def _frame(
        self, operands: list[Buffer], results: list[Buffer], attributes: list[int]
    ) -> Placed:
        place = self.memory.place
        api = place(self._api).address
        first, second = self._buffers(operands), self._buffers(results)
        values = [place(np.array([value], np.int64)).address for value in attributes]
        scalars = [place(np.array([5, value], np.int64)).address for value in values]
        listed = place(np.array(scalars, np.int64)).address
        begin = [22 * 8, 0, api, _CONTEXT, _EXECUTE | _REST]
        given = [5 * 8, 0, len(operands), 0, first]
        returned = [5 * 8, 0, len(results), 0, second]
        named = [6 * 8, 0, len(attributes), 0, 0, listed]
        return place(np.array([*begin, *given, *returned, *named, 0], np.int64))

    def _buffers(self, buffers: list[Buffer]) -> int:
        """Return the address of an array of addresses of XLA_FFI_Buffer."""
        ranks = np.array([len(it.shape) for it in buffers], np.int64)
        dimensions = np.array([size for it in buffers for size in it.shape], np.int64)
        its_dimensions = self.memory.place(dimensions).address
        structs = np.zeros((len(buffers), 6), np.int64)
        structs[:, 0] = 6 * 8
        structs[:, 2] = [layout.XLA_DTYPES[it.dtype] | _REST for it in buffers]
        structs[:, 3] = [it.address for it in buffers]
        structs[:, 4] = ranks
        structs[:, 5] = its_dimensions + 8 * (np.cumsum(ranks) - ranks)
        start = self.memory.place(structs).address
        return self.memory.place(np.arange(len(buffers)) * 48 + start).address

    def version_of(self, dtype: str, version: int) -> int:
        """Return the version of the interface that a handler reports."""
        place = self.memory.place
        metadata = place(np.array([40, 24, 0, -1, -1], np.int64))
        extension = place(np.array([32, 1 | _REST, 0, metadata.address], np.int64))
        frame = place(np.array([22 * 8, extension.address, *[0] * 20], np.int64))
        (address,) = compiled.addresses(("xla_handler", "step"))
        known = self.known(dtype, version)
        assert compiled.call(address, arguments=2)(frame.address, known.address) == 0
        # No traits are set; they fill half of the last 8 bytes.
        assert metadata.array[4] & 0xFFFFFFFF == 0
        return int(metadata.array[3])
