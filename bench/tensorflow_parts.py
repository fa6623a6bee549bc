"""Time how long a step on TensorFlow takes without the kernel's work, and the kernel alone.

    python bench/tensorflow_parts.py

In a call that is skipped, the whole program runs and its threads start, but no array is read.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measure import HEADER, measure, row, scaled
from numpy_step import kernel_step

from adadelta._core.precision import state_dtype
from adadelta._core.step import COLLECT, SKIP, UPDATE, Call, Options
from adadelta._kernels import layout
from adadelta._kernels.xla_tensorflow import Program

ELEMENTS = scaled(20_000_000)
# Bytes read and written for each parameter, as in `keras_step.py`.
BYTES = {"float32": 28, "float64": 56, "float16": 22, "bfloat16": 22}
COLLECTING = 12


def normal(dtype):
    return tf.cast(tf.random.stateless_normal([ELEMENTS], (0, 0)), dtype)


def step_of(dtype, action, accumulates=False):
    """Return a function that makes one step of one variable, without Keras."""
    own = state_dtype(dtype)
    state = [tf.Variable(tf.zeros([ELEMENTS], own)) for _ in range(3 if accumulates else 2)]
    window = state.pop() if accumulates else None
    program = Program([[tf.Variable(normal(dtype)), None, *state, None, window]])
    numbers = layout.settings(Options(0.95, 1e-7), Call(1.0, steps=2.0), action, 2.9e15)
    settings, own_settings = np.array(numbers, own), layout.row_settings([0.0], own)
    gradient = normal(dtype)
    return tf.function(lambda: program.step(settings, own_settings, [gradient]))


def function_alone():
    """Return a function of TensorFlow that does next to nothing."""
    counter = tf.Variable(0)
    return tf.function(lambda: counter.assign_add(1))


def main():
    arrays = [normal("float32").numpy() for _ in range(2)]
    arrays += [np.zeros(ELEMENTS, "float32") for _ in range(2)]
    contenders = {
        "a function that adds 1 to a number": (function_alone(), None),
        "a call that is skipped": (step_of("float32", SKIP), None),
        "the kernel alone, on NumPy arrays": (kernel_step(arrays), BYTES["float32"]),
        "a call that only accumulates": (step_of("float32", COLLECT, True), COLLECTING),
        **{f"a step, {dtype}": (step_of(dtype, UPDATE), each) for dtype, each in BYTES.items()},
    }
    times, per_byte = measure({name: step for name, (step, _) in contenders.items()})
    print("\n### The parts of a step on TensorFlow\n")
    print("\n".join(HEADER))
    for name, (_, bytes_each) in contenders.items():
        limit = bytes_each and per_byte * bytes_each * ELEMENTS
        print(row(name, times[name], limit))


if __name__ == "__main__":
    main()
