"""Imports between modules: in one direction between the layers, and never in a circle."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adadelta

ROOT = Path(adadelta.__file__).resolve().parent
CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
FRAMEWORKS = (
    "keras",
    "jax",
    "tensorflow",
    "torch",
    "tf_keras",
    "brainpy",
    "optax",
    "numba",
    "triton",
)

# Layers from lowest to highest. A part may import itself and lower layers, but no other part of its
# layer, such as another front end. A front end is its file and the folder of the same name.
LAYERS = (
    ("_core",),
    ("_kernels", "_state"),
    ("_torch", "_jax", "_tensorflow"),
    ("state",),
    ("keras", "torch", "tf_keras", "tf1", "brainpy", "optax", "scipy"),
    ("_watch",),
    ("__init__",),
    ("installation",),
    ("r", "__main__"),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
FRONT_ENDS = LAYERS[4]

# In `_torch` these belong to the front end; the rest steps for Keras on torch too.
OF_TORCH = ("_torch.arguments", "_torch.exchange", "_torch.loading")


def name_of(path):
    """Return the name of a module within the package: "keras", "_keras.state", "__init__"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
FULL_NAMES = {f"adadelta.{module}" for module in FILES}


def part_of(module):
    """Return the part of the package that a module belongs to, one of those in `LAYERS`."""
    if module in OF_TORCH:
        return "torch"
    first = module.split(".")[0]
    folder_of = first.removeprefix("_")
    return folder_of if first not in LAYER_OF and folder_of in FRONT_ENDS else first


def names_imported(path):
    """Yield the full names that a file imports, and our modules whose names are in its strings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and node.value in FULL_NAMES:
            # The argument of `import_module`.
            yield node.value


def module_in(name):
    """Return our module that has or contains a full name: "_core.rule" for "...rule.update"."""
    inner = name.removeprefix("adadelta").removeprefix(".")
    while inner and inner not in FILES:
        inner = inner.rpartition(".")[0]
    return inner or "__init__"


def own_imports(module):
    """Return the other modules of the package that a module imports."""
    names = [n for n in names_imported(FILES[module]) if n.split(".")[0] == "adadelta"]
    return {module_in(name) for name in names} - {module}


def packages_imported(module):
    return {name.split(".")[0] for name in names_imported(FILES[module])} - {"adadelta"}


def test_every_module_is_in_a_layer():
    assert len(FILES) > 10
    assert {part_of(module) for module in FILES} == set(LAYER_OF)
    assert set(OF_TORCH) <= set(FILES)


def test_the_picture_is_right():
    """CONTRIBUTING.md draws the layers from the highest to the lowest."""
    picture = re.search(r"```text\n(.*?)```", CONTRIBUTING.read_text(), flags=re.S)[1]
    drawn = [tuple(re.split(" {2,}", line)[0].split()) for line in picture.splitlines()]
    assert drawn == list(reversed(LAYERS))


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    part = part_of(module)
    for imported in own_imports(module):
        other = part_of(imported)
        is_below = LAYER_OF[other] < LAYER_OF[part]
        assert other == part or is_below, f"{module} imports {imported}"


def refuse_circles(imports):
    graph = {module: set() for module in FILES}
    for module, imported in imports:
        graph[module].add(imported)
    graphlib.TopologicalSorter(graph).prepare()


def test_imports_run_in_no_circle():
    imports = {(module, imported) for module in FILES for imported in own_imports(module)}
    refuse_circles(imports)


@pytest.mark.parametrize("module", [module for module in FILES if part_of(module) == "_core"])
def test_the_core_needs_the_standard_library_only(module):
    assert packages_imported(module) <= sys.stdlib_module_names


@pytest.mark.parametrize("module", FILES)
def test_what_lies_below_the_front_ends_knows_no_host(module):
    hosts = {"keras", "tf_keras", "brainpy", "optax", "scipy"}
    if LAYER_OF[part_of(module)] < LAYER_OF["keras"]:
        assert not packages_imported(module) & hosts


@pytest.mark.parametrize("module", FILES)
def test_nothing_imports_tests_or_bench(module):
    assert not packages_imported(module) & {"tests", "bench", "driver", "vectors"}


def test_folders_are_imported_without_their_modules():
    for module, path in FILES.items():
        if path.name == "__init__.py" and module != "__init__":
            assert not list(names_imported(path)), module


def test_importing_the_package_imports_no_framework():
    code = f"import sys, adadelta; print([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "[]"


def test_front_ends_are_there_after_importing_the_package():
    code = (
        "import adadelta; adadelta.keras.Adadelta; adadelta.state.read_state\n"
        "print([hasattr(adadelta, name) for name in ('nothing', '_nothing', 'keras')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "[False, False, True]"


def test_r_names_public_python_only():
    """R files may name modules and attributes of the package that have no leading underscore."""
    folder = ROOT.parent.parent / "R"
    if not folder.exists():
        pytest.skip("the R sources are not here")
    for path in folder.glob("*.R"):
        assert "adadelta._" not in path.read_text(), path.name


def test_a_front_end_is_imported_when_it_is_first_used():
    code = "import sys, adadelta; adadelta.state.read_state; print('adadelta.state' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert result.stdout.strip() == "True"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        adadelta.nothing  # noqa: B018
