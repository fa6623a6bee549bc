"""The limit: how long a plain loop takes to stream the bytes that a step must read and write."""

import time

import numba
import numpy as np


@numba.njit(parallel=True)
def _stream(gradient, parameter, square_avg, acc_delta):
    for i in numba.prange(gradient.size):
        value = gradient[i]
        parameter[i] += value
        square_avg[i] += value
        acc_delta[i] += value


class Limit:
    """Streams 28 bytes for each of `elements`, as the step does: 16 read and 12 written."""

    def __init__(self, elements):
        self.arrays = [np.zeros(elements, "float32") for _ in range(4)]
        _stream(*self.arrays)

    def seconds_per_byte(self):
        start = time.perf_counter()
        _stream(*self.arrays)
        return (time.perf_counter() - start) / (28 * self.arrays[0].size)
