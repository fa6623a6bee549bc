"""Finish the site that build.R began: finish.py FOLDER.

Add the pages for Python, convert formulas to MathML, which browsers display by themselves, and
write the search index.
"""

import functools
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import check_pages
import python_pages
import search_index

MATH = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$", flags=re.S)


@functools.cache
def mathml(formula: str, display: bool) -> str:
    """Return TeX as MathML, converted by pandoc."""
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
    return re.sub(r"</?p>", "", result.stdout).strip()


def formulas(text: str) -> str:
    """Replace the formulas in the text of a page, and leave code as it is."""
    head, mark, body = text.partition("<main")
    # Every second piece is code.
    pieces = re.split(r"(<pre\b.*?</pre>|<code\b.*?</code>)", body, flags=re.S)
    pieces[::2] = [
        MATH.sub(lambda it: mathml(it[1] or it[2] or it[3], not it[1]), piece)
        for piece in pieces[::2]
    ]
    body = "".join(pieces)
    # pandoc lets brackets grow with the exponent beside them.
    steady = re.sub(r'stretchy="true"(?= form="\w+">[()]<)', 'stretchy="false"', body)
    return head + mark + steady


def links_inside(text: str) -> str:
    """Lead the links of README to the pages here; README itself is the first of them."""
    text = text.replace('href="README.html"', 'href="index.html"')
    text = re.sub(r'href="vignettes/(\w+)\.Rmd"', r'href="articles/\1.html"', text)
    return re.sub(r'href="python/guides/(\w+)\.html"', r'href="python/\1.html"', text)


def whole_sentences(text: str) -> str:
    """Put the sentences together that pkgdown splits after code at the end of a line of a value."""
    text = re.sub(r"(</code>)</p>\s*<p>(?=[a-z(])", r"\1 ", text)
    # And a link to a paper from the sign after it.
    return re.sub(r"(</a>)\s+(?=[);.,])", r"\1", text)


def methods_of_ggplot2(text: str) -> str:
    """Show methods of functions of ggplot2 as methods; pkgdown knows only those of base R."""
    return re.sub(
        r'<span class="fu">autoplot\.([\w.]+)</span>',
        r'<span class="co"># S3 method for \1</span></span>'
        "\n"
        r'<span><span class="fu">autoplot</span>',
        text,
    )


def described_pictures(text: str) -> str:
    """Add descriptions to the pictures of examples, which pkgdown leaves without any."""
    title = re.search(r"<title>(.*?)</title>", text, flags=re.S)[1].split(" — ")[0]
    described = rf'\1 alt="Result of the example: {title}"'
    return re.sub(r'(class="r-plt img"><img src="[^"]+") alt=""', described, text)


def wrapped_results(text: str) -> str:
    """Wrap long lines in results of R, which are messages: tables keep within R's width."""
    lines = text.split("\n")
    return "\n".join(
        wrapped(line) if re.match(r"(<[^>]*>)*#&gt;", line) else line for line in lines
    )


def wrapped(line: str) -> str:
    pieces = re.findall(r"<[^>]*>|&#?\w+;|[^<&]", line)
    width = space = 0
    for place, piece in enumerate(pieces):
        if piece.startswith("<"):
            continue
        width += 1
        if width > check_pages.LINE and space:
            pieces[space] = "\n#&gt;   "
            width, space = 5 + sum(not it.startswith("<") for it in pieces[space:place]), 0
        elif piece == " " and width > 6:
            space = place
    return "".join(pieces)


def methods_below(text: str) -> str:
    """In the index of functions, put methods for R's own functions below the functions."""
    # A method for a function of ggplot2, which pkgdown does not recognize.
    text = re.sub(r">autoplot\.([\w.]+)\(\)<", r">autoplot(<i>&lt;\1&gt;</i>)<", text)

    def sorted_names(row: re.Match[str]) -> str:
        names = re.findall(r"<code>.*?</code>", row[1], flags=re.S)
        methods = [name for name in names if "<i>" in name]
        functions = [name for name in names if name not in methods]
        if not functions:
            return row[0]
        below = f'<dd class="methods">{" ".join(methods)}</dd>' if methods else ""
        return f"<dt>{' '.join(functions)}</dt>{row[2]}{below}"

    return re.sub(r"<dt>(.*?)</dt>(\s*<dd>.*?</dd>)", sorted_names, text, flags=re.S)


def main(folder: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    root = Path(folder)
    python_pages.write(root)
    for page in root.rglob("*.html"):
        text = page.read_text("utf-8")
        for mend in (formulas, described_pictures, wrapped_results, links_inside):
            text = mend(text)
        if page.parent.name == "reference":
            text = methods_of_ggplot2(whole_sentences(text))
        page.write_text(text, "utf-8")
    functions = root / "reference" / "index.html"
    functions.write_text(methods_below(functions.read_text("utf-8")), "utf-8")
    search_index.write(root)


if __name__ == "__main__":
    main(sys.argv[1])
