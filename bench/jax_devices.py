"""Time a step on 8 devices of the processor, each with its share of all variables, on JAX.

KERAS_BACKEND=jax python bench/jax_devices.py

The times are those of `adadelta.Adadelta` beside Keras' own. The memory of a device is the one that
JAX reports for the compiled step, for Keras and for optax.
"""

import functools
import os

DEVICES = 8
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={DEVICES}"]
)

import jax  # noqa: E402, the number of devices must be set before
import keras  # noqa: E402
import numpy as np  # noqa: E402
from measure import HEADER, measure, row, scaled  # noqa: E402

import adadelta  # noqa: E402
import adadelta.optax  # noqa: E402

MEGABYTE = 2**20
OPTIONS = {
    "no options": {},
    "clipnorm": {"clipnorm": 1.0},
    "global_clipnorm": {"global_clipnorm": 1.0},
    "global_clipnorm and accumulation": {
        "global_clipnorm": 1.0,
        "gradient_accumulation_steps": 2,
    },
}


def sharded(elements):
    """Return the values of eight variables, of which each device has an eighth."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))
    rows = scaled(elements // (8 * 1024 * DEVICES)) * DEVICES
    generator = np.random.default_rng(0)
    return [
        jax.device_put(generator.normal(size=(rows, 1024)).astype("float32"), sharding)
        for _ in range(8)
    ]


def keras_step(cls, elements, **options):
    """Return a compiled step of a Keras optimizer, and its arguments."""
    devices = keras.distribution.list_devices("cpu")
    mesh = keras.distribution.DeviceMesh((DEVICES,), ("device",), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel"] = ("device", None)
    parallel = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="device")
    with parallel.scope():
        variables = [keras.Variable(value, name="kernel") for value in sharded(elements)]
        optimizer = cls(1.0, **options)
        optimizer.build(variables)
    given = [it.value for it in variables], [it.value for it in optimizer.variables]

    def step(values, state, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    kept = jax.tree.map(lambda it: it.sharding, given)
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=kept), given


def optax_step(elements):
    """Return a compiled step of `adadelta.optax.fused_adadelta`, and its arguments."""
    optimizer = adadelta.optax.fused_adadelta()
    params = sharded(elements)
    shapes = jax.eval_shape(optimizer.init, params)
    whole = jax.sharding.NamedSharding(params[0].sharding.mesh, jax.sharding.PartitionSpec())
    kept = jax.tree.map(lambda it: params[0].sharding if it.shape else whole, shapes)
    state = jax.jit(optimizer.init, out_shardings=kept)(params)
    return jax.jit(optimizer.apply, donate_argnums=(0, 1)), (params, state)


def stepper(step, given, elements):
    """Return a function that makes one step and waits for it."""
    held, gradients = list(given), sharded(elements)

    def run():
        held[:] = step(*held, gradients)
        jax.block_until_ready(held)

    return run


def print_times(elements):
    print(f"\n### Keras on jax, {DEVICES} devices\n")
    print("\n".join(HEADER))
    for what, options in OPTIONS.items():
        peers = {"ours": adadelta.Adadelta, "Keras' own": keras.optimizers.Adadelta}
        contenders = {
            name: stepper(*keras_step(cls, elements, **options), elements)
            for name, cls in peers.items()
        }
        times, per_byte = measure(contenders)
        limit, own = per_byte * 28 * elements, times["Keras' own"]
        print(row(f"8 M, {what}: ours", times["ours"], limit, own))
        print(row(f"8 M, {what}: Keras' own", own, limit), flush=True)


def print_memory():
    print(f"\n### Memory on {DEVICES} devices of JAX\n")
    for millions in (8, 64):
        elements = millions * MEGABYTE
        for what, make in {
            "Keras": functools.partial(keras_step, adadelta.Adadelta),
            "Keras, global_clipnorm": functools.partial(
                keras_step, adadelta.Adadelta, global_clipnorm=1.0
            ),
            "Keras' own": functools.partial(keras_step, keras.optimizers.Adadelta),
            "optax": optax_step,
        }.items():
            step, given = make(elements)
            params, state = (sum(map(of_one_device, jax.tree.leaves(it))) for it in given)
            shapes = jax.tree.map(
                lambda it: jax.ShapeDtypeStruct(it.shape, it.dtype, sharding=it.sharding), given
            )
            analysis = step.lower(*shapes, shapes[0]).compile().memory_analysis()
            beside = analysis.temp_size_in_bytes
            print(
                f"- {millions} M, {what}: {params / MEGABYTE:.1f} MiB of parameters and "
                f"{state / MEGABYTE:.1f} MiB of state on each device, and {beside / MEGABYTE:.1f} "
                "MiB besides while a step is made.",
                flush=True,
            )


def of_one_device(array):
    """Return how many bytes of an array are on the first device."""
    return sum(it.data.nbytes for it in array.addressable_shards if it.device.id == 0)


def main():
    print_times(8 * MEGABYTE)
    print_memory()


if __name__ == "__main__":
    main()
