"""Time epochs of `fit()` with a monitor at its defaults, beside the same without one.

Two networks: that of fit.py, and a small one, 784-64-10, whose steps take about a millisecond.
Epochs take turns. The share of the time that the monitor's own methods take is measured too, since
the turns differ by more than that.

    KERAS_BACKEND=jax python bench/monitor.py
"""

import time

import digits
import keras
from fit import Stopwatch
from fit import model as large
from measure import HEADER, row, scaled

import adadelta

ROUNDS = 5


class Timed(adadelta.Monitor):
    """Measures the seconds in its own methods."""

    seconds = 0.0

    def on_train_begin(self, logs=None):
        self.timed(super().on_train_begin, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.timed(super().on_train_batch_end, batch, logs)

    def on_train_end(self, logs=None):
        self.timed(super().on_train_end, logs)

    def timed(self, method, *arguments):
        start = time.perf_counter()
        method(*arguments)
        self.seconds += time.perf_counter() - start


class Looking(keras.callbacks.Callback):
    """Does nothing, but like the monitor keeps Keras from calling it in another thread."""

    def on_train_batch_end(self, batch, logs=None):
        pass


def small(optimizer):
    keras.utils.set_random_seed(0)
    relu = keras.layers.Dense(64, activation="relu")
    network = keras.Sequential([keras.layers.Input((784,)), relu, keras.layers.Dense(10)])
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def main():
    images, labels = digits.load()
    backend = keras.config.backend()
    print(f"\n### Watching fit() on {backend}, with {digits.NAME}; the peer is fit() alone\n")
    print("\n".join(HEADER))
    # The steps of the small network are short, so its epoch has all images: in a few steps, the
    # first and the last, which are always recorded, would be a large share.
    for name, make, count in (
        ("784-2000-2000-10", large, scaled(2_000)),
        ("784-64-10", small, scaled(len(images))),
    ):
        network = make(adadelta.Adadelta(1.0))
        times = {"watched": [], "alone": [], "callback": []}
        monitors = []
        for turn in range(ROUNDS + 1):
            for what, seconds in times.items():
                monitor = Timed()
                callbacks = {"watched": [monitor], "alone": [], "callback": [Looking()]}[what]
                stopwatch = Stopwatch()
                callbacks.append(stopwatch)
                network.fit(
                    images[:count], labels[:count], batch_size=100, verbose=0, callbacks=callbacks
                )
                # The first turn compiles.
                if turn:
                    seconds.append(stopwatch.seconds)
                    if what == "watched":
                        monitors.append(monitor.seconds)
        print(row(f"{name}: watched", times["watched"], None, times["alone"]))
        print(row(f"{name}: the monitor itself", monitors, None, times["watched"]))
        print(row(f"{name}: alone", times["alone"], None))
        empty = "any callback that looks at batches"
        print(row(f"{name}: {empty}", times["callback"], None, times["alone"]))


if __name__ == "__main__":
    main()
