"""Candidates that only one framework has, for the random arguments of its front ends."""

import math

from argument_sets import Candidate


def of_jax():
    import jax
    import jax.numpy as jnp

    return [
        Candidate("array", lambda: jnp.array(0.5), number=0.5),
        Candidate("bfloat16", lambda: jnp.array(0.5, jnp.bfloat16), number=0.5),
        Candidate("negative array", lambda: jnp.array(-0.5), number=-0.5),
        Candidate("array of two", lambda: jnp.array([0.5, 0.5])),
        Candidate("array of True", lambda: jnp.array(True)),
        Candidate("complex array", lambda: jnp.array(1j)),
        Candidate("key", lambda: jax.random.key(0)),
        Candidate("keys", lambda: jax.random.split(jax.random.key(0))),
        Candidate("shape", lambda: jax.ShapeDtypeStruct((), jnp.float32)),
    ]


def of_tensorflow():
    import tensorflow as tf

    def symbolic():
        with tf.Graph().as_default():
            return tf.constant(0.5)

    return [
        Candidate("symbolic tensor", symbolic),
        Candidate("text tensor", lambda: tf.constant("0.5")),
        Candidate("tensor of two", lambda: tf.constant([0.5, 0.5])),
        Candidate("tf.Variable of two", lambda: tf.Variable([0.5, 0.5])),
        Candidate("ragged tensor", lambda: tf.ragged.constant([[0.5], []])),
        Candidate("sparse tensor", lambda: tf.sparse.from_dense([0.5, 0.0])),
        Candidate("complex tensor", lambda: tf.constant(1j)),
    ]


def of_torch():
    import torch

    def quantized():
        return torch.quantize_per_tensor(torch.tensor([0.5, 0.5]), 0.1, 0, torch.quint8)

    return [
        Candidate("tensor", lambda: torch.tensor(0.5), number=0.5),
        Candidate("parameter", lambda: torch.nn.Parameter(torch.tensor(0.5)), number=0.5),
        Candidate("bfloat16", lambda: torch.tensor(0.5, dtype=torch.bfloat16), number=0.5),
        Candidate("negative tensor", lambda: torch.tensor(-0.5), number=-0.5),
        Candidate("NaN tensor", lambda: torch.tensor(math.nan), number=math.nan),
        Candidate("meta tensor", lambda: torch.tensor(0.5, device="meta")),
        Candidate("sparse tensor", lambda: torch.tensor([0.5, 0.5]).to_sparse()),
        Candidate("uninitialized", torch.nn.UninitializedParameter),
        Candidate("uninitialized buffer", torch.nn.UninitializedBuffer),
        Candidate("quantized tensor", quantized),
        Candidate("complex tensor", lambda: torch.tensor(1j)),
        Candidate("tensor of True", lambda: torch.tensor(True)),
        Candidate("tensor of two", lambda: torch.tensor([0.5, 0.5])),
        Candidate("empty tensor", lambda: torch.tensor([])),
    ]
