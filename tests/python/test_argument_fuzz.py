"""Random arguments of the Keras class, of the functions without a framework, and of the command."""

import contextlib
import functools
import io
import math
import random

import keras
import numpy as np
import pytest

import adadelta
from adadelta.__main__ import main
from adadelta._core import conventions
from argument_sets import (
    COUNT,
    DECAY,
    EPSILON,
    FLAG,
    LIMIT,
    NAME,
    NUMBERS,
    OTHERS,
    PROBABILITY,
    RATE,
    RHO,
    SEED,
    SHARES,
    TOTAL,
    Argument,
    Candidate,
    Way,
    failures,
    is_beyond,
    set_each,
    whole,
)

CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
SCALE = Argument(
    (None, 8.0, "dynamic"),
    lambda it: 0 < it < 2**1024 and it != math.inf,
    optional=True,
    words=("dynamic",),
)
KERAS = {
    "learning_rate": Argument(RATE.values, RATE.accepts, functions=True),
    "rho": RHO,
    "epsilon": EPSILON,
    "weight_decay": DECAY,
    **dict.fromkeys(CLIPS, LIMIT),
    "use_ema": FLAG,
    "ema_momentum": PROBABILITY,
    "ema_overwrite_frequency": COUNT,
    "loss_scale_factor": SCALE,
    "gradient_accumulation_steps": COUNT,
    "name": NAME,
    "maximize": FLAG,
    "decoupled_weight_decay": FLAG,
    "skip_nonfinite": FLAG,
    "fused": Argument((None, True, False), flag=True, optional=True),
}


def config_of(optimizer):
    config = optimizer.get_config()
    # Keras makes a name where there is none, and one step of accumulation is none.
    return {it: value for it, value in config.items() if it not in ("name", "learning_rate")} | {
        "learning_rate": float(optimizer.learning_rate)
    }


def constructed(values):
    kept = config_of(adadelta.Adadelta(**values))
    kept.pop("gradient_accumulation_steps")
    # In float32, as Keras has it.
    kept.pop("learning_rate")
    return kept


def set_later(values):
    optimizer = adadelta.Adadelta()
    kept = set_each(optimizer, values, lambda: config_of(optimizer))
    return {name: value for name, value in kept.items() if name != "learning_rate"}


def used(values):
    variable = keras.Variable(np.ones(2), dtype="float32", name="x")
    optimizer = adadelta.Adadelta(**values)
    try:
        optimizer.apply([keras.ops.ones(2)], [variable])
    except ValueError:
        assert keras.ops.convert_to_numpy(variable).tolist() == [1.0, 1.0]
        raise
    after = keras.ops.convert_to_numpy(variable)
    assert not np.isnan(after).any(), after
    return {}


SMALL = ("epsilon", *CLIPS, "loss_scale_factor")
beyond_float32 = functools.partial(is_beyond, names=SMALL, dtype="float32")


def test_keras():
    names = ("use_ema", "gradient_accumulation_steps", "fused", "name")
    steps = {name: it for name, it in KERAS.items() if name not in names}
    extra = [
        Candidate("tensor", lambda: keras.ops.ones(3)),
        Candidate("variable", lambda: keras.Variable(np.ones(3))),
        Candidate("KerasTensor", lambda: keras.KerasTensor(())),
        *backend_candidates(),
    ]
    ways = [
        Way("Adadelta", KERAS, constructed, exclusive=CLIPS),
        Way("set", {it: KERAS[it] for it in KERAS if it != "name"}, set_later, exclusive=CLIPS),
        Way("step", steps, used, exclusive=CLIPS, may_refuse=beyond_float32),
    ]
    assert not failures("keras", ways, extra)


def backend_candidates():
    if keras.config.backend() == "jax":
        import jax

        return [Candidate("key", lambda: jax.random.key(0))]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        def symbolic():
            with tf.Graph().as_default():
                return tf.constant(0.5)

        return [
            Candidate("symbolic tensor", symbolic),
            Candidate("text tensor", lambda: tf.constant("0.5")),
            Candidate("tf.Variable of two", lambda: tf.Variable([0.5, 0.5])),
            Candidate("ragged tensor", lambda: tf.ragged.constant([[0.5], []])),
            Candidate("sparse tensor", lambda: tf.sparse.from_dense([0.5, 0.0])),
        ]
    import torch

    return [
        Candidate("meta tensor", lambda: torch.tensor(0.5, device="meta")),
        Candidate("sparse tensor", lambda: torch.tensor([0.5, 0.5]).to_sparse()),
        Candidate("uninitialized", torch.nn.UninitializedParameter),
        Candidate("complex tensor", lambda: torch.tensor(1j)),
    ]


def summarized(values):
    one = np.ones(3, "float32")
    state = adadelta.OptimizerState(
        parameters={"x": {"square_avg": one, "acc_delta": one}},
        hyperparameters={"learning_rate": 1.0, "epsilon": 1e-7},
    )
    state.summary(**values)
    return {}


def counted(values):
    state = adadelta.OptimizerState(**values)
    return {name: getattr(state, name) for name in values}


def monitored(values):
    monitor = adadelta.Monitor(**values)
    return {name: getattr(monitor, name) for name in values}


def translated(source, target):
    def act(values):
        found = adadelta.translate(source, target, **values)
        if values.get("epsilon", 0) is None:
            found.pop("epsilon", None)  # the number that None stands for
        ours = conventions.CONVENTIONS[source].names
        theirs = conventions.CONVENTIONS[target].names
        shared = {theirs[it]: ours[it] for it in ours if it in theirs}
        return {
            shared[name]: value
            for name, value in found.items()
            if name in shared and shared[name] != ours.get("weight_decay")
        }

    names = conventions.CONVENTIONS[source].names
    fixed = {**KERAS, "learning_rate": RATE}
    arguments = {theirs: fixed[own] for own, theirs in names.items()}
    if source == "tf1":
        arguments["epsilon"] = Argument((None, 1e-7), EPSILON.accepts, optional=True)
    return Way(
        f"{source} to {target}",
        arguments,
        act,
        exclusive=CLIPS,
        may_refuse=lambda given: True,
    )


def test_core():
    summary = {
        "learning_rate": Argument((1.0, None), RATE.accepts, optional=True),
        "epsilon": Argument((1e-7, None), EPSILON.accepts, optional=True),
    }
    counter = Argument((0, 3), lambda it: isinstance(it, int) and it >= 0)
    every = Argument((1, 10), lambda it: whole(1, math.inf, it))
    frameworks = [it for it in conventions.CONVENTIONS if it != "paper"]
    ways = [
        Way("summary", summary, summarized),
        Way("OptimizerState", dict.fromkeys(("step", "update", "skipped"), counter), counted),
        Way("Monitor", {"every": every, "sample": every}, monitored),
        *(translated(a, b) for a in frameworks for b in frameworks if a != b),
    ]
    assert not failures("core", ways)


TEXTS = [
    *("", "0.1", "1e400", "-1", "nan", "None", "True", "'a'", "[1]", "{[]: 1}", "lambda: 1"),
    *("9" * 5000, "0x" + "f" * 5000, "(" * 1000, "[" * 300 + "]" * 300, "1" * 100_000, "1_0", "1j"),
    *("-" * 500 + "1", "\udcff", "\x00", "a=b", "=", "b'1'", "{1, 2}", "1,2", "...", "'" * 3, "\n"),
]
NAMES = [
    "lr",
    "rho",
    "eps",
    "weight_decay",
    "from_",
    "to",
    "decay",
    "foreach",
    "x" * 5000,
    "",
    "-r",
]


def test_command(tmp_path, capsys):
    """The command ends with 0, with 1 and one line, or with 2 and how it is to be called."""
    path = str(tmp_path / "state.safetensors")
    one = np.ones((2, 3), "float32")
    slots = {"square_avg": one, "acc_delta": one}
    adadelta.state.write_state(adadelta.OptimizerState(parameters={"x": slots}), path)
    for index in range(max(1, round(TOTAL * SHARES["command"]))):
        rng = random.Random(f"{SEED} command {index}")
        names = rng.choice((NAMES, ["keras", "torch", "optax", "tf1"]))
        pairs = [f"{rng.choice(NAMES)}={rng.choice(TEXTS)}" for _ in range(rng.choice((1, 2)))]
        frameworks = [rng.choice(["torch", "keras", "tf1", *names]) for _ in range(2)]
        option = rng.choice(("--rename", "--transpose"))
        words = rng.choice(
            [
                ["translate", *frameworks, *pairs],
                ["translate", *frameworks, *pairs],
                ["state", "show", rng.choice((path, str(tmp_path), "", "x" * 5000, "a\x00b"))],
                ["state", "convert", path, path + "2", option, rng.choice(pairs)],
                ["state", "convert", path, path + "2", option, f"x={rng.choice(TEXTS)}"],
            ]
        )
        error = io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code
        shown = [word[:60] for word in words]
        text = error.getvalue()
        assert status in (0, 1, 2), shown
        assert bool(text) == bool(status), shown
        if status:
            assert text.strip().splitlines()[-1].startswith("adadelta"), shown
        if status == 1 and words[0] == "translate":
            assert len(text.splitlines()) == 1 and len(text) <= 220, (shown, text)


class Interrupting:
    @property
    def shape(self):
        raise KeyboardInterrupt

    __class__ = __float__ = __repr__ = shape


@pytest.mark.parametrize("argument", ["rho", "learning_rate", "maximize", "name"])
def test_an_interrupt_while_an_argument_is_read_is_no_refusal(argument):
    with pytest.raises(KeyboardInterrupt):
        adadelta.Adadelta(**{argument: Interrupting()})


@pytest.mark.parametrize("argument", ["learning_rate", "rho", "epsilon", "weight_decay", "name"])
@pytest.mark.parametrize("label", ["all is broken", "broken class", "masked", "timedelta64"])
def test_a_broken_object_is_refused_by_name(label, argument):
    with pytest.raises(TypeError, match=f"`{argument}` must be") as error:
        adadelta.Adadelta(**{argument: OTHERS[label]()})
    assert len(str(error.value)) <= 200


def test_integers_that_python_does_not_write_are_described():
    huge = next(it for it in NUMBERS if it.label == "10**5000")
    with pytest.raises(ValueError, match="received an integer of about 5001 digits"):
        adadelta.Adadelta(rho=huge.make())


def test_unknown_arguments_are_refused_in_a_few_words():
    with pytest.raises(TypeError) as error:
        adadelta.Adadelta(**{"nesterov" * 100: 1})
    assert len(str(error.value)) <= 200
    with pytest.raises(TypeError, match=r"did you mean `epsilon`\?\)$"):
        adadelta.Adadelta(epsilom=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SMALL for value in (1e-50, 1e39)),
        ("rho", 1 - 1e-9),
    ],
)
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """It would be 0, infinite or 1 there: the step would be NaN, or another one."""
    variable = keras.Variable(keras.ops.ones(2, dtype), dtype=dtype)
    optimizer = adadelta.Adadelta(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype {dtype}"):
        optimizer.build([variable])
    assert not optimizer.built


@pytest.mark.parametrize("name", [*SMALL, "rho"])
def test_a_number_goes_with_the_dtypes_that_hold_it(name, dtype):
    variable = keras.Variable([1.0, 1.0], dtype=dtype)
    optimizer = adadelta.Adadelta(**{name: 1 - 1e-9 if name == "rho" else 1e-50})
    refused = pytest.raises(ValueError, match=f"`{name}` must be")
    with refused if dtype == "float32" else contextlib.nullcontext():
        optimizer.build([variable])
    assert optimizer.built == (dtype == "float64")


@pytest.mark.parametrize("value", [1e39, 1e308, 10**400])
def test_a_weight_decay_beyond_float32_is_refused(value):
    with pytest.raises(ValueError, match=r"`weight_decay` must be at most 3\.40282e"):
        adadelta.Adadelta(weight_decay=value)


def test_an_overwriting_frequency_beyond_int32_is_refused():
    with pytest.raises(ValueError, match="`ema_overwrite_frequency` must be at most 2147483647"):
        adadelta.Adadelta(use_ema=True, ema_overwrite_frequency=2**31)
