"""Time a step of `adadelta.Adadelta`, beside Keras' own and the limit, on KERAS_BACKEND.

KERAS_BACKEND=jax python bench/keras_step.py
"""

import functools

import keras
import numpy as np
from measure import HEADER, measure, row, scaled

import adadelta

BACKEND = keras.config.backend()
MILLION = [(scaled(20_000_000),)]
NETWORK = [(784, 2000), (2000,), (2000, 2000), (2000,), (2000, 10), (10,)]
MANY = [(1000,)] * 200
EVERYTHING = {
    "global_clipnorm": 1.0,
    "weight_decay": 0.01,
    "use_ema": True,
    "loss_scale_factor": 8.0,
}
# Bytes read and written for each parameter; see the design of the step.
PLAIN, FULL, COLLECTING = 28, 40, 12
FLOAT64, HALF = 56, 22


def arrays(shapes, dtype):
    generator = np.random.default_rng(0)
    return [
        keras.ops.cast(keras.ops.convert_to_tensor(generator.normal(size=shape)), dtype)
        for shape in shapes
    ]


def stepper(cls, shapes, mode, dtype="float32", **options):
    """Return a function that makes one step and waits for it."""
    variables = [keras.Variable(value, dtype=dtype) for value in arrays(shapes, dtype)]
    gradients = arrays(shapes, dtype)
    optimizer = cls(learning_rate=1.0, **options)
    optimizer.build(variables)
    if BACKEND == "jax":
        return _jax_stepper(optimizer, variables, gradients)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def apply():
            optimizer.apply(gradients)

        # The function returns only when the step is done, so nothing has to be read to wait for it;
        # reading one number would add 0.6 ms.
        return tf.function(apply, jit_compile=mode == "XLA")
    return lambda: optimizer.apply(gradients)


def _jax_stepper(optimizer, variables, gradients):
    import jax

    def step(values, state, gradients):
        return optimizer.stateless_apply(state, gradients, values)

    # Donated in the order of the results, as by Keras' trainer: JAX pairs buffers by their
    # order, and copies if a parameter's is paired with that of an average.
    step = jax.jit(step, donate_argnums=(0, 1))
    held = {
        "values": [v.value for v in variables],
        "state": [v.value for v in optimizer.variables],
    }

    def run():
        held["values"], held["state"] = step(held["values"], held["state"], gradients)
        jax.block_until_ready((held["values"], held["state"]))

    return run


def elements(shapes):
    return sum(int(np.prod(shape)) for shape in shapes)


def compare(what, shapes, mode, bytes_each, peer=True, **options):
    """Print the times of ours and of Keras' own."""
    cores = {"ours": functools.partial(stepper, adadelta.Adadelta)}
    if peer:
        cores["Keras' own"] = functools.partial(stepper, keras.optimizers.Adadelta)
    contenders = {name: make(shapes, mode, **options) for name, make in cores.items()}
    times, per_byte = measure(contenders)
    limit = per_byte * bytes_each * elements(shapes)
    reference = times.get("Keras' own")
    print(row(f"{what}: ours", times["ours"], limit, reference), flush=True)
    if reference:
        print(row(f"{what}: Keras' own", reference, limit), flush=True)
    return times["ours"]


def main():
    first = {"jax": "jit", "tensorflow": "graph", "torch": "eager"}[BACKEND]
    print(f"\n### Keras on {BACKEND}, {first}\n")
    print("\n".join(HEADER))
    compare("20 M float32", MILLION, first, PLAIN)
    compare("20 M, all options", MILLION, first, FULL, **EVERYTHING)
    window = {"gradient_accumulation_steps": 2**30}
    compare("20 M, a call inside a window", MILLION, first, COLLECTING, **window)
    if BACKEND != "jax":
        # JAX has float64 only if it is allowed before JAX starts.
        compare("20 M float64", MILLION, first, FLOAT64, dtype="float64")
    for half in ("float16", "bfloat16"):
        compare(f"20 M {half}", MILLION, first, HALF, dtype=half)
    for what, shapes in (("784-2000-2000-10", NETWORK), ("200 tensors of 1,000", MANY)):
        compare(what, shapes, first, PLAIN)
        compare(f"{what}, all options", shapes, first, FULL, **EVERYTHING)
    if BACKEND == "tensorflow":
        print("\n### Keras on tensorflow, XLA\n")
        print("\n".join(HEADER))
        for what, shapes in (("20 M float32", MILLION), ("200 tensors of 1,000", MANY)):
            compare(what, shapes, "XLA", PLAIN)
            compare(f"{what}, all options", shapes, "XLA", FULL, **EVERYTHING)
    if BACKEND == "torch":
        one = stepper(adadelta.Adadelta, [(2_000_000,)], first)
        many = stepper(adadelta.Adadelta, [(1000,)] * 2000, first)
        times, per_byte = measure({"one": one, "many": many})
        limit = per_byte * PLAIN * 2_000_000
        print(row("one tensor of 2 M: ours", times["one"], limit))
        # The peer is the single tensor.
        print(row("2,000 tensors of 1,000: ours", times["many"], limit, times["one"]))


if __name__ == "__main__":
    main()
