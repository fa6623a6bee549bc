"""Messages are text for Python, with the data of which R makes its own."""

import copy
import inspect
import pickle

import pytest

from adadelta import Adadelta
from adadelta._core import hyperparameters
from adadelta._core.messages import Message, message_of


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
