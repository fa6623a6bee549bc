"""Time epochs of `fit()` with Adadelta, beside SGD and Keras' own Adadelta.

A network of 784-2000-2000-10 in batches of 100. An epoch here is the first 1,000 images of
digits.py, so that all take turns often, in a new order each time: the ratio of two of them then
differs from run to run by up to 2 %. Keras' own, which takes long, has every fourth turn.

Adadelta reads and writes two averages that SGD does not have. What that takes by itself is
measured by an SGD that adds a number to two arrays of their size.

    KERAS_BACKEND=jax python bench/fit.py
"""

import random
import time

import digits
import keras
from measure import HEADER, row, scaled

import adadelta

TURNS, NOT_COUNTED = max(5, scaled(60)), 2
# Keras' own Adadelta, which takes long, is measured once in so many turns.
EVERY = 4
IMAGES = scaled(1_000)


class SameBytes(type(keras.optimizers.SGD())):
    """SGD that reads and writes as many bytes as Adadelta: 28 for each parameter instead of 12.

    Its base is the class that Keras makes for the backend, which on torch is not `SGD` itself.
    """

    def build(self, variables):
        super().build(variables)
        first, second = self.add_optimizer_variables(variables, ["first", "second"])
        self.arrays = [*first, *second]

    def apply(self, gradients, variables=None):
        super().apply(gradients, variables)
        for array in self.arrays:
            if keras.config.backend() == "torch":
                # Keras would write a new array first.
                array.value.add_(1)
            else:
                array.assign(array + 1)


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
        "same bytes": model(SameBytes(0.01)),
        "Keras' own": model(keras.optimizers.Adadelta(1.0)),
    }
    times = {name: [] for name in models}
    generator = random.Random(0)
    for turn in range(-NOT_COUNTED, TURNS):
        names = [name for name in models if name != "Keras' own" or turn % EVERY == 0 or turn < 0]
        for name in generator.sample(names, len(names)):
            stopwatch = Stopwatch()
            models[name].fit(images, labels, batch_size=100, verbose=0, callbacks=[stopwatch])
            if turn >= 0:
                times[name].append(stopwatch.seconds)
    ours, sgd, same_bytes, keras_own = times.values()
    backend = keras.config.backend()
    print(f"\n### An epoch of fit() on {backend}, with {digits.NAME}; the peer is SGD\n")
    print("\n".join(HEADER))
    print(row("ours", ours, None, sgd))
    print(row("ours; the peer is SGD that moves as many bytes", ours, None, same_bytes))
    print(row("SGD", sgd, None))
    print(row("SGD that moves as many bytes", same_bytes, None, sgd))
    print(row("Keras' own Adadelta", keras_own, None, sgd[::EVERY]))


if __name__ == "__main__":
    main()
