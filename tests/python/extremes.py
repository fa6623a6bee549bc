"""Gradients of any size and dtype, and the right first step when they are clipped.

This module imports no framework, so that the tests of every front end can use it.
"""

import itertools

import ml_dtypes
import numpy as np

DTYPES = {
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("float32"),
    "float64": np.dtype("float64"),
}
# Relative to the largest element of the step: the parameter is rounded once, the gradient's factor
# a few times, in the dtype of the state.
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 1e-6, "float64": 1e-14}
WIDEST = {"one state": list(DTYPES)[:3], "two states": list(DTYPES)}
EPSILON = 1e-2


def magnitudes(dtype):
    numbers = ml_dtypes.finfo(dtype)
    sizes = numbers.smallest_subnormal, numbers.smallest_normal, 1, numbers.max
    # The square of the last one is also out of float64's range.
    return [float(size) for size in sizes] + [1e-200] * (dtype == np.float64)


def samples(dtypes):
    """Return magnitudes of gradients of these dtypes: extremes, each alone, and random mixtures."""
    of_each = [magnitudes(DTYPES[dtype]) for dtype in dtypes]
    mixed = list(itertools.product(*of_each))
    chosen = np.random.default_rng(0).choice(len(mixed), 5, replace=False)
    same = list(zip(*of_each, strict=False))
    alone = [
        tuple(sizes[-1] if i == j else 0.0 for i in range(len(dtypes)))
        for j, sizes in enumerate(of_each)
    ]
    return [*same, *alone, *(mixed[i] for i in chosen)]


def gradients_of(sizes, dtypes):
    shape = np.array([1.0, -0.7, 0.3])
    return [(shape * size).astype(DTYPES[dtype]) for size, dtype in zip(sizes, dtypes, strict=True)]


def clipped(gradients, option, limit):
    """Clip the gradients in numbers of a wider range than float64's."""
    wide = [gradient.astype("float64").astype(np.longdouble) for gradient in gradients]
    norms = [np.sqrt(np.sum(gradient**2)) for gradient in wide]
    if option == "global_clipnorm":
        norms = [np.sqrt(np.sum(np.square(norms)))] * len(norms)
    return [
        gradient * (limit / norm) if norm > limit else gradient
        for gradient, norm in zip(wide, norms, strict=True)
    ]


def first_step(gradient):
    """Return what the first step with rate 1 and rho 0 subtracts from a parameter."""
    return gradient * np.sqrt(EPSILON / (gradient**2 + EPSILON))


def check(found, exact, dtypes, what):
    """Compare what was subtracted from parameters that were 0 with the exact values."""
    for array, right, dtype in zip(found, exact, dtypes, strict=True):
        right = right.astype("float64")
        # JAX and TensorFlow flush subnormal numbers to 0.
        smallest = float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)
        room = ROUNDING[dtype] * np.max(np.abs(right)) + 2 * smallest
        np.testing.assert_allclose(array, right, rtol=0, atol=room, err_msg=f"{dtype} of {what}")
