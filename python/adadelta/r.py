"""The Python side of the R package. Python programs need nothing from here.

R imports it once `installation.py` has found no problem with the Python at hand.
"""

from __future__ import annotations

import functools
import textwrap
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adadelta._core import conventions as frameworks
from adadelta._core import hyperparameters, parameters
from adadelta._core.messages import Message, message_of

if TYPE_CHECKING:
    from adadelta.keras import Adadelta

# ------------------------------------------------------------------ values of R


class Value:
    """An R value without a counterpart in Python. No check accepts it; it is shown as R code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __repr__(self) -> str:
        return self.code


class Function:
    """An R function that returns the learning rate.

    It can't be saved to a file: its configuration is a note by which the same R session finds it
    again.

    Args:
        function: The R function, wrapped to return a dict that says how it ended.
        refuse: An R function that turns the message about an answer that is no learning rate into
            an error of R, and returns such a dict.
        code: The function's R code.
        takes_step: Whether it is called with the number of calls so far.

    """

    # The optimizer reads this, and then does not call the function from another thread.
    needs_main_thread = (
        "an R function, which R can call on its own thread only, and compiled training calls it "
        "from others; use one of Keras' schedules, or compile the model with run_eagerly = TRUE"
    )

    def __init__(
        self,
        function: Callable[..., Any],
        refuse: Callable[[Any], Any],
        code: str,
        takes_step: bool = False,
    ) -> None:
        self.function, self.refuse, self.code = function, refuse, code
        self.takes_step = takes_step
        self.note = ""

    def __call__(self, *arguments: Any) -> Any:
        """Return the rate that the R function returns, or raise."""
        # On another thread the call would end the process (reticulate before 1.41) or hang.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"`learning_rate` is {self.needs_main_thread}")
        from adadelta._keras.from_r import end_running_call, exception_of
        from adadelta._keras.learning_rate import NoAnswerError

        answer = self.function(*arguments)
        if answer["kind"] == "value":
            name = "learning_rate(step)" if arguments else "learning_rate()"
            try:
                return hyperparameters.FIXED_RATE(name, answer["value"])
            except (TypeError, ValueError) as error:
                answer = self.refuse(told(message_of(error)))
                # If no R code has called Python, nothing else can raise it.
                if not answer["waits"]:
                    raise
        if answer["waits"] and end_running_call():
            raise NoAnswerError
        raise exception_of(answer)

    def __repr__(self) -> str:
        return self.code

    def get_config(self) -> dict[str, str]:
        """Return the note, and the R code for people to read."""
        self.note = self.note or uuid.uuid4().hex
        _NOTES[self.note] = self
        return {"code": self.code, "note": self.note}

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> Function:
        """Return the function of the note, or raise if it was made in another R session."""
        if config["note"] not in _NOTES:
            raise ValueError(
                "the learning rate was an R function, which can't be saved; load the model with "
                "compile = FALSE and compile it with a new optimizer; it was "
                f"{textwrap.shorten(config['code'], 60, placeholder=' ...')}"
            )
        return _NOTES[config["note"]]


_NOTES: dict[str, Function] = {}


@functools.cache
def register(warn: Callable[[Any], Any]) -> None:
    """Register R functions with Keras, for loading models that were saved with one.

    Args:
        warn: An R function that is called with the message of each `StateWarning`, and whose
            value says whether R will warn.

    """
    import keras

    from adadelta._state import keras_file

    keras.saving.register_keras_serializable(package="adadelta")(Function)
    _send_state_warnings(warn)
    parameters.renewing_call = "update(optimizer)"
    keras_file.strict_call = "load_keras_adadelta(model, path)"


def _send_state_warnings(warn: Callable[[Any], Any]) -> None:
    from adadelta._state.record import StateWarning

    show = warnings.showwarning

    def show_in_r(
        message: Warning | str, category: type[Warning], *arguments: Any, **options: Any
    ) -> None:
        text = message_of(message) if isinstance(message, Warning) else message
        if not (issubclass(category, StateWarning) and _is_given_in_r(text, warn)):
            show(message, category, *arguments, **options)

    warnings.showwarning = show_in_r
    # Python shows a warning once for each place in the code, which R code does not have.
    warnings.filterwarnings("always", category=StateWarning, append=True)


def _is_given_in_r(message: str, warn: Callable[[Any], Any]) -> bool:
    """Ask R to give a warning, and return whether it will."""
    from adadelta._keras.from_r import is_on_main_thread

    return is_on_main_thread() and bool(warn(told(message)).get("value"))


# ------------------------------------------------------------------ the optimizer

ARGUMENT_NAMES = list(hyperparameters.ARGUMENTS)

# In R the name has a default of its own.
DEFAULTS = {**hyperparameters.DEFAULTS, "name": "adadelta"}


def make(config: dict[str, Any]) -> Adadelta:
    """Make an optimizer from R's arguments, or from what `get_config()` returned in R."""
    from adadelta.keras import Adadelta

    return Adadelta.from_config(_with_lists(config))


def _with_lists(config: dict[str, Any]) -> dict[str, Any]:
    """Restore the lists of length one, which R has turned into single values."""
    config = dict(config)
    rate = config.get("learning_rate")
    if isinstance(rate, dict) and isinstance(rate.get("config"), dict):
        inner = {
            key: [value] if key in ("boundaries", "values") and _is_single(value) else value
            for key, value in rate["config"].items()
        }
        config["learning_rate"] = {**rate, "config": inner}
    excluded = config.get("exclude_from_weight_decay")
    if excluded is not None:
        if not isinstance(excluded, dict) or not set(excluded) <= {"paths", "words"}:
            raise TypeError(
                hyperparameters.refusal(
                    "exclude_from_weight_decay", ("a list of `paths` and `words`", None), excluded
                )
            )
        config["exclude_from_weight_decay"] = {
            key: [value] if _is_single(value) else list(value or ())
            for key, value in excluded.items()
        }
    return config


def _is_single(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def config(optimizer: Adadelta) -> dict[str, Any]:
    """Return the configuration of an optimizer, or raise the error of a schedule that has none."""
    return dict(optimizer.get_config())


def settings(optimizer: Adadelta) -> dict[str, Any]:
    """Return the configuration of an optimizer, for printing.

    To serialize a function or a schedule, Keras imports TensorFlow, which takes seconds and writes
    to the terminal. Printing avoids this.
    """
    from adadelta._keras.exchange import parts_of

    parts = parts_of(optimizer)
    return {"learning_rate": _shown_rate(parts.rate), **parts.config_but_rate()}


def _shown_rate(rate: Any) -> Any:
    from adadelta._keras import learning_rate as rates

    if rate.callable is not None:
        function = rate.callable.function
        code = (
            function.code if isinstance(function, Function) else hyperparameters.received(function)
        )
        return {"class_name": "Function", "config": {"code": code}}
    if rates.is_schedule(rate.value):
        config = rate.value.get_config()
        # A schedule of the user's own may contain anything, so it is left to Keras.
        if all(_is_plain(value) for value in config.values()):
            return {"class_name": type(rate.value).__name__, "config": config}
    return rate.config()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or _is_single(value)


def progress(optimizer: Adadelta) -> str:
    """Return in words what an optimizer is built on and how far it has come."""
    from adadelta._keras.exchange import parts_of
    from adadelta._keras.summary import progress_of

    return progress_of(parts_of(optimizer).built)


def changed(optimizer: Adadelta, changes: dict[str, Any]) -> Adadelta:
    """Make an optimizer with the settings of another one, except for these changes."""
    from adadelta._keras import learning_rate as rates
    from adadelta._keras.exchange import parts_of

    settings = optimizer.get_config()
    rate = parts_of(optimizer).rate.value
    # The schedule or function itself, since Keras may not be able to recreate its class.
    if rates.is_schedule(rate):
        settings["learning_rate"] = rate
    elif isinstance(rate, rates.CallableRate):
        settings["learning_rate"] = rate.function
    return type(optimizer).from_config({**settings, **_with_lists(changes)})


def assign(optimizer: Adadelta, name: str, value: Any) -> None:
    """Set an existing attribute of an optimizer."""
    if name not in dir(optimizer):
        hyperparameters.refuse_unknown({name: value}, "optimizer_adadelta()")
    setattr(optimizer, name, value)


def learning_rate(optimizer: object) -> float:
    """Return the learning rate of an optimizer's next step, with the digits that the user gave."""
    from adadelta._keras.exchange import parts_of

    parts = parts_of(_own(optimizer))
    return parts.rate.answer(parts.step)


def set_learning_rate(optimizer: object, value: Any) -> None:
    """Set the learning rate of an optimizer."""
    _own(optimizer).learning_rate = value


def _own(optimizer: object) -> Adadelta:
    """Return our optimizer, also if Keras has wrapped it to scale the loss, or raise."""
    from adadelta._core.loss_scaling import unwrapped
    from adadelta.keras import Adadelta

    inner, _ = unwrapped(optimizer)
    if not isinstance(inner, Adadelta):
        requirement = "one made by optimizer_adadelta()"
        raise TypeError(hyperparameters.refusal("optimizer", requirement, optimizer))
    return inner


def summary(optimizer: Adadelta) -> dict[str, Any]:
    """Return the summary of an optimizer by columns, for an R data frame."""
    table = optimizer.summary()
    columns = table.to_dict()
    columns["shape"] = list(map(_shape_in_words, columns["shape"]))
    return {
        "columns": columns,
        "learning_rate": table.learning_rate,
        "progress": table.progress,
    }


def kernels_of(optimizer: object) -> dict[str, list[Any]]:
    """Return what `kernel_info()` says about an optimizer, by columns."""
    from adadelta import kernel_info

    columns: dict[str, list[Any]] = kernel_info(_own(optimizer)).to_dict()
    columns["shape"] = list(map(_shape_in_words, columns["shape"]))
    return columns


def _shape_in_words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


# ------------------------------------------------------------------ state


def state(optimizer: object) -> dict[str, Any]:
    """Return the state of an optimizer for R: named lists, and arrays."""
    from adadelta.state import export_state

    return _as_lists(export_state(optimizer))


def read_state(path: str) -> dict[str, Any]:
    """Return the state in a file, in the same form."""
    from adadelta.state import read_state

    return _as_lists(read_state(path))


def _as_lists(state: Any) -> dict[str, Any]:
    used = {"window": state.window, "loss_scale": state.loss_scale}
    return {
        "step": state.step,
        "update": state.update,
        "skipped": state.skipped,
        **{name: value for name, value in used.items() if value is not None},
        "hyperparameters": state.hyperparameters,
        "parameters": state.parameters,
    }


def convert_file(
    path: str, out: str, rename: dict[str, Any], axes: dict[str, Any], keep_others: Any
) -> None:
    """Write the state in one file to another, with other names and layouts of its parameters."""
    from adadelta.state import convert_state, layout_mapping, read_state, write_state

    state = read_state(path)
    mapping = layout_mapping(rename, axes)
    write_state(convert_state(state, mapping, keep_others=keep_others), out)


def comparable(target: Any, current: Any) -> list[dict[str, Any] | None]:
    """Return the states of two optimizers, with None for one that is not built.

    The parameters of the second have the names of their counterparts in the first, see
    `matching.paired`.
    """
    from adadelta._state import conversion, matching
    from adadelta.state import export_state

    mine, other = (
        export_state(optimizer) if optimizer.built else None for optimizer in (target, current)
    )
    if mine is not None and other is not None:
        names = matching.paired(other.parameters, mine.parameters)
        mapping = {theirs: own for own, theirs in names.items()}
        other = conversion.convert(other, mapping, keep_others=True)
    return [
        None if state is None else {"counters": state.counters(), "parameters": state.parameters}
        for state in (mine, other)
    ]


# ------------------------------------------------------------------ callbacks


def monitor(every: Any, sample: Any, warn: Callable[[Any], Any]) -> Any:
    """Make a monitor that calls an R function with the message of each warning."""
    from adadelta._watch.monitor import Monitor

    class MonitorForR(Monitor):
        def warn(self, message: str) -> None:
            # R warns once `fit()` has returned.
            if not _is_given_in_r(message, warn):
                super().warn(message)

    return MonitorForR(every, sample)


def progress_callback(show: Callable[..., Any], interval: float, form: str) -> Any:
    """Make a callback that reports the progress of training to an R function."""
    from adadelta._keras.from_r import Progress

    return Progress(show, interval, form)


def plotted(monitor: Any, variables: list[str] | None) -> dict[str, str]:
    """Return the variables that the monitor's plot shows, by label."""
    from adadelta._watch.plot import chosen

    return chosen(monitor.records, variables)


# ------------------------------------------------------------------ conventions


def conventions() -> dict[str, list[Any]]:
    """Return the table of conventions by columns, for an R data frame. None stays None."""
    table = frameworks.conventions()
    return {column: [row[column] for row in table] for column in table[0]}


def translate(from_: str, to: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Translate arguments given as a dict."""
    # Checked here, since R calls this argument `from`.
    frameworks.convention_of("from", from_)
    return frameworks.translate(from_, to, **arguments)


# ------------------------------------------------------------------ minimization

# The names of the arguments of `minimization` in R's optim().
_CONTROL = {"pgtol": "gtol", "reltol": "ftol", "abstol": "f_target", "maxit": "maxiter"}


def control_defaults() -> dict[str, Any]:
    """Return the defaults of the arguments that R's optim() and the method for SciPy share."""
    from adadelta._core.minimization import MAXITER

    paper = hyperparameters.CONVENTIONS["paper"]
    return {
        "maxit": MAXITER,
        "learning_rate": paper.learning_rate,
        "rho": paper.rho,
        "epsilon": paper.epsilon,
        "reduce": True,
    }


def differences() -> dict[str, float]:
    """Return the relative step of differences, and what smaller parameters count as."""
    from adadelta._core import descent

    return {"part": descent.DIFFERENCE, "smallest": descent.CLOSE_TO_0}


class Minimization:
    """A minimization driven by R, which evaluates the function; this class makes the steps.

    Arrays are passed as lists of numbers, which every reticulate can exchange with every NumPy.
    """

    def __init__(
        self, x: list[float], control: dict[str, Any], lower: list[float], upper: list[float]
    ) -> None:
        import numpy as np

        from adadelta._core import descent, minimization

        names = {**_CONTROL, **{name: name for name in ("rho", "epsilon", "reduce")}}
        checked = {
            name: hyperparameters.MINIMIZATION[name](given, control[given])
            for given, name in names.items()
        }
        method = descent.Descent if checked.pop("reduce") else minimization.Minimization
        start, low, high = (np.array(numbers, dtype=np.float64) for numbers in (x, lower, upper))
        self.run = method(start, np, lower=low, upper=high, **checked)

    def next(self) -> dict[str, Any]:
        """Return where to evaluate the function, whether that is on the path, and the steps."""
        run = self.run
        return {"x": run.x.tolist(), "on_path": run.on_path, "step": run.steps}

    def tell(self, value: float, gradient: list[float], learning_rate: Any) -> dict[str, Any]:
        """Record what R found at the last point; return the next one, or why there is none."""
        import numpy as np

        try:
            rate = hyperparameters.FIXED_RATE("learning_rate", learning_rate)
        except (TypeError, ValueError) as error:
            return {"error": told(message_of(error))}
        reason = self.run.tell(value, np.array(gradient, dtype=np.float64))
        if reason is not None:
            return {"reason": next((r for r, own in _CONTROL.items() if own == reason), reason)}
        self.run.step(rate)
        return self.next()

    def best(self) -> dict[str, Any] | None:
        """Return the lowest value and where it was found."""
        if self.run.best is None:
            return None
        value, x, _ = self.run.best
        return {"value": value, "x": x.tolist()}


def attempt(name: str, *arguments: Any) -> dict[str, Any]:
    """Call a function of this module, or else of the package.

    Returns:
        A dict with its "value", or with the "error" that it raised.

    """
    import adadelta

    try:
        function = globals().get(name) or getattr(adadelta, name)
        return {"value": function(*arguments)}
    except Exception as error:
        return {"error": _message(error)}


# ------------------------------------------------------------------ messages


def _message(error: Exception) -> Any:
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.strerror}: "{error.filename}"'
    is_refusal = isinstance(error, (TypeError, ValueError, OSError))
    return told(message_of(error)) if is_refusal else f"{type(error).__name__}: {error}"


def told(message: str) -> Any:
    """Return a message for R: a text, or the kind and fields from which R makes a sentence."""
    if not isinstance(message, Message):
        # reticulate does not convert subclasses of str.
        return str(message)
    fields = dict(message.fields)
    if "received" in fields:
        fields["received"] = _came(fields["received"])
    if "given" in fields:
        fields["given"] = {name: _came(value) for name, value in fields["given"].items()}
    if "problems" in fields:
        fields["problems"] = list(map(told, fields["problems"]))
    return {"kind": message.kind, **fields}


def _came(value: Any) -> dict[str, Any]:
    """Return a received "value" for R to show, or the "code" of one that only Python can show."""
    if value is None or isinstance(value, (bool, float, str)):
        return {"value": value}
    if isinstance(value, int) and abs(value) < 2**31:
        return {"value": int(value)}
    return {"code": hyperparameters.received(value)}
