"""Ways to distribute a small Keras model over devices, and functions to train it."""

import contextlib

import keras
import numpy as np
from keras import distribution

from options import OPTIONS, optimizer_of

# The options of tests/python/options.py that need no special variables, and two more.
TABLE = {
    **{name: arguments for name, arguments in OPTIONS.items() if name != "missing gradients"},
    "accumulation": {"gradient_accumulation_steps": 3},
    "dynamic scale": {"loss_scale_factor": "dynamic"},
}
CALLS, BATCH, INPUTS = 30, 16, 8
# Calls in which the gradient on one of the devices is not finite.
NONFINITE = (4, 17)


def _along_axes(shape, axes, **layouts):
    devices = distribution.list_devices("cpu")[: int(np.prod(shape))]
    mesh = distribution.DeviceMesh(shape, axes, devices)
    layout_map = distribution.LayoutMap(mesh)
    for name, layout in layouts.items():
        layout_map[f".*{name}"] = layout
    return distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")


def one():
    return contextlib.nullcontext()


def copies(devices=8):
    return distribution.DataParallel(devices=distribution.list_devices("cpu")[:devices]).scope()


def shards(devices=8):
    """Give each device a share of every variable, as under FSDP."""
    axes = {"kernel": ("batch", None), "bias": ("batch",)}
    return _along_axes((devices,), ("batch",), **axes).scope()


def columns(devices=8):
    """Let half of the devices share a batch, and give each some columns of the kernels."""
    shape = (2, devices // 2)
    return _along_axes(shape, ("batch", "model"), kernel=(None, "model")).scope()


LAYOUTS = {"copies": copies, "shards": shards, "columns": columns}


def model_of(options, **arguments):
    """Return a model to train with some options of TABLE."""
    keras.utils.set_random_seed(7)
    constraint = keras.constraints.MaxNorm(0.75) if "constraint" in options else None
    model = keras.Sequential(
        [
            keras.layers.Input((INPUTS,)),
            keras.layers.Dense(16, activation="tanh", kernel_constraint=constraint, name="first"),
            keras.layers.Dense(8, name="second"),
        ],
        name="model",
    )
    optimizer = optimizer_of(options, TABLE, boundaries=[10, 20], **arguments)
    model.compile(optimizer=optimizer, loss="mse")
    return model


def data(options=(), calls=CALLS):
    generator = np.random.default_rng(3)
    x = generator.normal(size=(calls, BATCH, INPUTS)).astype("float32")
    y = 5 * np.tanh(x) + generator.normal(size=x.shape).astype("float32")
    if {"skipping", "dynamic scale"} & set(options):
        x[[it for it in NONFINITE if it < calls], 0, 0] = np.inf
    return x.reshape(-1, INPUTS), y.reshape(-1, INPUTS)


def fit(model, x, y):
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return model


def fit_without_end(model, x, y):
    """Train by batches, without what `fit()` does when it ends."""
    for start in range(0, len(x), BATCH):
        model.train_on_batch(x[start : start + BATCH], y[start : start + BATCH])
    return model


def trained(options, layout, **arguments):
    """Return the model after training in a layout."""
    with layout():
        return fit(model_of(options, **arguments), *data(options))


def values(model):
    """Return the model's weights and all state of the optimizer, by path."""
    variables = [*model.trainable_variables, *model.optimizer.variables]
    return {it.path: np.asarray(it.value) for it in variables}


def assert_same(model, wanted):
    ours, wanted = values(model), values(wanted)
    assert len(ours) == len(wanted)
    for (path, value), exact in zip(ours.items(), wanted.values(), strict=True):
        # Devices add up gradients in different orders. This rounding, 1e-7 of a gradient, grows to
        # at most 2e-5 of a variable's largest element in 30 steps.
        scale = max(np.max(np.abs(exact), initial=0), 1e-3)
        np.testing.assert_allclose(value, exact, rtol=0, atol=1e-4 * scale, err_msg=path)


def assert_placed(model):
    """Check that the state of a variable is on the variable's devices, in the same shards."""
    for variable in model.trainable_variables:
        name = variable.path.replace("/", "_")
        own = [state for state in model.optimizer.variables if name in state.path]
        assert len(own) >= 2
        for state in own:
            sharding, dimensions = variable.value.sharding, variable.value.ndim
            assert state.value.sharding.is_equivalent_to(sharding, dimensions), state.path
