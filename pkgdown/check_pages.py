"""Check that the pages of a site can be read: check_pages.py FOLDER.

No line of code is longer than 85 characters, nothing is left of what pages are made from, and what
is called in Python is shown with the arguments that are described.
Where Chromium is installed, no page is wider than a screen of 390 pixels, all text stands out from
what is behind it, in light and in dark, and the search finds the arguments of the optimizer.
"""

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LINE = 85
WIDTH = 390
# The least contrast of text, by level AA of the Web Content Accessibility Guidelines.
CONTRAST = 4.5
# What a reader may search for, and the page that answers it.
SEARCHES = {
    "weight_decay": "optimizer_adadelta.html",
    "use_ema": "optimizer_adadelta.html",
    "foreach": "adadelta.torch.html",
}
# What no reader should see: escapes, and what pages are made from.
LEFTOVERS = re.compile(
    r"#\d+;|<factory>|# doctest|<BLANKLINE>|\(\*args, \*\*kwargs\)|\\(link|code)\{"
)
LOOK = Path(__file__).with_name("check_pages.js")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def long_lines(page: Path) -> list[str]:
    """Return the lines of code that don't fit, without text for screen readers only."""
    blocks = re.findall(r"<pre\b[^>]*>(.*?)</pre>", page.read_text("utf-8"), flags=re.S)
    lines = [
        html.unescape(re.sub(r"<[^>]*>", "", line))
        for block in blocks
        for line in block.splitlines()
    ]
    return [f"{page}: {len(line)} characters: {line}" for line in lines if len(line) > LINE]


def leftovers(page: Path) -> list[str]:
    text = html.unescape(re.sub(r"<[^>]*>", "", page.read_text("utf-8")))
    return [f"{page}: left over: {found[0]}" for found in LEFTOVERS.finditer(text)]


def missing_arguments(page: Path) -> list[str]:
    """Return the arguments that a page for Python describes and the call above them lacks."""
    found = []
    for member in re.split(r'<h[23](?! class="unlisted")', page.read_text("utf-8")):
        call = re.search(r"<pre\b.*?</pre>", member, flags=re.S)
        described = re.search(r">Arguments</h\d>(.*?)</dl>", member, flags=re.S)
        if call and described:
            shown = re.findall(r"\w+", re.sub(r"<[^>]*>", "", call[0]))
            names = re.findall(r"<dt>\s*<code>\**(\w+)</code>", described[1])
            found += [f"{page}: no argument {name}" for name in names if name not in shown]
    return found


def shown_pages(folder: Path, pages: list[Path], browser: str) -> list[str]:
    """Return what is wrong with the pages as a browser shows them; see check_pages.js.

    A frame has the width of a phone, however wide the browser's smallest window is. One page loads
    all the others in turn, and writes the result into itself.
    """
    task = {
        "home": (folder / "index.html").resolve().as_uri(),
        "pages": [page.resolve().as_uri() for page in pages],
        "width": WIDTH,
        "contrast": CONTRAST,
        "searches": SEARCHES,
    }
    script = f"{LOOK.read_text('utf-8')}\ncheck({json.dumps(task)});"
    with tempfile.TemporaryDirectory() as profile:
        shell = Path(profile, "all.html")
        frame = f'<iframe style="width: {WIDTH}px; height: 844px; border: 0"></iframe>'
        shell.write_text(f"<output></output>{frame}<script>{script}</script>", "utf-8")
        command = [browser, "--headless", "--no-sandbox", "--allow-file-access-from-files"]
        command += ["--virtual-time-budget=120000", f"--user-data-dir={profile}", "--dump-dom"]
        result = subprocess.run(
            [*command, shell.as_uri()], capture_output=True, text=True, timeout=300, check=True
        )
    seen = re.search(r"<output>(.+?)</output>", result.stdout, flags=re.S)
    if seen is None:
        return [f"{browser} could not show the pages: {result.stderr[-500:]}"]
    return [] if seen[1] == "all fit" else html.unescape(seen[1]).splitlines()


def main(folder: str) -> int:
    pages = sorted(Path(folder).rglob("*.html"))
    found = [line for page in pages for line in (*long_lines(page), *leftovers(page))]
    found += [
        line for page in pages if page.parent.name == "api" for line in missing_arguments(page)
    ]
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser:
        found += shown_pages(Path(folder), pages, browser)
    how = f"shown {WIDTH} pixels wide" if browser else "not shown: there is no Chromium"
    print(f"{len(pages)} pages: code read, {how}")
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
