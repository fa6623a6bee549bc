"""`adadelta.optax` with parameters sharded over devices, compared with one device."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adadelta
import adadelta.optax

SPECS = {"kernel": PartitionSpec("a", "b"), "bias": PartitionSpec("b"), "scale": PartitionSpec()}
SHAPES = {"kernel": (8, 16), "bias": (16,), "scale": ()}
AXES = ("a", "b")


def mesh_of(devices=8, axis_type=AxisType.Auto):
    shape = (2, devices // 2) if devices > 1 else (1, 1)
    return jax.make_mesh(shape, AXES, (axis_type,) * 2, devices=jax.devices()[:devices])


def shardings(mesh):
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def params_on(mesh=None):
    generator = np.random.default_rng(2)
    params = {
        name: generator.normal(size=shape).astype("float32") for name, shape in SHAPES.items()
    }
    return jax.device_put(params, None if mesh is None else shardings(mesh))


def loss(params, x):
    return jnp.mean(jnp.square(jnp.tanh(x @ params["kernel"] + params["bias"]) * params["scale"]))


def batches(calls=30):
    return np.random.default_rng(4).normal(size=(calls, 32, 8)).astype("float32")


def of_transformation(transformation):
    def apply(params, state, gradients):
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return transformation.init, apply


OPTIMIZERS = {
    "adadelta": lambda: of_transformation(adadelta.optax.adadelta(0.5, weight_decay=0.01)),
    "fused_adadelta": lambda: adadelta.optax.fused_adadelta(
        optax.cosine_decay_schedule(1.0, 30),
        weight_decay=0.01,
        weight_decay_mask={"kernel": True, "bias": False, "scale": False},
    ),
    "clipped": lambda: of_transformation(
        optax.chain(optax.clip_by_global_norm(0.01), adadelta.optax.adadelta(0.5))
    ),
    "accumulating": lambda: of_transformation(
        optax.MultiSteps(adadelta.optax.adadelta(0.5), 3).gradient_transformation()
    ),
}


def trained(make, params, state=None, calls=range(30)):
    """Return parameters and state after some of the calls of `batches()`."""
    init, apply = make()
    state = init(params) if state is None else state

    @jax.jit
    def step(params, state, x):
        return apply(params, state, jax.grad(loss)(params, x))

    for call in calls:
        params, state = step(params, state, batches()[call])
    return params, state


def assert_same(made, wanted):
    for ours, exact in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
        # A batch is summed in a different order: 1e-7 of a gradient, more after 30 steps.
        scale = max(np.max(np.abs(exact)), 1e-6)
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-5 * scale)


def assert_placed(params, state):
    for name, param in params.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if getattr(path[-1], "key", None) == name:
                assert leaf.sharding.is_equivalent_to(param.sharding, param.ndim), path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_steps_are_those_of_one_device(name):
    make = OPTIMIZERS[name]
    made = trained(make, params_on(mesh_of()))
    assert_same(made, trained(make, params_on()))
    assert_placed(*made)


def test_a_step_communicates_nothing():
    optimizer, params = adadelta.optax.fused_adadelta(0.5), params_on(mesh_of())
    state = optimizer.init(params)
    text = jax.jit(optimizer.apply).lower(params, state, params).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "permute"))
    analysis = jax.jit(optimizer.apply).lower(params, state, params).compile().memory_analysis()
    # Parameters, gradients and two averages: an eighth of the kernels, a quarter of the biases.
    assert analysis.argument_size_in_bytes == 4 * 4 * (8 * 16 // 8 + 16 // 4 + 1) + 4


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_state_begins_where_the_parameters_lie(axis_type):
    mesh = mesh_of(axis_type=axis_type)
    params, transformation = params_on(mesh), adadelta.optax.adadelta()
    assert_placed(params, transformation.init(params))
    everywhere = NamedSharding(mesh, PartitionSpec())
    kept = adadelta.optax.AdadeltaState(everywhere, shardings(mesh), shardings(mesh))
    assert_placed(params, jax.jit(transformation.init, out_shardings=kept)(params))


def test_explicit_axes_are_kept():
    mesh, optimizer = mesh_of(axis_type=AxisType.Explicit), adadelta.optax.fused_adadelta(0.5)
    params = params_on(mesh)
    made = jax.jit(optimizer.apply)(params, optimizer.init(params), params)
    assert_same(made, optimizer.apply(params_on(), optimizer.init(params_on()), params_on()))
    assert_placed(*made)


def of_all_devices(limit):
    """Clip by global norm inside `shard_map`, where each device has shards of whole gradients."""

    def clipped(gradients, state, params=None):
        def total(gradient, spec):
            axes = tuple(axis for axis in spec if axis is not None)
            squares = jnp.sum(jnp.square(gradient))
            return jax.lax.psum(squares, axes) if axes else squares

        norm = jnp.sqrt(sum(jax.tree.leaves(jax.tree.map(total, gradients, SPECS))))
        return jax.tree.map(lambda it: it * jnp.minimum(1, limit / norm), gradients), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), clipped)


@pytest.mark.parametrize("is_clipped", [False, True])
def test_inside_shard_map_the_step_of_shards_is_that_of_the_whole(is_clipped):
    mesh, limit = mesh_of(), 0.5
    adadelta_alone = adadelta.optax.adadelta(0.5, weight_decay=0.01)
    whole = inside = adadelta_alone
    of_state = adadelta.optax.AdadeltaState(PartitionSpec(), SPECS, SPECS)
    if is_clipped:
        whole = optax.chain(optax.clip_by_global_norm(limit), adadelta_alone)
        inside = optax.chain(of_all_devices(limit), adadelta_alone)
        of_state = (optax.EmptyState(), of_state)
    update = jax.jit(
        jax.shard_map(
            inside.update, mesh=mesh, in_specs=(SPECS, of_state, SPECS), out_specs=(SPECS, of_state)
        )
    )
    params, state = params_on(mesh), whole.init(params_on(mesh))
    wanted = whole.init(params_on())
    for size in (1.0, 3.0, 0.01):
        gradients = jax.tree.map(lambda it, size=size: it * size, params_on(mesh))
        updates, state = update(gradients, state, params)
        gradients = jax.tree.map(lambda it, size=size: it * size, params_on())
        exact, wanted = whole.update(gradients, wanted, params_on())
        assert_same((updates, state), (exact, wanted))


def test_the_example_in_the_docstring_runs_on_eight_devices():
    (example,) = (
        it for it in doctest.DocTestFinder().find(adadelta.optax) if it.name == "adadelta.optax"
    )
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed


def test_state_goes_on_with_fewer_devices():
    make = OPTIMIZERS["adadelta"]
    wanted = trained(make, params_on())
    made = trained(make, params_on(mesh_of(8)), calls=range(10))
    for devices, calls in ((4, range(10, 20)), (1, range(20, 30))):
        mesh = mesh_of(devices)
        exported = adadelta.optax.export_state(made[1])
        params = jax.device_put(jax.tree.map(np.asarray, made[0]), shardings(mesh))
        state = adadelta.optax.import_state(make()[0](params), exported)
        made = trained(make, params, state, calls)
        assert_placed(*made)
    assert_same(made, wanted)


def test_an_orbax_checkpoint_goes_on_with_fewer_devices(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    make = OPTIMIZERS["fused_adadelta"]
    wanted = trained(make, params_on())
    made = trained(make, params_on(mesh_of(8)), calls=range(10))
    for devices, calls in ((4, range(10, 20)), (1, range(20, 30))):
        mesh = mesh_of(devices)
        path = tmp_path / str(devices)
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, made)
            checkpointer.wait_until_finished()
            params = params_on(mesh)
            everywhere = NamedSharding(mesh, PartitionSpec())
            state = make().init(params)
            state = state._replace(count=jax.device_put(state.count, everywhere))
            made = checkpointer.restore(path, (params, state))
        assert_placed(*made)
        assert jax.tree.leaves(made)[0].sharding.mesh.size == devices
        made = trained(make, *made, calls)
    assert_same(made, wanted)
