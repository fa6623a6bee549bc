"""Check a site without a network: check_links.py FOLDER.

Every link inside the site must lead to a file and, if it names one, to an anchor in it. No page may
need a script, a style sheet, a font or a picture from another server. Links to other sites are
counted, but not followed.
"""

import html.parser
import re
import sys
import urllib.parse
from pathlib import Path

# Attributes that a browser follows by itself, by tag; a `link` counts if its `rel` is one of these.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LOADED_LINKS = {"stylesheet", "icon", "apple-touch-icon", "preload"}


class Page(html.parser.HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        is_loaded = tag != "link" or LOADED_LINKS & set(given.get("rel", "").split())
        if tag in LOADED and LOADED[tag] in given and is_loaded:
            self.loads.append(given[LOADED[tag]])
        elif "href" in given:
            self.links.append(given["href"])


def is_outside(address: str) -> bool:
    return bool(re.match(r"(?!data:)[a-z][a-z0-9+.-]*:|//", address))


def problems(folder: Path) -> list[str]:
    """Return every dead link and everything that is loaded from another server."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for address in page.loads + page.links:
            if is_outside(address) or address.startswith("data:"):
                if address in page.loads and is_outside(address):
                    found.append(f"{path}: loads {address}")
                continue
            parts = urllib.parse.urlsplit(address)
            name = urllib.parse.unquote(parts.path)
            target = (path.parent / name).resolve() if name else path.resolve()
            if target.is_dir():
                target /= "index.html"
            place = urllib.parse.unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{path}: no file {address}")
            elif place and target.suffix == ".html":
                other = next(it for at, it in pages.items() if at.resolve() == target)
                if place not in other.places:
                    found.append(f"{path}: no place {address}")
    for path in sorted(folder.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", _css(path)):
            if is_outside(address[0] or address[1]):
                found.append(f"{path}: loads {address[0] or address[1]}")
    links = sum(len(page.links) for page in pages.values())
    outside = {link for page in pages.values() for link in page.links if is_outside(link)}
    print(f"{len(pages)} pages, {links} links, {len(outside)} other sites or addresses")
    return found


def _css(path: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", path.read_text("utf-8"), flags=re.S)


def main(folder: str) -> int:
    if not Path(folder, "index.html").is_file():
        print(f"There is no site in {folder}.")
        return 1
    found = problems(Path(folder))
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
