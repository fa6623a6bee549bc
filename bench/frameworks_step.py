"""Time one step of another framework's front end, beside the host's own class and the limit.

    python bench/frameworks_step.py torch|tf_keras|optax|brainpy

optax and BrainPy are measured under jit; BrainPy compiles only with JAX 0.8 or newer.
"""

import sys

import numpy as np
from measure import HEADER, measure, row, scaled

ELEMENTS = scaled(20_000_000)
BYTES = 28


def arrays():
    generator = np.random.default_rng(0)
    return [generator.normal(size=ELEMENTS).astype("float32") for _ in range(2)]


def torch_steps():
    import torch

    import adadelta.torch

    def stepper(cls, compiled=False, **options):
        parameter, parameter.grad = (torch.from_numpy(it) for it in arrays())
        optimizer = cls([parameter], lr=1.0, **options)
        return torch.compile(optimizer.step) if compiled else optimizer.step

    host = torch.optim.Adadelta
    return {
        "ours": stepper(adadelta.torch.Adadelta),
        "torch's, one by one (the default)": stepper(host, foreach=False),
        "torch's foreach": stepper(host, foreach=True),
        "torch's, compiled": stepper(host, compiled=True),
    }


# Tensors of other sizes on torch: how many, of how many elements, and the steps of a turn.
SIZES = {
    "four tensors of 10": (4, 10, 200),
    "one tensor of 2 M": (1, scaled(2_000_000), 20),
    "2,000 tensors of 1,000": (scaled(2_000), 1_000, 5),
    "10,000 tensors of 100": (scaled(10_000), 100, 3),
}


def print_torch_beside_adam():
    """Print a table of steps on tensors of several sizes, beside torch's fused Adam."""
    import torch

    import adadelta.torch

    def stepper(cls, tensors, elements, steps, **options):
        parameters = [torch.nn.Parameter(torch.randn(elements)) for _ in range(tensors)]
        for parameter in parameters:
            parameter.grad = torch.randn(elements)
        optimizer = cls(parameters, **options)

        def turn():
            for _ in range(steps):
                optimizer.step()

        return turn

    print("\n### torch: tensors of other sizes; the peer is torch's fused Adam\n")
    print("\n".join(HEADER))
    for what, sizes in SIZES.items():
        tensors, elements, steps = sizes
        contenders = {
            "ours": stepper(adadelta.torch.Adadelta, *sizes),
            "torch's fused Adam": stepper(torch.optim.Adam, *sizes, fused=True),
            "torch's Adadelta": stepper(torch.optim.Adadelta, *sizes),
        }
        times, per_byte = measure(contenders, rounds=15)
        times = {name: [it / steps for it in seconds] for name, seconds in times.items()}
        # Small tensors take much longer than their bytes.
        limit = per_byte * BYTES * elements if tensors == 1 else None
        for name, seconds in times.items():
            peer = None if "Adam" in name else times["torch's fused Adam"]
            print(row(f"{what}: {name}", seconds, limit, peer))


def tf_keras_steps():
    import tensorflow as tf
    import tf_keras

    import adadelta.tf_keras

    def stepper(cls, jit_compile):
        value, gradient = arrays()
        variable, gradient = tf.Variable(value), tf.constant(gradient)
        optimizer = cls(learning_rate=1.0, jit_compile=jit_compile)
        optimizer.build([variable])
        apply = tf.function(lambda: optimizer.apply_gradients([(gradient, variable)]))

        def step():
            apply()
            variable[:1].numpy()

        return step

    return {
        "ours": stepper(adadelta.tf_keras.Adadelta, False),
        "tf_keras' own": stepper(tf_keras.optimizers.Adadelta, False),
        "ours, XLA": stepper(adadelta.tf_keras.Adadelta, True),
        "tf_keras' own, XLA": stepper(tf_keras.optimizers.Adadelta, True),
    }


def optax_steps():
    import jax
    import jax.numpy as jnp
    import optax

    import adadelta.optax

    def runner(step, state_of):
        params, gradient = (jnp.array(it) for it in arrays())
        held = [params, state_of(params)]
        compiled = jax.jit(step, donate_argnums=(0, 1))

        def run():
            held[:] = compiled(*held, gradient)
            jax.block_until_ready(held)

        return run

    def transformed(made):
        def step(params, state, gradient):
            updates, state = made.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return runner(step, made.init)

    fused = adadelta.optax.fused_adadelta()
    return {
        "ours, fused_adadelta": runner(fused.apply, fused.init),
        "ours, adadelta": transformed(adadelta.optax.adadelta()),
        "optax'": transformed(optax.adadelta(1.0)),
    }


def brainpy_steps():
    import brainpy
    import brainpy.math as bm
    import jax

    import adadelta.brainpy
    import adadelta.optax

    def with_arguments():
        parameters, gradient = (jax.numpy.array(it) for it in arrays())
        optimizer = adadelta.optax.fused_adadelta()
        held = [parameters, optimizer.init(parameters)]
        step = jax.jit(optimizer.apply, donate_argnums=(0, 1))

        def run():
            held[:] = step(*held, gradient)
            jax.block_until_ready(held)

        return run

    def stepper(cls):
        value, gradient = arrays()
        variable, gradient = bm.TrainVar(bm.asarray(value)), bm.asarray(gradient)
        optimizer = cls(lr=1.0, train_vars={"x": variable})
        update = bm.jit(lambda given: optimizer.update({"x": given}))

        def step():
            update(gradient)
            jax.block_until_ready(variable.value)

        return step

    return {
        "ours, parameters as arguments": with_arguments(),
        "ours, bm.jit": stepper(adadelta.brainpy.Adadelta),
        "BrainPy's, bm.jit": stepper(brainpy.optim.Adadelta),
    }


STEPS = {
    "torch": torch_steps,
    "tf_keras": tf_keras_steps,
    "optax": optax_steps,
    "brainpy": brainpy_steps,
}


def main():
    name = sys.argv[1]
    contenders = STEPS[name]()
    # torch's compiled step and ours differ by less than two turns do.
    times, per_byte = measure(contenders, rounds=15 if name == "torch" else 7)
    limit = per_byte * BYTES * ELEMENTS
    print(f"\n### {name}: one tensor of 20 M float32; peers are what the first stands beside\n")
    print("\n".join(HEADER))
    (first, ours), *others = times.items()
    print(row(first, ours, limit))
    for contender, seconds in others:
        print(row(f"{first}; the peer is {contender}", ours, limit, seconds))
        print(row(contender, seconds, limit))
    if name == "torch":
        print_torch_beside_adam()


if __name__ == "__main__":
    main()
