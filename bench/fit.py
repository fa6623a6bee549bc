"""Time epochs of `fit()` with Adadelta, beside SGD and Keras' own Adadelta.

A network of 784-2000-2000-10 in batches of 100. An epoch here is the first 2,000 images of
digits.py, so that all three take turns often; the first two epochs of each are not counted.

    KERAS_BACKEND=jax python bench/fit.py
"""

import time

import digits
import keras
from measure import HEADER, row, scaled

import adadelta

EPOCHS, NOT_COUNTED = 15, 2
IMAGES = scaled(2_000)


def model(optimizer):
    keras.utils.set_random_seed(0)
    relu = [keras.layers.Dense(2000, activation="relu") for _ in range(2)]
    network = keras.Sequential([keras.layers.Input((784,)), *relu, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss)
    return network


class Stopwatch(keras.callbacks.Callback):
    """Measures the time of an epoch.

    It does not measure the whole of `fit()`: at its end, TensorFlow's data pipeline waits for a
    thread that sleeps for up to a second.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start


def main():
    images, labels = (array[:IMAGES] for array in digits.load())
    models = {
        "ours": model(adadelta.Adadelta(1.0)),
        "SGD": model(keras.optimizers.SGD(0.01)),
        "Keras' own": model(keras.optimizers.Adadelta(1.0)),
    }
    times = {name: [] for name in models}
    for epoch in range(NOT_COUNTED + EPOCHS):
        for name, network in models.items():
            stopwatch = Stopwatch()
            network.fit(images, labels, batch_size=100, verbose=0, callbacks=[stopwatch])
            if epoch >= NOT_COUNTED:
                times[name].append(stopwatch.seconds)
    backend = keras.config.backend()
    print(f"\n### An epoch of fit() on {backend}, with {digits.NAME}; the peer is SGD\n")
    print("\n".join(HEADER))
    print(row("ours", times["ours"], None, times["SGD"]))
    print(row("SGD", times["SGD"], None))
    print(row("Keras' own Adadelta", times["Keras' own"], None, times["SGD"]))


if __name__ == "__main__":
    main()
