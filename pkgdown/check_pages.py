"""Check that the pages of a site fit a phone: check_pages.py FOLDER.

No line of code is longer than 85 characters. Where Chromium is installed, no page is wider than a
screen of 390 pixels, in light or in dark.
"""

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LINE = 85
WIDTH = 390
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


def wide_pages(pages: list[Path], browser: str) -> list[str]:
    """Return the pages that scroll sideways, with what is too wide in them.

    A frame has the width of a phone, however wide the browser's smallest window is. One page loads
    all the others in turn, and writes the result into itself.
    """
    names = [page.resolve().as_uri() for page in pages]
    script = f"""
      const found = [];
      const frame = document.querySelector("iframe");
      const pages = {names};
      async function look(address) {{
        await new Promise((loaded) => {{ frame.onload = loaded; frame.src = address; }});
        const page = frame.contentDocument.documentElement;
        for (const theme of ["light", "dark"]) {{
          page.dataset.bsTheme = theme;
          if (page.scrollWidth > {WIDTH})
            found.push(`${{address}}: ${{page.scrollWidth}} pixels wide, in ${{theme}}`);
        }}
      }}
      (async () => {{
        for (const address of pages) await look(address);
        document.querySelector("output").textContent = found.join("\\n") || "all fit";
      }})();
    """
    with tempfile.TemporaryDirectory() as folder:
        shell = Path(folder, "all.html")
        frame = f'<iframe style="width: {WIDTH}px; height: 844px; border: 0"></iframe>'
        shell.write_text(f"<output></output>{frame}<script>{script}</script>", "utf-8")
        command = [browser, "--headless", "--no-sandbox", "--allow-file-access-from-files"]
        command += ["--virtual-time-budget=120000", f"--user-data-dir={folder}", "--dump-dom"]
        result = subprocess.run(
            [*command, shell.as_uri()], capture_output=True, text=True, timeout=300, check=True
        )
    seen = re.search(r"<output>(.+?)</output>", result.stdout, flags=re.S)
    if seen is None:
        return [f"{browser} could not show the pages: {result.stderr[-500:]}"]
    return [] if seen[1] == "all fit" else html.unescape(seen[1]).splitlines()


def main(folder: str) -> int:
    pages = sorted(Path(folder).rglob("*.html"))
    found = [line for page in pages for line in long_lines(page)]
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser:
        found += wide_pages(pages, browser)
    how = f"shown {WIDTH} pixels wide" if browser else "not shown: there is no Chromium"
    print(f"{len(pages)} pages: code read, {how}")
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
