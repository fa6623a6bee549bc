"""Time a training step of 784-2000-2000-10 on a batch of 100, with ours and the host's class.

python bench/frameworks_training.py torch|tf_keras|optax|brainpy
"""

import itertools
import sys

import numpy as np
from measure import HEADER, measure, row

SIZES = (784, 2000, 2000, 10)
BATCH = 100


def data():
    generator = np.random.default_rng(0)
    images = generator.random((BATCH, SIZES[0])).astype("float32")
    return images, generator.integers(0, SIZES[-1], BATCH)


def weights():
    generator = np.random.default_rng(1)
    pairs = itertools.pairwise(SIZES)
    return {
        f"layer{i}": generator.normal(size=(a, b), scale=a**-0.5).astype("float32")
        for i, (a, b) in enumerate(pairs)
    }


def torch_steps():
    import torch

    import adadelta.torch

    images, labels = (torch.from_numpy(it) for it in data())

    def stepper(cls, **options):
        layers = []
        for a, b in itertools.pairwise(SIZES):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1])
        optimizer = cls(model.parameters(), lr=1.0, **options)

        def step():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return step

    return {
        "ours": stepper(adadelta.torch.Adadelta),
        "torch's foreach": stepper(torch.optim.Adadelta, foreach=True),
        "torch's SGD": stepper(torch.optim.SGD),
    }


def tf_keras_steps():
    import tf_keras

    import adadelta.tf_keras

    images, labels = data()

    def stepper(optimizer):
        layers = [tf_keras.layers.Dense(size, activation="relu") for size in SIZES[1:-1]]
        network = [tf_keras.layers.Input(SIZES[:1]), *layers, tf_keras.layers.Dense(SIZES[-1])]
        model = tf_keras.Sequential(network)
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return lambda: model.train_on_batch(images, labels)

    return {
        "ours": stepper(adadelta.tf_keras.Adadelta(1.0)),
        "tf_keras' own": stepper(tf_keras.optimizers.Adadelta(1.0)),
        "tf_keras' SGD": stepper(tf_keras.optimizers.SGD(0.01)),
    }


def loss_in_jax(params, images, labels):
    import jax
    import jax.numpy as jnp

    hidden = images
    for name in list(params)[:-1]:
        hidden = jax.nn.relu(hidden @ params[name])
    logits = hidden @ params[list(params)[-1]]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])


def optax_steps():
    import jax
    import jax.numpy as jnp
    import optax

    import adadelta.optax

    images, labels = map(jnp.asarray, data())

    def runner(apply, state_of):
        params = jax.tree.map(jnp.array, weights())
        held = [params, state_of(params)]

        def step(params, state):
            return apply(params, state, jax.grad(loss_in_jax)(params, images, labels))

        compiled = jax.jit(step, donate_argnums=(0, 1))

        def run():
            held[:] = compiled(*held)
            jax.block_until_ready(held)

        return run

    def transformed(made):
        def apply(params, state, gradients):
            updates, state = made.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return runner(apply, made.init)

    fused = adadelta.optax.fused_adadelta()
    return {
        "ours, fused_adadelta": runner(fused.apply, fused.init),
        "optax' adadelta": transformed(optax.adadelta(1.0)),
        "optax' sgd": transformed(optax.sgd(0.01)),
    }


def brainpy_steps():
    import brainpy
    import brainpy.math as bm
    import jax
    import jax.numpy as jnp

    import adadelta.brainpy

    images, labels = map(jnp.asarray, data())

    def stepper(cls):
        variables = {name: bm.TrainVar(bm.asarray(it)) for name, it in weights().items()}
        optimizer = cls(lr=1.0, train_vars=variables)

        def loss():
            params = {name: it.value for name, it in variables.items()}
            return loss_in_jax(params, images, labels)

        gradients = bm.grad(loss, grad_vars=variables)
        update = bm.jit(lambda: optimizer.update(gradients()))

        def step():
            update()
            jax.block_until_ready([it.value for it in variables.values()])

        return step

    return {
        "ours": stepper(adadelta.brainpy.Adadelta),
        "BrainPy's Adadelta": stepper(brainpy.optim.Adadelta),
    }


STEPS = {
    "torch": torch_steps,
    "tf_keras": tf_keras_steps,
    "optax": optax_steps,
    "brainpy": brainpy_steps,
}


def main():
    name = sys.argv[1]
    times, _ = measure(STEPS[name](), rounds=15)
    (first, ours), *others = times.items()
    print(f"\n### {name}: a training step of 784-2000-2000-10, batch 100\n")
    print("\n".join(HEADER))
    for contender, seconds in others:
        print(row(f"{first}; the peer is {contender}", ours, None, seconds))
        print(row(contender, seconds, None))


if __name__ == "__main__":
    main()
