"""The few constructions of MyST that the chapters use: enough to index the book and to translate it.

MyST's own parser says where a directive, a code block or a displayed formula begins and ends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.parsers.mdit import create_md_parser

from .chapters import HEADING, myst

TO_BE_CLAIMED = ("theorem", "lemma", "proposition", "corollary")
"""Kinds of statements of which each needs a claim and a negative control."""

KINDS = (*TO_BE_CLAIMED, "definition", "assumption", "remark", "example", "conjecture")
"""Kinds of statements, all those of sphinx-proof that the book uses; they share one counter."""

VERBATIM = ("", "math", "code-cell", "code-block", "code", "eval-rst", "raw")
"""Directives whose body is not MyST; a code block without a directive has no name."""

ALIASES = {"math": "equation", "code-cell": "figure", "list-table": "table"}
"""Kinds of labels whose directives have another name."""

NAMED = re.compile(r"^\{([\w:-]+)\}[ \t]*(.*)$")
OPTION = re.compile(r"^:([\w-]+):[ \t]*(.*)$")
TARGET = re.compile(r"^\(([\w:-]+)\)=[ \t]*$")


@dataclass(frozen=True)
class Directive:
    """One directive: name, argument, lines of the options and of the body, and whether its fence is closed."""

    name: str
    argument: str = ""
    head: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    closed: bool = True

    @property
    def kind(self) -> str:
        """Name without the domain and without the end of a gate: ``exercise`` of ``exercise-start``."""
        return self.name.removeprefix("prf:").removesuffix("-start")

    @property
    def options(self) -> dict[str, Any]:
        """Options by name; reading them raises a `yaml.YAMLError` when they are a block that is not YAML."""
        if self.head and not OPTION.match(self.head[0]):
            return yaml.safe_load("\n".join(line for line in self.head if line.rstrip() != "---")) or {}
        return {found[1]: found[2].strip() for line in self.head if (found := OPTION.match(line))}


Block = str | Directive
"""A line of text, or a directive."""


def minus(text: str) -> str:
    """Return printed numbers with minus signs instead of the hyphens of Python."""
    return re.sub(r"(?<![^( ])-(?=[\d.])", "−", text)


@cache
def _parser() -> MarkdownIt:
    return create_md_parser(myst(), RendererHTML).disable("inline")  # the text itself is not parsed


def parse(lines: list[str], first: int = 1) -> Iterator[tuple[int, Block]]:
    """Split lines into text and directives, each with its line; displayed dollars become the directive ``math``.

    Parameters
    ----------
    lines : list of str
        Text in MyST.
    first : int
        Number of the first line.
    """
    done = 0
    for token in _parser().parse("\n".join(lines)):
        if token.level == 0 and token.map and token.type in ("fence", "colon_fence", "math_block", "math_block_label"):
            start, end = token.map
            yield from enumerate(lines[done:start], first + done)
            yield first + start, _directive(token, lines[end - 1] if end > start + 1 else "")
            done = end
    yield from enumerate(lines[done:], first + done)


def _directive(token: Token, last: str) -> Directive:
    body = token.content.removesuffix("\n").split("\n")
    if token.markup == "$$":
        return Directive("math", head=[f":label: {token.info}"] if token.info else [], body=body)
    closed = last.strip().startswith(token.markup) and not last.strip().strip(token.markup[0])
    named = NAMED.match(token.info.strip())
    if not named:
        return Directive("", token.info.strip(), body=body, closed=closed)
    if body[0].rstrip() == "---":
        size = next((i for i, line in enumerate(body) if i and line.rstrip() == "---"), len(body) - 1) + 1
    else:
        size = len(list(takewhile(OPTION.match, body)))
    return Directive(named[1], named[2], body[:size], body[size:], closed)


@dataclass(frozen=True)
class Label:
    """Something of the book that has a name and can be referred to.

    `kind` is a statement's (``"lemma"``), or one of equation, figure, table, exercise, solution, section;
    `number` is empty where the thing has none; `line` is where it begins.
    """

    name: str
    kind: str
    chapter: str
    line: int
    number: str
    title: str

    @property
    def text(self) -> str:
        """What a reference to the label shows: ``Lemma 2.1``."""
        return f"{self.kind.capitalize()} {self.number}".strip() if self.kind != "section" else self.title


def walk(lines: list[str], first: int = 1) -> Iterator[tuple[int, Block]]:
    """Return what `parse` returns, and what is inside a directive after the one that holds it."""
    for line, block in parse(lines, first):
        yield line, block
        if isinstance(block, Directive) and block.name not in VERBATIM:
            yield from walk(block.body, line + 1 + len(block.head))


def labels(sources: dict[str, str], numbers: dict[str, int | None]) -> list[Label]:
    """Return all that is numbered or named in the book, in reading order, numbered as the built pages are.

    What is made without the pages uses these numbers; a build of the pages fails if Sphinx has different ones.

    Parameters
    ----------
    sources : dict
        Name of each chapter and its text, in reading order.
    numbers : dict
        Number of each chapter, or None.
    """
    found = []
    unnumbered: Counter[str] = Counter()  # Sphinx counts through the chapters without a number
    for chapter, text in sources.items():
        prefix = f"{numbers[chapter]}." if numbers.get(chapter) else ""
        count = Counter[str]() if prefix else unnumbered
        for line, kind, name, title, counter in _named(text.split("\n")):
            count[counter] += 1
            found.append(Label(name, kind, chapter, line, f"{prefix}{count[counter]}" if counter else "", title))
    return found


def _named(lines: list[str]) -> Iterator[tuple[int, str, str, str, str]]:
    """Return line, kind, name, title and counter (empty: not numbered) of what a chapter names or numbers."""
    targets: list[tuple[int, str]] = []
    for line, block in walk(lines):
        if isinstance(block, str):
            if target := TARGET.match(block):
                targets.append((line, target[1]))
            elif heading := HEADING.match(block):
                yield from ((at, "section", name, heading[2], "") for at, name in targets)
                targets = []
            continue
        options: Mapping[str, Any] | None = block.options
        kind, title = ALIASES.get(block.kind, block.kind), block.argument
        if block.kind == "code-cell":
            options = figure(block.options)
        if options is None:
            continue
        name = str(options.get("label") or options.get("name") or "")
        if kind in KINDS:
            counter = "statement"
        elif kind in ("exercise", "figure") or (kind == "equation" and name) or (kind == "table" and title):
            counter = kind
        elif kind == "solution":
            counter = ""
        else:
            continue
        yield line, kind, name, title, "" if "nonumber" in options else counter


def figure(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """Return name and caption of the figure that a code cell shows, given the cell's metadata."""
    mystnb = metadata.get("mystnb")
    return mystnb.get("figure") if isinstance(mystnb, Mapping) else None
