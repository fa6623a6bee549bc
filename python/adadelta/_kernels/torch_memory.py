"""Decide which torch tensors may be passed to a kernel.

A kernel gets addresses. Many a `torch.Tensor` has no memory at its address, or less than its shape
needs, or other numbers there than its values: subclasses, functional and batched tensors, resized
storage, and views with a lazy sign.
"""

import bisect
import functools
import operator
from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Addresses and sizes.
Places = NDArray[np.int64]
# Subclasses may be distributed over devices, or have other values than those in their memory.
PLAIN = (torch.Tensor, torch.nn.Parameter)

_address = torch.Tensor.data_ptr
_storage = torch.Tensor.untyped_storage
_storage_address = torch.UntypedStorage.data_ptr
_storage_size = torch.UntypedStorage.nbytes
_numel = torch.Tensor.numel
_itemsize = operator.attrgetter("itemsize")


def reason_against(
    tensor: Tensor, name: str, dtype: torch.dtype, device_type: str = "cpu"
) -> str | None:
    """Return why a tensor's address may not be passed to a kernel, or None when it may.

    Args:
        tensor: The tensor.
        name: The name of the tensor in the reason.
        dtype: The dtype that the kernel expects.
        device_type: The type of the device on which the kernel runs.

    """
    if type(tensor) not in PLAIN:
        return f"{name} is a {type(tensor).__name__}"
    if tensor.device.type != device_type:
        return f"{name} is on {tensor.device}"
    if tensor.dtype != dtype:
        return f"{name} is {tensor.dtype} and not {dtype}"
    is_dense = tensor.layout is torch.strided and not tensor.is_nested
    if not is_dense or tensor.is_neg() or tensor.is_conj() or not tensor.is_contiguous():
        return f"{name} is not dense and contiguous"
    if tensor.is_inference():
        # It has no version counter, by which autograd notices a step.
        return f"{name} was made in torch's inference mode"
    return None if has_memory(tensor) else f"{name} has no memory of its own"


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor's elements are inside its storage, at an address aligned for its dtype."""
    try:
        address, storage = tensor.data_ptr(), tensor.untyped_storage()
        end = storage.data_ptr() + storage.nbytes()
    except (RuntimeError, NotImplementedError):
        # Tensors of torch.func have no address.
        return False
    size = tensor.numel() * tensor.itemsize
    is_inside = address != 0 and address + size <= end and address % tensor.itemsize == 0
    return bool(is_inside or size == 0)


def is_watched() -> bool:
    """Whether a torch mode intercepts torch's operations, which a kernel would bypass."""
    if torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._len_torch_function_stack():
        return False
    # `torch.device(...)` as a context and `set_default_device()` only affect new tensors.
    modes = torch.overrides._get_current_function_mode_stack()
    return any(type(mode).__name__ != "DeviceContext" for mode in modes)


class Rows:
    """The memory of the tensors of a step. Tensors may share memory, and it may be too short."""

    def __init__(self, columns: Sequence[Sequence[Tensor | None]], gradient: int = 1) -> None:
        """Find the memory of tensors, which may be of any type.

        Args:
            columns: Parameters, gradients and so on, or None for a tensor that does not exist. A
                row holds the tensors of one parameter.
            gradient: The index of the column that is not written.

        """
        places = [np.flatnonzero([tensor is not None for tensor in column]) for column in columns]
        extents = [
            _extents([tensor for tensor in column if tensor is not None]) for column in columns
        ]
        self.gradients, self.rows_of_gradients = extents.pop(gradient), places.pop(gradient)
        self.written, self.rows = np.concatenate(extents), np.concatenate(places)

    def too_short(self) -> bool:
        """Whether a tensor extends past the end of its storage, where torch would still read."""
        every = np.concatenate([self.written, self.gradients])
        return bool((every[:, 1] > every[:, 2]).any())

    def sharing(self) -> set[int]:
        """Return the rows with a tensor that shares memory with another one that the step writes.

        They must be updated one after another, in order. Several rows may have the same gradient.
        """
        written = _Intervals(self.written, self.rows)
        rest = written.places_that_meet_earlier()
        found: set[int] = set()
        for start, end in rest:
            found |= written.rows_that_meet(start, end)
        starts, ends, _ = self.gradients.T.tolist()
        meet = written.meet(starts, ends)
        for start, end, row, meets in zip(starts, ends, self.rows_of_gradients, meet, strict=True):
            if meets and start < end:
                found |= written.rows_that_meet(start, end) | {int(row)}
        return found


class Noted:
    """Tensors that were found safe for a kernel, with a fast check that they still are.

    For a thousand small tensors each microsecond per tensor counts. So they are checked in full
    once, and again when a type, dtype, device, shape, stride, dispatch key (lazy sign, functional,
    ...), address or storage has changed.
    """

    def __init__(self, lasting: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Note tensors that `reason_against` accepts, and that share no memory.

        Args:
            lasting: The tensors that the kernel writes. The next step must have the same ones.
            gradients: The tensors that it reads. The next step may have others of the same kind.

        """
        self._addresses = list(map(_address, lasting))
        self._storage_sizes = list(map(_storage_size, map(_storage, lasting)))
        self._places = _places(gradients)
        self._written = _Intervals(_extents(lasting))
        self._itemsizes = list(map(_itemsize, gradients))
        self._sizes = list(map(operator.mul, map(_numel, gradients), self._itemsizes))
        self._are_empty = [not size for size in self._sizes]
        self._look = look(*lasting, *gradients)

    def addresses(self, lasting: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[int] | None:
        """Return the addresses of the gradients, or None if anything else has changed.

        The other tensors must be at the addresses of the noted ones, and all of the same kind.
        """
        if len(lasting) != len(self._addresses) or len(gradients) != len(self._sizes):
            return None
        if is_watched() or self._look is None or not self._look.check(*lasting, *gradients):
            return None
        if list(map(_address, lasting)) != self._addresses:
            return None
        if list(map(_storage_size, map(_storage, lasting))) != self._storage_sizes:
            return None
        places = _places(gradients)
        if places != self._places:
            if not self._fit(places):
                return None
            self._places = places
        return places[0]

    def _fit(self, places: list[list[int]]) -> bool:
        addresses, storages, storage_sizes = places
        ends = list(map(operator.add, addresses, self._sizes))
        storage_ends = map(operator.add, storages, storage_sizes)
        return (
            all(map(operator.or_, addresses, self._are_empty))
            and not any(map(operator.mod, addresses, self._itemsizes))
            and all(map(operator.le, ends, storage_ends))
            and not any(self._written.meet(addresses, ends))
        )


class _Intervals:
    """Intervals of memory, and the row to which each belongs."""

    def __init__(self, extents: Places, rows: Places | None = None) -> None:
        rows = np.arange(len(extents)) if rows is None else rows
        taken = extents[:, 1] > extents[:, 0]
        order = np.argsort(extents[taken, 0], kind="stable")
        self.starts, self.ends, _ = extents[taken][order].T
        self.rows = rows[taken][order]
        last_ends = np.maximum.accumulate(self.ends)
        self._meet_earlier = np.flatnonzero(self.starts[1:] < last_ends[:-1]) + 1
        self._starts = self.starts.tolist()
        # The highest address at which one of the first 0, 1, 2, ... intervals ends.
        self._last_ends = [0, *last_ends.tolist()]

    def meet(self, starts: Sequence[int], ends: Sequence[int]) -> Iterator[bool]:
        """Return for each of these other intervals, not empty, whether it overlaps one of them."""
        # For four intervals, lists take 3 us and NumPy's arrays 30.
        earlier = map(bisect.bisect_left, repeat(self._starts), ends)
        return map(operator.gt, map(self._last_ends.__getitem__, earlier), starts)

    def places_that_meet_earlier(self) -> list[tuple[int, int]]:
        meet = self._meet_earlier
        return list(zip(self.starts[meet], self.ends[meet], strict=True))

    def rows_that_meet(self, start: int, end: int) -> set[int]:
        return set(self.rows[(self.starts < end) & (self.ends > start)].tolist())


def _places(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the address of each tensor, and the address and size of its storage."""
    addresses = list(map(_address, tensors))
    storages = list(map(_storage, tensors))
    return [addresses, list(map(_storage_address, storages)), list(map(_storage_size, storages))]


def _extents(tensors: Sequence[Tensor]) -> Places:
    """Return, for each tensor, the addresses of its start and end and of the end of its storage.

    They are zeros for a tensor without memory or without an address.
    """
    if not set(map(type, tensors)) <= set(PLAIN):
        return _extents_of_any(tensors)
    try:
        addresses, storages, sizes = np.array(_places(tensors), np.int64).reshape(3, -1)
        spans = [
            _numel(tensor) * tensor.itemsize if tensor.is_contiguous() else _span(tensor)
            for tensor in tensors
        ]
    except (RuntimeError, NotImplementedError):
        return _extents_of_any(tensors)
    ends = addresses + np.array(spans, np.int64)
    return np.stack([addresses, ends, storages + sizes], axis=1)


def _extents_of_any(tensors: Sequence[Tensor]) -> Places:
    if len(tensors) <= 1:
        return np.zeros((len(tensors), 3), np.int64)
    return np.concatenate(
        [
            _extents([tensor]) if type(tensor) in PLAIN else np.zeros((1, 3), np.int64)
            for tensor in tensors
        ]
    )


def _span(tensor: Tensor) -> int:
    if not tensor.numel():
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return int(tensor.itemsize * (1 + sum((size - 1) * stride for size, stride in steps)))


@functools.cache
def _guards() -> "type[torch._C._dynamo.guards.TensorGuards]":
    from torch._C._dynamo.guards import TensorGuards

    return TensorGuards


def look(*tensors: Tensor) -> "torch._C._dynamo.guards.TensorGuards | None":
    """Return torch's own check, in C, that tensors are of the same kind as now, or None without it.

    These guards of torch.compile, which do not import its compiler, check 8,000 tensors in 0.4 ms;
    reading type, dtype, shape, layout and sign one after another takes 2.7.
    """
    try:
        return _guards()(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    except (ImportError, TypeError):
        return None
