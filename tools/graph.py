"""Directive ``dependency-graph``: which main results use which statements, from the references in their proofs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .chapters import CHAPTERS, ROOT, contents, sources, titles
from .markup import KINDS, TO_BE_CLAIMED, Directive, labels, parse

REFERENCE = re.compile(r"\{prf:ref\}`(?:[^`<]*<)?([\w:-]+)>?`")
STEP, ROW, LEFT, PER_LINE = 138, 40, 60, 4
"""Pixels from one statement to the next, from one line to the next and to the first middle; statements in a line."""

APPENDIX = ("tools",)
"""Chapters at the end of the book that earlier ones use."""


def ordered(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the chapters so that a statement stands before the proofs that use it: an appendix comes first."""
    return {name: texts[name] for name in sorted(texts, key=lambda name: name not in APPENDIX)}


def uses(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Return for each statement those in its chapter, an earlier one or an appendix to which it or its proof refers.

    A proof belongs to the statements that its title names, or else to the last statement before it without a proof.
    """
    found: dict[str, set[str]] = {}
    for text in ordered(texts).values():
        own, unproved = dict[str, set[str]](), list[str]()
        for _, block in parse(text.split("\n")):
            if not isinstance(block, Directive) or block.kind not in (*KINDS, "proof"):
                continue
            proof = block.kind == "proof"
            owners = REFERENCE.findall(block.argument) if proof else [str(block.options.get("label", ""))]
            if block.kind in TO_BE_CLAIMED:
                unproved += owners
            for owner in owners or unproved[-1:]:
                own.setdefault(owner, set()).update({*REFERENCE.findall("\n".join(block.body))} - {*owners})
            if proof:
                unproved = [name for name in unproved if name not in (owners or unproved[-1:])]
        found |= own
        found |= {name: (used & found.keys()) - {name} for name, used in own.items()}
    return found


def rests_on(graph: Mapping[str, set[str]], *names: str) -> set[str]:
    """Return all that the statements use, directly or through others."""
    seen, todo = set[str](), list(names)
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def below(texts: Mapping[str, str], roots: Iterable[str]) -> dict[str, set[str]]:
    """Return the roots and all that they rest on, each with what it uses but not with what these use in turn."""
    shown = {label.name for label in labels(dict(texts), {}) if label.kind in TO_BE_CLAIMED}
    graph = {name: used & shown for name, used in uses(texts).items() if name in shown}
    return {
        name: {used for used in graph[name] if used not in rests_on(graph, *(graph[name] - {used}))}
        for name in {*roots} | rests_on(graph, *roots)
    }


def drawing(texts: Mapping[str, str], roots: list[str]) -> str:
    """Return the graph as SVG, with the statements of a chapter under its name, each linked to its place."""
    known = {label.name: label for label in labels(dict(texts), contents()) if label.name}
    graph, place, titled, y = below(texts, roots), dict[str, tuple[int, int]](), list[str](), 0
    for chapter in ordered(texts):
        if row := [name for name in known if name in graph and known[name].chapter == chapter]:
            said = escape(("Appendix: " if chapter in APPENDIX else "") + titles()[chapter])
            title = f'y="{y + 14}">{said}</text>'  # also behind itself, where lines stop
            titled.append(f'<text class="behind" aria-hidden="true" {title}<a href="{chapter}.html"><text {title}</a>')
            for i, name in enumerate(row):
                line, column = divmod(i, PER_LINE)
                place[name] = (LEFT + STEP * column + len(titled) % 2 * STEP // 4, y + 36 + ROW * line)
            y = place[row[-1]][1] + ROW - 12
    lines = list[str]()
    for name, (x, at) in reversed(place.items()):  # boxes hide lines of what comes later
        label, about = known[name], escape(known[name].title.replace("$", ""))
        ends = [place[used] for used in sorted(graph[name])]
        paths = "".join(
            f'<path d="M{x} {at}Q{x} {(at + v) // 2} {u} {v}"/>'
            if v != at
            else f'<path d="M{x} {at + 11}Q{(x + u) // 2} {at + 36} {u} {at + 11}"/>'
            for u, v in ends
        )
        lines.append(
            f'<g class="{"main" if name in roots else "step"}">{paths}<a href="{label.chapter}.html#{name}">'
            f'<title>{about}</title><rect x="{x - 58}" y="{at - 11}" width="116" height="22" rx="4"/>'
            f'<text x="{x}" y="{at + 4}" text-anchor="middle">{escape(label.text)}</text></a></g>'
        )
    width, drawn = max(x for x, _ in place.values()) + LEFT, "".join(lines + titled)
    return f'<div class="spurlib-graph"><svg viewBox="0 0 {width} {y}" width="{width}">{drawn}</svg></div>'


class DependencyGraph(SphinxDirective):
    """Directive ``dependency-graph``: its body names the main results by label."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw the graph from all chapters, and read the page again when one of them changes."""
        for path in (ROOT / "_toc.yml", *CHAPTERS.glob("*.md")):
            self.env.note_dependency(str(path))
        return [nodes.raw("", drawing(sources(), " ".join(self.content).split()), format="html")]
