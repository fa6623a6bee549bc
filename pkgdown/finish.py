"""Finishes the site that build.R began: finish.py FOLDER.

Adds the pages of the Python API, turns formulas into MathML, which browsers show by themselves, and
writes the index of the search as a script, which works without a server too.
"""

import functools
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

# TensorFlow and torch's compiler can't be in one process with these, so nothing is run here.
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
MATH = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$", flags=re.S)


def python_pages(folder: Path) -> None:
    """Write the pages of the Python API."""
    import pdoc

    import adadelta

    # pdoc documents what a module has, and this one looks its names up when they are first used.
    for name in adadelta.__all__:
        setattr(adadelta, name, getattr(adadelta, name))
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=Path(__file__).parent / "python",
        footer_text=f"adadelta {adadelta.__version__}",
    )
    pdoc.pdoc(*MODULES, output_directory=folder)


def without_dead_places(page: Path) -> None:
    """Make plain text of links to members that pdoc leaves out, those of the host's classes."""
    text = page.read_text("utf-8")
    places = set(re.findall(r'\bid="([^"]+)"', text))
    text = re.sub(
        r'<a href="#([^"]+)">(.*?)</a>',
        lambda link: link[0] if link[1] in places else link[2],
        text,
        flags=re.S,
    )
    page.write_text(text, "utf-8")


@functools.cache
def mathml(formula: str, display: bool) -> str:
    """TeX as MathML, by pandoc."""
    sign = "$$" if display else "$"
    result = subprocess.run(
        ["pandoc", "--from=markdown", "--to=html", "--mathml"],
        input=sign + html.unescape(formula).strip() + sign,
        capture_output=True,
        text=True,
        check=True,
    )
    if "<math" not in result.stdout:
        raise ValueError(f"pandoc can't read the formula {formula!r}: {result.stderr}")
    # pandoc asks for brackets that grow with the exponent beside them.
    steady = re.sub(r'stretchy="true"(?= form="\w+">[()]<)', 'stretchy="false"', result.stdout)
    return re.sub(r"</?p>", "", steady).strip()


def formulas(page: Path) -> None:
    """Replace the formulas in the text of a page, and leave code as it is."""
    head, mark, body = page.read_text("utf-8").partition("<main")
    # Pieces of code at the odd places.
    pieces = re.split(r"(<pre\b.*?</pre>|<code\b.*?</code>)", body, flags=re.S)
    pieces[::2] = [
        MATH.sub(lambda it: mathml(it[1] or it[2] or it[3], not it[1]), piece)
        for piece in pieces[::2]
    ]
    page.write_text(head + mark + "".join(pieces), "utf-8")


def search_index(folder: Path) -> None:
    """The pages and their sections, of R and of Python."""
    entries = []
    for path in sorted(folder.rglob("*.html")):
        text = path.read_text("utf-8")
        body = re.search(r"<main\b.*?</main>", text, flags=re.S)
        if body is None:
            continue
        body = re.sub(r"<math\b.*?</math>", " ", body[0], flags=re.S)
        page = plain(re.search(r"<title>(.*?)</title>", text, flags=re.S)[1]).split(" • ")[0]
        where = path.relative_to(folder).as_posix()
        entries.append({"title": page, "page": where, "path": where, "text": plain(body)})
        for place, title in re.findall(r'id="([^"]+)"[^>]*>\s*<h[23][^>]*>(.*?)</h[23]>', body):
            entry = {"title": plain(title), "page": page, "path": f"{where}#{place}", "text": page}
            entries.append(entry)
        for place in re.findall(r'<section id="([^"]+)"', body):
            entry = {"title": place, "page": page, "path": f"{where}#{place}", "text": page}
            entries.append(entry)
    script = f"window.searchIndex = {json.dumps(entries, ensure_ascii=False)};\n"
    (folder / "search-index.js").write_text(script, "utf-8")


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def main(folder: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    root = Path(folder)
    python_pages(root / "python")
    for page in (root / "python").rglob("*.html"):
        without_dead_places(page)
    for page in root.rglob("*.html"):
        formulas(page)
    search_index(root)


if __name__ == "__main__":
    main(sys.argv[1])
