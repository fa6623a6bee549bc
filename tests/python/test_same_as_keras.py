"""Except for its traps, `adadelta.Adadelta` gives the numbers of `keras.optimizers.Adadelta`."""

import keras
import numpy as np
import pytest

import adadelta
import driver

OPTIONS = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "clipnorm": {"clipnorm": 1.0},
    "clipvalue": {"clipvalue": 0.5},
    "global_clipnorm": {"global_clipnorm": 2.0},
    "average": {"use_ema": True, "ema_momentum": 0.9},
    "average overwrites": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    "loss scale": {"loss_scale_factor": 1024.0},
    "accumulation": {"gradient_accumulation_steps": 3},
    "accumulation and more": {
        "gradient_accumulation_steps": 4,
        "weight_decay": 0.01,
        "clipnorm": 1.0,
        "loss_scale_factor": 8.0,
    },
    "much": {"weight_decay": 0.01, "global_clipnorm": 2.0, "use_ema": True, "epsilon": 1e-5},
}
# Both round every operation to 6e-8, in a different order; over 120 steps the measured relative
# difference of their displacements was at most 4e-6.
TOLERANCE = 2e-5


def displacement(cls, mode, options):
    generator = np.random.default_rng(1)
    variables = [
        keras.Variable(generator.normal(size=shape).astype("float32"), name=f"v{number}")
        for number, shape in enumerate([(7,), (3, 4), (1,)])
    ]
    start = [driver.numpy(variable) for variable in variables]
    run = driver.Driver(cls(**{"learning_rate": 0.5, "epsilon": 1e-3, **options}), variables, mode)
    for _ in range(36 if driver.is_slow(mode) else 120):
        run.call([generator.normal(size=value.shape) * 3 for value in start])
    moved = [driver.numpy(v) - s for v, s in zip(variables, start, strict=True)]
    return np.concatenate([value.ravel() for value in moved])


@pytest.mark.parametrize("mode", driver.MODES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=[n.replace(" ", "-") for n in OPTIONS])
def test_same_numbers(options, mode):
    ours = displacement(adadelta.Adadelta, mode, options)
    theirs = displacement(keras.optimizers.Adadelta, mode, options)
    assert np.max(np.abs(theirs)) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.max(np.abs(theirs)), rtol=0)


def test_same_signature_and_defaults():
    import inspect

    theirs = inspect.signature(keras.optimizers.Adadelta).parameters
    ours = inspect.signature(adadelta.Adadelta).parameters
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert {name: theirs[name].default for name in positional} == {
        name: ours[name].default for name in positional
    }


def test_same_variables_in_the_same_order():
    def names(cls):
        optimizer = cls(use_ema=True)
        optimizer.build([keras.Variable([1.0], name="a"), keras.Variable([[1.0]], name="b")])
        return [(v.path.split("/")[-1], tuple(v.shape)) for v in optimizer.variables]

    assert names(adadelta.Adadelta) == names(keras.optimizers.Adadelta)
