"""Faults that are seen in the sources of the book, before anything is executed, each with its file and line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from nbformat import NotebookNode

from .chapters import CHAPTERS, HEADING, SourceError, contents, executable, notebook, read
from .markup import KINDS, VERBATIM, Directive, labels, walk

ROLE = re.compile(r"\{([\w:.-]+)\}`([^`]+)`")
TITLED = re.compile(r"<([^<>]+)>$")
LITERAL = re.compile(r"(`{2,}).+?\1")
CODE_SPAN = re.compile(r"(?<!\})(?<!`)`[^`\n]+`")
PICTURE = re.compile(r"!\[([^\]]*)\]\(")
CLAIM = re.compile(r"\bclaim\(\s*[\"']([^\"']*)[\"']")
ENTRY = re.compile(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|:{3,})")
FIRST = re.compile(r"\s*(?:\$\$|[-*+] |\d+[.)] |[`:]{3})")
DOLLARS = re.compile(r"(?<!\\)\$\$")
OF_SPHINX = ("genindex", "modindex", "search")
ALT_WORDS = 5

EXPECTED = {
    "eq": ("equation",),
    "prf:ref": KINDS,
    "numref": ("figure", "table"),
    "ref": (*KINDS, "exercise", "solution", "section", "figure", "table"),
}
"""Kinds of labels to which a role can refer."""


class Fault(NamedTuple):
    """Something wrong with a chapter, and the line (0: the whole chapter)."""

    chapter: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"chapters/{self.chapter}.md:{self.line or 1}: {self.text}"


class Part(NamedTuple):
    """A chapter split into text and code, each on its own lines, with the directives and faults of the lines."""

    text: str
    code: str
    directives: list[tuple[int, Directive]]
    faults: list[tuple[int, str]]


def named(names: list[str]) -> list[str]:
    """Return the chapters that were named, or all that run if none was; refuse unknown ones and those with faults."""
    texts = {name: read(CHAPTERS / f"{name}.md") for name in contents()}
    found = [fault for fault in faults(texts) if not names or fault.chapter in names]
    found += [
        Fault(path.stem, 0, "the chapter is in no part of _toc.yml")
        for path in sorted(CHAPTERS.glob("*.md"))
        if path.stem not in texts and (not names or path.stem in names)
    ]
    if found:
        raise SourceError("\n".join(map(str, found)))
    there = executable()
    if unknown := [name for name in names if name not in there]:
        given = " or ".join(map(repr, unknown))
        raise SourceError(f"no chapter that runs is named {given}; there are: {', '.join(there)}")
    return names or there


def faults(sources: dict[str, str]) -> list[Fault]:
    """Return what is wrong with the chapters of a book, given their texts by name in reading order.

    Faults are a fence or displayed formula that is not closed, options that are not YAML, a label that two things have,
    a reference to a missing label, a claim about something other than a statement or an exercise, and a picture without
    alternative text.
    """
    parts = {name: _split(text) for name, text in sources.items()}
    found = [Fault(name, line, text) for name, part in parts.items() for line, text in part.faults]
    if found:  # the rest would be nonsense
        return found
    every = labels(sources, {})
    known = {label.name: label for label in every if label.name}
    works = set(ENTRY.findall(read(CHAPTERS / "references.bib"))) if (CHAPTERS / "references.bib").exists() else set()
    for name, count in Counter(label.name for label in every if label.name).items():
        if count > 1:
            found.append(Fault(known[name].chapter, known[name].line, f"{count} things have the label {name!r}"))
    for name, part in parts.items():
        found += [Fault(name, line, text) for line, text in _references(part.text, known, set(sources), works)]
        found += [Fault(name, line, text) for line, text in _claims(part.code, known)]
        found += [Fault(name, line, text) for line, text in _pictures(part)]
    return sorted(found, key=lambda fault: (list(sources).index(fault.chapter), fault.line))


def results(name: str, nb: NotebookNode) -> list[Fault]:
    """Return what is wrong with the outputs of an executed chapter: pictures without alternative text."""
    found, places = [], notebook(name).metadata.get("source_map", [])
    for number, cell in enumerate(nb.cells):
        tags = cell.metadata.get("tags", ())
        if cell.cell_type != "code" or "remove-cell" in tags or "remove-output" in tags:
            continue
        shown = any(mime.startswith("image/") for output in cell.outputs for mime in output.get("data", ()))
        if shown and not _described(_option(cell.metadata, "image", "alt")):
            line = places[number] + 1 if number < len(places) else 0
            found.append(Fault(name, line, f"the cell shows a picture without alternative text ({_ALT})"))
    return found


_ALT = f"mystnb: image: alt:, {ALT_WORDS} words or more"


def _split(text: str) -> Part:
    """Separate text and code of a chapter, line by line, and note what is not closed."""
    lines = text.split("\n")
    prose, code = [""] * len(lines), [""] * len(lines)
    directives: list[tuple[int, Directive]] = []
    wrong: list[tuple[int, str]] = []
    if lines[0].rstrip() == "---" and not any(line.rstrip() in ("---", "...") for line in lines[1:]):
        wrong.append((1, "the header that starts with --- is not closed"))
    for line, block in walk(lines):
        if isinstance(block, str):
            prose[line - 1] = block
            if len(DOLLARS.findall(CODE_SPAN.sub("", LITERAL.sub("", block)))) % 2:
                wrong.append((line, "a formula starts here with $$ and is not closed, or ends and was not opened"))
            continue
        body = line + len(block.head)  # lines before that of the body
        if block.name in VERBATIM:
            code[body : body + len(block.body)] = block.body
        # The header of a cell holds the caption, which is text.
        prose[line - 1 : body] = [block.argument, *block.head]
        if not block.closed:
            wrong.append((line, f"{block.name or 'the code'!r} is not closed"))
        elif block.name == "math" and any(HEADING.match(row) or FENCE.match(row) for row in block.body):
            wrong.append((line, "the formula that starts here is not closed before a heading or a directive"))
        if block.name == "prf:proof" and FIRST.match(next((row for row in block.body if row.strip()), "")):
            # sphinx-proof 0.4.0 puts "Proof." in front of it: findings/prf-proof-first-line.sh
            wrong.append((line, "a proof begins with a sentence, not with a formula or a list"))
        directives.append((line, block))
        try:
            _ = block.options
        except yaml.YAMLError as error:
            wrong.append((line, f"the options of {block.name!r} are not YAML: {getattr(error, 'problem', error)}"))
    return Part("\n".join(prose), "\n".join(code), directives, sorted(wrong))


def _references(text: str, known: dict[str, Any], chapters: set[str], works: set[str]) -> Iterator[tuple[int, str]]:
    text = LITERAL.sub(lambda found: " " * len(found[0]), text)
    for found in ROLE.finditer(text):
        role, content = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        title = TITLED.search(content)
        target = title[1] if title else content
        if role == "prf:ref" and title and target in content[: title.start()]:
            # sphinx-proof 0.4.0 then shows the number instead: findings/prf-ref-link-text.sh
            yield line, f"the text of this reference contains the label {target!r}, and would not be shown"
        if role in EXPECTED and target not in OF_SPHINX:
            label = known.get(target)
            if label is None:
                yield line, f"nothing has the label {target!r}, to which {{{role}}} refers"
            elif label.kind not in EXPECTED[role]:
                yield line, f"{{{role}}} does not refer to a thing of the kind {label.kind!r}, which {target!r} is"
        elif role == "doc" and target.rpartition("/")[2].removesuffix(".md") not in chapters:
            yield line, f"there is no chapter {target!r}"
        elif role.startswith("cite"):
            missing = [key for key in re.split(r"[,\s]+", target.strip()) if key not in works]
            yield from ((line, f"references.bib has no entry {key!r}") for key in missing)


def _claims(code: str, known: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for found in CLAIM.finditer(code):
        label = known.get(found[1])
        if label is None or label.kind not in (*KINDS, "exercise"):
            yield code.count("\n", 0, found.start()) + 1, f"no statement or exercise has the label {found[1]!r}"


def _pictures(part: Part) -> Iterator[tuple[int, str]]:
    for line, block in part.directives:
        if block.name in ("figure", "image") and not _described(block.options.get("alt")):
            yield line, f"the {block.name} {block.argument} has no alternative text (alt:, {ALT_WORDS} words or more)"
        figure = _option(block.options, "figure") if block.name == "code-cell" else None
        if figure and not _described(_option(block.options, "image", "alt")):
            yield line, f"the figure {figure.get('name', '')} has no alternative text ({_ALT})"
    for number, line_ in enumerate(part.text.splitlines(), 1):
        if any(not _described(found[1]) for found in PICTURE.finditer(line_)):
            yield number, f"a picture has no alternative text ({ALT_WORDS} words or more in the brackets)"


def _option(options: Any, *path: str) -> Any:
    for step in ("mystnb", *path):
        options = options.get(step) if hasattr(options, "get") else None
    return options


def _described(alt: Any) -> bool:
    return len(str(alt or "").split()) >= ALT_WORDS
