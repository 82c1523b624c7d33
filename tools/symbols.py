"""Symbols: where a chapter first uses one by itself, it is linked to its row on the page of the notation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from docutils import nodes
from sphinx.application import Sphinx

from .chapters import contents, sources

PAGE, LOCAL = "notation", "notation-local"
CELL = re.compile(r"(?<!\\)\|")
FORMULA = re.compile(r"\$([^$]+)\$")
RELATION = re.compile(r"\\(?:in|sim|ge|le|ne|to|succeq|preceq)\b|[=:<>]")
ARGUMENTS = re.compile(r"^(.*?)\([^()]*\)$")
ELSEWHERE = (nodes.title, nodes.caption, nodes.reference, nodes.term, nodes.rubric)
"""Where a symbol is not linked."""


@dataclass(frozen=True)
class Row:
    """A row: anchor, table, symbols, the chapters to which it is limited (none: the whole book), meaning."""

    name: str
    section: str
    letters: tuple[str, ...]
    chapters: tuple[str, ...]
    meaning: str


def pieces(formula: str) -> Iterator[str]:
    """Yield the parts of a formula between commas that are outside all brackets."""
    depth, start = 0, 0
    for at, sign in enumerate(formula):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0 and formula[at - 1 : at] != "\\":
            yield formula[start:at]
            start = at + 1
    yield formula[start:]


def head(formula: str) -> str:
    """Return what stands before the first relation, without space."""
    return re.sub(r"\s+|\\[,;! ]", "", RELATION.split(formula)[0])


@cache
def rows() -> tuple[Row, ...]:
    """Return all rows of the page of the notation, in order."""
    section, found, names = "", list[Row](), set[str]()
    for line in sources().get(PAGE, "").splitlines():
        if mark := re.match(r"\((notation-\w+)\)=", line):
            section = mark[1]
        cells = [cell.strip() for cell in CELL.split(line)[1:-1]]
        if len(cells) < 2 or set(cells[0]) <= {"-", ":"} or cells[0] in ("symbol", "term"):
            continue
        letters = tuple(part.strip() for formula in FORMULA.findall(cells[0]) for part in pieces(formula))
        chapters = re.findall(r"\{doc\}`([\w-]+)`", cells[1]) if section == LOCAL else []
        name = "symbol-" + "-".join(re.findall(r"[A-Za-z0-9]+", " ".join([*chapters[:1], cells[0]]))).lower()
        while name in names:
            name += "-x"
        names.add(name)
        found.append(Row(name, section, letters, tuple(chapters), cells[-1]))
    return tuple(found)


def known(chapter: str) -> dict[str, Row]:
    """Return the rows that explain the letters of a chapter; its own come before those of the whole book.

    A letter with arguments, as in :math:`F(z, z_i)`, is also known with other ones.
    """
    exact, general = dict[str, Row](), dict[str, Row]()
    for own in (False, True):
        for row in rows():
            if (chapter in row.chapters) if own else not row.chapters:
                exact |= {head(letter): row for letter in row.letters}
                general |= {found[1] + "()": row for letter in row.letters if (found := ARGUMENTS.match(head(letter)))}
    return general | exact


def symbol(formula: str, rows: dict[str, Row]) -> str | None:
    """Return the symbol with which a formula begins, as the rows have it."""
    letter = head(formula)
    options = [letter, letter.replace("z_1", "z_i", 1) if letter.startswith("z_1") else letter]
    if (found := ARGUMENTS.match(letter)) and found[1] != "O":  # O(k) is an order, and not a matrix
        options += [found[1] + "()", found[1]]
    return next((one for one in options if one in rows), None)


def hint(row: Row) -> str:
    """Return the meaning as plain text, or nothing where it contains formulas that are not plain."""
    text = re.sub(r"\s*\(\{[^()]*\}`[^()]*\)", "", row.meaning)
    text = text.replace("$", "").replace("*", "")
    return "" if re.search(r"[\\^_`{}]", text) else text.strip()


def linked(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the symbols of a numbered chapter, and give the rows of the notation their anchors."""
    name = page.rpartition("/")[2]
    if app.builder.name != "html":
        return
    if name == PAGE:
        held = [row for body in doctree.findall(nodes.tbody) for row in body.findall(nodes.row)]
        for node, row in zip(held, rows(), strict=True):
            node["ids"].append(row.name)
    if not contents().get(name):
        return
    explained, seen = known(name), set[str]()
    for formula in list(doctree.findall(nodes.math)):
        letter = symbol(formula.astext(), explained)
        if letter is None or letter in seen or any(isinstance(one, ELSEWHERE) for one in above(formula)):
            continue
        seen.add(letter)
        row = explained[letter]
        address = f"{app.builder.get_relative_uri(page, page.replace(name, PAGE))}#{row.name}"
        link = nodes.reference(refuri=address, internal=True, classes=["spurlib-symbol"])
        link["reftitle"] = hint(row) or "Meaning of this symbol"
        formula.parent.replace(formula, link)
        link += formula


def above(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the ancestors of a node."""
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook; punctuation has been joined to formulas before."""
    app.connect("doctree-resolved", linked, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
