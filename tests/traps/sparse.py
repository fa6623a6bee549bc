"""Sparse gradients: the rows of an embedding."""

import keras
import numpy as np

from traps.table import trap
from traps.tools import MODES, Exact, check, close, fit, numpy, sparse, variable, weights

IDS = [0, 2, 0]
ROWS = np.array([[1.0, -1.0], [3.0, 0.5], [2.0, -3.0]], "float32")
SHAPE = (4, 2)
DENSE = np.zeros(SHAPE)
np.add.at(DENSE, IDS, ROWS)
DENSE32 = DENSE.astype("float32")


def _rows(ids, values):
    return sparse(ids, values, SHAPE)


def _against_dense(cls, calls=3, **options):
    for mode in MODES:
        sparse, dense = (
            _trained(cls, mode, rows, calls, options) - 1 for rows in (_rows, lambda *_: DENSE32)
        )
        close(sparse, dense, f"the way of the weights ({mode})", 1e-5)
    return "equal to the dense gradient"


def _trained(cls, mode, gradient_of, calls, options):
    """Return the weights after some calls; the compiled step builds the gradient from tensors."""
    x = variable(np.ones(SHAPE))
    optimizer = cls(learning_rate=1.0, **options)
    optimizer.build([x])
    ids, values = keras.ops.convert_to_tensor(IDS), keras.ops.convert_to_tensor(ROWS)

    def step(ids, values):
        optimizer.apply([_dense_tensor(gradient_of(ids, values))], [x])

    if mode in ("function", "xla"):
        import tensorflow as tf

        step = tf.function(step, jit_compile=mode == "xla")
    elif mode == "jit":
        step = _jit(optimizer, x, gradient_of)
    for _ in range(calls):
        step(ids, values)
    return numpy(x)


def _jit(optimizer, x, gradient_of):
    import jax

    @jax.jit
    def pure(state, value, ids, values):
        gradient = _dense_tensor(gradient_of(ids, values))
        return optimizer.stateless_apply(state, [gradient], [value])

    def step(ids, values):
        new, state = pure([v.value for v in optimizer.variables], x.value, ids, values)
        for each, value in zip([x, *optimizer.variables], [*new, *state], strict=True):
            each.assign(value)

    return step


def _dense_tensor(gradient):
    return keras.ops.convert_to_tensor(gradient) if gradient is DENSE32 else gradient


@trap(28, "sparse: repeated ids are squared before they are summed, or fail")
def repeated_ids(cls):
    return _against_dense(cls)


@trap(28, "sparse: loss scaling fails")
def with_a_loss_scale(cls):
    return _against_dense(cls, loss_scale_factor=8.0)


@trap(28, "sparse: clipping is wrong or fails")
def with_clipping(cls):
    for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
        _against_dense(cls, **{clip: 1.5})
    return "equal to the dense gradient"


@trap(28, "sparse: accumulation is wrong or fails", falls=("jax", "torch"))
def with_accumulation(cls):
    return _against_dense(cls, calls=4, gradient_accumulation_steps=2)


@trap(28, "sparse: Embedding in fit() with repeated ids", falls=("tensorflow",))
def embedding_in_fit(cls):
    def made_of(first):
        made = keras.Sequential([first, keras.layers.Flatten()])
        made.compile(
            cls(learning_rate=1.0), loss=lambda truth, output: keras.ops.mean(output, axis=-1)
        )
        return made

    ones = keras.initializers.Constant(1.0)
    embedding = made_of(keras.layers.Embedding(4, 2, embeddings_initializer=ones))
    fit(embedding, np.array([[0, 2, 0]] * 4), batch_size=2)
    # The loss is the mean over two equal rows: each id's gradient is its share of six outputs.
    exact = Exact(np.ones((4, 2)))
    for _ in range(2):
        exact.call(np.array([[2, 2], [0, 0], [1, 1], [0, 0]]) / 6)
    close(weights(embedding) - 1, exact.x.reshape(-1) - 1, "the way of the weights", 1e-4)
    check(np.all(np.isfinite(weights(embedding))), "the weights are not finite")
    return "equal to the exact trajectory"
