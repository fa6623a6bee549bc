"""The images that `fit()` is measured on: MNIST, or random ones of the same shape.

MNIST is read from the file (with x_train, y_train) that the variable ADADELTA_MNIST names.
"""

import os

import numpy as np

PATH = os.environ.get("ADADELTA_MNIST")
NAME = "MNIST" if PATH else "random images of MNIST's shape"


def load():
    """Return the images, as rows of 784 numbers from 0 to 1, and their labels."""
    if PATH:
        with np.load(PATH) as data:
            images, labels = data["x_train"], data["y_train"]
    else:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (60_000, 28, 28), "uint8")
        labels = generator.integers(0, 10, 60_000, "uint8")
    return images.reshape(-1, 784).astype("float32") / 255, labels
