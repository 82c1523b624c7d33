"""The few constructions of MyST that the chapters use: enough to index the book and to translate it.

A directive is fenced by backticks or colons at the start of a line. A directive inside another one is
fenced by fewer characters than the outer one, as MyST asks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

KINDS = {
    name: name.capitalize()
    for name in (
        *("theorem", "lemma", "proposition", "corollary", "definition", "assumption", "remark"),
        *("example", "conjecture"),
    )
}
"""Numbered environments of sphinx-proof (they share one counter), with the word they are shown with."""

TO_BE_CLAIMED = ("theorem", "lemma", "proposition", "corollary")
"""Kinds of statements of which each needs a claim and a falsification."""

OPEN = re.compile(r"^(`{3,}|:{3,})\{([\w:-]+)\}[ \t]*(.*?)[ \t]*$")
CODE = re.compile(r"^(`{3,})(?!\{)")
OPTION = re.compile(r"^:([\w-]+):[ \t]*(.*)$")
DOLLARS = re.compile(r"^\$\$(?:[ \t]*\(([\w:-]+)\))?[ \t]*$")
TARGET = re.compile(r"^\(([\w:-]+)\)=[ \t]*$")
HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t]*$")


@dataclass
class Directive:
    """One directive: its name, its argument, its options and the lines of its body."""

    name: str
    argument: str
    options: dict[str, Any] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Name without the domain: ``theorem`` of ``prf:theorem``."""
        return self.name.removeprefix("prf:")


Block = str | Directive
"""A line of text, or a directive."""


def parse(lines: list[str]) -> Iterator[Block]:
    """Split lines into text and directives; displayed dollars become the directive ``math``."""
    i = 0
    while i < len(lines):
        line, i = lines[i], i + 1
        if opened := OPEN.match(line):
            fence, name, argument = opened.groups()
            end = _closing(lines, i, re.compile(rf"^{fence[0]}{{{len(fence)},}}[ \t]*$"))
            yield _directive(name, argument, lines[i:end])
            i = end + 1
        elif code := CODE.match(line):
            end = _closing(lines, i, re.compile(rf"^`{{{len(code[1])},}}[ \t]*$"))
            yield from lines[i - 1 : end + 1]
            i = end + 1
        elif DOLLARS.match(line):
            end = _closing(lines, i, DOLLARS)
            closing = DOLLARS.match(lines[end]) if end < len(lines) else None
            label = closing and closing[1]
            yield Directive("math", "", {"label": label} if label else {}, lines[i:end])
            i = end + 1
        else:
            yield line


def _closing(lines: list[str], start: int, pattern: re.Pattern[str]) -> int:
    return next((i for i in range(start, len(lines)) if pattern.match(lines[i])), len(lines))


def _directive(name: str, argument: str, body: list[str]) -> Directive:
    options: dict[str, Any] = {}
    if body and body[0].strip() == "---":
        end = _closing(body, 1, re.compile(r"^---[ \t]*$"))
        options = yaml.safe_load("\n".join(body[1:end])) or {}
        body = body[end + 1 :]
    else:
        while body and (option := OPTION.match(body[0])):
            options[option[1]], body = option[2].strip(), body[1:]
    return Directive(name, argument, options, body)


@dataclass(frozen=True)
class Label:
    """Something of the book that has a name and can be referred to.

    `kind` is a statement's (``"lemma"``), or one of equation, figure, table, exercise, solution, section;
    `number` is empty where the thing has none.
    """

    name: str
    kind: str
    chapter: str
    number: str
    title: str

    @property
    def text(self) -> str:
        """What a reference to the label shows: ``Lemma 2.1``."""
        return f"{self.kind.capitalize()} {self.number}".strip() if self.kind != "section" else self.title


def walk(lines: list[str]) -> Iterator[Block]:
    """Return all text and all directives, those inside other directives after the one that holds them."""
    for block in parse(lines):
        yield block
        if isinstance(block, Directive) and block.name not in ("math", "code-cell", "code-block", "code"):
            yield from walk(block.body)


def labels(sources: dict[str, str], numbers: dict[str, int | None]) -> list[Label]:
    """Return all that is numbered or named in the book, in reading order, numbered as the built pages are.

    Parameters
    ----------
    sources : dict
        Name of each chapter and its text, in reading order.
    numbers : dict
        Number of each chapter, or None.
    """
    found = []
    for chapter, text in sources.items():
        prefix = f"{numbers[chapter]}." if numbers.get(chapter) else ""
        count: Counter[str] = Counter()
        for kind, name, title, counter in _named(text.splitlines()):
            count[counter] += 1
            found.append(Label(name, kind, chapter, f"{prefix}{count[counter]}" if counter else "", title))
    return found


def _named(lines: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Return kind, name, title and counter (empty: not numbered) of what a chapter names or numbers."""
    targets: list[str] = []
    for block in walk(lines):
        if isinstance(block, str):
            if target := TARGET.match(block):
                targets.append(target[1])
            elif heading := HEADING.match(block):
                yield from (("section", name, heading[2], "") for name in targets)
                targets = []
            continue
        options, title = block.options, block.argument
        name = str(options.get("label") or options.get("name") or "")
        numbered = "nonumber" not in options
        if block.name == "math" and name:
            yield "equation", name, "", "equation"
        elif block.name.startswith("prf:") and block.kind in KINDS:
            yield block.kind, name, title, "statement" if numbered else ""
        elif block.name in ("exercise", "exercise-start"):
            yield "exercise", name, title, "exercise" if numbered else ""
        elif block.name in ("solution", "solution-start"):
            yield "solution", name, title, ""
        elif block.name == "figure":
            yield "figure", name, "", "figure"
        elif block.name in ("table", "list-table") and title:
            yield "table", name, title, "table"
        elif block.name == "code-cell" and (caption := figure(block.options)):
            yield "figure", str(caption.get("name", "")), "", "figure"


def figure(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """Return name and caption of the figure that a code cell shows, given the cell's metadata."""
    mystnb = metadata.get("mystnb")
    return mystnb.get("figure") if isinstance(mystnb, Mapping) else None


def index(sources: dict[str, str], numbers: dict[str, int | None]) -> dict[str, Label]:
    """Return the labels of the book by name."""
    return {label.name: label for label in labels(sources, numbers) if label.name}
