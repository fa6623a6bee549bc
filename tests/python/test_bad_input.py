"""Whatever is passed, a call either works or raises a plain error before anything changes."""

import contextlib
import copy
import fractions
import math
import warnings

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adadelta
import driver
from adadelta._core import hyperparameters

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 5),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.fractions(),
    st.decimals(),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [
            10**400,
            -(10**400),
            fractions.Fraction(1, 3),
            np.float32(0.5),
            np.float64(math.nan),
            np.int64(3),
            np.bool_(True),
            np.array(2.0),
            np.array([1.0]),
            np.array("a"),
            np.datetime64("2020-01-01"),
            object(),
            int,
            keras.optimizers.SGD,
            len,
            lambda: 0.1,
            lambda step: 0.1,
            Ellipsis,
            range(3),
            float("inf"),
        ]
    ),
)
# Hypothesis also draws during calls of Keras, the first of which are slow.
RELAXED = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # NumPy 2 warns of this in Keras' own variables.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield


@pytest.mark.parametrize("argument", hyperparameters.ARGUMENTS)
@RELAXED
@given(value=ANYTHING)
def test_constructor(argument, value):
    try:
        optimizer = adadelta.Adadelta(**{argument: value})
    except (TypeError, ValueError) as error:
        text = str(error)
        assert f"`{argument}` must be" in text and "received" in text and "\n" not in text
    else:
        if argument != "learning_rate":
            config = optimizer.get_config()
            assert adadelta.Adadelta.from_config(config).get_config() == config


@pytest.mark.parametrize("argument", [name for name in hyperparameters.ARGUMENTS if name != "name"])
@RELAXED
@given(value=ANYTHING)
def test_assignment(argument, value):
    optimizer = adadelta.Adadelta(learning_rate=0.25)
    before = optimizer.get_config()
    try:
        setattr(optimizer, argument, value)
    except (TypeError, ValueError) as error:
        assert f"`{argument}` must be" in str(error)
        assert optimizer.get_config() == before


@RELAXED
@given(name=st.text(max_size=12).filter(lambda it: it not in (*hyperparameters.ARGUMENTS, "self")))
def test_unknown_arguments(name):
    with pytest.raises(TypeError, match="is not an argument of Adadelta"):
        adadelta.Adadelta(**{name: 1})


def state_of(optimizer, variables):
    return [driver.numpy(v).copy() for v in [*variables, *optimizer.variables]]


def unchanged(before, after):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


BAD_GRADIENTS = {
    "too few": [np.ones(3, "float32")],
    "too many": [np.ones(3, "float32"), np.ones((2, 2), "float32"), np.ones(1, "float32")],
    "a scalar for a vector": [np.float32(1), np.ones((2, 2), "float32")],
    "another shape": [np.ones(3, "float32"), np.ones((3, 2), "float32")],
    "transposed into one dimension": [np.ones(3, "float32"), np.ones(4, "float32")],
    "all missing": [None, None],
    "a string": [np.ones(3, "float32"), "gradient"],
    "an object": [np.ones(3, "float32"), object()],
    "a dictionary": [np.ones(3, "float32"), {"a": 1}],
    "not a list": 3.0,
    "none at all": None,
}


def test_a_second_way_of_clipping_can_not_be_assigned():
    optimizer = adadelta.Adadelta(clipnorm=1.0)
    before = optimizer.get_config()
    with pytest.raises(ValueError, match="Only one of `clipnorm`"):
        optimizer.clipvalue = 0.5
    assert optimizer.get_config() == before
    optimizer.clipnorm = None
    optimizer.clipvalue = 0.5
    assert adadelta.Adadelta.from_config(optimizer.get_config()).clipvalue == 0.5


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "use_ema": True}])
@pytest.mark.parametrize("gradients", BAD_GRADIENTS.values(), ids=list(BAD_GRADIENTS))
def test_gradients(gradients, options):
    variables = [keras.Variable([1.0, 2.0, 3.0]), keras.Variable([[1.0, 2.0], [3.0, 4.0]])]
    optimizer = adadelta.Adadelta(learning_rate=1.0, **options)
    optimizer.apply([np.ones(3, "float32"), np.ones((2, 2), "float32")], variables)
    before = state_of(optimizer, variables)
    for given_variables in (variables, None):
        with pytest.raises((TypeError, ValueError)) as raised:
            optimizer.apply(copy.copy(gradients), given_variables)
        assert len(str(raised.value)) > 20
        assert unchanged(before, state_of(optimizer, variables))


def test_tensors_that_fit_no_more_are_refused_or_brought_to_the_dtype():
    variables = [keras.Variable([1.0, 2.0], dtype="float32") for _ in range(2)]
    optimizer = adadelta.Adadelta(learning_rate=1.0)
    optimizer.build(variables)
    good = keras.ops.ones(2)
    for _ in range(2):
        optimizer.apply([good], variables[:1])
        optimizer.apply([good, good], variables)
    before = state_of(optimizer, variables)
    with pytest.raises(ValueError, match="must have shape"):
        optimizer.apply([good, keras.ops.ones(3)], variables)
    with pytest.raises(ValueError, match="as many gradients as variables, which are 2"):
        optimizer.apply([good])
    assert unchanged(before, state_of(optimizer, variables))
    # JAX has no float64 by default, and TensorFlow mixes no dtypes.
    wide = keras.ops.ones(2, "float64") if driver.BACKEND == "torch" else np.ones(2)
    values = driver.numpy(variables[1])
    optimizer.apply([good, wide], variables)
    assert np.all(driver.numpy(variables[1]) < values)


def test_variables():
    x, y = keras.Variable([1.0]), keras.Variable([2.0])
    whole = keras.Variable([1, 2], dtype="int32", trainable=False)
    one = np.ones(1, "float32")
    optimizer = adadelta.Adadelta()
    with pytest.raises(ValueError, match="more than once"):
        optimizer.build([x, x])
    with pytest.raises(ValueError, match="floating dtype"):
        optimizer.build([x, whole])
    assert not optimizer.built
    optimizer.build([x])
    with pytest.raises(ValueError, match="other variables"):
        optimizer.build([y])
    with pytest.raises(ValueError, match=f"Unknown variable: {y.path}. This optimizer belongs to"):
        optimizer.apply([one], [y])
    with pytest.raises(ValueError, match="more than once"):
        optimizer.apply([one, one], [x, x])
    assert float(x.numpy()[0]) == 1.0 and float(y.numpy()[0]) == 2.0


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [1],
        "abc",
        None,
        [np.ones(5)] * 4,
        # All but the last value would fit.
        [7, 0.5, np.ones(2)],
        [7, 0.5, np.ones(2), np.ones(5)],
    ],
)
def test_set_weights(weights):
    x = keras.Variable([1.0, 2.0])
    optimizer = adadelta.Adadelta()
    optimizer.build([x])
    before = state_of(optimizer, [x])
    message = "must be a list of 4 arrays" if len(weights or "") in (1, 3) else None
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.set_weights(weights)
    assert unchanged(before, state_of(optimizer, [x]))


@pytest.mark.parametrize("names", ["", [1], [None], [""], 3, {"bias": 1}])
def test_exclude_from_weight_decay(names):
    optimizer = adadelta.Adadelta(weight_decay=0.1)
    with pytest.raises(TypeError, match="`var_names` must be"):
        optimizer.exclude_from_weight_decay(var_names=names)


@pytest.mark.parametrize("variables", ["bias", [3], [None], 3, keras.Variable([1.0])])
def test_exclude_what_are_no_variables(variables):
    optimizer = adadelta.Adadelta(weight_decay=0.1)
    with pytest.raises(TypeError, match="`var_list` must be a list of variables, or None"):
        optimizer.exclude_from_weight_decay(var_list=variables)


@RELAXED
@given(gradient=ANYTHING)
def test_a_gradient_of_any_type(gradient):
    x, y = keras.Variable([1.0]), keras.Variable(2.0)
    optimizer = adadelta.Adadelta(learning_rate=1.0)
    optimizer.build([x, y])
    before = state_of(optimizer, [x, y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing gradient, a complex one made real
        try:
            optimizer.apply([np.ones(1, "float32"), gradient], [x, y])
        except (TypeError, ValueError):
            assert unchanged(before, state_of(optimizer, [x, y]))
        else:
            assert float(x.numpy()[0]) < 1.0


@pytest.mark.parametrize("name", ["export_state", "import_state", "save_state", "load_state"])
@RELAXED
@given(value=ANYTHING)
def test_state_functions_on_what_is_no_optimizer(name, value):
    more = [] if name == "export_state" else ["state.safetensors"]
    with pytest.raises(TypeError, match="`optimizer` must be an optimizer of this package"):
        getattr(adadelta, name)(value, *more)


@RELAXED
@given(value=ANYTHING)
def test_a_state_of_any_type(value):
    x = keras.Variable([1.0])
    optimizer = adadelta.Adadelta()
    optimizer.build([x])
    before = state_of(optimizer, [x])
    with pytest.raises(TypeError, match="`state` must be an OptimizerState"):
        adadelta.import_state(optimizer, value)
    assert unchanged(before, state_of(optimizer, [x]))


@pytest.mark.parametrize("name", ["save_state", "load_state"])
@RELAXED
@given(value=ANYTHING)
def test_a_path_of_any_type(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = keras.Variable([1.0])
    optimizer = adadelta.Adadelta()
    optimizer.build([x])
    before = state_of(optimizer, [x])
    with contextlib.suppress(TypeError, ValueError, OSError):
        getattr(adadelta, name)(optimizer, value)
    assert unchanged(before, state_of(optimizer, [x]))
