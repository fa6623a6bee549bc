"""Run the Adadelta of other frameworks, and write the results to hosts.json for differences.Rmd.

    python vignettes/hosts.py

The vignette is also built where these frameworks are missing, so their numbers are stored beside
it. tests/frameworks/test_hosts.py computes them again.
"""

import datetime
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

FILE = Path(__file__).resolve().parent / "hosts.json"
PACKAGES = ("keras", "tf_keras", "tensorflow", "torch", "optax", "brainpy", "jax", "numpy")


# Each function takes the start, the gradients (0-d arrays), the dtype's name and the arguments by
# Keras' names, and yields the parameter after every call. Omitted ones have the host's defaults.


def keras_host(start, gradients, dtype, **arguments):
    """`keras.optimizers.Adadelta`."""
    import keras

    x = keras.Variable(start, dtype=dtype)
    optimizer = keras.optimizers.Adadelta(**arguments)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype=dtype)], [x])
        yield keras.ops.convert_to_numpy(_wide(x.value))


def tf_keras_host(start, gradients, dtype, **arguments):
    """`tf_keras.optimizers.Adadelta`."""
    import tensorflow as tf
    import tf_keras

    x = tf.Variable(start, dtype=dtype)
    optimizer = tf_keras.optimizers.Adadelta(jit_compile=False, **arguments)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, dtype), x)])
        yield _wide(x.numpy())


def tf1_host(start, gradients, dtype, **arguments):
    """The class of TensorFlow 1.13's `tf.keras`, which still exists inside tf_keras."""
    import tensorflow as tf
    from tf_keras.src.optimizers import optimizer_v1

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.Variable(start, dtype=dtype, use_resource=True)
        gradient = tf.compat.v1.placeholder(dtype, ())
        optimizer = optimizer_v1.Adadelta(**_renamed(arguments, learning_rate="lr"))
        # The value that is fed is the gradient of this loss.
        update = optimizer.get_updates(gradient * x, [x])
        session.run(tf.compat.v1.global_variables_initializer())
        for each in gradients:
            session.run(update, {gradient: each})
            yield _wide(session.run(x))


def torch_host(start, gradients, dtype, **arguments):
    """`torch.optim.Adadelta`."""
    import torch

    x = torch.nn.Parameter(torch.tensor(start, dtype=getattr(torch, dtype)))
    names = {"learning_rate": "lr", "epsilon": "eps"}
    optimizer = torch.optim.Adadelta([x], **_renamed(arguments, **names))
    for gradient in gradients:
        x.grad = torch.tensor(gradient).to(x.dtype)
        optimizer.step()
        value = x.detach()
        yield value.numpy().copy() if value.is_complex() else value.float().numpy().copy()


def optax_host(start, gradients, dtype, every=None, **arguments):
    """`optax.adadelta`, in `optax.MultiSteps` if `every` is given."""
    import jax.numpy as jnp
    import optax

    x = jnp.asarray(start, dtype)
    optimizer = optax.adadelta(**_renamed(arguments, epsilon="eps"))
    if every is not None:
        optimizer = optax.MultiSteps(optimizer, every)
    state = optimizer.init(x)
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient, dtype), state, x)
        x = optax.apply_updates(x, update)
        yield np.asarray(_wide(x))


def brainpy_host(start, gradients, dtype, **arguments):
    """`brainpy.optim.Adadelta`."""
    import brainpy as bp
    import brainpy.math as bm
    import jax.numpy as jnp

    x = bm.TrainVar(jnp.asarray(start, dtype))
    optimizer = bp.optim.Adadelta(train_vars={"x": x}, **_renamed(arguments, learning_rate="lr"))
    for gradient in gradients:
        optimizer.update({"x": jnp.asarray(gradient, dtype)})
        yield np.asarray(_wide(x.value))


HOSTS = {
    "keras": keras_host,
    "tf_keras": tf_keras_host,
    "tf1": tf1_host,
    "torch": torch_host,
    "optax": optax_host,
    "brainpy": brainpy_host,
}
DECAYING = ("keras", "tf_keras", "torch", "optax", "brainpy")


def _renamed(arguments, **names):
    return {names.get(name, name): value for name, value in arguments.items()}


def _wide(value):
    # NumPy itself has no bfloat16.
    return value if "complex" in str(value.dtype) else value.astype("float32")


def follow(host, gradients, start=1.0, dtype="float32", **arguments):
    """Return the parameter after each gradient."""
    gradients = [np.float32(gradient) for gradient in gradients]
    return [float(x) for x in HOSTS[host](start, gradients, dtype, **arguments)]


# Each function fills one table: the answer of a host, or None if the host has no such feature.


def defaults(host):
    """Apply three gradients of 1 with the host's own defaults."""
    return follow(host, [1, 1, 1])


def weight_decay(host):
    """Apply two gradients of 1, with weight decay."""
    if host == "tf1":
        return None
    return follow(host, [1, 1], learning_rate=0.5, rho=0.95, epsilon=0.01, weight_decay=0.1)


def half_precision(host):
    """Return how far 300 gradients of 0.01 move the parameter, by its dtype."""
    if host == "tf1":
        return None  # It supports only the dtype that Keras is set to.
    arguments = {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-7, "start": 0.25}
    return {
        dtype: 0.25 - follow(host, [0.01] * 300, dtype=dtype, **arguments)[-1]
        for dtype in ("float32", "float16", "bfloat16")
    }


def large_gradient(host):
    """Return the parameter after calls 1, 3 and 50, with a gradient of 3e19 in the second."""
    gradients = [1, 3e19] + [1] * 48
    values = follow(host, gradients, learning_rate=1.0, rho=0.1, epsilon=0.01)
    return [values[call - 1] for call in (1, 3, 50)]


def complex_parameter(host):
    """Return the distance from 0 after 60 steps on |x|^2, starting at 1 + 2i."""
    if host == "tf1":
        return None
    now = 1 + 2j

    def gradients():
        for _ in range(60):
            yield np.complex64(2 * now)

    arguments = {"learning_rate": 1.0, "rho": 0.95, "epsilon": 0.01}
    for value in HOSTS[host](now, gradients(), "complex64", **arguments):
        now = complex(value)
    return abs(now)


def bad_arguments(host):
    """Return x after two gradients of 1 with an invalid argument, or "refused"."""
    good = {"learning_rate": 0.5, "rho": 0.95, "epsilon": 0.01}
    bad = {"learning_rate": -1.0, "rho": 1.5, "epsilon": -1.0, "weight_decay": -0.1}

    def outcome(argument, value):
        if (host, argument) == ("tf1", "weight_decay"):
            return None
        try:
            return follow(host, [1, 1], **{**good, argument: value})[-1]
        except (TypeError, ValueError):
            return "refused"

    return {f"{argument} = {value:g}": outcome(argument, value) for argument, value in bad.items()}


def accumulation(host):
    """Return the parameter after four calls, with gradients 1, 2, 3 and 6, for one update."""
    gradients = [1, 2, 3, 6]
    arguments = {"learning_rate": 1.0, "rho": 0.95, "epsilon": 0.01}
    if host == "torch":
        # backward() adds gradients up until zero_grad().
        return follow(host, [sum(gradients)], **arguments)[-1]
    steps = {"keras": {"gradient_accumulation_steps": 4}, "optax": {"every": 4}}
    if host not in steps:
        return None
    return follow(host, gradients, **steps[host], **arguments)[-1]


# ------------------------------------------------------------------ sparse gradients

# Row 0 of four has two gradients, 1 and 2; row 2 has one.
IDS, ROWS, SHAPE = [0, 2, 0], [[1.0], [1.0], [2.0]], (4, 1)
SPARSE = {"learning_rate": 1.0, "rho": 0.95, "epsilon": 0.01}


def keras_rows():
    """Return the rows after one step of Keras, on the backend of this process."""
    import keras

    ids, rows = keras.ops.convert_to_tensor(IDS), keras.ops.convert_to_tensor(ROWS)
    if keras.backend.backend() == "jax":
        from jax.experimental.sparse import BCOO

        gradient = BCOO((rows, ids[:, None]), shape=SHAPE)
    elif keras.backend.backend() == "torch":
        gradient = _torch_gradient()
    else:
        gradient = _tensorflow_gradient()
    x = keras.Variable(np.ones(SHAPE, "float32"))
    keras.optimizers.Adadelta(**SPARSE).apply([gradient], [x])
    return keras.ops.convert_to_numpy(x)


def tf_keras_rows():
    """Return the rows after one step of tf_keras."""
    import tensorflow as tf
    import tf_keras

    x = tf.Variable(tf.ones(SHAPE))
    optimizer = tf_keras.optimizers.Adadelta(jit_compile=False, **SPARSE)
    optimizer.apply_gradients([(_tensorflow_gradient(), x)])
    return x.numpy()


def torch_rows():
    """Return the rows after one step of torch."""
    import torch

    x = torch.nn.Parameter(torch.ones(SHAPE))
    x.grad = _torch_gradient()
    torch.optim.Adadelta([x], **_renamed(SPARSE, learning_rate="lr", epsilon="eps")).step()
    return x.detach().numpy()


def optax_rows():
    """Return the rows after one step of optax."""
    import jax.numpy as jnp
    import optax
    from jax.experimental.sparse import BCOO

    x = jnp.ones(SHAPE)
    optimizer = optax.adadelta(**_renamed(SPARSE, epsilon="eps"))
    gradient = BCOO((jnp.asarray(ROWS), jnp.asarray(IDS)[:, None]), shape=SHAPE)
    update, _ = optimizer.update(gradient, optimizer.init(x), x)
    return np.asarray(optax.apply_updates(x, update))


def _tensorflow_gradient():
    import tensorflow as tf

    return tf.IndexedSlices(tf.constant(ROWS), tf.constant(IDS), tf.constant(SHAPE))


def _torch_gradient():
    import torch

    return torch.sparse_coo_tensor(torch.tensor([IDS]), torch.tensor(ROWS), SHAPE)


ROW_HOSTS = {
    "keras": keras_rows,
    "tf_keras": tf_keras_rows,
    "torch": torch_rows,
    "optax": optax_rows,
}


def sparse(host):
    """Return how far a row moves whose id occurs twice (gradients 1 and 2), or the error's name."""
    if host not in ROW_HOSTS:
        return None
    try:
        return 1 - float(ROW_HOSTS[host]()[0, 0])
    except Exception as error:
        return type(error).__name__


# ------------------------------------------------------------------ the file

TABLES = (
    defaults,
    weight_decay,
    half_precision,
    large_gradient,
    complex_parameter,
    bad_arguments,
    accumulation,
    sparse,
)
# With sparse gradients, Keras' other backends differ.
OTHER_KERAS = {"keras on tensorflow": "tensorflow", "keras on torch": "torch"}


def written(value):
    """Convert numbers to a form that JSON and R both read."""
    if isinstance(value, dict):
        return {key: written(each) for key, each in value.items()}
    if isinstance(value, list):
        return [written(each) for each in value]
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return float(f"{value:.9g}") if math.isfinite(value) else f"{value:+}".title()
    return value


def answers(host):
    """Return a host's answer to each question, from a separate process.

    Keras has one backend in a process, and some hosts can't share one.
    """
    backend = OTHER_KERAS.get(host, "jax")
    answer = subprocess.run(
        [sys.executable, __file__, host],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


def main():
    """Ask every host and write the file."""
    by_host = {host: answers(host) for host in (*HOSTS, *OTHER_KERAS)}
    tables = {
        table.__name__: {
            host: given[table.__name__]
            for host, given in by_host.items()
            if given.get(table.__name__) is not None
        }
        for table in TABLES
    }
    content = {
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "tables": tables,
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    if sys.argv[1:]:
        asked = sys.argv[1]
        tables = (sparse,) if asked in OTHER_KERAS else TABLES
        asked = "keras" if asked in OTHER_KERAS else asked
        print(json.dumps({table.__name__: written(table(asked)) for table in tables}))
    else:
        main()
