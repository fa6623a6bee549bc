"""The command line: `python -m adadelta --help`."""

import argparse
import ast
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import adadelta
from adadelta import installation
from adadelta._core.conventions import convention_of
from adadelta._core.hyperparameters import shortened, shortened_path
from adadelta._core.packages import requirement
from adadelta._core.table import aligned

# The packages that this one works with, what needs each, and the extra that installs it.
_PACKAGES = {
    "numpy": ("everything but the tables of this command", None),
    "keras": ("adadelta.Adadelta, on one of the next three", "jax"),
    "jax": ("Keras on JAX, adadelta.optax", "jax"),
    "tensorflow": ("Keras on TensorFlow, adadelta.tf1", "tensorflow"),
    "torch": ("Keras on torch, adadelta.torch", "torch"),
    "tf_keras": ("adadelta.tf_keras", "tf-keras"),
    "brainpy": ("adadelta.brainpy", "brainpy"),
    "optax": ("schedules and chains for adadelta.optax", "optax"),
    "scipy": ("adadelta.scipy", "scipy"),
    "safetensors": ("saving and loading state", "state"),
    "numba": ("the fast step on the CPU", "kernel"),
    "triton": ("the fast step on an NVIDIA GPU; comes with torch", None),
}

# What only `adadelta.Adadelta` needs, of the subjects of `installation.checks()`.
_ONLY_FOR_KERAS = ("Keras", "backend")

_LONGEST_LINE = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after the name of the program; None for those of this process.

    Returns:
        The exit status: 0, or 1 if there is a problem with a file or a value, which standard error
        explains. A command line that can't be parsed ends the process with status 2.

    Example:
        >>> from adadelta.__main__ import main
        >>> main(["translate", "torch", "keras", "lr=0.5"])
        learning_rate=0.5
        rho=0.9
        epsilon=1e-06
        0

    """
    given = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Names of parameters and files can have characters that a terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for line in given.command(given):
            print(line)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Output that is left would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        install = installation.pip_install(package)
        return _fail(f"this command needs {package}, which is not installed: {install}")
    except OSError as error:
        return _fail(_about_file(error))
    except (TypeError, ValueError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(shortened(f"adadelta: {message}", _LONGEST_LINE), file=sys.stderr)
    return 1


def _about_file(error: OSError) -> str:
    """Return what is wrong with a file, without the error number of the system."""
    problem = str(error.strerror or error)
    if error.filename is None:
        return problem
    if isinstance(error, FileNotFoundError):
        problem = "there is no such file or folder"
    return f"{shortened_path(error.filename)}: {problem[:1].lower()}{problem[1:]}"


# ------------------------------------------------------------------ the command line


class _Parser(argparse.ArgumentParser):
    """A parser whose descriptions have examples, and whose errors are one line."""

    def __init__(self, example: str = "", **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python -m adadelta {example}",
            **options,
        )
        self.description = textwrap.fill(self.description or "", 79, break_on_hyphens=False)

    def error(self, message: str) -> NoReturn:
        # argparse repeats words that it does not know, whatever they contain.
        hint = f"; see {self.prog} --help"
        start = f"{self.prog}: "
        room = _LONGEST_LINE - len(start + hint)
        self.exit(2, f"{start}{shortened(message, room)}{hint}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="adadelta",
        description="Adadelta (Zeiler 2012) for R and Python.",
        example="info",
    )
    # Without -V the column of the help page would be too narrow for "conventions", since argparse
    # leaves the indent of the commands out when it measures them.
    version = f"adadelta {adadelta.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    about = "what is installed, what is missing, and how to get it"
    _command(commands, "info", _info, about, example="info")
    about = "what each framework means by its arguments"
    _command(commands, "conventions", _conventions, about, example="conventions")
    translate = _command(
        commands,
        *("translate", _translate, "the arguments of one framework for another"),
        "It prints the arguments that make the same steps there, defaults that differ included.",
        example="translate torch keras lr=0.5 weight_decay=0.01",
    )
    frameworks = ", ".join(convention["framework"] for convention in adadelta.conventions())
    translate.add_argument("source", metavar="FROM", help=f"one of {frameworks}")
    translate.add_argument("target", metavar="TO", help="another one of them")
    translate.add_argument(
        "values",
        metavar="NAME=VALUE",
        nargs="*",
        # Without a default argparse would call it required.
        default=[],
        type=_pair,
        help="an argument of FROM, under its name there",
    )

    state = commands.add_parser(
        "state",
        help="look into a saved state, or convert it",
        description=f"A state is the averages and counters of an optimizer. {_FILES}",
        example="state show state.safetensors",
    )
    states = state.add_subparsers(required=True, metavar="COMMAND")
    show = _command(
        states,
        *("show", _show, "what is in a file", _FILES),
        example="state show state.safetensors",
    )
    show.add_argument("file", metavar="FILE", help="the file of a state")
    convert = _command(
        states,
        "convert",
        _convert,
        "write a state with other names and layouts of its parameters",
        f"{_FILES} Every parameter must be named by --rename or --transpose, unless --keep-others "
        "is given.",
        example="state convert from_keras.safetensors for_torch.safetensors \\\n"
        "    --rename dense/kernel=0.weight --transpose dense/kernel \\\n"
        "    --rename dense/bias=0.bias",
    )
    convert.add_argument(
        "file", metavar="IN", help="the file of the state to convert, which stays as it is"
    )
    convert.add_argument(
        "out",
        metavar="OUT",
        help="the file to write, which is replaced as a whole when it exists; it may be IN",
    )
    convert.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        default=[],
        type=_pair,
        help="give a parameter another name (again for each)",
    )
    convert.add_argument(
        "--transpose",
        metavar="NAME[=AXES]",
        action="append",
        default=[],
        type=_axes,
        help="reverse the axes of the parameter that IN calls NAME, as between the kernel of a "
        "Keras Dense layer and the weight of a torch Linear; or put them in the order of AXES, "
        "such as 3,2,0,1 from a Keras Conv2D to torch (again for each)",
    )
    convert.add_argument(
        "--keep-others", action="store_true", help="keep parameters that are not named as they are"
    )
    return parser


_FILES = (
    "Files of a state are written by adadelta.save_state() in Python and by "
    "save_optimizer_state() in R."
)


def _command(
    commands: Any,
    name: str,
    function: Callable[[argparse.Namespace], Iterable[str]],
    about: str,
    more: str = "",
    *,
    example: str,
) -> argparse.ArgumentParser:
    description = f"{about[0].upper()}{about[1:]}. {more}".strip()
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=description, example=example
    )
    parser.set_defaults(command=function)
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        message = f"{shortened(repr(text))} is not two parts with = between them"
        raise argparse.ArgumentTypeError(message)
    return name, value


def _axes(text: str) -> tuple[str, tuple[int, ...] | None]:
    name, sign, axes = text.partition("=")
    try:
        return name, tuple(int(axis) for axis in axes.split(",")) if sign else None
    except ValueError:
        message = f"{shortened(repr(text))} is not of the form NAME or NAME=3,2,0,1"
        raise argparse.ArgumentTypeError(message) from None


# ------------------------------------------------------------------ the commands


def _info(_: argparse.Namespace) -> Iterator[str]:
    yield f"adadelta {adadelta.__version__} in {os.path.dirname(adadelta.__file__)}"
    yield f"KERAS_BACKEND {os.environ.get('KERAS_BACKEND') or 'is not set'}"
    yield ""
    yield from _checks()
    yield ""
    yield from _packages()
    yield ""
    yield from _kernels()


def _checks() -> Iterator[str]:
    rows = []
    unused = () if installation.is_installed("keras") else _ONLY_FOR_KERAS
    for check in installation.checks():
        if check.subject in unused:
            rows.append((check.subject, check.found or "missing; only adadelta.Adadelta needs it"))
            continue
        rows.append((check.subject, check.found or "missing"))
        install = check.packages and installation.pip_install(check.packages)
        rows += [("", line) for line in (check.problem, check.cure, install) if line]
    yield from aligned(rows)


def _packages() -> Iterator[str]:
    versions = {name: installation.version(name) for name in _PACKAGES}
    installs = {
        name: requirement(extra, name)
        for name, (_, extra) in _PACKAGES.items()
        if extra and versions[name] is None
    }
    yield from aligned(
        [
            (
                name,
                versions[name] or "missing",
                purpose,
                f"pip install {installs[name]}" if name in installs else "",
            )
            for name, (purpose, _) in _PACKAGES.items()
        ]
    )
    if installs:
        yield ""
        yield "Only NumPy is always needed. Install the others if you use what they are for, as in"
        yield f"  {installation.pip_install(next(iter(installs.values())))}"


def _kernels() -> Iterator[str]:
    yield "What computes a step; where none of these can, the framework's own operators do:"
    for name, kernel in adadelta.kernel_info().items():
        yield f"{name}: {kernel['for']}"
        if not kernel["serves"]:
            yield f"  not here: {kernel['reason']}"
        elif kernel.get("cache"):
            yield f"  compiled once, and kept in {kernel['cache']}"
        elif kernel.get("cache_reason"):
            yield f"  compiled again in each process: {kernel['cache_reason']}"


def _conventions(_: argparse.Namespace) -> Iterator[str]:
    yield repr(adadelta.conventions())


def _translate(given: argparse.Namespace) -> Iterator[str]:
    for argument, framework in (("FROM", given.source), ("TO", given.target)):
        convention_of(argument, framework)
    arguments = {name: _literal(value) for name, value in _once(given.values).items()}
    for name, value in adadelta.translate(given.source, given.target, **arguments).items():
        yield f"{name}={value!r}"


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{shortened(name)} is given more than once")
    return dict(pairs)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # Python can't read it as a value, for example because it has too many nested brackets.
        return text


def _show(given: argparse.Namespace) -> Iterator[str]:
    from adadelta.state import read_state

    state = read_state(given.file)
    yield repr(state)
    for name, value in state.hyperparameters.items():
        yield f"  {name} = {value!r}"
    for name, slots in state.parameters.items():
        yield name
        for slot, array in slots.items():
            yield f"  {slot}: {array.shape} {array.dtype}"


def _convert(given: argparse.Namespace) -> Iterator[str]:
    from adadelta.state import convert_state, layout_mapping, read_state, write_state

    mapping = layout_mapping(_once(given.rename), _once(given.transpose))
    state = convert_state(read_state(given.file), mapping, keep_others=given.keep_others)
    write_state(state, given.out)
    yield f"{given.out}: {state!r}"


if __name__ == "__main__":
    sys.exit(main())
