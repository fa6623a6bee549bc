"""Print as JSON how much tf_keras on a DTensor mesh differs from one device.

A separate program: meshes and strategies interfere with each other in TensorFlow, with tf_keras'
own class as well as ours.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 4)

from tensorflow.experimental import dtensor  # noqa: E402

import adadelta  # noqa: E402
import adadelta.tf_keras  # noqa: E402

OPTIONS = {
    "plain": {},
    "clipnorm": {"clipnorm": 1.0},
    "global_clipnorm": {"global_clipnorm": 1.0},
    "clipvalue": {"clipvalue": 0.5},
    "weight_decay": {"weight_decay": 0.1},
    "average": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "skip_nonfinite": {"skip_nonfinite": True},
    "maximize": {"maximize": True},
}
RNG = np.random.default_rng(0)
START = RNG.normal(size=(4, 3)).astype("float32")
GRADIENTS = [RNG.normal(size=(4, 3)).astype("float32") * 3 for _ in range(6)]
GRADIENTS[3][0, 0] = np.inf


def optimizer(mesh=None, **options):
    made = {} if mesh is None else {"mesh": mesh}
    return adadelta.tf_keras.Adadelta(0.7, epsilon=1e-2, **options, **made)


def gradients_for(options):
    return (
        GRADIENTS
        if "skip_nonfinite" in options
        else [np.nan_to_num(g, posinf=1) for g in GRADIENTS]
    )


def on_one_device(options):
    x, own = tf.Variable(START), optimizer(**options)
    for gradient in gradients_for(options):
        own.apply_gradients([(tf.constant(gradient), x)])
    own.finalize_variable_values([x])
    return x.numpy(), own.skipped


def on_a_mesh(options, compiled):
    mesh = dtensor.create_mesh([("batch", 2), ("model", 2)], device_type="CPU")
    layout = dtensor.Layout(["model", dtensor.UNSHARDED], mesh)
    whole = dtensor.Layout.replicated(mesh, 2)

    def put(value):
        return dtensor.relayout(dtensor.copy_to_mesh(value, whole), layout)

    x, own = dtensor.DVariable(put(START)), optimizer(mesh, **options)

    def step(gradient):
        own.apply_gradients([(gradient, x)])

    step = tf.function(step) if compiled else step
    for gradient in gradients_for(options):
        step(put(gradient))
    own.finalize_variable_values([x])
    assert own._accumulated_grads[0].layout == layout
    state = adadelta.export_state(own)
    adadelta.import_state(own, state)
    assert adadelta.export_state(own) == state
    return dtensor.relayout(x.read_value(), whole).numpy(), own.skipped


def main(compiled):
    results = {}
    for name, options in OPTIONS.items():
        expected, skipped = on_one_device(options)
        try:
            got, skipped_there = on_a_mesh(options, compiled)
            off = float(np.max(np.abs(got - expected)))
            results[name] = off if skipped_there == skipped else "other calls are skipped"
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"[:500]
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1] == "compiled")
