"""What can be asked and done from a terminal: `python -m adadelta --help`."""

import argparse
import ast
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import adadelta
from adadelta import installation
from adadelta._core.hyperparameters import shortened
from adadelta._core.table import aligned

# The packages that this one works with, and what needs them.
_PACKAGES = {
    "numpy": "everything but the tables of this command",
    "keras": "adadelta.Adadelta, on one of the next three",
    "jax": "Keras on JAX",
    "tensorflow": "Keras on TensorFlow",
    "torch": "Keras on torch, adadelta.torch",
    "tf_keras": "adadelta.tf_keras, adadelta.tf1",
    "brainpy": "adadelta.brainpy",
    "optax": "adadelta.optax",
    "scipy": "adadelta.scipy",
    "safetensors": "saving and loading state",
    "numba": "the fast step on the CPU",
    "triton": "the fast step on an NVIDIA GPU",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after the program's name; None for those of this process.

    Returns:
        The exit status: 0, or 1 where a file or a value would not do, which standard error then
        explains. A command line that can't be understood ends the process with 2.

    Example:
        >>> from adadelta.__main__ import main
        >>> main(["translate", "torch", "keras", "lr=0.5"])
        learning_rate=0.5
        rho=0.9
        epsilon=1e-06
        0

    """
    given = _parser().parse_args(arguments)
    try:
        for line in given.command(given):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has. What is left would fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ModuleNotFoundError as error:
        return _fail(f"{error}. In this Python: {installation.pip_install(str(error.name))}")
    except (OSError, TypeError, ValueError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"adadelta: {message}", file=sys.stderr)
    return 1


# ------------------------------------------------------------------ the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adadelta", description="Adadelta (Zeiler 2012) for R and Python."
    )
    parser.add_argument("--version", action="version", version=f"adadelta {adadelta.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _command(commands, "info", _info, "what is installed, what is missing, and how to get it")
    _command(commands, "conventions", _conventions, "what each framework means by its arguments")

    translate = _command(
        commands, "translate", _translate, "the arguments of one framework for another"
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
        help="an argument of FROM",
    )

    state = commands.add_parser(
        "state", help="look into a saved state, or convert it", description="Files of save_state()."
    )
    states = state.add_subparsers(required=True, metavar="COMMAND")
    show = _command(states, "show", _show, "what is in a file")
    show.add_argument("file", metavar="FILE")
    convert = _command(
        states,
        "convert",
        _convert,
        "write a state with other names and layouts of its parameters",
        "Every parameter must be named by --rename or --transpose, unless --keep-others is given. "
        "OUT is replaced as a whole when it exists; IN stays as it is.",
    )
    convert.add_argument("file", metavar="IN")
    convert.add_argument("out", metavar="OUT")
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
        help="turn round the axes of the parameter that IN calls NAME, as between the kernel of a "
        "Keras Dense layer and the weight of a torch Linear; or put them in the order of AXES, "
        "such as 3,2,0,1 from a Keras Conv2D to torch (again for each)",
    )
    convert.add_argument(
        "--keep-others", action="store_true", help="keep parameters that are not named as they are"
    )
    return parser


def _command(
    commands: Any,
    name: str,
    function: Callable[[argparse.Namespace], Iterable[str]],
    about: str,
    more: str = "",
) -> argparse.ArgumentParser:
    description = f"{about[0].upper()}{about[1:]}. {more}".strip()
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=description)
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
    for check in installation.checks():
        rows.append((check.subject, check.found or "missing"))
        rows += [("", line) for line in (check.problem, check.cure) if line]
    yield from aligned(rows)


def _packages() -> Iterator[str]:
    versions = {name: installation.version(name) for name in _PACKAGES}
    yield from aligned(
        [(package, versions[package] or "missing", _PACKAGES[package]) for package in _PACKAGES]
    )
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield from ("", f"To get what is missing: {installation.pip_install(' '.join(missing))}")


def _kernels() -> Iterator[str]:
    yield "What makes the steps; where none of these can, the equations themselves do:"
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
        # It is no value that Python can read, such as brackets in brackets without end.
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
