"""Compare `adadelta.Adadelta` with Keras' own on JAX and an NVIDIA GPU: its numbers and its time.

    KERAS_BACKEND=jax python bench/cuda_keras.py [number of parameters, 20 million unless given]

Steps are compiled and their buffers donated, as by Keras' trainer. The script also runs on other
devices, where its times say nothing about a GPU.
"""

import statistics
import sys
import time

import jax
import keras
import numpy as np
from keras_step import stepper

import adadelta

ROUNDS = 20
WARM_UP = 3
# After 10 float32 steps with different rounding: on the processor the largest error of a weight is
# 5e-8 of the largest weight.
CLOSE = 1e-5
# By default a GPU multiplies matrices with 10 bits, and different rounding costs 1e-3.
jax.config.update("jax_default_matmul_precision", "highest")


def weights_after(cls, steps=10):
    """Return the weights of a small model after training with an optimizer."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "tanh"), layers.Dense(1)])
    model.compile(cls(1.0), "mse")
    data = generator.normal(size=(32 * steps, 8)), generator.normal(size=(32 * steps, 1))
    model.fit(*data, batch_size=32, shuffle=False, verbose=0)
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()]), model.optimizer


def check_the_same():
    ours, optimizer = weights_after(adadelta.Adadelta)
    theirs, _ = weights_after(keras.optimizers.Adadelta)
    furthest = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
    print(f"After 10 steps the furthest weight is off by {furthest:.1e} of the largest.")
    print(adadelta.kernel_info(optimizer), flush=True)
    if not furthest <= CLOSE:
        raise SystemExit(f"That is more than {CLOSE:g}.")


def median_ms(step):
    times = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:]) * 1e3


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    device = jax.devices()[0]
    versions = f"keras {keras.__version__}, jax {jax.__version__}"
    print(f"{device.device_kind} ({device.platform}), {versions}")
    check_the_same()
    print("\n| tensors | ours, ms | Keras' own, ms | ours / Keras' own |\n|---|---|---|---|")
    for tensors in (1, 200):
        shapes = [(count // tensors,)] * tensors
        ours, theirs = (
            median_ms(stepper(cls, shapes, "jit"))
            for cls in (adadelta.Adadelta, keras.optimizers.Adadelta)
        )
        what = f"{tensors} of {count // tensors:,}"
        print(f"| {what} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
