"""Random arguments of the Keras class, of the functions without a framework, and of the command."""

import contextlib
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
    CLIPS,
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
    beyond_float32,
    failures,
    made,
    set_later,
    whole,
)
from framework_candidates import of_jax, of_tensorflow, of_torch

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


SMALL_OF_KERAS = ("epsilon", *CLIPS, "loss_scale_factor")


def config_of(optimizer):
    # Keras makes up a missing name, and rounds the rate to float32.
    config = {
        it: value
        for it, value in optimizer.get_config().items()
        if it not in ("name", "learning_rate")
    }
    return {**config, "rate in float32": float(optimizer.learning_rate)}


def config_of_new(optimizer):
    # Accumulation over one step is stored as none.
    config = config_of(optimizer)
    return {it: config[it] for it in config if it != "gradient_accumulation_steps"}


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


def test_keras():
    settable = {it: KERAS[it] for it in KERAS if it != "name"}
    names = ("use_ema", "gradient_accumulation_steps", "fused", "name")
    steps = {name: it for name, it in KERAS.items() if name not in names}
    of_backend = {"jax": of_jax, "tensorflow": of_tensorflow, "torch": of_torch}
    extra = [
        Candidate("Keras tensor of three", lambda: keras.ops.ones(3)),
        Candidate("Keras variable of three", lambda: keras.Variable(np.ones(3))),
        Candidate("KerasTensor", lambda: keras.KerasTensor(())),
        *of_backend[keras.config.backend()](),
    ]
    ways = [
        Way("Adadelta", KERAS, made(adadelta.Adadelta, config_of_new)),
        Way("set", settable, set_later(adadelta.Adadelta, config_of)),
        Way("step", steps, used, dtype="float32"),
    ]
    assert not failures("keras", ways, extra)


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
            # The number that None stands for.
            found.pop(conventions.CONVENTIONS[target].names["epsilon"], None)
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
    """The command exits with 0, or with 1 or 2 and a message of one line."""
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
            assert len(text.splitlines()) == 1 and len(text) <= 201, (shown, text)


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
    beyond_float32(*SMALL_OF_KERAS),
)
def test_a_number_that_the_averages_cant_hold_is_refused(name, value, dtype):
    """The number would be 0, infinite or 1 there: the step would be NaN, or a different one."""
    variable = keras.Variable(keras.ops.ones(2, dtype), dtype=dtype)
    optimizer = adadelta.Adadelta(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* of dtype {dtype}"):
        optimizer.build([variable])
    assert not optimizer.built


@pytest.mark.parametrize("name", [*SMALL_OF_KERAS, "rho"])
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
