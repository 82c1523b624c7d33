"""Print the book: all chapters in one PDF with numbered statements, a contents list and bookmarks.

Run as ``python -m tools.pdf``, or ``make pdf``; it needs Chromium. The code that the pages fold, the ledger and the
list of functions stay out; exercises are printed with their solutions.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

from .build import BUILD, build, render
from .chapters import LICENSED, ROOT, any_terminal, config, contents, read, titles

PRINT = BUILD / "print"
OUT = BUILD / "book.pdf"
ON_SCREEN = ("claims", "library")
"""Chapters that are to be searched and not to be read: they are not printed."""
STYLE = """
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .header-article, .bd-footer,
.prev-next-footer, .bd-footer-content, .skip-link, .headerlink, .copybtn, .back-to-top, .toctree-wrapper > p.caption,
.spurlib-code:not(.spurlib-data), .spurlib-checks, .spurlib-explorer form, .spurlib-filter, details > summary,
.onlyprint, #jb-print-docs-body, #jb-print-toc, .toggle-button { display: none !important }
html { font-size: 9.5pt !important }
p, li, dd, td, th { line-height: 1.45 !important }
body, .bd-container, .bd-container__inner, .bd-main, .bd-content, .bd-article-container, .bd-article {
  display: block !important; max-width: none !important; width: auto !important; padding: 0 !important;
  margin: 0 !important }
h2, h3, h4 { break-after: avoid }
p.admonition-title { break-after: avoid }
figure, table.dataframe, tr, pre, .cell_input, div.math, .spurlib-claim, .cell_output img { break-inside: avoid }
.bd-article table:not(.dataframe) { break-inside: auto !important }
figure img { max-width: 100%; max-height: 11cm }
.spurlib-graph svg { width: auto !important; max-width: 100% !important; max-height: 22cm }
.spurlib-cut { background: none !important; overflow: visible !important }
.bd-article .cell_output table.dataframe { font-size: 7.5pt }
.bd-article .cell_output table.dataframe :is(td, th) { padding: 1px 4px; white-space: normal }
div.admonition, div.proof { break-inside: auto !important }
pre { white-space: pre-wrap; font-size: 8.5pt }
mjx-container { overflow: visible !important; font-size: 115% !important }
.spurlib-contents { break-after: page }
.spurlib-contents .part { margin: 1em 0 0.2em; font-size: 12pt; font-weight: bold; break-after: avoid }
.spurlib-contents a { display: flex; color: inherit; text-decoration: none }
.spurlib-contents a span { flex: 1; border-bottom: 1px dotted; margin: 0 0.5em 0.3em }
"""
FOOTER = '<div style="width: 100%; text-align: center; font-size: 8pt"><span class="pageNumber"></span></div>'
WIDTH = 658
"""Of the text on the paper, in pixels: 174 mm."""
FIT = """() => document.querySelectorAll('.cell_output table').forEach(table => {
    const room = table.parentElement.clientWidth / table.scrollWidth;
    if (room > 0 && room < 1) table.style.zoom = room;
})"""
NO_TAIL = """() => document.querySelectorAll('article section').forEach(section => {
    for (let last = section; last; last = last.lastElementChild)
        for (const space of ['margin-bottom', 'padding-bottom'])
            last.style.setProperty(space, '0', 'important');
})"""
"""Without the space below the last lines of a chapter, which can fill a page of its own."""
MARGIN = {"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"}
CONTENTS = """([title, author, license, lines]) => {
    document.querySelector('.spurlib-contents')?.remove();
    const list = document.createElement('div');
    list.className = 'spurlib-contents';
    const row = ([name, text, page]) => name === null
        ? `<p class="part">${text}</p>` : `<a href="#document-chapters/${name}">${text}<span></span>${page}</a>`;
    list.innerHTML = `<p style="font-size: 26pt">${title}</p><p>${author}</p><p>${license}</p>`
        + lines.map(row).join('');
    document.querySelector('article').prepend(list);
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def chromium() -> str | None:
    """Return the path of the browser, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files of a folder and return their address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def able() -> bool:
    """Return whether there is a browser to print with, and say so when there is none."""
    if chromium() is None:
        print("Chromium is needed to print, and is not on the path.", file=sys.stderr)
        return False
    return True


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Page, str]]:
    """Serve the files of a folder, and return a page of the browser and the address."""
    with sync_playwright() as playwright, serve(folder) as address:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(), address
        browser.close()


def lines(pages: dict[str, int], names: Container[str]) -> list[tuple[str | None, str, str]]:
    """Return the contents list of these chapters: name, text and page of each, and the parts, which have no name."""
    number = contents()
    found: list[tuple[str | None, str, str]] = []
    for part in yaml.safe_load(read(ROOT / "_toc.yml"))["parts"]:
        inside = [name for entry in part["chapters"] if (name := Path(entry["file"]).name) in names]
        if inside:
            found.append((None, part["caption"], ""))
        for name in inside:
            title = f"{number[name]}. {titles()[name]}" if number[name] else titles()[name]
            found.append((name, title, str(pages.get(titles()[name], ""))))
    return found


def starts(pdf: Path) -> dict[str, int]:
    """Return the page on which each chapter starts, by its title, from the bookmarks."""
    # Where a heading is broken into lines, the bookmark has no space.
    reader, found = PdfReader(pdf), dict[str, int]()
    wanted = {"".join(title.split()): title for title in titles().values()}

    def look(items: list[Any]) -> None:
        for item in items:
            if isinstance(item, list):
                look(item)
            elif title := wanted.get("".join(str(item.title).split()).lstrip("0123456789.")):
                found.setdefault(title, (reader.get_destination_page_number(item) or 0) + 1)

    look(reader.outline)
    return found


def load(page: Page, address: str) -> None:
    """Open a page in the browser as it is to be printed, with its formulas typeset and everything unfolded."""
    page.set_default_timeout(0)
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax.startup.promise")
    page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true })")
    page.evaluate("() => { document.documentElement.dataset.theme = 'light' }")


def save(page: Page, out: Path, title: str, names: Container[str]) -> None:
    """Print the page that is open, after its title and the list of these chapters."""
    page.add_style_tag(content=STYLE)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": WIDTH, "height": 1000})
    page.evaluate(FIT)  # a table that is still too wide becomes smaller
    page.evaluate(NO_TAIL)
    pages: dict[str, int] = {}
    for _ in range(2):  # the second time with the numbers of the pages
        page.evaluate(CONTENTS, [title, config()["author"], LICENSED, lines(pages, names)])
        page.pdf(
            path=out,
            format="A4",
            print_background=True,
            margin=MARGIN,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        pages = starts(out)
    print(f"{out}: {len(PdfReader(out).pages)} pages")


def pdf() -> bool:
    """Make the PDF; return True when all went well."""
    if not able() or not build():
        return False
    print("Laying out one long page", flush=True)
    if (said := render("singlehtml", PRINT)) is not None:
        print(said, file=sys.stderr)
        return False
    folder = PRINT / "_build" / "singlehtml"
    # Sphinx addresses all that the page needs as if the page were at the top.
    shutil.copy(folder / "chapters" / "index.html", folder / "book.html")
    print("Printing", flush=True)
    with opened(folder) as (page, address):
        load(page, f"{address}/book.html")
        for name in ON_SCREEN:
            page.evaluate(
                "id => { const one = document.getElementById(id); one.nextElementSibling.remove(); one.remove() }",
                f"document-chapters/{name}",
            )
        page.evaluate(
            """() => document.querySelectorAll('[id^="document-chapters/"]').forEach(mark => {
                mark.nextElementSibling.style.breakBefore = 'page' })"""
        )
        save(page, OUT, config()["title"], contents().keys() - {*ON_SCREEN})
    return True


if __name__ == "__main__":
    any_terminal()
    sys.exit(0 if pdf() else 1)
