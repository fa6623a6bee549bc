"""One step of an embedding with sparse gradients beside the host's own class and the limit.

    python bench/sparse_step.py torch
    KERAS_BACKEND=tensorflow python bench/sparse_step.py tensorflow

Each step has other rows, of which a few occur twice. The limit is for the rows that it touches.
"""

import itertools
import sys

import numpy as np
from measure import HEADER, measure, row, scaled

SIZES = (10_000, 100_000, 1_000_000)
TOUCHED, WIDTH = 1_024, 64
# A gradient is read; a parameter and two averages are read and written, in float32.
BYTES = 28


def gradients(rows):
    """Return the rows and the values of some gradients, without end."""
    generator = np.random.default_rng(0)
    made = [
        (
            generator.integers(0, rows, TOUCHED),
            generator.normal(size=(TOUCHED, WIDTH)).astype("float32"),
        )
        for _ in range(16)
    ]
    return itertools.cycle(made)


def torch_steps(rows):
    import torch

    import adadelta.torch

    def stepper(cls):
        parameter = torch.nn.Parameter(torch.zeros(rows, WIDTH))
        optimizer, given = cls([parameter], lr=1.0), gradients(rows)

        def step():
            ids, values = map(torch.from_numpy, next(given))
            parameter.grad = torch.sparse_coo_tensor(
                ids[None], values, parameter.shape, check_invariants=False
            )
            optimizer.step()

        return step

    return {
        "ours": stepper(adadelta.torch.Adadelta),
        "torch.optim.SparseAdam": stepper(torch.optim.SparseAdam),
    }


def keras_steps(kind):
    """Return steps of Keras on TensorFlow: "eagerly", "in a tf.function" or "compiled by XLA"."""

    def steps(rows):
        import keras
        import tensorflow as tf

        import adadelta

        def stepper(cls):
            variable = keras.Variable(np.zeros((rows, WIDTH), "float32"))
            optimizer, given = cls(learning_rate=1.0), gradients(rows)
            optimizer.build([variable])

            def apply(ids, values):
                gradient = tf.IndexedSlices(values, ids, tf.constant([rows, WIDTH]))
                optimizer.apply([gradient], [variable])

            if kind != "eagerly":
                apply = tf.function(apply, jit_compile=kind == "compiled by XLA")

            def step():
                ids, values = map(tf.convert_to_tensor, next(given))
                apply(ids, values)

            return step

        return {
            "ours": stepper(adadelta.Adadelta),
            "Keras' Adagrad": stepper(keras.optimizers.Adagrad),
        }

    return steps


STEPS = {
    "torch": {"torch": torch_steps},
    "tensorflow": {
        f"Keras with TensorFlow, {kind}": keras_steps(kind)
        for kind in ("eagerly", "in a tf.function", "compiled by XLA")
    },
}


def main():
    for name, steps in STEPS[sys.argv[1]].items():
        show(name, steps)


def show(name, steps):
    print(f"\n### Sparse gradients on {name}: {TOUCHED:,} touched rows of {WIDTH}\n")
    print("\n".join(HEADER))
    smallest = None
    for size in SIZES:
        times, per_byte = measure(steps(scaled(size)), rounds=31, warm=16)
        limit = per_byte * BYTES * TOUCHED * WIDTH
        (first, ours), *others = times.items()
        for contender, seconds in others:
            print(row(f"{size:,} rows: {first}; the peer is {contender}", ours, limit, seconds))
            print(row(f"{size:,} rows: {contender}", seconds, limit))
        smallest = smallest or ours
    what = f"{SIZES[-1]:,} rows: ours; the peer is ours with {SIZES[0]:,} rows"
    print(row(what, ours, limit, smallest))


if __name__ == "__main__":
    main()
