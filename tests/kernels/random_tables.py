"""Run random tables through every kernel and handler, in guarded memory (`guarded.py`).

    random_tables.py DTYPE FIRST COUNT

Table `i` of a dtype is the same in every run. Its number is printed before it runs, so that the
last line of a run that crashed names the table.
"""

import faulthandler
import sys
from importlib.util import find_spec

import numpy as np
from guarded import BEFORE, BEHIND, MODES, Buffer, GuardedNumPy, Memory, Xla
from kernel_tools import DTYPES, arguments, assert_same, expected, tensors

from adadelta._core import precision
from adadelta._core.step import COLLECT, SKIP, UPDATE
from adadelta._kernels import cpu, layout, xla_target
from adadelta._kernels.threads import PythonThreads

BLOCK, PIECE = layout.BLOCK, layout.PIECE
SMALL = [0, 1, 2, 3, 17, 63, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK + 1]
LARGE = [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, PIECE + BLOCK]
COUNTS = ("few", "many", "empty", "one", "large", "cut", "none")
RARITY = np.array([0.48, 0.1, 0.1, 0.15, 0.04, 0.1, 0.03])
# The numbers of `kernel_tools.OPTIONS`, and numbers that change nothing.
CHOICES = {
    "loss_scale": [1.0, 1.0, 8.0, 3.0, 65536.0],
    "maximize": [False, True],
    "clip_value": [np.inf, np.inf, 0.5],
    "decay_mode": list(layout.DECAY_MODES),
    "action": [*[UPDATE] * 4, COLLECT, SKIP],
}
LASTING = [column for column in range(layout.COLUMNS) if column != layout.GRADIENT]


def random_sizes(generator):
    kind = generator.choice(COUNTS, p=RARITY)
    if kind == "few":
        return generator.choice(SMALL, generator.integers(1, 7))
    if kind == "many":
        return generator.integers(0, 6, generator.integers(8, 40))
    if kind == "empty":
        return np.zeros(generator.integers(1, 40), int)
    if kind == "one":
        return generator.choice(SMALL, 1)
    if kind == "large":
        return np.concatenate([generator.choice(LARGE, 1), generator.choice(SMALL, 2)])
    if kind == "none":
        return np.zeros(0, int)
    # Tensors that end at the end of a piece or one element beside it, and empty ones there.
    pieces = generator.integers(1, 3)
    total = pieces * PIECE + generator.choice([-1, 0, 0, 1])
    within = generator.integers(0, total + 1, generator.integers(0, 4))
    edges = [PIECE] * generator.integers(0, 3)
    ends = np.sort(np.concatenate([within, edges, [total] * generator.integers(1, 4)]))
    return np.diff(np.minimum(ends, total).astype(int), prepend=[0] * generator.integers(1, 3))


def random_shape(size, generator):
    shapes = [(size,), (1, size), (size, 1, 1)]
    shapes += [()] if size == 1 else [(0, 3), (3, 0, 2)] if size == 0 else []
    shapes += [(size // 2, 2)] if size and size % 2 == 0 else []
    return shapes[generator.integers(len(shapes))]


class Table:
    """Tensors and options, with the rule's results for them."""

    def __init__(self, dtype, number):
        self.generator = generator = np.random.default_rng([list(DTYPES).index(dtype), number])
        self.dtype, self.state = dtype, precision.state_dtype(dtype)
        self.sizes = random_sizes(generator).astype(np.int64)
        options = {name: generator.choice(values).item() for name, values in CHOICES.items()}
        if generator.random() < 0.4:
            options["momentum"] = 0.9
            options["average_starts"] = generator.random() < 0.3
            options["overwrite"] = generator.random() < 0.3
        if generator.random() < 0.4:
            options["steps"] = 3.0
        (self.whole,) = tensors(dtype, [self.sizes.sum()], options, generator)
        if generator.random() < 0.03 and self.sizes.sum():
            place = generator.integers(self.sizes.sum())
            self.whole[layout.GRADIENT][place] = generator.choice([np.nan, np.inf, -np.inf])
        self.options = options
        self.settings, _ = arguments(dtype, options)
        self.row_settings = self._row_settings()
        # A row without a gradient gets zeros. In XLA either all rows have a gradient or none has.
        self.are_missing = np.zeros(len(self.sizes), bool)
        kind = generator.random()
        if kind < 0.2:
            self.are_missing[:] = generator.random(len(self.sizes)) < (1 if kind < 0.1 else 0.5)
        self.whole[layout.GRADIENT][np.repeat(self.are_missing, self.sizes)] = 0
        self.is_for_xla = bool(len(self.sizes)) and len(set(self.are_missing)) == 1

    def _row_settings(self):
        generator, rows = self.generator, len(self.sizes)
        own = np.ones((rows, layout.ROW_SETTINGS), self.state)
        own[:, layout.WEIGHT_DECAY] = generator.choice([0, 0.1], rows)
        if generator.random() < 0.4:
            own[:, layout.CLIP_DIVISOR] = generator.choice([1, 4], rows)
            own[:, layout.CLIP_FACTOR] = generator.choice([1, 0.3], rows)
        return own

    def rows(self):
        """Return for each tensor its arrays, or `None` where there is none."""
        cuts = np.cumsum(self.sizes)[:-1]
        columns = [
            [None] * len(self.sizes) if it is None else np.split(it, cuts) for it in self.whole
        ]
        rows = [list(row) for row in zip(*columns, strict=True)] if len(self.sizes) else []
        for row, is_missing in zip(rows, self.are_missing, strict=True):
            if is_missing:
                row[layout.GRADIENT] = None
        return rows

    def stepped(self):
        """Return all tensors after a step, end to end, in each column that the step may change."""
        made = [
            expected([row], self.dtype, {**self.options, **own})[0]
            for row, own in zip(self.rows(), self._own_options(), strict=True)
        ]
        return [
            np.concatenate([whole[:0], *[row[column] for row in made]])
            if whole is not None and column in LASTING
            else None
            for column, whole in enumerate(self.whole)
        ]

    def _own_options(self):
        names = ("decay", "divisor", "factor")
        return [dict(zip(names, own.tolist(), strict=True)) for own in self.row_settings]

    def norms(self):
        """Return the norm of each tensor's gradient."""
        if self.settings[layout.ACTION] != layout.UPDATE:
            return np.zeros(len(self.sizes))
        *_, gradient, _, _, _, window = [None, *self.whole]
        with np.errstate(all="ignore"):
            value = gradient.astype(self.state) / self.settings[layout.LOSS_SCALE]
            if window is not None:
                value = (window + value) / self.settings[layout.STEPS]
            squares = np.square(value.astype(np.float64))
        rows = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return np.sqrt(np.bincount(rows, squares, len(self.sizes)))


class Run:
    """A table in guarded memory, on one side of its pages."""

    def __init__(self, table, memory, xla):
        self.table, self.memory, self.xla = table, memory, xla
        self.generator = table.generator
        self.rows = [
            [None if array is None else memory.place(array) for array in row]
            for row in table.rows()
        ]
        addresses = [[0 if it is None else it.address for it in row] for row in self.rows]
        addresses = np.array(addresses, np.int64).reshape(-1, layout.COLUMNS)
        # An empty tensor may have a null address.
        addresses[(table.sizes == 0) & (self.generator.random(len(addresses)) < 0.5)] = 0
        self.table_of_addresses = memory.place(addresses)
        self.sizes = memory.place(table.sizes)
        self.settings = memory.place(table.settings)
        self.row_settings = memory.place(table.row_settings)
        self.arguments = [self.table_of_addresses, self.sizes, self.settings, self.row_settings]

    def check_step(self, wanted):
        """Compare the arrays with the rule's results, and restore their content."""
        for column, exact in enumerate(wanted):
            arrays = [row[column].array for row in self.rows if row[column] is not None]
            if arrays and exact is not None:
                made = np.concatenate(arrays)
                if made.tobytes() != exact.tobytes():
                    assert_same([[made]], [[exact]])
        assert all(
            row[layout.GRADIENT] is None or row[layout.GRADIENT].is_unchanged() for row in self.rows
        ), "a gradient was changed"
        assert all(it.is_unchanged() for it in self.arguments), "an argument was changed"
        self.memory.check()
        for row in self.rows:
            for column in LASTING:
                if row[column] is not None:
                    row[column].restore()

    def check_nothing_changed(self):
        placed = [it for row in self.rows for it in row if it is not None]
        assert all(it.is_unchanged() for it in [*placed, *self.arguments])
        self.memory.check()

    def check_norms(self, factors, wanted, together):
        divisor, norm = (np.asarray(it, np.float64) for it in factors)
        exact = np.sqrt(np.sum(np.square(wanted), keepdims=True)) if together else wanted
        assert norm.shape == divisor.shape == exact.shape
        # One rounding to the dtype of the state, after sums in float64.
        tolerance = 1e-12 if self.table.state == "float64" else 1e-7
        np.testing.assert_allclose(divisor * norm, exact, rtol=tolerance)
        self.check_nothing_changed()

    def on_processor(self, threads, wanted, norms):
        dtype, row_settings = self.table.dtype, self.row_settings.array
        settings = self.settings.array
        with self.memory.scope():
            work = cpu.Work(dtype, self.table_of_addresses.array, self.sizes.array)
            for together in (False, True):
                wide = bool(self.generator.random() < 0.3)
                made = work.norms(settings, together, threads, wide)
                self.check_norms(made, norms, together)
            work.step(settings, row_settings, threads)
            self.check_step(wanted)

    def by_xla(self, wanted, norms):
        xla, generator = self.xla, self.generator
        xla.mode = MODES[generator.integers(len(MODES))]
        xla.has_memory = generator.random() < 0.95
        has_gradient, has_window = (
            self.rows[0][column] is not None for column in (layout.GRADIENT, layout.WINDOW)
        )
        with self.memory.scope():
            for together in (False, True) if has_gradient or has_window else ():
                dtype = self.table.dtype if has_gradient else self.table.state
                wide = bool(generator.random() < 0.3)
                call, made = self._call_of_norms(together, wide)
                kind = "wide norms" if wide else "norms"
                assert self._run(dtype, kind, *call)
                self.check_norms((made.array[:, 0], made.array[:, 1]), norms, together)
                if generator.random() < 0.1:
                    made.restore()
                    self._refused(dtype, kind, *call)
                    assert made.is_unchanged()
        with self.memory.scope():
            call = self._call_of_step(are_copies=generator.random() < 0.2)
            if generator.random() < 0.2:
                self._refused(self.table.dtype, "step", *call)
            assert self._run(self.table.dtype, "step", *call)
            self.check_step(wanted)

    def _run(self, dtype, kind, operands, results, attributes):
        with self.memory.scope():
            real = self.generator.random() < 0.4
            return self.xla.call(kind, dtype, operands, results, attributes, with_real_memory=real)

    def _refused(self, dtype, kind, operands, results, attributes):
        """Call a handler with one invalid operand or result: it must change nothing."""
        operands, results = list(operands), list(results)
        scratch = results[-1]
        size = scratch.shape[0]
        # One array more or less may give whole rows again, which are valid.
        of_one = len(self.table.sizes) == len(operands) - 1
        fault = self.generator.integers(2 if of_one else 0, 9)
        if fault == 0:
            operands.pop()
        elif fault == 1:
            operands.append(operands[-1])
        elif fault == 2:
            results.pop()
        elif fault == 3:
            results[-1] = scratch._replace(address=scratch.address + 8, shape=(size - 2,))
        elif fault == 4:
            results[-1] = scratch._replace(address=scratch.address + 4)
        elif fault == 5:
            attributes = [*attributes, 1]
        elif fault == 6:
            attributes = [0]
        else:
            place = self.generator.integers(0, 2 if kind == "step" else 1)
            buffer = operands[place]
            changed = (
                {"shape": (buffer.shape[0] - 1, *buffer.shape[1:])}
                if fault == 7
                else {"dtype": "bfloat16"}
            )
            operands[place] = buffer._replace(**changed)
        assert not self._run(dtype, kind, operands, results, attributes), f"fault {fault}"
        self.check_nothing_changed()

    def _buffer(self, placed, shape=None):
        array = placed.array
        return Buffer(placed.address, array.dtype.name, array.shape if shape is None else shape)

    def _buffers(self, rows):
        buffers = []
        for size, row in zip(self.table.sizes, rows, strict=True):
            shape = random_shape(int(size), self.generator)
            its = [None if it is None else self._buffer(it, shape) for it in row]
            if size == 0 and self.generator.random() < 0.5:
                its = [None if it is None else it._replace(address=0) for it in its]
            buffers.append(its)
        return buffers

    def _scratch(self, size):
        # XLA does not initialize it, so it can contain anything.
        content = self.generator.integers(-(2**31), 2**31, size, np.int32)
        return self._buffer(self.memory.place(content))

    def _call_of_norms(self, together, wide):
        rows, columns = xla_target.for_norms(self._buffers(self.rows), together, wide)
        flat = xla_target.flat(rows)
        scratch = self._scratch(xla_target.scratch_of_norms([it.shape for it in flat], columns))
        made = self.memory.place(
            np.full((1 if together else len(rows), 2), -1, "float64" if wide else self.table.state)
        )
        operands = [self._buffer(self.settings), *flat]
        return (operands, [self._buffer(made), scratch], [columns]), made

    def _call_of_step(self, are_copies):
        buffers = self._buffers(self.rows)
        columns = xla_target.columns_of(buffers)
        own = [self._buffer(it) for it in (self.settings, self.row_settings)]
        operands = [*own, *xla_target.flat(buffers)]
        aliases = xla_target.aliases_of_step(len(operands), columns)
        results = [operands[operand] for operand in aliases]
        if are_copies:
            # XLA passes the operands as separate buffers, which the handler need not read.
            operands[2:] = [
                it._replace(address=0) if index in aliases else it
                for index, it in enumerate(operands[2:], 2)
            ]
        results.append(self._scratch(layout.scratch_size(len(buffers))))
        return operands, results, [columns]


def kinds_of_threads():
    kinds = [PythonThreads(1), PythonThreads(2)]
    if find_spec("torch") is not None:
        import torch

        from adadelta._kernels import torch_threads

        torch.set_num_threads(2)
        torch_threads.np = GuardedNumPy(MEMORY)
        kinds.append(torch_threads.threads())
    return kinds


MEMORY = Memory()
# Seconds for a table. Each takes 10 ms; the first also includes compiling the kernels.
TIME_LIMIT = 300


def main(dtype, first, count):
    faulthandler.enable()
    cpu.np = GuardedNumPy(MEMORY)
    xla, threads = Xla(MEMORY), kinds_of_threads()
    for number in range(first, first + count):
        print(dtype, number, flush=True)
        # Threads that wait for each other forever count as a crash, too.
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        table = Table(dtype, number)
        wanted, norms = table.stepped(), table.norms()
        for side in (BEHIND, BEFORE):
            MEMORY.side = xla._allocations.side = side
            run = Run(table, MEMORY, xla)
            for its_threads in threads[-1:] if number % 2 else threads[:-1]:
                run.on_processor(its_threads, wanted, norms)
            if table.is_for_xla:
                run.by_xla(wanted, norms)
            if number % 50 == 0:
                assert xla.version_of(dtype, 2 << 32) == 2 << 32
            MEMORY.release()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
