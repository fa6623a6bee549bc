"""Messages are written for Python, and carry the data from which R builds its own."""

import copy
import inspect
import pickle

import pytest

import adadelta
from adadelta import Adadelta
from adadelta._core import arguments, hyperparameters
from adadelta._core.messages import Message, message_of
from adadelta._state import matching


def test_a_message_is_its_text():
    message = Message("`rho` must be less than 1", "argument", argument="rho")
    assert message == str(message) == "`rho` must be less than 1"
    assert (message.kind, message.fields) == ("argument", {"argument": "rho"})
    error = ValueError(message)
    assert str(error) == message and message_of(error) is message


def test_other_errors_say_their_text():
    assert message_of(ValueError("a text")) == "a text"
    assert message_of(ValueError("two", "parts")) == "('two', 'parts')"
    assert message_of(ValueError()) == ""


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_an_error_goes_to_another_process_as_text(again):
    with pytest.raises(TypeError) as caught:
        Adadelta(rho=lambda: 0.5)
    error = again(caught.value)
    assert type(error) is TypeError and str(error) == str(caught.value)


def test_a_refusal_says_argument_requirement_and_what_came():
    with pytest.raises(TypeError) as error:
        Adadelta(fused="no")
    message = message_of(error.value)
    assert message.kind == "argument"
    assert message.fields == {
        "argument": "fused",
        "requirement": (True, False, None),
        "received": "no",
    }


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("a number", "a number"),
        (("a number",), "a number"),
        (("a number", None), "a number, or None"),
        (("a number", '"auto"', None), 'a number, "auto", or None'),
        ((True, False), "True or False"),
        ((True, False, None), "True, False or None"),
    ],
)
def test_requirements_in_words(requirement, words):
    assert hyperparameters.in_words(requirement) == words


def test_the_table_has_the_defaults_of_the_constructor():
    parameters = inspect.signature(Adadelta).parameters
    defaults = {
        name: it.default for name, it in parameters.items() if it.kind is not it.VAR_KEYWORD
    }
    assert dict(hyperparameters.DEFAULTS) == defaults


def test_a_list_of_problems_is_cut_and_the_error_has_all():
    names = [f"layer_with_a_long_name_{number}" for number in range(40)]
    with pytest.raises(adadelta.state.StateMismatchError) as caught:
        matching.refuse(matching.unpaired(names, names[:20]))
    assert len(str(caught.value)) <= 200
    text = "missing: layer_with_a_long_name_0, layer_with_a_long_name_1 and 38 more; 1 more (all"
    assert text in str(caught.value)
    assert [len(problem.split(", ")) for problem in caught.value.problems] == [40, 20]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.problems == caught.value.problems


@pytest.mark.parametrize("most", [20, 80])
def test_the_end_of_a_long_path_is_shown(most):
    path = "/folder" * 30 + "/state.safetensors"
    shown = hyperparameters.shortened_path(path, most)
    assert shown == f'"...{path[3 - most :]}"' and len(shown) == most + 2
    assert hyperparameters.shortened_path("a b") == '"a b"'


def test_a_change_that_is_refused_is_told_in_short():
    class Owner:
        built = False

        def __setattr__(self, name, value):
            checks = name != "built"
            super().__setattr__(name, arguments.checked(self, name, value) if checks else value)

    owner = Owner()
    owner.gradient_accumulation_steps = 1
    owner.built = True
    with pytest.raises(ValueError, match="can't be changed"):
        owner.gradient_accumulation_steps = 2**31 - 1
