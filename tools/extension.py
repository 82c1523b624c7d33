"""Sphinx extension of the book: the ledger, and what follows from results and not from sources."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

from . import ledger
from .chapters import contents, executable, repository, sources, titles
from .execute import stored
from .markup import index
from .notebooks import path_of

FOLDER = "chapters/"
STATEMENT = re.compile(r'<span class="spurlib-statement">([\w:-]+)</span>')


def claims() -> list[ledger.Entry]:
    """Return the claims of the executed chapters, in reading order."""
    return [entry for name in executable() if (nb := stored(name)) for entry in ledger.entries(name, nb)]


class Ledger(SphinxDirective):
    """Directive ``claims-ledger``: all claims of the chapters that this build shows."""

    def run(self) -> list[nodes.Node]:
        """Write the ledger in MyST and let the parser of the page read it."""
        text = ledger.page(sources(), claims(), titles())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def changed(app: Sphinx, env: BuildEnvironment, added: set[str], *_: Any) -> list[str]:
    """Read again the pages whose results changed though their sources did not, and always the ledger."""
    before = getattr(env, "spurlib_results", {})
    now = {}
    for name in executable():
        nb = stored(name)
        # Launch buttons lead to the stored notebook once there is one.
        rests_on = f"{path_of(name).exists()} {nb and nb.cells} {nb and nb.metadata.spurlib}"
        now[FOLDER + name] = hashlib.sha256(rests_on.encode()).hexdigest()
    env.spurlib_results = now  # type: ignore[attr-defined]
    again = [page for page in now if before.get(page) != now[page]] + [FOLDER + "claims"]
    return [page for page in again if page in env.found_docs]


def numbered(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show the statement of a claim by its number, and link to it, where the output has only its label."""
    known = index(sources(), contents())

    def link(found: re.Match[str]) -> str:
        label = known.get(found[1])
        if label is None:
            return found[0]
        there = app.builder.get_relative_uri(page, FOLDER + label.chapter)
        return f'<a class="spurlib-statement" href="{there}#{label.name}">{label.text}</a>'

    for node in doctree.findall(nodes.raw):
        if STATEMENT.search(text := node.astext()):
            node.children = [nodes.Text(STATEMENT.sub(link, text))]


def ran(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Say in the first box of a chapter how long it ran and when, as measured."""
    nb = stored(page.removeprefix(FOLDER))
    boxes = doctree.findall(nodes.admonition)
    if nb is None or (box := next(boxes, None)) is None or not isinstance(box.children[-1], nodes.paragraph):
        return
    seconds, day = nb.metadata.spurlib.seconds, nb.metadata.spurlib.day
    box.children[-1] += [
        nodes.Text(" "),
        nodes.strong(text="Running:"),
        nodes.Text(f" {seconds:.0f} seconds when last run, on {day}."),
    ]


def address(app: Sphinx, config: Config) -> None:
    """Take the address of the published pages from that of the repository."""
    owner, name = urlsplit(repository()).path.strip("/").split("/")
    config.ogp_site_url = config.html_baseurl = f"https://{owner.lower()}.github.io/{name}/"


def once(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Drop the second copy of sphinx-thebe's constants, which would be an error in the browser."""
    seen, scripts = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body") or ""
        if not body.startswith("const THEBE_JS_URL") or body not in seen:
            scripts.append(script)
        seen.add(body)
    context["script_files"][:] = scripts


@dataclass
class Round(AuthorYearReferenceStyle):
    """Citations as in the field: Author (year), and (Author, year)."""

    bracket_parenthetical: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_textual: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_author: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_label: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_year: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the hooks."""
    app.add_directive("claims-ledger", Ledger)
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", Round)
    app.connect("config-inited", address)
    app.connect("env-get-outdated", changed)
    app.connect("doctree-resolved", numbered)
    app.connect("doctree-resolved", ran)
    app.connect("html-page-context", once, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
