"""The pages for Python: the guides of python/guides/, and the reference from the docstrings.

Both are converted to Markdown, which pandoc puts into a frame that build.R made: pages with the
header, the menus and the search of R's pages.
"""

import dataclasses
import functools
import html
import importlib
import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pdoc.doc
import pdoc.docstrings

# These are only documented: TensorFlow and torch's compiler can't run in one process.
MODULES = (
    "adadelta",
    "adadelta.keras",
    "adadelta.torch",
    "adadelta.tf_keras",
    "adadelta.tf1",
    "adadelta.brainpy",
    "adadelta.optax",
    "adadelta.scipy",
    "adadelta.state",
    "adadelta.installation",
)
GUIDES = Path(__file__).parent.parent / "python" / "guides"
# Longer signatures have a line for each parameter.
LINE = 80
# How the docstrings write the rule, and its TeX.
TEX = {
    r"sqrt\(([^()]*)\)": r"\\sqrt{\1}",
    r"\b(rho|epsilon)\b": r"\\\1",
    r"\beps\b": r"\\epsilon",
    r"(?<![\\\w])([a-z]+)_([a-z]+)\b": r"\\mathit{\1\\_\2}\\,",
    r"(?<![\\\w{])([a-z]{2,})\b(?!_)": r"\\mathit{\1}\\,",
    r"<-": r"\\leftarrow",
}


def write(folder: Path) -> None:
    """Write the guides to python/ and the reference to python/api/."""
    frames = {
        path: path.read_text("utf-8")
        for path in (folder / "python" / "frame.html", folder / "python" / "api" / "frame.html")
    }
    guide_frame, api_frame = frames.values()
    for path in sorted(GUIDES.glob("*.md")):
        title, _, text = path.read_text("utf-8").removeprefix("# ").partition("\n")
        # Links to other guides and to R's articles, which are pages of the site.
        text = re.sub(r"\]\((\w+)\.md(#[\w-]+)?\)", r"](\1.html\2)", text)
        text = re.sub(r"\]\(../../vignettes/(\w+)\.Rmd\)", r"](../articles/\1.html)", text)
        page = framed(guide_frame, title, with_links(from_markdown(text), "adadelta", "api/"))
        (folder / "python" / f"{path.stem}.html").write_text(page, "utf-8")
    for picture in GUIDES.glob("*.png"):
        shutil.copy(picture, folder / "python")
    for name in MODULES:
        text = with_links(from_markdown(module_text(documented(name))), name, "")
        (folder / "python" / "api" / f"{name}.html").write_text(
            framed(api_frame, name, text), "utf-8"
        )
    index = framed(api_frame, "Modules of the Python package", from_markdown(index_text()))
    (folder / "python" / "api" / "index.html").write_text(index, "utf-8")
    for path in frames:
        path.unlink()


def framed(frame: str, title: str, body: str) -> str:
    page = frame.replace("FRAME-TITLE", html.escape(title))
    # pkgdown omits this on pages without sections.
    contents = '<nav id="toc"><h2>On this page</h2></nav>'
    page = page.replace("</main>", f'</main><aside class="col-md-3">{contents}</aside>')
    return page.replace('<div id="frame-body"></div>', body)


def from_markdown(text: str) -> str:
    command = [
        "pandoc",
        "--from=markdown-smart+autolink_bare_uris",
        "--to=html",
        "--mathml",
        "--section-divs",
    ]
    command += ["--indented-code-classes=python", "--wrap=preserve"]
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    # As the tables of R's pages.
    return result.stdout.replace("<table>", '<table class="table">')


# --- The reference -----------------------------------------------------------------------------


@functools.cache
def documented(name: str) -> pdoc.doc.Module:
    module = importlib.import_module(name)
    # pdoc documents a module's attributes, which these modules create on first use.
    for public in getattr(module, "__all__", ()):
        setattr(module, public, getattr(module, public))
    return pdoc.doc.Module(module)


def public_members(doc: pdoc.doc.Module | pdoc.doc.Class) -> list[pdoc.doc.Doc[Any]]:
    """Return the members that this package documents, without those that a host's class has."""
    own = doc.own_members if isinstance(doc, pdoc.doc.Class) else doc.flattened_own_members
    return [
        member
        for member in own
        if not member.name.startswith("_")
        and member.docstring
        and (not isinstance(doc, pdoc.doc.Class) or has_own_docstring(doc.obj, member.name))
    ]


def has_own_docstring(cls: type, name: str) -> bool:
    value = inspect.getattr_static(cls, name, None)
    value = getattr(value, "__func__", value)
    is_ours = isinstance(value, property) or inspect.isfunction(value)
    return is_ours and bool(value.__doc__)


def module_text(module: pdoc.doc.Module) -> str:
    """Return a page as Markdown."""
    parts = [docstring_text(module.docstring, 2)]
    for member in public_members(module):
        parts.append(member_text(member, 2))
        if isinstance(member, pdoc.doc.Class):
            parts += [member_text(method, 3) for method in public_members(member)]
    return "\n\n".join(parts)


def member_text(member: pdoc.doc.Doc[Any], level: int) -> str:
    title = f"{'#' * level} {member.qualname} {{#{member.qualname}}}"
    code = f"~~~ python\n{signature(member)}\n~~~"
    return f"{title}\n\n{code}\n\n{docstring_text(member.docstring, level + 1)}"


def signature(member: pdoc.doc.Doc[Any]) -> str:
    """Return how to call a member, without the types, which its docstring describes."""
    function = member.members.get("__init__") if isinstance(member, pdoc.doc.Class) else member
    is_error = isinstance(member, pdoc.doc.Class) and issubclass(member.obj, Exception)
    if not isinstance(function, pdoc.doc.Function) or (
        is_error and "__init__" not in vars(member.obj)
    ):
        return member.name
    # A function of a module has no `self` to leave out.
    is_bound = member is not function or "." in member.qualname
    whole = function.signature_without_self if is_bound else function.signature
    given = whole.parameters.values()
    made = defaults_made(member.obj)
    shown = [
        str(one.replace(annotation=one.empty, default=made.get(one.name, one.default)))
        for one in given
    ]
    kinds = [one.kind for one in given]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    line = f"{member.name}({', '.join(shown)})"
    if len(line) <= LINE:
        return line
    return f"{member.name}(\n" + "".join(f"    {one},\n" for one in shown) + ")"


def defaults_made(documented: object) -> dict[str, Any]:
    """The defaults of a dataclass that are made anew for each object."""
    fields = dataclasses.fields(documented) if dataclasses.is_dataclass(documented) else ()
    return {
        field.name: field.default_factory()
        for field in fields
        if field.default_factory is not dataclasses.MISSING
    }


def docstring_text(docstring: str, level: int) -> str:
    """Convert a docstring in Google style to Markdown."""
    text = pdoc.docstrings.google(docstring)
    text = re.sub(r"^###### (.*?):?$", rf"{'#' * level} \1 {{.unlisted}}", text, flags=re.M)
    # Arguments and similar sections become a list, as on R's pages.
    text = re.sub(r"^ - \*\*(.+?):\*\* +", r"\n`\1`\n:   ", text, flags=re.M)
    text = re.sub(r"^> ?", "", text, flags=re.M)
    text = re.sub(r"(^>>> (?:.+\n?)+)", r"~~~ python\n\1\n~~~\n", text, flags=re.M)
    # What only the test of an example reads.
    text = re.sub(r" *# doctest: .*$|^<BLANKLINE>$", "", text, flags=re.M)
    return re.sub(r"(?:^    .*<- .*\n?)+", lambda block: formula(block[0]), text, flags=re.M)


def formula(block: str) -> str:
    """Return the equations of an indented block as TeX."""
    lines = []
    for line in block.strip().splitlines():
        for plain, tex in TEX.items():
            line = re.sub(plain, tex, line)
        lines.append(f"$${line.strip()}$$")
    return "\n\n".join(lines) + "\n"


def index_text() -> str:
    parts = ["The modules of the package, and what each of them contains."]
    for name in MODULES:
        module = documented(name)
        parts.append(f"## [{name}]({name}.html) {{#{name}}}\n\n{summary_line(module)}")
        for member in public_members(module):
            parts.append(
                f"[`{member.qualname}`]({name}.html#{member.qualname})\n:   {summary_line(member)}"
            )
    return "\n\n".join(parts)


def summary_line(doc: pdoc.doc.Doc[Any]) -> str:
    return " ".join(doc.docstring.strip().partition("\n\n")[0].split())


@functools.cache
def places() -> dict[str, str]:
    """Return where each public name is documented: in the first module that has it."""
    found: dict[str, str] = {}
    for name in MODULES:
        found.setdefault(name, f"{name}.html")
        for member in public_members(documented(name)):
            members = [member]
            if isinstance(member, pdoc.doc.Class):
                members += public_members(member)
            for one in members:
                found.setdefault(f"{name}.{one.qualname}", f"{name}.html#{one.qualname}")
    return found


def with_links(text: str, module: str, folder: str) -> str:
    """Link each name in the text that has a page: in this module, or with the name of another."""

    def link(match: re.Match[str]) -> str:
        name = match[1].partition("(")[0]
        # "torch" is that package, and "adadelta.torch" our module.
        inside = f"{module}.{name}"
        full = name if name in places() or inside in MODULES else inside
        place = places().get(full)
        return f'<a href="{folder}{place}">{match[0]}</a>' if place else match[0]

    # Not in a link or a heading, and not the name of an argument.
    return re.sub(r'(?<!["t]>)<code>([\w.]+(?:\([^<]*\))?)</code>', link, text)
