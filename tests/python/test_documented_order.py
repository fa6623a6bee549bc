"""The documentation describes a step, in words and equations, as `_core/step.py` computes it."""

import ast
import math
import re
from pathlib import Path

import pytest

from adadelta._core import step
from adadelta._core.step import Call, Options, Row

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "adadelta"


def docstring(file, name="Adadelta"):
    """Return a front end's docstring, read without importing its framework."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if getattr(node, "name", None) == name)
    return ast.get_docstring(found)


def help_page():
    text = (ROOT / "man" / "optimizer_adadelta.Rd").read_text(encoding="utf-8")
    # R's assignments in the examples look like equations.
    return text.partition(r"\examples")[0]


class Traced:
    """An array or number that adds to `order` the stages of the numbers it is combined with."""

    def __init__(self, order, stage=None):
        self.order, self.stage = order, stage

    def meet(self, *others):
        for value in (self, *others):
            stage = value.stage if isinstance(value, Traced) else None
            if stage is not None and stage not in self.order:
                self.order.append(stage)
        return Traced(self.order)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = meet

    def __neg__(self):
        return self if self.stage else self.meet(Traced(self.order, "sign"))


class Rate(Traced):
    """A learning rate; its product with the rule's result moves the parameter."""

    def __mul__(self, other):
        self.meet(other)
        return Traced(self.order, "rule")


class PythonNumbers:
    """The `Arrays` of Python's floats."""

    sqrt = staticmethod(math.sqrt)

    def clip(self, value, low, high):
        return min(max(value, low), high)

    def number(self, number, like):
        return number

    def to_state(self, value, like):
        return value

    def from_state(self, value, like):
        return value

    def largest_gradient(self, epsilon, like):
        return 1e9


class TracedArrays(PythonNumbers):
    """The `Arrays` of traced values."""

    def sqrt(self, array):
        return array.meet()

    def clip(self, array, low, high):
        return array.meet(low, high)

    def zeros_like(self, array):
        return Traced(array.order)

    def largest_gradient(self, epsilon, like):
        return Traced(epsilon.order)


def order_of_the_step(decay_mode="decoupled", by_value=False):
    """Return the stages of a step with all options, in the order in which they happen."""
    order = []

    def stage(name):
        return Traced(order, name)

    row = Row(
        *(Traced(order) for _ in range(5)),
        window=stage("accumulate"),
        weight_decay=stage("decay"),
        constraint=lambda value: value.meet(stage("constraint")),
    )
    options = Options(
        Traced(order),
        Traced(order),
        maximize=True,
        clipvalue=stage("clip") if by_value else None,
        decay_mode=decay_mode,
        ema_momentum=stage("average"),
    )
    call = Call(Rate(order), loss_scale=stage("unscale"), steps=Traced(order))
    factors = None if by_value else (stage("clip"), stage("clip"))
    step.step(row, call, options, TracedArrays(), factors)
    return order


@pytest.mark.parametrize("decay_mode", ["coupled", "decoupled", "unscaled"])
@pytest.mark.parametrize("by_value", [True, False])
def test_the_step_goes_in_the_order_of_its_own_list(decay_mode, by_value):
    listed = re.findall(r"^ +\d\. (\w+) ", step.__doc__, re.MULTILINE)
    assert order_of_the_step(decay_mode, by_value) == listed


# For each text that states the order: the text, its beginning and end, and its words for stages.
TOLD = {
    "keras.py": (
        lambda: docstring("keras.py"),
        r"One step is, in this order: (.*?)\.",
        {
            "unscale": "loss_scale_factor",
            "accumulate": "gradient_accumulation_steps",
            "sign": "maximize",
            "clip": "clip",
            "decay": "decay the weights",
            "rule": "the equations",
            "constraint": "constraint",
            "average": "moving average",
            "counters": "counters",
        },
    ),
    "tf_keras.py": (
        lambda: docstring("tf_keras.py"),
        r"One step is, in this order: (.*?)\.",
        {
            "sign": "maximize",
            "clip": "clip",
            "decay": "decay the weights",
            "rule": "the equations",
            "constraint": "constraint",
            "average": "moving average",
            "counters": "counters",
        },
    ),
    "optimizer_adadelta.Rd": (
        help_page,
        r"are applied in this order: (.*?)\.",
        {
            "unscale": "loss_scale_factor",
            "accumulate": "gradient_accumulation_steps",
            "sign": "maximize",
            "clip": "clip",
            "decay": "decay",
            "rule": "the step above",
            "average": "EMA",
        },
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_order_that_is_told_is_that_of_the_step(name):
    text, sentence, words = TOLD[name]
    (told,) = re.findall(sentence, " ".join(text().split()))
    places = {stage: told.index(word) for stage, word in words.items()}
    order = [*order_of_the_step(), "counters"]
    assert sorted(places, key=places.get) == [stage for stage in order if stage in places]


# For each text with equations: the text, the decay mode, and its symbols for fields of a row.
V_AND_U = {"v": "square_avg", "u": "acc_delta"}
EQUATIONS = {
    "keras.py": (lambda: docstring("keras.py"), "decoupled", V_AND_U),
    "tf_keras.py": (lambda: docstring("tf_keras.py"), "decoupled", V_AND_U),
    "tf1.py": (lambda: docstring("tf1.py"), "decoupled", V_AND_U),
    "torch.py": (lambda: docstring("torch.py"), "coupled", V_AND_U),
    "brainpy.py": (lambda: docstring("brainpy.py"), "unscaled", V_AND_U),
    "optax.py": (
        lambda: docstring("optax.py", "adadelta"),
        "coupled",
        {"e_g": "square_avg", "e_x": "acc_delta"},
    ),
    "optimizer_adadelta.Rd": (help_page, "decoupled", V_AND_U),
}
NUMBERS = {"rho": 0.75, "epsilon": 0.25, "rate": 0.5, "decay": 0.125}
START = {"x": 3.0, "g": -1.5, "square_avg": 2.0, "acc_delta": 0.5}


def lines_of(text):
    """Return the equations in a text, as pairs of a name and its new value, in Python."""
    return [
        (name, in_python(right))
        for name, right in re.findall(r"(\w+) (?:<-|(?<=update )=) ([^\n{}]+)", text)
    ]


def in_python(formula):
    """Convert `rho v + (1 - rho) g^2` to `rho * v + (1 - rho) * g ** 2`."""
    formula = re.sub(r"(?<=[\w)]) +(?=[\w(])", " * ", formula)
    return formula.replace("^", " ** ")


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_equations_that_are_told_are_those_of_the_step(name):
    text, decay_mode, words = EQUATIONS[name]
    equations = lines_of(text())
    decay = NUMBERS["decay"] if any("weight_decay" in right for _, right in equations) else 0.0
    row = Row(START["x"], START["g"], START["square_avg"], START["acc_delta"], weight_decay=decay)
    options = Options(NUMBERS["rho"], NUMBERS["epsilon"], decay_mode=decay_mode)
    new = step.advance(row, Call(NUMBERS["rate"]), options, PythonNumbers())

    known = {"x": row.parameter, "g": row.gradient, "sqrt": math.sqrt, "rho": options.rho}
    known |= {word: getattr(row, field) for word, field in words.items()}
    known |= dict.fromkeys(("eps", "epsilon"), options.epsilon)
    known |= dict.fromkeys(("lr", "learning_rate"), NUMBERS["rate"])
    # The decay of the learning rate in TF 1, from t = 0.
    known |= {"weight_decay": decay, "decay": 0.1, "t": 0}
    for result, right in equations:
        known[result] = eval(right, {}, known)
    moved = known["x"] + known["update"] if "update" in known else known["x"]
    found = [moved, *(known[word] for word in words)]
    assert found == pytest.approx([new.parameter, new.square_avg, new.acc_delta], rel=1e-14)
    assert {result for result, _ in equations} >= {*words, "d"}
