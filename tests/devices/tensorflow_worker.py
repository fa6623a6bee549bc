"""One worker of `MultiWorkerMirroredStrategy`: train, and save the weights and the state.

    tensorflow_worker.py RANK PORTS FRONT OPTION HOW FOLDER

HOW is "fit", "loop", or "killed": then the last worker ends itself in the middle of its loop.
"""

import json
import os
import signal
import sys

rank, ports, front, option, how, folder = sys.argv[1:]
workers = [f"127.0.0.1:{port}" for port in ports.split(",")]
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(rank)}}
)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

# It creates the virtual devices, which must happen before TensorFlow starts.
import tensorflow_training as training  # noqa: E402

# The strategy must be created before TensorFlow does anything else.
strategy = tf.distribute.MultiWorkerMirroredStrategy()

import adadelta  # noqa: E402

data = training.examples(front, option)
with strategy.scope():
    model = training.make_model(front, option)
    if how == "fit":
        training.fit(model, data)
if how == "killed":
    training.train_in_a_loop(model, data, strategy, last=5, finish=False)
    if int(rank) == len(workers) - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    print("still there", flush=True)
if how != "fit":
    training.train_in_a_loop(model, data, strategy)
trained = training.record(model)
np.savez(f"{folder}/weights-{rank}.npz", **trained.weights)
adadelta.save_state(model.optimizer, f"{folder}/state-{rank}.safetensors")
