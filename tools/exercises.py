"""The exercises of the chapters that can be assigned, with statement, data, answer, solution and points.

An exercise is graded when comment lines in its solution say how:

    % grade: 3 points for change within 1e-8, not change / 2
    % rubric: 2 points for the block inverse

The first line compares the name ``change`` with its value in the solution; differences up to a fraction of the largest
entry are allowed, and the expression after ``not`` is a mistake that must lose the points. The second line is one
criterion for the person who reads the derivation. In a graded exercise the cell tagged ``sheet`` before the solution
makes the data, the open cells of the solution are the answer, and its folded cells are checks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nbformat import NotebookNode

from .chapters import CHAPTERS, SourceError, contents, notebook, repository, sources, titles
from .markup import KINDS, Directive, Label, labels, parse, walk
from .notebooks import FOLDED, glued, load
from .repository import published
from .translate import Translator

REFERENCE = re.compile(r"\{(?:eq|prf:ref)\}`(?:[^`<]*<)?([\w:-]+)>?`")
GRADE = re.compile(r"^% grade: (\d+) points? for ([^\W\d]\w*) within ([\d.e-]+), not (.+)$")
RUBRIC = re.compile(r"^% rubric: (\d+) points? for (.+)$")
MARKED = re.compile(r"^% (?:grade|rubric)\b", re.MULTILINE)
NOT_ASSIGNED = {"claim", "note"}
"""What chapters import for their pages only."""


@dataclass(frozen=True)
class Item:
    """One name that an answer defines: its points, the tolerance, and a mistake."""

    name: str
    points: int
    within: float
    mistake: str


@dataclass
class Exercise:
    """An exercise of a chapter; texts are in the Markdown of notebooks."""

    label: str
    chapter: str
    number: str = ""
    title: str = ""
    statement: str = ""
    quoted: dict[str, str] = field(default_factory=dict)
    sheet: str = ""
    answer: str = ""
    solution: str = ""
    items: list[Item] = field(default_factory=list)
    rubric: list[tuple[int, str]] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """All points of the exercise."""
        return sum(item.points for item in self.items) + sum(points for points, _ in self.rubric)


class SheetTranslator(Translator):
    """The Markdown of one exercise, whose references lead to the published pages if the book has an address."""

    def __init__(self, label: Label, every: list[Label], glued: dict[str, str]) -> None:
        later = [other for other in every if other.chapter != label.chapter or other.line > label.line]
        super().__init__(label.chapter, later, titles(), (), CHAPTERS / "references.bib", glued)
        self.labels = {other.name: other for other in every if other.name}
        self.site = published(repository())

    def equation(self, block: Directive) -> str:
        """Return a displayed equation with its number."""
        return self._math(block)

    def _link(self, text: str, chapter: str, place: str = "") -> str:
        if not self.site:
            return text
        return f"[{text}]({self.site}chapters/{chapter}.html{f'#{place}' if place else ''})"


def exercises(names: list[str] | None = None) -> dict[str, Exercise]:
    """Return the exercises that can be assigned, by label: those of the named chapters, or of all."""
    texts = sources()
    every = labels(texts, contents())
    place = {label.name: label for label in every if label.kind == "exercise"}
    blocks = _labeled(texts.values())
    found = {}
    for chapter in names or [name for name, text in texts.items() if MARKED.search(text)]:
        nb, stored = notebook(chapter), load(chapter)
        values = glued([cell.outputs for cell in stored.cells if cell.cell_type == "code"]) if stored else {}
        known = _imports(nb)
        for label, parts in _parts(nb).items():
            if label not in place:
                continue
            exercise = _exercise(place[label], parts, SheetTranslator(place[label], every, values), blocks)
            used = _names(exercise.sheet + "\n" + exercise.answer)
            exercise.imports = {name: line for name, line in known.items() if name in used - NOT_ASSIGNED}
            if exercise.points:
                found[label] = exercise
    return found


Parts = list[tuple[str, str]]
"""What an exercise consists of, in order: ``"statement"``, ``"solution"``, ``"sheet"``, ``"answer"``, and the text."""


def _parts(nb: NotebookNode) -> dict[str, Parts]:
    """Split the cells of a chapter into its exercises."""
    found: dict[str, Parts] = {}
    label = where = ""
    for cell in nb.cells:
        if cell.cell_type == "code":
            tags = set(cell.metadata.get("tags", ()))
            kind = {"statement": "sheet" if "sheet" in tags else "", "solution": "" if tags & FOLDED else "answer"}
            if part := kind.get(where):
                found[label].append((part, cell.source))
            continue
        for text, block in _blocks(cell.source.split("\n")):
            name = block.name if isinstance(block, Directive) else ""
            if isinstance(block, Directive) and name == "exercise-start":
                label, where = str(block.options.get("label", "")), "statement"
                found[label] = [("title", block.argument)]
            elif isinstance(block, Directive) and name == "solution-start":
                label, where = block.argument.strip(), "solution"
            elif name in ("exercise-end", "solution-end"):
                where = ""
            elif where:
                found[label].append((where, text))
    return found


def _blocks(lines: list[str]) -> Iterator[tuple[str, str | Directive]]:
    """Return each line of text, and each directive with its lines."""
    blocks = list(parse(lines))
    ends = [line for line, _ in blocks[1:]] + [len(lines) + 1]
    for (line, block), end in zip(blocks, ends, strict=True):
        yield "\n".join(lines[line - 1 : end - 1]), block


def _labeled(texts: Iterable[str]) -> dict[str, Directive]:
    """Return all statements and equations of the book that have a label."""
    found = {}
    for text in texts:
        for _, block in walk(text.split("\n")):
            if isinstance(block, Directive) and block.kind in (*KINDS, "math") and "label" in block.options:
                found[str(block.options["label"])] = block
    return found


def _quoted(text: str, translator: SheetTranslator, blocks: dict[str, Directive]) -> dict[str, str]:
    """Return the statements and equations to which a text refers, so that it can be read without the book."""
    found = {}
    for name in dict.fromkeys(REFERENCE.findall(text)):
        block, label = blocks[name], translator.labels[name]
        title = f" ({translator.text(block.argument)})" if block.argument else ""
        body = translator.text("\n".join(block.body))
        found[name] = translator.equation(block) if block.kind == "math" else f"**{label.text}{title}.**\n\n{body}"
    return found


def _exercise(label: Label, parts: Parts, translator: SheetTranslator, blocks: dict[str, Directive]) -> Exercise:
    texts = {kind: "\n".join(text for part, text in parts if part == kind) for kind, _ in parts}
    exercise = Exercise(label.name, label.chapter, label.number, texts["title"])
    lines = texts.get("solution", "").split("\n")
    for line in filter(MARKED.match, lines):
        if found := GRADE.match(line):
            exercise.items.append(Item(found[2], int(found[1]), float(found[3]), found[4]))
        elif found := RUBRIC.match(line):
            exercise.rubric.append((int(found[1]), translator.text(found[2])))
        else:
            raise SourceError(f"chapters/{label.chapter}.md: {label.name}: not a line for the grader: {line!r}")
    if exercise.points:
        exercise.statement = translator.text(texts["statement"])
        exercise.quoted = _quoted(texts["statement"], translator, blocks)
        exercise.solution = translator.text(texts.get("solution", ""))
        exercise.sheet, exercise.answer = texts.get("sheet", ""), texts.get("answer", "")
    return exercise


def _imports(nb: NotebookNode) -> dict[str, str]:
    """Return the lines with which a chapter imports names, by name."""
    found = {}
    for cell in nb.cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for alias in node.names:
                        node.names = [alias]
                        found[(alias.asname or alias.name).partition(".")[0]] = ast.unparse(node)
    return found


def _names(code: str) -> set[str]:
    """Return the names that occur in code."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
