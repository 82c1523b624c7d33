"""Print the exercises of the book as ``_build/problems.pdf``, and their solutions as ``_build/solutions.pdf``.

Run as ``python -m tools.problems``, or ``make problems``; it needs Chromium. Both are cut out of the built pages and
have no text of their own; the code that the pages fold stays out, but for the data of exercises.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bs4.element import Tag

from .build import HTML, build
from .chapters import BUILD, SourceError, any_terminal, config, contents, read, repository
from .pdf import able, lines, load, opened, save
from .repository import published
from .slides import MATHJAX, article, bring

KINDS = ("exercise", "solution")
OUT = dict(zip(KINDS, (BUILD / "problems.pdf", BUILD / "solutions.pdf"), strict=True))
STYLES = re.compile(r'<link\b[^>]*rel="stylesheet"[^>]*>')
NO_PLACE = re.compile(r"-content$|^id\d+$")
"""Names that occur on every page; all others are labels, of which the book has one each."""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
{head}
<style>
h1, div ~ h2 {{ break-before: page }}
.spurlib-contents + h1, h1 + h2 {{ break-before: avoid !important }}
.spurlib-contents {{ line-height: 1.25 }}
.admonition-title {{ break-after: avoid }}
div.exercise.admonition {{ break-inside: avoid !important }}
</style>
</head>
<body class="tex2jax_ignore">
<article class="bd-article">
{content}
</article>
</body>
</html>
"""


def boxes(text: str) -> dict[str, list[Tag]]:
    """Return the exercises and the solutions of a page, in its order."""
    soup = article(text)
    # First the solutions are taken out, so that no exercise could hold one.
    found = {kind: [box.extract() for box in soup.select(f"div.{kind}")] for kind in reversed(KINDS)}
    for box in [box for kind in KINDS for box in found[kind]]:
        bring(box)
        for part in box.find_all(id=NO_PLACE):
            del part["id"]
    return found


def places(box: Tag) -> set[str]:
    """Return the names of the places in a box to which a link can lead."""
    return {str(part["id"]) for part in [box, *box.find_all(True)] if part.get("id")}


def linked(box: Tag, page: str, known: set[str]) -> str:
    """Return a box as HTML, with links to what is printed with it, and to the published pages if there are any."""
    site = published(repository())
    for link in box.find_all("a", href=True):
        there = urlsplit(str(link["href"]))
        if there.scheme:
            continue
        if there.fragment in known:
            link["href"] = f"#{there.fragment}"
        elif site:
            link["href"] = urljoin(f"{site}chapters/{page}.html", str(link["href"]))
        else:
            link.unwrap()
    return box.decode()


def document(pages: dict[str, str], kind: str) -> tuple[str, str, list[str]]:
    """Return what is to be printed of one kind as HTML, its title, and the chapters that have something of it."""
    held = {name: found for name, text in pages.items() if (found := boxes(text)[kind])}
    known = {place for found in held.values() for box in found for place in places(box)}
    parts = []
    for name, text, _ in lines({}, held):
        if name is None:
            parts.append(f"<h1>{escape(text)}</h1>")
            continue
        parts.append(f'<h2 id="document-chapters/{name}">{escape(text)}</h2>')
        parts += [linked(box, name, known) for box in held[name]]
    title = f"{config()['title']}: {OUT[kind].stem}"
    any_page = next(iter(pages.values()))
    head = "\n".join([*STYLES.findall(any_page), *MATHJAX.findall(any_page)])
    return PAGE.format(title=escape(title), head=head, content="\n".join(parts)), title, list(held)


def printed(pages: dict[str, str], folder: Path) -> None:
    """Print the exercises and the solutions of pages that lie in a folder."""
    with opened(folder) as (page, address):
        for kind, out in OUT.items():
            text, title, names = document(pages, kind)
            # As if it were one of the pages, so that pictures and styles are where it looks for them.
            there = f"{address}/chapters/{out.stem}.html"
            page.route(there, lambda route, request, text=text: route.fulfill(body=text, content_type="text/html"))
            load(page, there)
            save(page, out, title, names)


def main() -> int:
    """Run the command line and return its exit status."""
    any_terminal()
    try:
        if not able() or not build():
            return 1
        print("Printing", flush=True)
        printed({name: read(HTML / "chapters" / f"{name}.html") for name in contents()}, HTML)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
