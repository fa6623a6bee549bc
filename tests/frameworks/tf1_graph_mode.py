"""Train, save and load a tf_keras model in graph mode, and print the results as JSON.

    tf1_graph_mode.py host|ours FOLDER

A separate program, since graph mode can only be chosen when TensorFlow starts.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src.optimizers import optimizer_v1

import adadelta.tf1

tf.compat.v1.disable_eager_execution()

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def model_of(optimizer):
    start = np.random.default_rng(1)
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Dense(3, "tanh", input_shape=(4,), kernel_constraint="non_neg"),
            tf_keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    model.set_weights([start.uniform(size=weight.shape) for weight in model.get_weights()])
    return model


def fit(model, epochs=10):
    history = model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


def main(cls, folder):
    results = {}
    for name, options in {
        "plain": {},
        "decay": {"decay": 0.1},
        "clipnorm": {"clipnorm": 1.0},
        "clipvalue": {"clipvalue": 0.1},
    }.items():
        optimizer = cls(lr=0.5, epsilon=1e-3, **options)
        model = model_of(optimizer)
        losses = fit(model)
        results[name] = {
            "losses": losses,
            "weights": [weight.ravel().tolist() for weight in model.get_weights()],
            "state": [weight.ravel().tolist() for weight in optimizer.get_weights()],
            "config": optimizer.get_config(),
            "iterations": int(tf_keras.backend.get_value(optimizer.iterations)),
        }
    if cls is adadelta.tf1.Adadelta:
        path = os.path.join(folder, "model.h5")
        model.save(path)
        again = tf_keras.models.load_model(path)
        results["loaded"] = {
            "class": f"{type(again.optimizer).__module__}.{type(again.optimizer).__name__}",
            "state": [weight.ravel().tolist() for weight in again.optimizer.get_weights()],
        }
        tf_keras.backend.set_value(model.optimizer.lr, 0.0)
        before = model.get_weights()
        fit(model, 1)
        moved = [np.max(np.abs(a - b)) for a, b in zip(before, model.get_weights(), strict=True)]
        results["moved with lr 0"] = float(max(moved))
    print(json.dumps(results))


if __name__ == "__main__":
    main({"host": optimizer_v1.Adadelta, "ours": adadelta.tf1.Adadelta}[sys.argv[1]], sys.argv[2])
