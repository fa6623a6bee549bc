"""Time a step of the kernel on NumPy arrays, beside the rule and the limit."""

import functools
import os

import numpy as np
from measure import HEADER, measure, row, scaled

from adadelta._core import rule
from adadelta._core.step import UPDATE, Call, Options
from adadelta._kernels import cpu, layout
from adadelta._kernels.threads import PythonThreads

ELEMENTS = scaled(20_000_000)


def kernel_step(arrays):
    """Return a kernel step of a parameter, its gradient and its averages, without arguments."""
    table = np.array([[*(array.ctypes.data for array in arrays), 0, 0]], np.int64)
    numbers = layout.settings(Options(0.95, 1e-7), Call(1.0), UPDATE, 2.9e15)
    settings, row_settings = np.array(numbers, "float32"), layout.row_settings([0.0], "float32")
    workers = PythonThreads(os.cpu_count() or 1)
    work = cpu.Work("float32", table, np.array([ELEMENTS]))
    return functools.partial(work.step, settings, row_settings, workers)


def main():
    generator = np.random.default_rng(0)
    parameter, gradient = (generator.normal(size=ELEMENTS).astype("float32") for _ in range(2))
    state = [np.zeros(ELEMENTS, "float32") for _ in range(2)]
    # Kept, because the kernel has their addresses and the rule replaces those in `state`.
    kernel_arrays = [parameter, gradient, *state]
    kernel = kernel_step(kernel_arrays)

    def by_rule():
        step, state[0], state[1] = rule.update(gradient, *state, 0.95, 1e-7, np.sqrt)
        np.subtract(parameter, step, out=parameter)

    times, per_byte = measure({"kernel": kernel, "rule": by_rule})
    limit = per_byte * 28 * ELEMENTS
    print("\n### NumPy\n")
    print("\n".join(HEADER))
    print(row("20 M float32: the kernel", times["kernel"], limit, times["rule"]))
    print(row("20 M float32: the rule", times["rule"], limit))


if __name__ == "__main__":
    main()
