"""Sphinx extension of the book: the ledger, and what follows from results and not from sources."""

from __future__ import annotations

import hashlib
import html
import json
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
from sphinx_proof.nodes import theorem_node
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

from . import ledger
from .assignments import Assignments
from .chapters import CHAPTERS, contents, executable, repository, sources, titles
from .execute import stored
from .graph import DependencyGraph
from .markup import TO_BE_CLAIMED, labels, minus
from .notebooks import path_of
from .ratios import BenchmarkTable
from .repository import published

logger = logging.getLogger(__name__)

FOLDER = "chapters/"
MOVED = {"api": "library"}
"""Chapters of earlier editions whose name has changed, and where they are now."""
FORWARD = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="canonical" href="{name}.html"><meta http-equiv="refresh" content="0; url={name}.html">
<script>location.replace("{name}.html" + location.hash)</script></head>
<body><p>This page is now <a href="{name}.html">{title}</a>.</p></body></html>
"""
FILTERED = {"claims": "tbody tr", "library": "dl.py:not(dl.py dl.py)", "terms": "tbody tr"}
"""Pages with a box that hides what does not match, and what it hides there."""
STACKED = ("claims", "notation", "terms")
"""Pages whose tables put the cells of a row below each other on a narrow screen."""
WIDE = 370.0
"""Width in points of the widest figure whose letters can be read when it is as wide as a phone."""
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
    """Warn, which ends the build, if the notebooks would number something differently from the pages."""
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
    yield sources().get("notation", "")  # to which symbols are linked, with their meaning
    yield repr((contents(), sorted((page, title.astext()) for page, title in env.titles.items())))
    assets = [path for path in (CHAPTERS / "assets").iterdir() if path.suffix in (".css", ".js")]
    files = [CHAPTERS / "references.bib", *assets, *Path(__file__).parent.glob("*.py")]
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


def one_page(app: Sphinx) -> None:
    """Let one long page be written with the functions that extensions registered for pages.

    Sphinx looks up how a node is written by the builder's name, and by its format only when nothing at all is
    registered under the name; sphinx-exercise registers its own nodes there.
    """
    known = app.registry.translation_handlers
    if app.builder.name == "singlehtml":
        known["singlehtml"] = known.get("html", {}) | known.get("singlehtml", {})


def place(app: Sphinx, page: str, there: str, name: str) -> str:
    """Return the address of something on another page, or on the same page if there is only one."""
    return f"#{name}" if app.builder.name == "singlehtml" else f"{app.builder.get_relative_uri(page, there)}#{name}"


def numbered(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show the statement of a claim by its number, and link to it, where the output has only its label."""
    known = getattr(app.env, "sphinx_exercise_registry", {}) | getattr(app.env, "proof_list", {})
    count = numbers(app.env)

    def link(found: re.Match[str]) -> str:
        name = found[1]
        if name not in known:
            return found[0]
        text = f"{known[name].get('realtype', 'exercise').capitalize()} {count.get(name, '')}".strip()
        return f'<a class="spurlib-statement" href="{place(app, page, known[name]["docname"], name)}">{text}</a>'

    for node in doctree.findall(nodes.raw):
        if STATEMENT.search(text := node.astext()):
            node.children = [nodes.Text(STATEMENT.sub(link, text))]


def folded(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show the outputs of a cell with hidden input first, and below them the code, folded under its own name."""
    count = numbers(app.env)
    for cell in list(doctree.findall(lambda node: isinstance(node, nodes.Element) and "hide_mode" in node)):
        boxes = {node.get("nb_element"): node for node in cell.findall(nodes.container)}
        if cell["hide_mode"] != "input" or "cell_code_source" not in boxes:
            continue
        code, output = boxes["cell_code_source"], boxes.get("cell_code_output")
        figure = next(cell.findall(nodes.figure), None)
        checks = sum('class="spurlib-claim' in node.astext() for node in cell.findall(nodes.raw))
        kind = "spurlib-code"
        if "tag_sheet" in cell["classes"]:
            kind, title = f"{kind} spurlib-data", "Data of this exercise"
        elif figure is not None and figure["ids"] and figure["ids"][0] in count:
            title = f"Code for {html.escape(app.config.numfig_format['figure'] % count[figure['ids'][0]])}"
        else:
            title = {0: "Code", 1: "Code for this check"}.get(checks, "Code for these checks")
        start = nodes.raw("", f'<details class="{kind}"><summary>{title}</summary>', format="html")
        cell.children = []
        cell += [*([output] if output is not None else []), start, code, nodes.raw("", "</details>", format="html")]


def checked(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link each statement that has numerical checks to them."""
    for statement in doctree.findall(theorem_node):
        if statement["realtype"] in TO_BE_CLAIMED:
            there = place(app, page, FOLDER + "claims", ledger.CHECKS + statement["label"])
            link = f'<a href="{there}">Numerical checks</a>'
            statement += nodes.raw("", f'<p class="spurlib-checks">{link}</p>', format="html")


def unbroken(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Keep a formula and the punctuation around it on one line."""
    for formula in list(doctree.findall(nodes.math)):
        parts: list[nodes.Node] = [formula]
        around, at = formula.parent, formula.parent.index(formula)
        before = around[at - 1] if at else None
        after = around[at + 1] if at + 1 < len(around) else None
        if isinstance(after, nodes.Text) and (mark := re.match(r"[^\w\s([{–—-]+", after)):
            around[at + 1] = nodes.Text(after[mark.end() :])
            parts.append(nodes.Text(mark[0]))
        if isinstance(before, nodes.Text) and (mark := re.search(r"[(\[{“]+$", before)):
            around[at - 1] = nodes.Text(before[: mark.start()])
            parts.insert(0, nodes.Text(mark[0]))
        if len(parts) > 1:
            whole = nodes.inline(classes=["spurlib-glued"])
            around[at] = whole
            whole += parts


def signed(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show a negative result with a minus sign instead of the hyphen that Python prints, in the text and in tables."""
    for pasted in doctree.findall(lambda node: isinstance(node, nodes.inline) and "pasted-text" in node["classes"]):
        pasted.children = [nodes.Text(minus(pasted.astext()))]
    for table in doctree.findall(lambda node: isinstance(node, nodes.raw) and "<td" in node.astext()):
        shown = re.sub(r"(?<=<td>)[^<]+", lambda cell: minus(cell[0]), table.astext())
        table.children, table.rawsource = [nodes.Text(shown)], shown


def drawn(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Mark drawings without pictures, whose colors are inverted in dark mode, and those too wide for a phone."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image["uri"].lstrip("/"))
        if path.suffix != ".svg" or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        if "<image" not in text:
            image["classes"].append("spurlib-drawn")
        if (width := re.search(r'<svg[^>]* width="([\d.]+)pt"', text)) and float(width[1]) > WIDE:
            # On a phone it is wider than the page, and scrolls.
            image["classes"].append("spurlib-wide")
            scroll = nodes.container(classes=["spurlib-scroll"])
            image.parent.replace(image, scroll)
            scroll += image


def handy(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put a filter on long pages, and mark the tables that are stacked on a narrow screen."""
    name = page.removeprefix(FOLDER)
    if name in STACKED:
        for table in doctree.findall(nodes.table):
            table["classes"].append("spurlib-stacked")
    if name in FILTERED and (title := next(doctree.findall(nodes.title), None)) is not None:
        box = '<input class="spurlib-filter" type="search" placeholder="Filter this page" aria-label="Filter this page"'
        box = nodes.raw("", f'{box} data-items="{FILTERED[name]}" hidden>', format="html")
        title.parent.insert(title.parent.index(title) + 1, box)


def ran(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Say in the first box of a chapter how long it ran and when, as measured."""
    nb = stored(page.removeprefix(FOLDER))
    box = next(doctree.findall(nodes.admonition), None)
    if nb is None or box is None or not (items := list(box.findall(nodes.list_item))):
        return
    seconds, day = nb.metadata.spurlib.seconds, nb.metadata.spurlib.day
    last = items[-1].children[-1]
    text = f" The page ran {seconds:.0f} seconds when it was last executed, on {day}."
    last += nodes.inline("", text, classes=["spurlib-ran"])


def moved(app: Sphinx, exception: Exception | None) -> None:
    """Let old addresses lead to what they named: chapters with a new name, and statements in another chapter."""
    if exception is not None or app.builder.name != "html":
        return
    for old, new in MOVED.items():
        if new not in contents():
            continue
        page = FORWARD.format(name=new, title=html.escape(titles()[new]))
        Path(app.outdir, FOLDER, f"{old}.html").write_text(page, encoding="utf-8")
    places = {label.name: label.chapter for label in labels(sources(), contents()) if label.name}
    Path(app.outdir, "_static", "places.json").write_text(json.dumps(places, indent=0), encoding="utf-8")


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
    """Register the directives and the hooks."""
    app.add_directive("assignments", Assignments)
    app.add_directive("claims-ledger", Ledger)
    app.add_directive("dependency-graph", DependencyGraph)
    app.add_directive("benchmark-table", BenchmarkTable)
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", Round)
    app.connect("config-inited", address)
    app.connect("builder-inited", one_page)
    app.connect("env-get-outdated", changed)
    app.connect("env-get-updated", renumbered, priority=900)  # when Sphinx has numbered everything
    app.connect("env-check-consistency", agree)
    app.connect("write-started", look_up)
    app.connect("doctree-resolved", numbered)
    for hook in (ran, folded, checked, unbroken, signed, drawn, handy):
        app.connect("doctree-resolved", hook)
    app.connect("html-page-context", once, priority=999)
    app.connect("build-finished", moved)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
