"""Training on JAX continues with a different number of devices, or in a different layout."""

import keras
import numpy as np
import pytest

import adadelta
import jax_layouts as layouts

OPTIONS = ("decoupled decay", "global_clipnorm", "skipping", "accumulation", "overwriting")
# The layouts of the first, second and third part of the calls. 10 calls end in the middle of an
# accumulation, so the sums of gradients have to be saved too.
WAYS = {
    "copies to fewer": (layouts.copies, lambda: layouts.copies(2), layouts.one),
    "copies to shards": (layouts.copies, layouts.shards, lambda: layouts.columns(4)),
    "one to many": (layouts.one, lambda: layouts.shards(2), layouts.columns),
}
PART = layouts.CALLS // 3


@pytest.fixture(scope="module")
def wanted():
    return layouts.trained(OPTIONS, layouts.one)


def part_of_data(number):
    rows = slice(number * PART * layouts.BATCH, (number + 1) * PART * layouts.BATCH)
    return [it[rows] for it in layouts.data(OPTIONS)]


def through_file(model, path, layout):
    path = path / f"{layout.__name__}.keras"
    model.save(path)
    with layout():
        return keras.models.load_model(path)


def through_state(model, path, layout):
    adadelta.save_state(model.optimizer, path / "state.safetensors")
    weights = model.get_weights()
    with layout():
        model = layouts.model_of(OPTIONS)
        model.set_weights(weights)
        model.optimizer.build(model.trainable_variables)
        adadelta.load_state(model.optimizer, path / "state.safetensors")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("carried", [through_file, through_state])
@pytest.mark.parametrize("way", WAYS)
def test_training_goes_on_as_on_one_device(way, carried, tmp_path, wanted):
    with WAYS[way][0]():
        model = layouts.fit_without_end(layouts.model_of(OPTIONS), *part_of_data(0))
    for number, layout in enumerate(WAYS[way][1:], start=1):
        model = carried(model, tmp_path, layout)
        layouts.assert_placed(model)
        with layout():
            model = layouts.fit_without_end(model, *part_of_data(number))
    model.optimizer.finalize_variable_values(model.trainable_variables)
    layouts.assert_same(model, wanted)
    layouts.assert_placed(model)


@pytest.mark.parametrize("carried", [through_file, through_state])
def test_state_lies_in_the_layout_that_reads_it(carried, tmp_path):
    with layouts.copies():
        model = layouts.model_of(OPTIONS)
        variables = model.trainable_variables
        model.optimizer.apply([np.ones(it.shape, "float32") for it in variables], variables)
    before = layouts.values(model)
    for layout in (layouts.shards, lambda: layouts.columns(4), layouts.one):
        model = carried(model, tmp_path, layout)
        layouts.assert_placed(model)
        for value, exact in zip(layouts.values(model).values(), before.values(), strict=True):
            np.testing.assert_array_equal(value, exact)
    assert len(model.trainable_variables[0].value.sharding.device_set) == 1
