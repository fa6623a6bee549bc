"""Checks that run before anything changes, and weights of unusual shapes."""

import keras
import numpy as np

from traps.table import trap
from traps.tools import BACKEND, MODES, Driver, check, close, numpy, refused, variable


def _ones(*shape, dtype="float32"):
    return keras.ops.ones(shape, dtype)


@trap(30, "a weight of shape (0, 3) crashes", falls=("tensorflow",))
def odd_shapes(cls):
    for mode in MODES:
        for shape in ((0, 3), (0,), (), (1, 1, 2)):
            x, y = variable(np.ones(shape)), variable([1.0])
            options = {"use_ema": True, "weight_decay": 0.1, "clipnorm": 1.0}
            run = Driver(cls(learning_rate=1.0, **options), [x, y], mode)
            for _ in range(2):
                run.call([np.ones(shape), np.ones(1)])
            check(numpy(x).shape == shape, f"the shape {shape} becomes {numpy(x).shape}")
            check(np.all(numpy(x) < 1) and np.all(numpy(y) < 1), f"{shape} does not move ({mode})")
    return "all shapes work"


@trap(30, "a weight that is not contiguous is updated wrongly", backends=("torch",), falls=())
def not_contiguous(cls):
    import torch

    x, y = variable(np.ones((3, 2))), variable(np.ones((3, 2)))
    x.value.data = torch.ones(2, 3).t()
    check(not x.value.is_contiguous(), "the weight is contiguous after all")
    gradient = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    for each in (x, y):
        run = Driver(cls(learning_rate=1.0), [each])
        for _ in range(3):
            run.call([gradient])
    close(numpy(x), numpy(y), "the weight")
    return "as a contiguous one"


@trap(32, "a weight that is listed twice is accepted")
def listed_twice(cls):
    x = variable([1.0])
    optimizer = cls()
    error = refused(lambda: optimizer.apply([_ones(1), _ones(1)], [x, x]))
    check(error is not None, "accepted")
    check(numpy(x)[0] == 1, "the weight has changed")
    return "refused"


@trap(32, "a weight that is listed twice in a later call is accepted")
def listed_twice_later(cls):
    x, y = variable([1.0]), variable([1.0])
    optimizer = cls()
    optimizer.build([x, y])
    error = refused(lambda: optimizer.apply([_ones(1), _ones(1)], [x, x]))
    check(error is not None, "accepted")
    check(numpy(x)[0] == 1, "the weight has changed")
    return "refused"


@trap(33, "too few gradients are accepted", falls=("jax", "tensorflow"))
def too_few_gradients(cls):
    x, y = variable([1.0]), variable([1.0])
    error = refused(lambda: cls().apply([_ones(1)], [x, y]))
    check(error is not None, "accepted")
    check(numpy(x)[0] == 1, "the first weight has changed")
    return "refused"


@trap(33, "a scalar gradient for a vector is accepted")
def scalar_gradient(cls):
    x = variable([1.0, 2.0, 3.0])
    error = refused(lambda: cls().apply([_ones()], [x]))
    check(error is not None, "accepted")
    close(numpy(x), [1.0, 2.0, 3.0], "the weight")
    return "refused"


@trap(33, "an integer weight is accepted and becomes 0", falls=("jax", "tensorflow"))
def integer_weight(cls):
    x = keras.Variable([1, 2], dtype="int32", trainable=False)
    error = refused(lambda: cls(learning_rate=1.0).apply([_ones(2)], [x]))
    check(error is not None, f"accepted, and the weight becomes {numpy(x)}")
    close(numpy(x), [1, 2], "the weight")
    return "refused"


@trap(34, "an error on the second weight leaves the first one, or its state, updated")
def error_on_the_second(cls):
    x, y = variable([1.0]), variable([1.0, 2.0, 3.0])
    optimizer = cls(learning_rate=1.0)
    optimizer.build([x, y])
    before = [numpy(v).copy() for v in optimizer.variables]
    try:
        optimizer.apply([_ones(1), _ones(2, 3)], [x, y])
    except Exception:
        check(numpy(x)[0] == 1, "the first weight has changed")
        for old, new in zip(before, optimizer.variables, strict=True):
            close(numpy(new), old, "the optimizer's state")
        return "nothing changes"
    check(False, f"a (2, 3) gradient for a (3,) weight is accepted on {BACKEND}")
    return None


@trap(38, "the step counter wraps to a negative number", falls=("jax", "torch"))
def last_step(cls):
    largest = 2**31 - 1
    for mode in MODES:
        for options in ({}, {"use_ema": True, "ema_overwrite_frequency": 2}):
            optimizer = cls(**options)
            run = Driver(optimizer, [variable([1.0])], mode)
            optimizer.build(run.variables)
            optimizer._iterations.assign(largest)
            for _ in range(2):
                run.call([np.ones(1)])
            steps = int(numpy(optimizer._iterations))
            check(steps >= largest, f"{largest} + 2 is {steps} ({mode})")
            check(int(numpy(optimizer.iterations)) >= 0, "iterations is negative")
    return "it stays at the largest number"
