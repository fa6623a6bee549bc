"""Epochs of `fit()` on MNIST with Adadelta, beside SGD and Keras' own Adadelta.

A network of 784-2000-2000-10 in batches of 100. An epoch here is the first 5,000 images, so that
all three take turns often; the first epoch of each is not counted. MNIST comes from the file that
ADADELTA_MNIST names (x_train, y_train), or from Keras' cache, which it is downloaded to.

    KERAS_BACKEND=jax python bench/fit.py
"""

import os
import time

import keras
import numpy as np
from measure import HEADER, row

import adadelta

EPOCHS = 5
IMAGES = 5_000


def mnist():
    path = os.environ.get("ADADELTA_MNIST")
    if path:
        with np.load(path) as data:
            return data["x_train"], data["y_train"]
    return keras.datasets.mnist.load_data()[0]


def model(optimizer):
    keras.utils.set_random_seed(0)
    relu = [keras.layers.Dense(2000, activation="relu") for _ in range(2)]
    network = keras.Sequential([keras.layers.Input((784,)), *relu, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss)
    return network


class Stopwatch(keras.callbacks.Callback):
    """Takes the time of an epoch.

    Not of the whole of `fit()`: TensorFlow's data pipeline waits at its end until a thread wakes
    that sleeps for up to a second.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start


def main():
    images, labels = mnist()
    images = images[:IMAGES].reshape(IMAGES, 784).astype("float32") / 255
    labels = labels[:IMAGES]
    models = {
        "ours": model(adadelta.Adadelta(1.0)),
        "SGD": model(keras.optimizers.SGD(0.01)),
        "Keras' own": model(keras.optimizers.Adadelta(1.0)),
    }
    times = {name: [] for name in models}
    for epoch in range(EPOCHS + 1):
        for name, network in models.items():
            stopwatch = Stopwatch()
            network.fit(images, labels, batch_size=100, verbose=0, callbacks=[stopwatch])
            if epoch:
                times[name].append(stopwatch.seconds)
    print(f"\n### An epoch of fit() on {keras.config.backend()}; the peer is SGD\n")
    print("\n".join(HEADER))
    print(row("MNIST: ours", times["ours"], None, times["SGD"], "1.1 x peer"))
    print(row("MNIST: SGD", times["SGD"], None))
    print(row("MNIST: Keras' own Adadelta", times["Keras' own"], None, times["SGD"]))


if __name__ == "__main__":
    main()
