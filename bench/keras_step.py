"""One step of `adadelta.Adadelta` against one of Keras' own, on the backend of KERAS_BACKEND.

Both run in one process, in turns; each line is the ratio of the medians, ours over Keras'.

    KERAS_BACKEND=jax python bench/keras_step.py
"""

import statistics
import time

import keras
import numpy as np

import adadelta

ROUNDS = 9
SIZES = {
    "one tensor of 20 million": [(20_000_000,)],
    "784-2000-2000-10": [(784, 2000), (2000,), (2000, 2000), (2000,), (2000, 10), (10,)],
    "200 tensors of 1,000": [(1000,)] * 200,
}
OPTIONS = {
    "plain": {},
    "global_clipnorm, weight_decay, use_ema": {
        "global_clipnorm": 1.0,
        "weight_decay": 0.01,
        "use_ema": True,
    },
}


def stepper(cls, shapes, compiled, **options):
    """A function that makes one step and waits for it."""
    generator = np.random.default_rng(0)
    variables = [keras.Variable(generator.normal(size=s).astype("float32")) for s in shapes]
    gradients = [
        keras.ops.convert_to_tensor(generator.normal(size=s).astype("float32")) for s in shapes
    ]
    optimizer = cls(learning_rate=1.0, **options)
    optimizer.build(variables)
    backend = keras.config.backend()
    if backend == "jax":
        return _jax_stepper(optimizer, variables, gradients, compiled)
    if backend == "tensorflow":
        import tensorflow as tf

        def apply():
            optimizer.apply(gradients)

        return {"eager": apply, "graph": tf.function(apply)}.get(
            compiled, tf.function(apply, jit_compile=True)
        )
    return lambda: optimizer.apply(gradients)


def _jax_stepper(optimizer, variables, gradients, compiled):
    import jax

    if compiled == "eager":

        def eager():
            optimizer.apply(gradients)
            jax.block_until_ready([variable.value for variable in variables])

        return eager
    step = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
    held = {
        "state": [v.value for v in optimizer.variables],
        "values": [v.value for v in variables],
    }

    def run():
        held["values"], held["state"] = step(held["state"], gradients, held["values"])
        jax.block_until_ready(held["values"])

    return run


def main():
    modes = {"jax": ("jit",), "tensorflow": ("graph", "xla"), "torch": ("eager",)}

    for mode in modes[keras.config.backend()]:
        for size, shapes in SIZES.items():
            for option, arguments in OPTIONS.items():
                ours = stepper(adadelta.Adadelta, shapes, mode, **arguments)
                theirs = stepper(keras.optimizers.Adadelta, shapes, mode, **arguments)
                times = {"ours": [], "theirs": []}
                for turn in range(ROUNDS + 3):
                    for name, step in (("ours", ours), ("theirs", theirs)):
                        start = time.perf_counter()
                        step()
                        if turn >= 3:
                            times[name].append(time.perf_counter() - start)
                medians = {name: statistics.median(values) for name, values in times.items()}
                ours_ms, theirs_ms = (medians[name] * 1e3 for name in ("ours", "theirs"))
                row = [keras.config.backend(), mode, size, option]
                row += [f"{ours_ms / theirs_ms:.2f}", f"{ours_ms:.1f}", f"{theirs_ms:.1f}"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
