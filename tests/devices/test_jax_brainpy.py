"""`adadelta.brainpy` with variables that are sharded over several devices."""

import brainpy.math as bm
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adadelta
import adadelta.brainpy


def trained(sharding=None):
    value = jax.device_put(jnp.linspace(-1, 1, 16), sharding)
    variable = bm.TrainVar(value)
    optimizer = adadelta.brainpy.Adadelta(0.5, train_vars={"x": variable}, weight_decay=0.01)
    for _ in range(30):
        optimizer.update({"x": bm.as_jax(variable) * 2})
    return variable, optimizer


def test_steps_are_those_of_one_device():
    mesh = jax.make_mesh((8,), ("a",), (AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("a"))
    (variable, optimizer), (wanted, of_one) = trained(sharding), trained()
    pairs = [(variable, wanted)]
    for slot, average in optimizer.averages()["x"].items():
        pairs.append((average, of_one.averages()["x"][slot]))
    for ours, exact in pairs:
        assert bm.as_jax(ours).sharding == sharding
        # XLA may round once less in a multiplication followed by an addition.
        np.testing.assert_allclose(bm.as_jax(ours), bm.as_jax(exact), rtol=1e-5)
    (row,) = adadelta.kernel_info(optimizer)
    assert row["reason"] == "it lies on 8 devices, where XLA itself makes the step"
