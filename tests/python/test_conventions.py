"""The table of conventions, and the arguments of one framework for another."""

import itertools
import math

import numpy as np
import pytest

import adadelta
from adadelta._core.hyperparameters import CONVENTIONS

FRAMEWORKS = list(CONVENTIONS)
DEFAULT_EPSILON = 1e-7


def steps(framework, arguments, gradients, x=1.0):
    """Return the parameter after each gradient, according to the framework's documentation."""
    convention = CONVENTIONS[framework]
    ours = {our: arguments[name] for our, name in convention.names.items() if name in arguments}
    rate, rho, epsilon, decay = (
        ours.get(name, getattr(convention, name))
        for name in ("learning_rate", "rho", "epsilon", "weight_decay")
    )
    epsilon = DEFAULT_EPSILON if epsilon is None else epsilon
    decay = decay or 0.0
    mode = convention.weight_decay_mode
    if ours.get("decoupled_weight_decay") is False:
        mode = "coupled"
    v = u = 0.0
    path = []
    for gradient in gradients:
        gradient = -gradient if ours.get("maximize") else gradient
        gradient += decay * x if mode == "coupled" else 0.0
        x -= {"decoupled": rate * decay * x, "unscaled": decay * x}.get(mode, 0.0)
        v = rho * v + (1 - rho) * gradient**2
        step = math.sqrt(u + epsilon) / math.sqrt(v + epsilon) * gradient
        u = rho * u + (1 - rho) * step**2
        x -= rate * step
        path.append(x)
    return path


# Arguments by our own names; each framework gets those that it has.
CASES = [
    {},
    {"learning_rate": 0.5},
    {"rho": 0.8, "epsilon": 1e-3},
    {"weight_decay": 0.25},
    {"learning_rate": 0.125, "weight_decay": 0.25},
    {"learning_rate": 0.5, "maximize": True},
    {"learning_rate": 0.5, "weight_decay": 0.25, "decoupled_weight_decay": False},
]


def arguments_of(framework, case):
    names = CONVENTIONS[framework].names
    return {names[name]: value for name, value in case.items() if name in names}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("source", "target"), [*itertools.product(FRAMEWORKS, repeat=2)])
def test_both_make_the_same_steps(source, target, case):
    arguments = arguments_of(source, case)
    try:
        translated = adadelta.translate(source, target, **arguments)
    except ValueError as error:
        # Only these have no equivalent in some frameworks.
        assert any(f"`{name}` of {source}" in str(error) for name in ("weight_decay", "maximize"))
        assert set(arguments) & {"weight_decay", "maximize"}
        return
    gradients = [1.0, -0.5, 2.0, 0.25]
    # A decay that was divided and multiplied by the rate again may differ by a rounding.
    np.testing.assert_allclose(
        steps(target, translated, gradients), steps(source, arguments, gradients), rtol=1e-14
    )


def test_which_decays_have_an_equal():
    def has_equal(source, target, **arguments):
        try:
            adadelta.translate(source, target, weight_decay=0.1, **arguments)
        except ValueError as error:
            assert f"`weight_decay` of {source} has no equal in {target}: " in str(error)
            return False
        return True

    targets = ("keras", "tf_keras", "tf1", "brainpy", "torch", "optax", "paper")
    found = {
        source: [target for target in targets if has_equal(source, target)]
        for source in ("keras", "tf_keras", "brainpy", "torch", "optax")
    }
    decoupled, coupled = ["keras", "tf_keras", "brainpy"], ["keras", "torch", "optax"]
    assert found == {
        "keras": decoupled,
        "tf_keras": decoupled,
        "brainpy": decoupled,
        "torch": coupled,
        "optax": coupled,
    }
    with pytest.raises(
        ValueError, match=r"adadelta\.torch\.Adadelta takes `decoupled_weight_dec"
    ) as it:
        adadelta.translate("keras", "torch", weight_decay=0.1)
    assert len(str(it.value)) <= 200
    assert has_equal("keras", "torch", decoupled_weight_decay=False)
    assert not has_equal("keras", "tf_keras", decoupled_weight_decay=False)


def test_defaults_that_differ_are_among_the_result():
    translate = adadelta.translate
    assert translate("torch", "keras") == {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-6}
    assert translate("keras", "torch") == {"lr": 0.001, "rho": 0.95, "eps": 1e-7}
    assert translate("keras", "tf_keras") == translate("torch", "optax") == {}
    assert translate("brainpy", "tf1") == {"epsilon": 1e-6}
    # An argument that was given is kept even if it equals the default.
    assert translate("keras", "tf1", epsilon=1e-7, learning_rate=1) == {"lr": 1.0, "epsilon": 1e-7}
    assert translate("torch", "brainpy", weight_decay=0)["weight_decay"] is None
    assert "weight_decay" not in translate("torch", "tf1", weight_decay=0)


def test_decay_by_the_rate():
    translate = adadelta.translate
    assert translate("keras", "brainpy", learning_rate=0.5, weight_decay=0.5) == {
        "lr": 0.5,
        "weight_decay": 0.25,
        "epsilon": 1e-7,
    }
    assert translate("brainpy", "tf_keras", lr=0.5, weight_decay=0.25)["weight_decay"] == 0.5
    with pytest.raises(ValueError, match="scaled by the learning rate, which is 0"):
        translate("brainpy", "keras", lr=0.0, weight_decay=0.25)


def test_options_go_where_they_exist():
    translate = adadelta.translate
    options = {"clipnorm": 2.0, "use_ema": True, "ema_momentum": 0.5, "name": "mine"}
    assert options.items() <= translate("keras", "tf_keras", **options).items()
    assert options.items() <= translate("tf_keras", "keras", **options).items()
    assert translate("keras", "tf1", clipvalue=2)["clipvalue"] == 2.0
    assert translate("torch", "keras", maximize=True, foreach=True)["maximize"] is True
    assert translate("keras", "keras", rho=0.5, use_ema=True) == {"rho": 0.5, "use_ema": True}
    # An option that is off needs no argument anywhere.
    off = {"use_ema": False, "ema_momentum": 0.5, "clipnorm": None, "clipvalue": math.inf}
    assert translate("keras", "torch", **off) == translate("keras", "torch")
    assert translate("keras", "torch", fused=True) == translate("keras", "torch")
    neutral = {"gradient_accumulation_steps": 1, "loss_scale_factor": 1.0}
    assert translate("keras", "torch", **neutral) == translate("keras", "torch")
    assert translate("tf1", "keras", decay=0.0) == translate("tf1", "keras")
    mask = np.array([True, False])
    with pytest.raises(ValueError, match="excludes parameters from weight decay"):
        translate("optax", "torch", weight_decay_mask=mask)


@pytest.mark.parametrize(
    ("source", "target", "arguments", "error", "message"),
    [
        ("torch", "keras", {"lr": -1}, ValueError, "`lr` must be a finite number of at least 0"),
        ("torch", "keras", {"eps": "a"}, TypeError, "`eps` must be a finite number"),
        ("torch", "keras", {"learning_rate": 1}, TypeError, "of torch .did you mean `lr`?"),
        ("keras", "torch", {"lr": 1}, TypeError, "of keras .did you mean `learning_rate`?"),
        (
            "torch",
            "keras",
            {"nonsense": 1},
            TypeError,
            "is not an argument of torch; it takes `lr`, `rho`, `eps`, `weight_decay` and ",
        ),
        ("torch", "keras", {"forech": 1}, TypeError, "of torch .did you mean `foreach`?"),
        ("tf1", "keras", {"decay": 0.1}, ValueError, "`decay` of tf1 has no equal in keras: the"),
        ("optax", "keras", {"weight_decay_mask": [1]}, ValueError, "`weight_decay_mask` of optax"),
        ("keras", "torch", {"clipnorm": 1}, ValueError, "`clipnorm` of keras has no equal in tor"),
        ("keras", "tf1", {"global_clipnorm": 1}, ValueError, "`global_clipnorm` of keras has no"),
        ("keras", "optax", {"use_ema": True}, ValueError, "keeps no average"),
        ("torch", "optax", {"maximize": True}, ValueError, "`maximize` .* only descends"),
        ("keras", "torch", {"skip_nonfinite": True}, ValueError, "`skip_nonfinite` of keras"),
        ("keras", "torch", {"gradient_accumulation_steps": 4}, ValueError, "no equal in torch"),
        ("keras", "torch", {"learning_rate": abs}, ValueError, "schedules and functions belong"),
        ("keras", "torch", {"clipnorm": 1, "clipvalue": 1}, ValueError, "Only one of"),
        ("pytorch", "keras", {}, ValueError, '`from_` must be one of "keras", .* "pytorch"'),
        ("torch", ["keras"], {}, ValueError, "`to` must be one of"),
    ],
)
def test_what_can_not_be_translated(source, target, arguments, error, message):
    with pytest.raises(error, match=message):
        adadelta.translate(source, target, **arguments)


def test_the_table_is_a_list_of_dicts_that_prints_as_a_table():
    table = adadelta.conventions()
    assert isinstance(table, list) and [it["framework"] for it in table] == FRAMEWORKS
    torch = next(it for it in table if it["framework"] == "torch")
    assert torch == {
        "framework": "torch",
        "learning_rate": 1.0,
        "rho": 0.9,
        "epsilon": 1e-6,
        "weight_decay": 0.0,
        "learning_rate_name": "lr",
        "rho_name": "rho",
        "epsilon_name": "eps",
        "weight_decay_name": "weight_decay",
        "weight_decay_mode": "coupled",
    }
    lines = repr(table).splitlines()
    assert [line.split()[0] for line in lines[1 : len(FRAMEWORKS) + 1]] == FRAMEWORKS
    assert "lr = 1.0" in lines[FRAMEWORKS.index("brainpy") + 1]
    assert all(len(line) <= 100 for line in lines)
    # Changing one table does not change the next.
    torch["rho"] = 0.5
    assert adadelta.conventions() != table


def test_ours_takes_what_the_table_says():
    names = CONVENTIONS["keras"].names
    config = adadelta.Adadelta().get_config()
    assert list(names) == list(names.values()) and set(config) == set(names)
    ours = next(it for it in adadelta.conventions() if it["framework"] == "keras")
    for name in ("learning_rate", "rho", "epsilon", "weight_decay"):
        assert config[name] == ours[name]
