"""Sphinx extension of the book: the ledger, and what follows from results and not from sources."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

from . import ledger
from .chapters import CHAPTERS, ROOT, contents, executable, repository, sources, titles
from .execute import stored
from .markup import labels
from .notebooks import path_of
from .repository import published

logger = logging.getLogger(__name__)

FOLDER = "chapters/"
STATEMENT = re.compile(r'<span class="spurlib-statement">([\w:-]+)</span>')
WORD = re.compile(r"[\w:-]+")


@cache
def ledger_page() -> str:
    """Return the ledger as MyST text."""
    return ledger.page(sources(), ledger.claims(), titles())


class Ledger(SphinxDirective):
    """Directive ``claims-ledger``: all claims of the chapters that this build shows."""

    def run(self) -> list[nodes.Node]:
        """Write the ledger in MyST and let the parser of the page read it."""
        return self.parse_text_to_nodes(ledger_page(), allow_section_headings=True)


def changed(app: Sphinx, env: BuildEnvironment, *_: Any) -> list[str]:
    """Read again the pages whose results changed though their sources did not."""
    before = getattr(env, "spurlib_results", {})
    now = {FOLDER + "claims": _digest(ledger_page())}
    for name in executable():
        nb = stored(name)
        # Launch buttons lead to the stored notebook once there is one.
        now[FOLDER + name] = _digest(f"{path_of(name).exists()} {nb and nb.cells} {nb and nb.metadata.spurlib}")
    env.spurlib_results = now  # type: ignore[attr-defined]
    return [page for page in now if before.get(page) != now[page] and page in env.found_docs]


def numbers(env: BuildEnvironment) -> dict[str, str]:
    """Return the numbers that Sphinx gave to statements, exercises, equations, figures and tables, by label."""
    return {
        name.removeprefix("equation-"): ".".join(map(str, number))
        for page in env.toc_fignumbers.values()
        for things in page.values()
        for name, number in things.items()
    }


def agree(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which ends the build, where the notebooks would number something otherwise than the pages."""
    ours = numbers(env)
    for label in labels(sources(), contents()):
        if label.name and label.kind not in ("section", "solution") and label.number != ours.get(label.name, ""):
            message = "%r has the number %r here and %r in the notebooks: tools/markup.py did not see what Sphinx saw"
            place = (FOLDER + label.chapter, label.line)
            logger.warning(message, label.name, ours.get(label.name, ""), label.number, location=place)


def renumbered(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write again the pages that show what changed on another one: a number, a title, a citation.

    Sphinx writes a page again when its own numbers change, not when those that it refers to do.
    """
    before = getattr(env, "spurlib_shown", {})
    data = env.domaindata
    known = (data["std"]["labels"], data["math"]["objects"], getattr(env, "proof_list", {}), numbers(env))
    now = {name: repr([things.get(name) for things in known]) for name in set().union(*known)}
    now[""] = _digest(*everywhere(env))
    env.spurlib_shown = now  # type: ignore[attr-defined]
    moved = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if "" in moved:
        return sorted(env.found_docs)
    texts = {FOLDER + name: text for name, text in sources().items()}
    citing = [page for page, text in texts.items() if not moved.isdisjoint(WORD.findall(text))]
    # Which works are listed depends on all pages.
    return [page for page in (*citing, FOLDER + "references") if page in env.found_docs]


def everywhere(env: BuildEnvironment) -> Iterator[str]:
    """Return what every page shows: the table of contents, the bibliography, the style, the work of these tools."""
    yield repr((contents(), sorted((page, title.astext()) for page, title in env.titles.items())))
    files = [CHAPTERS / "references.bib", *(ROOT / "assets").glob("*.css"), *Path(__file__).parent.glob("*.py")]
    yield from (_digest(path.read_bytes()) for path in sorted(files) if path.exists())


def _digest(*parts: str | bytes) -> str:
    whole = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return hashlib.sha256(whole).hexdigest()


class Once:
    """An environment that reads the doctree of a page once, for lookups only: pictures make doctrees large."""

    def __init__(self, env: BuildEnvironment) -> None:
        self.env, self.get_doctree = env, cache(env.get_doctree)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


def look_up(app: Sphinx, builder: Builder) -> None:
    """Let references to figures look up their targets without reading a doctree for each of them."""
    domain = builder.env.get_domain("std")
    resolve, env = domain._resolve_numref_xref, Once(builder.env)  # type: ignore[attr-defined]
    domain._resolve_numref_xref = lambda _, *rest: resolve(env, *rest)  # type: ignore[attr-defined]


def numbered(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show the statement of a claim by its number, and link to it, where the output has only its label."""
    known = getattr(app.env, "sphinx_exercise_registry", {}) | getattr(app.env, "proof_list", {})
    count = numbers(app.env)

    def link(found: re.Match[str]) -> str:
        name = found[1]
        if name not in known:
            return found[0]
        there = app.builder.get_relative_uri(page, known[name]["docname"])
        text = f"{known[name].get('realtype', 'exercise').capitalize()} {count.get(name, '')}".strip()
        return f'<a class="spurlib-statement" href="{there}#{name}">{text}</a>'

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
    config.ogp_site_url = config.html_baseurl = published(repository())


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
    app.connect("env-get-updated", renumbered, priority=900)  # when Sphinx has numbered everything
    app.connect("env-check-consistency", agree)
    app.connect("write-started", look_up)
    app.connect("doctree-resolved", numbered)
    app.connect("doctree-resolved", ran)
    app.connect("html-page-context", once, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
