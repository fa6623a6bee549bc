"""Finite gradients of any size and dtype, clipped by norm, give the correct finite step."""

import itertools

import keras
import numpy as np
import pytest
from conftest import floats
from extremes import EPSILON, WIDEST, check, clipped, first_step, gradients_of, samples

import adadelta
from driver import MODES, Driver, numpy

# The smallest is near the least that float32 can hold.
LIMITS = [
    ("one state", "global_clipnorm", 0.5),
    ("one state", "global_clipnorm", 1e-25),
    ("two states", "clipnorm", 0.5),
    ("two states", "global_clipnorm", 0.5),
    ("two states", "global_clipnorm", 2e-38),
]


class Trial:
    """Do first steps, all with the same optimizer, which is reset each time."""

    def __init__(self, dtypes, mode, **arguments):
        self.dtypes = dtypes
        self.variables = [keras.Variable(np.zeros(3), dtype=dtype) for dtype in dtypes]
        self.optimizer = adadelta.Adadelta(1.0, rho=0.0, epsilon=EPSILON, **arguments)
        self.optimizer.build(self.variables)
        self.run = Driver(self.optimizer, self.variables, mode)
        self.start = self.optimizer.get_weights()

    def steps(self, gradients, calls=1):
        for variable in self.variables:
            variable.assign(np.zeros(3))
        self.optimizer.set_weights(self.start)
        for _ in range(calls):
            self.run.call([keras.ops.convert_to_tensor(gradient) for gradient in gradients])
        return [-numpy(keras.ops.cast(it, "float64")) for it in self.variables]


@pytest.fixture
def float64():
    with floats("float64") as dtype:
        yield dtype


@pytest.mark.parametrize("mode", sorted({MODES[0], MODES[-1]}))
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("states", "option", "limit"), LIMITS)
def test_a_norm_of_any_finite_gradients_is_finite(states, option, limit, fused, mode, float64):
    dtypes = WIDEST[states]
    trial = Trial(dtypes, mode, skip_nonfinite=True, fused=fused, **{option: limit})
    for sizes in samples(dtypes):
        gradients = gradients_of(sizes, dtypes)
        found = trial.steps(gradients)
        assert trial.optimizer.skipped == 0, sizes
        exact = [first_step(it) for it in clipped(gradients, option, limit)]
        check(found, exact, dtypes, sizes)
    for place, value in itertools.product(range(len(dtypes)), (np.nan, np.inf)):
        gradients = gradients_of([1.0] * len(dtypes), dtypes)
        gradients[place][1] = value
        found = trial.steps(gradients)
        assert trial.optimizer.skipped == 1, (dtypes[place], value)
        assert not np.any(found)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("states", WIDEST)
def test_a_norm_of_accumulated_gradients_is_finite(states, fused, float64):
    dtypes = WIDEST[states]
    trial = Trial(
        dtypes,
        "eager",
        gradient_accumulation_steps=2,
        global_clipnorm=0.5,
        skip_nonfinite=True,
        fused=fused,
    )
    for sizes in samples(dtypes)[-9:]:
        # Reduced so that their sum is in the range of the state.
        gradients = [
            it / it.dtype.type(4) if np.max(it) > 1e30 else it for it in gradients_of(sizes, dtypes)
        ]
        found = trial.steps(gradients, calls=2)
        assert trial.optimizer.skipped == 0, sizes
        exact = [first_step(it) for it in clipped(gradients, "global_clipnorm", 0.5)]
        check(found, exact, dtypes, sizes)


@pytest.mark.parametrize("fused", [True, False])
def test_many_huge_gradients_have_a_finite_norm(fused, float64):
    # On TensorFlow a kernel's program covers 48 variables, so here three norms are combined.
    trial = Trial(["float32"] * 100, "eager", global_clipnorm=0.5, fused=fused)
    gradients = gradients_of([3e37] * 100, trial.dtypes)
    exact = [first_step(it) for it in clipped(gradients, "global_clipnorm", 0.5)]
    check(trial.steps(gradients), exact, trial.dtypes, "a hundred")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "shapes", [[(0, 3)], [(0,), (3, 0), (0, 3), (1, 0, 3), (), (1, 3)]], ids=str
)
def test_variables_may_be_empty(shapes, fused, mode):
    variables = [keras.Variable(np.ones(shape), dtype="float32") for shape in shapes]
    optimizer = adadelta.Adadelta(
        1.0,
        gradient_accumulation_steps=2,
        global_clipnorm=0.5,
        use_ema=True,
        loss_scale_factor="dynamic",
        weight_decay=0.1,
        fused=fused,
    )
    run = Driver(optimizer, variables, mode)
    for _ in range(4):
        run.call([np.ones(shape) for shape in shapes])
    assert int(numpy(optimizer.iterations)) == 2
    assert optimizer.skipped == 0
    for variable in variables:
        assert np.all(numpy(variable) < 1)
