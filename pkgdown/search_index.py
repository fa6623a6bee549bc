"""Write the search index as a script, so that it works without a server too."""

import html
import json
import re
from pathlib import Path
from typing import Any

TERM = re.compile(r"<dt[^>]*>(.*?)</dt>\s*<dd[^>]*>(.*?)</dd>", flags=re.S)
PLACE = re.compile(r'\bid="([^"]+)"')
# Sections that every page has.
COMMON = {"Usage", "Arguments", "Value", "References", "See also", "Examples", "Author"}


def write(folder: Path) -> None:
    """Index pages, their sections and the arguments of functions, R's functions first."""
    pages = sorted(folder.rglob("*.html"), key=lambda path: rank(path.relative_to(folder)))
    entries = [entry for path in pages for entry in entries_of(path, folder)]
    script = f"window.searchIndex = {json.dumps(entries, ensure_ascii=False)};\n"
    (folder / "search-index.js").write_text(script, "utf-8")


def rank(path: Path) -> tuple[bool, bool, str]:
    """Rank pages that match equally well: the optimizer, R's functions, everything else."""
    return path.stem != "optimizer_adadelta", path.parts[0] != "reference", path.as_posix()


def entries_of(path: Path, folder: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    body = re.search(r"<main\b.*?</main>", text, flags=re.S)
    if body is None or path.name == "404.html":
        return []
    body = re.sub(r"<math\b.*?</math>", " ", body[0], flags=re.S)
    title = plain(re.search(r"<title>(.*?)</title>", text, flags=re.S)[1]).split(" • ")[0]
    language = "Python" if "python" in path.relative_to(folder).parts else "R"
    where = path.relative_to(folder).as_posix()
    # The page of a function is titled with its name.
    about, dash, owner = title.rpartition(" — ")
    title, subtitle = (owner, about) if dash else (title, language)
    entries = [{"title": title, "page": subtitle, "path": where, "text": f"{about} {plain(body)}"}]
    place = ""
    pieces = re.split(r"(<h[23][^>]*>.*?</h[23]>)", body, flags=re.S)
    for before, heading in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        # Arguments and other terms; the terms of an index have pages of their own.
        if place and path.name != "index.html":
            for term, text in TERM.findall(before):
                link = f"{where}#{place}"
                entries.append(
                    {"title": plain(term), "page": owner, "path": link, "text": plain(text)}
                )
        # A heading's anchor is its own or that of the section it opens.
        place = (PLACE.findall(before[-300:] + heading) or [place])[-1]
        section = plain(heading)
        if not section or section in COMMON or "unlisted" in heading:
            continue
        if language == "Python" and "api" in path.parts:
            owner = f"{title}.{section}"
        entries.append({"title": section, "page": title, "path": f"{where}#{place}", "text": ""})
    return entries


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
