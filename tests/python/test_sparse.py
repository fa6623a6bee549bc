"""Sparse gradients, also with repeated ids, equal dense ones, with every option and pair of them.

`tf.IndexedSlices`, JAX's `BCOO` and torch's sparse tensors, for two tables and a dense vector.
"""

import keras
import numpy as np
import pytest

import adadelta
import options
from adadelta._keras import loss_scale
from driver import BACKEND, MODES, Driver, NonNegative, numpy, sparse, tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    # The first dynamic loss scales are too large for float16.
    pytest.mark.filterwarnings("ignore:overflow encountered in cast"),
]

OPTIONS = options.OPTIONS | {
    "dynamic loss scale": {"loss_scale_factor": "dynamic"},
    "accumulation": {"gradient_accumulation_steps": 2},
    "one call per update": {},
    "exclusion": {"weight_decay": 0.0625},
    "float32": {},
    "float16": {},
    "bfloat16": {},
}
ALTERNATIVES = (
    *options.ALTERNATIVES,
    ("loss scale", "dynamic loss scale"),
    ("accumulation", "one call per update"),
    ("float32", "float16", "bfloat16"),
)
PAIRS = options.pairs(OPTIONS, ALTERNATIVES)
ROWS = options.rows(OPTIONS, ALTERNATIVES)
# A compiled run takes seconds, and on JAX an eager one too: in these modes each option runs alone,
# and the rows cover the pairs.
ALONE = [pair for pair in PAIRS if "float32" in pair]
FAST = {"jax": (), "tensorflow": ("eager",), "torch": ("eager",)}[BACKEND]
PAIRED = [(pair, mode) for mode in MODES for pair in (PAIRS if mode in FAST else ALONE)]
ROWED = ("jit",) if BACKEND == "jax" else MODES

# The variables, and the number of ids in each call for them; None is a dense gradient.
SHAPES = ((7, 2), (5, 3, 2), (3,))
IDS = (6, 4, None)
CALLS = 16
# The sums of repeated rows are exact in every dtype. The only difference is the order in which a
# compiler multiplies and adds in float32: about 6e-8 in each of 16 calls. This can round a
# half-precision weight to the other side once.
TOLERANCE = {"float32": 2e-6, "float16": 2**-10, "bfloat16": 2**-7}


def dtype_of(names):
    return next((dtype for dtype in TOLERANCE if dtype in names), "float32")


def gradients_of(names):
    """Return for each call and variable the ids and rows of a gradient, only the rows, or None."""
    random = np.random.default_rng(1212)
    calls = []
    for call in range(CALLS):
        gradients = []
        for shape, count in zip(SHAPES, IDS, strict=True):
            size = shape if count is None else (count, *shape[1:])
            # Sums of up to six of these have at most 8 bits, which bfloat16 can hold.
            rows = np.round(random.normal(size=size) * 4).clip(-8, 8) / 4
            # Some id always repeats, and some row never occurs.
            ids = None if count is None else random.integers(0, shape[0] - 2, count)
            if count is not None:
                ids[-1] = ids[0]
            gradients.append((ids, rows))
        if "missing gradients" in names and call % 8 in (2, 3, 5):
            gradients[0] = None  # in all of a window, and in a part of one
        if "skipping" in names and call % 5 == 3:
            for each in gradients:
                if each is not None:
                    each[1].flat[-1] = np.nan
        calls.append(gradients)
    return calls


def optimizer_of(names, variables):
    optimizer = options.optimizer_of(names, OPTIONS, [5, 10])
    if "exclusion" in names:
        optimizer.exclude_from_weight_decay(var_list=[variables[0]])
    return optimizer


def variables_of(names):
    random = np.random.default_rng(6)
    variables = [
        keras.Variable(random.normal(size=shape), dtype=dtype_of(names), name=f"v{number}")
        for number, shape in enumerate(SHAPES)
    ]
    if "constraint" in names:
        for variable in variables:
            variable.constraint = NonNegative()
    return variables


def scale_of(names, run):
    """Return the factor of the loss in the next call."""
    if "dynamic loss scale" in names:
        optimizer = run.optimizer
        scale = optimizer._state.loss_scale if optimizer.built else None
        return loss_scale.FIRST if scale is None else float(numpy(scale))
    return OPTIONS["loss scale"]["loss_scale_factor"] if "loss scale" in names else 1.0


def as_dense(ids, rows, shape, dtype):
    """Sum over repeated ids in NumPy, independently of any framework."""
    if ids is not None:
        total = np.zeros(shape)
        np.add.at(total, ids, rows)
        rows = total
    return tensor(rows, dtype)


def as_sparse(ids, rows, shape, dtype):
    if ids is None:
        return tensor(rows, dtype)
    return sparse(tensor(ids, "int32"), tensor(rows, dtype), shape)


def trained(names, mode, form, optimizer_names=None):
    """Run all calls; `optimizer_names` are the options of the optimizer, by default all of them."""
    variables = variables_of(names)
    optimizer = optimizer_of(names if optimizer_names is None else optimizer_names, variables)
    run = Driver(optimizer, variables, mode)
    for gradients in gradients_of(names):
        scale = scale_of(names, run)
        run.call(
            [
                None if given is None else form(given[0], given[1] * scale, shape, dtype_of(names))
                for given, shape in zip(gradients, SHAPES, strict=True)
            ]
        )
    return run


def values(run, slot):
    assert run.optimizer.variables  # lets rows without a gradient catch up
    # Cast to float32 first, since NumPy has no bfloat16.
    slots = dict(
        variables=run.variables,
        square_avg=run.optimizer._accumulated_grads,
        acc_delta=run.optimizer._accumulated_delta_vars,
        average=getattr(run.optimizer, "_model_variables_moving_average", ()),
        window=getattr(run.optimizer, "_accumulated_gradients", ()),
    )
    return [numpy(keras.ops.cast(variable, "float32")) for variable in slots[slot]]


def check_sparse_is_dense(names, mode):
    one, other = (trained(names, mode, form) for form in (as_sparse, as_dense))
    for slot in ("variables", "square_avg", "acc_delta", "average", "window"):
        pairs = zip(values(one, slot), values(other, slot), strict=True)
        for number, (mine, expected) in enumerate(pairs):
            assert np.all(np.isfinite(expected))
            # State is float32 whatever the dtype of the weights; only coupled decay carries their
            # rounding into it.
            tolerance = TOLERANCE[dtype_of(names)]
            scale = max(np.max(np.abs(expected)), 1e-6)
            np.testing.assert_allclose(
                mine / scale, expected / scale, rtol=0, atol=tolerance, err_msg=f"{slot} {number}"
            )
    if dtype_of(names) != "float32":
        # Rounded once, from almost the same float32 numbers: none of the 47 weights differed,
        # whereas up to 6 of them differed when each step was rounded as well.
        rounded = zip(values(one, "variables"), values(other, "variables"), strict=True)
        assert sum(np.sum(mine != expected) for mine, expected in rounded) <= 2
    for counter in ("_iterations", "iterations"):
        counts = [int(numpy(getattr(run.optimizer, counter))) for run in (one, other)]
        assert counts[0] == counts[1] > 0
    assert one.optimizer.skipped == other.optimizer.skipped
    if "skipping" in names:
        assert one.optimizer.skipped > 0


@pytest.mark.parametrize(
    ("pair", "mode"), PAIRED, ids=[f"{options.name(pair)}-{mode}" for pair, mode in PAIRED]
)
def test_every_pair_of_options(pair, mode):
    check_sparse_is_dense(pair, mode)


@pytest.mark.parametrize("mode", ROWED)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: options.name(row[: len(ALTERNATIVES)]))
def test_many_options_at_once(row, mode):
    check_sparse_is_dense(row, mode)


@pytest.mark.parametrize("option", sorted(set(OPTIONS) - {"float32", "one call per update"}))
def test_every_option_does_something(option):
    """Otherwise the tests above would compare runs in which the option has no effect."""
    on = trained((option,), "eager", as_dense)
    compared, names, optimizer_names = "variables", (), None
    if option == "average":
        # The average does not affect the weights until training is finished.
        compared = "average"
    elif option in ("loss scale", "dynamic loss scale", "skipping"):
        # Such gradients are wrong for an optimizer without the option.
        names, optimizer_names = (option,), ()
    elif option == "exclusion":
        names = ("decoupled decay",)
    without = trained(names, "eager", as_dense, optimizer_names)
    assert not np.array_equal(values(on, compared)[0], values(without, "variables")[0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere a gradient of rows becomes dense")
def test_a_gradient_of_rows_writes_no_other_rows_of_a_variable():
    """Writing them would take the time of the whole table."""
    import tensorflow as tf

    variable = keras.Variable(np.ones((5, 2)), dtype="float32")
    optimizer = adadelta.Adadelta()
    optimizer.build([variable])

    @tf.function
    def step(values, rows):
        gradient = tf.IndexedSlices(values, rows, tf.constant([5, 2]))
        optimizer.apply([gradient], [variable])

    graph = step.get_concrete_function(tf.ones((3, 2)), tf.constant([0, 2, 4])).graph
    captured = {id(outside): inside for outside, inside in graph.captures}
    for written in (variable, *optimizer.variables[2:]):
        handle = captured[id(written.value.handle)]
        users = {
            operation.type
            for operation in graph.get_operations()
            if any(value is handle for value in operation.inputs)
        }
        assert users == {"ResourceGather", "ResourceScatterUpdate"}
