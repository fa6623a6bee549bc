"""Time the first step, with the kernel compiled before or not, beside that of Keras' own class.

Each is measured several times, in separate processes.

    KERAS_BACKEND=jax python bench/first_step.py
"""

import os
import subprocess
import sys
import tempfile

import keras
from measure import HEADER, row

RUNS = 3
CODE = """
import gc, sys, time
import keras, numpy as np
import adadelta
name = sys.argv[1]
cls = adadelta.Adadelta if name == "ours" else keras.optimizers.Adadelta
network = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
network.compile(keras.optimizers.SGD(0.1), "mse")
data = np.ones((4, 8), "float32"), np.ones((4, 1), "float32")
network.train_on_batch(*data)
network.compile(cls(1.0), "mse")
# Otherwise Python may choose this moment for a full collection, which takes a quarter of a second.
gc.collect()
start = time.perf_counter()
network.train_on_batch(*data)
print(time.perf_counter() - start)
"""


def seconds(name, cache):
    environment = dict(os.environ, ADADELTA_KERNEL_CACHE=cache)
    command = [sys.executable, "-c", CODE, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main():
    times = {"Keras' own": [], "not cached": [], "cached": []}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as cache:
            times["Keras' own"].append(seconds("Keras", cache))
            times["not cached"].append(seconds("ours", cache))
            times["cached"].append(seconds("ours", cache))
    theirs = times["Keras' own"]
    print(f"\n### The first step on {keras.config.backend()}\n")
    print("\n".join(HEADER))
    for name in ("not cached", "cached"):
        print(row(f"first step, kernel {name}", times[name], None, theirs))
    print(row("first step, Keras' own", theirs, None))


if __name__ == "__main__":
    main()
