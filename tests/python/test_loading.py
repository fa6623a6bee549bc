"""A model loads whatever optimizer state its file has: the whole state is used, or none of it."""

import contextlib
import os
import warnings

import keras
import numpy as np
import pytest

import adadelta
from adadelta.state import OptimizerState, StateFileError, StateMismatchError, StateWarning
from driver import numpy

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(16, 4)).astype("float32"), RNG.normal(size=(16, 1)).astype("float32")
LAYERS = keras.layers


@contextlib.contextmanager
def state_warnings():
    """Collect the texts of all `StateWarning`s."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(it.message) for it in caught if issubclass(it.category, StateWarning)]
    assert all(it.filename == __file__ for it in caught if it.category is StateWarning)


@contextlib.contextmanager
def one_warning(part, outcome="starts anew"):
    """Expect exactly one warning, with these words."""
    with state_warnings() as texts:
        yield
    (text,) = texts
    assert part in text and f"the optimizer {outcome}." in text, text
    assert len(text) <= 200, text


def network(optimizer, *frozen, **options):
    # Most tests here are about loading, and compiling takes a second each time.
    model = keras.Sequential(
        [LAYERS.Input((4,)), LAYERS.Dense(3, "tanh"), LAYERS.Dense(3, "tanh"), LAYERS.Dense(1)]
    )
    for index in frozen:
        model.layers[index].trainable = False
    model.compile(optimizer, "mse", **{"run_eagerly": True, **options})
    return model


def ours(*frozen, rate=1.0, run_eagerly=True, **options):
    return network(adadelta.Adadelta(rate, **options), *frozen, run_eagerly=run_eagerly)


def fit(model, **options):
    model.fit(X, Y, verbose=0, **{"batch_size": 8, **options})
    return model


def bits(variables):
    return [numpy(it).tobytes() for it in variables]


def is_at_its_start(optimizer, rate=1.0):
    state = adadelta.export_state(optimizer)
    averages = (
        it[slot] for it in state.parameters.values() for slot in ("square_avg", "acc_delta")
    )
    is_zero = not any(np.any(array) for array in averages)
    assert optimizer.get_config()["learning_rate"] == rate
    return is_zero and (state.step, state.update, state.skipped) == (0, 0, 0)


def goes_on(model):
    """Whether the model can be trained twice more, with finite averages."""
    before = int(numpy(model.optimizer.iterations))
    fit(fit(model))
    state = adadelta.export_state(model.optimizer)
    arrays = [array for it in state.parameters.values() for array in it.values()]
    return state.step == before + 4 and all(np.isfinite(array).all() for array in arrays)


# ------------------------------------------------------------------ other layers are trained


@pytest.mark.parametrize(
    ("before", "after"), [((), (0, 1, 2)), ((), (0,)), ((0,), ()), ((1,), (0,))]
)
def test_trainable_has_changed_between_the_last_fit_and_the_save(before, after, tmp_path):
    model = fit(ours(*before, run_eagerly=False))
    for index, layer in enumerate(model.layers):
        layer.trainable = index not in after
    model.save(tmp_path / "model.keras")
    with one_warning("dense"):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert bits(loaded.weights) == bits(model.weights)
    assert is_at_its_start(loaded.optimizer)
    if len(after) < len(model.layers):
        assert goes_on(loaded)


def test_a_run_is_taken_up_with_other_layers_trained(tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)

    frozen = fit(ours(0), callbacks=[backup()], epochs=2)
    whole = ours()
    with one_warning("missing:"):
        history = whole.fit(X, Y, 8, 3, verbose=0, callbacks=[backup()]).history
    assert len(history["loss"]) == 1 and int(numpy(whole.optimizer.iterations)) == 2
    assert bits(whole.layers[0].weights) != bits(frozen.layers[0].weights)
    with state_warnings() as texts:
        fit(whole, callbacks=[backup()], epochs=4)
    assert not texts and int(numpy(whole.optimizer.iterations)) == 4


@pytest.mark.parametrize("is_built", [True, False])
def test_a_checkpoint_from_before_unfreezing(is_built, tmp_path):
    path = tmp_path / "best.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    frozen = fit(ours(0, rate=0.5), callbacks=[checkpoint])
    whole = ours()
    if is_built:
        fit(whole)
        with one_warning("missing:"):
            whole.load_weights(path, skip_mismatch=True)
    else:
        with one_warning("missing:"):
            whole.load_weights(path)
            assert bits(whole.weights) == bits(frozen.weights)
            whole.optimizer.build(whole.trainable_variables)
    assert bits(whole.weights) == bits(frozen.weights)
    assert is_at_its_start(whole.optimizer) and goes_on(whole)


OPTIONS = {
    "average": {"use_ema": True},
    "window": {"gradient_accumulation_steps": 2},
    "loss scale": {"loss_scale_factor": "dynamic"},
}


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_on_and_off(name, is_built, tmp_path):
    for there, here in (({}, OPTIONS[name]), (OPTIONS[name], {})):
        saved = fit(ours(rate=0.5, **there))
        saved.save_weights(tmp_path / "model.weights.h5")
        model = ours(**here, run_eagerly=is_built)
        with one_warning(""):
            if is_built:
                fit(model)
                model.load_weights(tmp_path / "model.weights.h5")
            else:
                model.load_weights(tmp_path / "model.weights.h5")
                assert bits(model.weights) == bits(saved.weights)
                fit(model, batch_size=16)
        if is_built:
            assert is_at_its_start(model.optimizer) and bits(model.weights) == bits(saved.weights)
        assert model.optimizer.get_config()["learning_rate"] == 1.0
        with state_warnings() as texts:
            fit(model)
        assert not texts and adadelta.export_state(model.optimizer).step == 3 - 1 * is_built


# ------------------------------------------------------------------ files of other optimizers

THEIRS = {
    "Adam": lambda: keras.optimizers.Adam(),
    "SGD": lambda: keras.optimizers.SGD(momentum=0.5),
    "RMSprop": lambda: keras.optimizers.RMSprop(centered=True),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.5),
    "Adadelta with an average": lambda: keras.optimizers.Adadelta(0.5, use_ema=True),
    "Adam called adadelta": lambda: keras.optimizers.Adam(name="adadelta"),
}


@pytest.mark.parametrize("name", THEIRS)
def test_numbered_arrays_of_another_optimizer_change_nothing(name, tmp_path):
    path = tmp_path / "model.weights.h5"
    only_compiled, theirs = network(THEIRS[name]()), fit(network(THEIRS[name]()))
    for variable in theirs.optimizer.variables[2:]:
        # Made positive, like averages of squares, which Adam's first moments could be.
        variable.assign(keras.ops.abs(variable))
    trained, not_yet = fit(ours(rate=0.75)), ours(rate=0.75, run_eagerly=name != "Adam")
    before = bits(trained.optimizer.variables)
    for model in (only_compiled, theirs):
        model.save_weights(path)
        for mine in (trained, not_yet):
            for skip_mismatch in (False, True):
                with one_warning("optimizer", "stays as it was"):
                    mine.load_weights(path, skip_mismatch=skip_mismatch)
            assert bits(mine.weights) == bits(model.weights)
        assert bits(trained.optimizer.variables) == before
    with state_warnings() as texts:
        assert goes_on(trained) and goes_on(not_yet)
    assert not texts and not_yet.optimizer.get_config()["learning_rate"] == 0.75


def test_the_warning_says_what_the_file_says(tmp_path):
    for make, part, outcome in (
        (keras.optimizers.Adam, "keras.optimizers.Adam has written it", "stays as it was"),
        (adadelta.Adadelta, "missing:", "starts anew"),
    ):
        fit(network(make(), 0)).save(tmp_path / "model.keras")
        model = fit(ours())
        with one_warning(part, outcome):
            model.load_weights(tmp_path / "model.keras")
    fit(network(keras.optimizers.Adam())).save_weights(tmp_path / "model.weights.h5")
    with one_warning('an optimizer called "adam', "stays as it was"):
        model.load_weights(tmp_path / "model.weights.h5")
    fit(network(keras.optimizers.Adadelta())).save_weights(tmp_path / "model.weights.h5")
    with one_warning("adadelta.load_keras_adadelta(model, path)", "stays as it was"):
        model.load_weights(tmp_path / "model.weights.h5")


def test_each_model_is_warned_about(tmp_path):
    fit(network(keras.optimizers.Adam())).save_weights(tmp_path / "model.weights.h5")
    model = ours()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            model.load_weights(tmp_path / "model.weights.h5")
    assert [it.category for it in caught] == [StateWarning] * 2


# ------------------------------------------------------------------ in Keras' LossScaleOptimizer


def scaled(optimizer, *frozen):
    return network(keras.optimizers.LossScaleOptimizer(optimizer), *frozen)


def test_in_a_loss_scale_optimizer(tmp_path):
    path = tmp_path / "model.weights.h5"
    saved = fit(scaled(adadelta.Adadelta(0.5)))
    saved.save_weights(path)
    model = scaled(adadelta.Adadelta(1.0))
    model.optimizer.build(model.trainable_variables)
    with state_warnings() as texts:
        model.load_weights(path)
    assert not texts and bits(model.optimizer.variables) == bits(saved.optimizer.variables)
    # A state with or without an EMA does not fit; Keras itself reports other variables.
    fit(scaled(adadelta.Adadelta(0.5, use_ema=True))).save_weights(path)
    with one_warning("use_ema"):
        model.load_weights(path)
    assert int(numpy(model.optimizer.iterations)) == 0
    fit(model)


@pytest.mark.parametrize("is_trained", [True, False])
def test_of_adam_in_a_loss_scale_optimizer(is_trained, tmp_path):
    # Keras assigns as many arrays as there are variables, by position, even to our optimizer.
    theirs = scaled(keras.optimizers.Adam(0.25))
    model = scaled(adadelta.Adadelta(0.5))
    if is_trained:
        fit(theirs), fit(model)
    theirs.save_weights(tmp_path / "model.weights.h5")
    with one_warning("adam"):
        model.load_weights(tmp_path / "model.weights.h5")
    if not is_trained:
        model.optimizer.build(model.trainable_variables)
    assert is_at_its_start(model.optimizer.inner_optimizer, 0.5)
    fit(model)


def test_of_keras_adadelta_in_a_loss_scale_optimizer(tmp_path):
    theirs = fit(scaled(keras.optimizers.Adadelta(0.5)))
    theirs.save(tmp_path / "model.keras")
    expected = bits(theirs.optimizer.inner_optimizer.variables)
    for make in (scaled, network):
        model = make(adadelta.Adadelta(1.0))
        model.optimizer.build(model.trainable_variables)
        with state_warnings() as texts:
            model.load_weights(tmp_path / "model.keras")
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        assert bool(texts) == (make is network)
        other = make(adadelta.Adadelta(1.0))
        adadelta.load_keras_adadelta(other, tmp_path / "model.keras")
        for it in [inner] * (make is scaled) + [
            getattr(other.optimizer, "inner_optimizer", other.optimizer)
        ]:
            assert bits(it.variables) == expected
        if make is scaled:
            assert bits(other.optimizer.variables) == bits(theirs.optimizer.variables)


# ------------------------------------------------------------------ asked for by name


def test_keras_adadelta_by_name(tmp_path):
    theirs = fit(network(keras.optimizers.Adadelta(0.5)))
    theirs.save_weights(tmp_path / "model.weights.h5")
    theirs.save(tmp_path / "model.keras")
    for path in ("model.weights.h5", "model.keras"):
        for target in (ours(), fit(ours()).optimizer):
            adadelta.load_keras_adadelta(target, tmp_path / path)
            optimizer = getattr(target, "optimizer", target)
            assert bits(optimizer.variables) == bits(theirs.optimizer.variables)


def test_ours_by_name(tmp_path):
    model, other = fit(ours(rate=0.5)), ours()
    model.save_weights(tmp_path / "model.weights.h5")
    adadelta.load_keras_adadelta(other, str(tmp_path / "model.weights.h5"))
    assert bits(other.optimizer.variables) == bits(model.optimizer.variables)
    assert other.optimizer.get_config()["learning_rate"] == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(keras.optimizers.Adam()), "Adam|adam"),
        (lambda: network(keras.optimizers.SGD(name="a")), "missing:|has written it"),
        (lambda: network(keras.optimizers.Adadelta(), 0), "arrays without names"),
        (lambda: ours(0), "missing: sequential"),
        (lambda: ours(use_ema=True), "it has average"),
    ],
)
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_by_name_all_or_an_error(make, message, ending, tmp_path):
    path, theirs, model = tmp_path / f"model{ending}", fit(make()), fit(ours())
    theirs.save(path) if ending == ".keras" else theirs.save_weights(path)
    before = bits(model.optimizer.variables)
    with pytest.raises(StateMismatchError, match=message):
        adadelta.load_keras_adadelta(model, path)
    assert bits(model.optimizer.variables) == before


def test_files_that_have_no_state(tmp_path):
    model = fit(ours())
    network(None).save_weights(tmp_path / "none.weights.h5")
    fit(ours()).save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.weights.h5").write_text("text")
    adadelta.save_state(model.optimizer, tmp_path / "state.safetensors")
    before = bits(model.optimizer.variables)
    for name in ("none.weights.h5", "half.keras", "text.weights.h5", "state.safetensors"):
        with pytest.raises(StateFileError, match=name):
            adadelta.load_keras_adadelta(model, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        adadelta.load_keras_adadelta(model, tmp_path / "nowhere.keras")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo.keras")
        with pytest.raises(StateFileError, match="not a regular file"):
            adadelta.load_keras_adadelta(model, tmp_path / "fifo.keras")
    assert bits(model.optimizer.variables) == before
    with pytest.raises(StateMismatchError, match=r"optimizer\.build\("):
        adadelta.load_keras_adadelta(adadelta.Adadelta(), tmp_path / "whole.keras")
    for target in (network("adam"), network(None), 3, None):
        with pytest.raises(TypeError, match=r"`optimizer` must be an adadelta\.Adadelta"):
            adadelta.load_keras_adadelta(target, tmp_path / "whole.keras")


def test_damaged_files_are_refused_or_have_a_state_that_fits(tmp_path):
    model = fit(ours())
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    rng = np.random.default_rng(0)
    for name in ("model.keras", "model.weights.h5"):
        whole = (tmp_path / name).read_bytes()
        for run in range(60):
            damaged = bytearray(whole if run % 3 else whole[: rng.integers(len(whole))])
            for place in rng.integers(max(len(damaged), 1), size=20 if damaged else 0):
                damaged[place] ^= 1 << rng.integers(8)
            (tmp_path / f"damaged_{name}").write_bytes(damaged)
            before = bits(model.optimizer.variables)
            try:
                adadelta.load_keras_adadelta(model, tmp_path / f"damaged_{name}")
            except (StateFileError, StateMismatchError):
                assert bits(model.optimizer.variables) == before


# ------------------------------------------------------------------ the same model, other numbers


@keras.saving.register_keras_serializable("test_loading")
class Block(LAYERS.Layer):
    """Two inner layers, which Keras numbers by itself."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first, self.second = LAYERS.Dense(units, "tanh"), LAYERS.Dense(units)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, self.units))
        self.built = True

    def call(self, x):
        return self.second(self.first(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("test_loading")
class Residual(LAYERS.Layer):
    """One inner layer that the file names, and one that it does not name."""

    def __init__(self, layer, **options):
        super().__init__(**options)
        self.layer, self.projection = layer, LAYERS.Dense(layer.units)

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)
        self.projection.build(shape)
        self.built = True

    def call(self, x):
        return self.layer(x) + self.projection(x)

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        config["layer"] = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**config)


@keras.saving.register_keras_serializable("test_loading")
class Subclassed(keras.Model):
    """A model that consists of a layer, a block and a model."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first, self.block = LAYERS.Dense(units), Block(units)
        self.last = keras.Sequential([Block(units), LAYERS.Dense(1)])

    def call(self, x):
        return self.last(self.block(self.first(x)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def sequential():
    return keras.Sequential([LAYERS.Input((4,)), LAYERS.Dense(4), Block(4), LAYERS.Dense(1)])


def not_built_at_first():
    model = keras.Sequential([LAYERS.Dense(4), Block(4), Block(4), LAYERS.Dense(1)])
    model(X)
    return model


def functional():
    x = inputs = LAYERS.Input((4,))
    shared, block = LAYERS.Dense(4), Block(4)
    for layer in (shared, block, block, Block(4), shared, Residual(LAYERS.Dense(4))):
        x = layer(x)
    return keras.Model(inputs, LAYERS.Dense(1)(x))


def nested():
    inputs = LAYERS.Input((4,))
    first = keras.Sequential([LAYERS.Dense(4, name="hidden"), LAYERS.Dense(4)])
    second = keras.Sequential([LAYERS.Input((4,)), LAYERS.Dense(4, name="hidden"), Block(4)])
    return keras.Model(inputs, functional()(second(first(inputs))))


def subclassed():
    model = Subclassed(4)
    model(X)
    return model


def over_time():
    x = inputs = LAYERS.Input((5, 4))
    x = LAYERS.Bidirectional(LAYERS.LSTM(2, return_sequences=True))(x)
    x = LAYERS.TimeDistributed(Block(4))(x)
    x = LAYERS.MultiHeadAttention(2, 2)(x, x)
    x = LAYERS.RNN([LAYERS.LSTMCell(2), LAYERS.GRUCell(2)])(x)
    return keras.Model(inputs, LAYERS.Dense(1)(x))


def fill(model, **options):
    """Compile the model, with a state in which all numbers are different."""
    optimizer = adadelta.Adadelta(0.5, **options)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    state = adadelta.export_state(optimizer)
    rng = np.random.default_rng(1)
    state.step = state.update = 7
    for slots in state.parameters.values():
        for slot, array in slots.items():
            slots[slot] = rng.random(array.shape).astype(array.dtype)
    adadelta.import_state(optimizer, state)
    return model


MODELS = [sequential, not_built_at_first, functional, nested, subclassed, over_time]


@pytest.mark.parametrize("make", MODELS)
def test_the_state_is_that_of_the_same_place_in_the_model(make, tmp_path):
    LAYERS.Dense(1), Block(1)  # so that no number is the first one
    model, path = fill(make()), tmp_path / "model.keras"
    expected = bits(model.optimizer.variables)
    model.save(path)

    def same(other):
        assert bits(other.weights) == bits(model.weights)
        assert bits(other.optimizer.variables) == expected
        return other

    with state_warnings() as texts:
        first = same(keras.saving.load_model(path))
        keras.utils.clear_session()
        second = same(keras.saving.load_model(path))
        second.save(tmp_path / "second.keras")
        same(keras.saving.load_model(tmp_path / "second.keras"))
        made = make() if make is subclassed else keras.models.clone_model(first)
        made.compile(adadelta.Adadelta(1.0), "mse")
        made.load_weights(path)
        made.optimizer.build(made.trainable_variables)
        same(made)
        again = make()
        again.compile(adadelta.Adadelta(1.0), "mse")
        again.optimizer.build(again.trainable_variables)
        again.load_weights(tmp_path / "second.keras")
        same(again)
    assert not texts


def test_training_goes_on_with_blocks(tmp_path):
    model = functional()
    model.compile(adadelta.Adadelta(1.0), "mse")
    fit(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(model, shuffle=False), fit(loaded, shuffle=False)
    assert bits(loaded.weights) == bits(model.weights)


def test_other_names_and_other_structures_are_not_the_same(tmp_path):
    def make(*names, units=4):
        layers = [LAYERS.Dense(units, name=name) for name in names]
        return keras.Sequential([LAYERS.Input((4,)), *layers, LAYERS.Dense(1, name="last")])

    path = tmp_path / "model.weights.h5"
    fill(make("hidden", "middle")).save_weights(path)
    for names in (("hidden", "other"), ("middle", "hidden")):
        model = fill(make(*names))
        before = adadelta.export_state(model.optimizer)
        if names[1] == "other":
            with one_warning("missing: sequential"):
                model.load_weights(path)
            assert is_at_its_start(model.optimizer, 0.5)
        else:
            model.load_weights(path)
            after = adadelta.export_state(model.optimizer)
            assert list(after.parameters) == list(before.parameters) and after != before
    wide = fill(make("hidden", "middle", units=4))
    wide.save_weights(path)
    fewer = fill(make("hidden"))
    with one_warning("and 3 more; 1 more problem"), contextlib.suppress(ValueError):
        fewer.load_weights(path, skip_mismatch=True)


def test_layers_without_decay_stay_those(tmp_path):
    model = functional()
    optimizer = adadelta.Adadelta(1.0, weight_decay=0.5)
    model.compile(optimizer, "mse")
    without = [it for it in model.trainable_variables if it.path.endswith("bias")][1::2]
    optimizer.exclude_from_weight_decay(var_list=without)
    optimizer.build(model.trainable_variables)
    decayed = [optimizer._use_weight_decay(it) for it in model.trainable_variables]
    optimizer.iterations.assign(1)
    path = tmp_path / "model.keras"
    for _ in range(3):
        model.save(path)
        model = keras.saving.load_model(path)
        variables = model.trainable_variables
        assert [model.optimizer._use_weight_decay(it) for it in variables] == decayed
    for variable in variables:
        variable.assign(keras.ops.ones(variable.shape))
    model.optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    shrunk = [bool(keras.ops.all(variable < 0.6)) for variable in variables]
    assert shrunk == decayed


def test_a_state_of_equal_names_is_taken_by_name():
    def made(*names):
        optimizer = adadelta.Adadelta(1.0)
        optimizer.build([keras.Variable(np.ones(2, "float32"), name=name) for name in names])
        return optimizer

    state = OptimizerState(
        parameters={
            name: {slot: np.full(2, i, "float32") for slot in ("square_avg", "acc_delta")}
            for i, name in enumerate(("block_1", "block_2"))
        }
    )
    optimizer = made("block_2", "block_1")
    adadelta.import_state(optimizer, state)
    assert [float(numpy(it)[0]) for it in optimizer._accumulated_grads] == [1, 0]
