"""The limit: the time in which a plain loop streams the bytes that a step must read and write."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np


@numba.njit(nogil=True)
def _stream(gradient, parameter, square_avg, acc_delta):
    for i in range(gradient.size):
        value = gradient[i]
        parameter[i] += value
        square_avg[i] += value
        acc_delta[i] += value


class Limit:
    """Streams 28 bytes for each of `elements`, as the step does: 16 read and 12 written.

    It does not use OpenMP's threads, which spin for some milliseconds after a loop and take a
    processor from the next measurement.
    """

    def __init__(self, elements):
        self.threads = os.cpu_count()
        arrays = [np.zeros(elements, "float32") for _ in range(4)]
        for array in arrays:
            # Until it is written, all of an array is one page of zeros, which stays in the cache:
            # an unwritten gradient made the limit up to 16 % shorter.
            array.fill(1)
        self.parts = list(zip(*(np.array_split(it, self.threads) for it in arrays), strict=True))
        self.bytes = 28 * elements
        self.pool = ThreadPoolExecutor(self.threads)
        self.seconds_per_byte()

    def seconds_per_byte(self):
        start = time.perf_counter()
        list(self.pool.map(lambda part: _stream(*part), self.parts))
        return (time.perf_counter() - start) / self.bytes
