"""Translate the MyST of a chapter into the plain Markdown that Jupyter and Colab show.

Equations keep their numbers (as ``\\tag``), statements become bold headings with the numbers of the book,
and references become links to the statement, figure or notebook where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pybtex.database import parse_file

from .markup import KINDS, TARGET, Directive, Label, figure, minus, parse

ROLE = re.compile(r"\{([\w:.-]+)\}`([^`]+)`")
TITLED = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)
NOTES = ("note", "tip", "hint", "important", "warning", "caution", "attention", "seealso")
NUMBERED = (*KINDS, "exercise", "figure", "table")
DROPPED = (
    "bibliography",
    "tableofcontents",
    "raw",
    "exercise-end",
    "solution-end",
    "claims-ledger",
    "dependency-graph",
)


class NotTranslatableError(ValueError):
    """A role or directive that notebooks cannot show; the message names chapter and construction."""


class Translator:
    """The Markdown of one chapter.

    Parameters
    ----------
    chapter : str
        Name of the chapter.
    labels : sequence of Label
        All labels of the book.
    titles : dict
        Title of every chapter by name.
    notebooks : container of str
        Names of the chapters that have a notebook, to which references can lead.
    bibliography : path
        BibTeX file with what the chapters cite.
    glued : dict
        Glued values of this chapter, as text, by name.
    """

    def __init__(
        self,
        chapter: str,
        labels: Iterable[Label],
        titles: Mapping[str, str],
        notebooks: Iterable[str],
        bibliography: Path,
        glued: Mapping[str, str],
    ) -> None:
        labels = list(labels)
        self.chapter, self.titles, self.notebooks = chapter, titles, set(notebooks)
        self.bibliography, self.glued = bibliography, glued
        self.labels = {label.name: label for label in labels if label.name}
        # What needs no name to be numbered is met in the same order as it was indexed.
        own = [label for label in labels if label.chapter == chapter]
        self.own = {kind: iter([label for label in own if label.kind == kind]) for kind in NUMBERED}

    def text(self, source: str) -> str:
        """Translate the text of one cell."""
        return re.sub(r"\n{3,}", "\n\n", self._lines(source.splitlines())).strip()

    def caption(self, metadata: Mapping[str, object]) -> str | None:
        """Return the caption of the figure that a cell with this metadata shows, or None if it shows none."""
        shown = figure(metadata)
        if shown is None:
            return None
        return f"{self._next('figure')}.** {self.text(str(shown.get('caption', '')))}"

    def _lines(self, lines: list[str]) -> str:
        out, plain = [], []
        for _, block in parse(lines):
            if isinstance(block, str):
                plain.append(block)
                continue
            out += [self._inline(plain), "", self._directive(block), ""]
            plain = []
        return "\n".join([*out, self._inline(plain)])

    def _inline(self, lines: list[str]) -> str:
        kept = [line for line in lines if not TARGET.match(line) and not line.startswith("% ")]
        return ROLE.sub(self._role, "\n".join(kept))

    def _directive(self, block: Directive) -> str:
        title = self._inline([block.argument])
        match block.kind:
            case kind if kind in DROPPED:
                return ""
            case "math":
                return self._math(block)
            case "" | "code" | "code-block":
                return "\n".join([f"```{block.argument}", *block.body, "```"])
            case "image" | "figure":
                picture = f"![{block.options.get('alt', '')}]({block.argument})"
                if block.kind == "image":  # has no caption and no number
                    return picture
                return f"{picture}\n\n{self._next('figure')}.** {self._lines(block.body).strip()}"
            case "table" | "list-table":
                rows = self._lines(block.body) if block.kind == "table" else self._rows(block)
                return (f"{self._next('table')}.** {title}\n\n" if title else "") + rows
            case "proof":
                return f"*Proof{f' {title}' if title else ''}.* {self._lines(block.body).strip()} ∎"
            case "solution":
                return f"**Solution to {self._label(block.argument).text}.**\n\n{self._lines(block.body)}"
            case kind if kind in NUMBERED:
                return f"{self._next(kind)}{f' ({title})' if title else ''}.**\n\n{self._lines(block.body)}"
            case kind if kind in NOTES:
                name = "See also" if kind == "seealso" else kind.capitalize()
                start = f"{title}\n\n" if title else ""  # MyST reads a note's first line as text
                return f"**{name}.** {start}{self._lines(block.body)}"
            case "admonition" | "dropdown" | "margin" | "sidebar" | "topic":
                return (f"**{title}.** " if title else "") + self._lines(block.body)
        raise self._refused(f"notebooks cannot show the directive {block.name!r}")

    def _next(self, kind: str) -> str:
        """Return the start of a bold heading: a place to link to, and the number."""
        label = next(self.own[kind])
        return (f'<a id="{label.name}"></a>' if label.name else "") + f"**{label.text}"

    def _math(self, block: Directive) -> str:
        body = "\n".join(line for line in [block.argument, *block.body] if line.strip())
        if "\\\\" in body and "\\begin{" not in body:
            body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
        name = str(block.options.get("label", ""))
        tag = f"\n\\tag{{{self._label(name).number}}}" if name else ""
        return f"$$\n{body}{tag}\n$$"

    def _rows(self, block: Directive) -> str:
        rows: list[list[str]] = []
        for line in block.body:
            if start := re.match(r"^\s*\*\s+-\s?(.*)$", line):
                rows.append([start[1]])
            elif cell := re.match(r"^\s+-\s?(.*)$", line):
                rows[-1].append(cell[1])
            elif line.strip():
                rows[-1][-1] += " " + line.strip()
        table = ["| " + " | ".join(self._inline([cell]) for cell in row) + " |" for row in rows]
        return "\n".join([table[0], "|" + " --- |" * len(rows[0]), *table[1:]])

    def _role(self, found: re.Match[str]) -> str:
        role, content = found.groups()
        named = TITLED.match(content)
        text, target = (named[1], named[2]) if named else ("", content)
        match role:
            case "eq":
                return self._link(f"({self._label(target).number})", self._label(target).chapter)
            case "prf:ref" | "numref" | "ref":
                label = self._label(target)
                shown = text.replace("%s", label.number).replace("{number}", label.number) or label.text
                return self._link(shown, label.chapter, target if label.kind in NUMBERED else "")
            case "doc":
                chapter = Path(target).stem
                if chapter not in self.titles:
                    raise self._refused(f"there is no chapter {target!r}")
                return self._link(text or self.titles[chapter], chapter)
            case "cite:t":
                return ", ".join(self._citation(key.strip(), True) for key in target.split(","))
            case "cite:p" | "cite":
                return f"({'; '.join(self._citation(key.strip(), False) for key in target.split(','))})"
            case "glue:text":
                return self._glue(content)
            case "math":
                return f"${content}$"
            case "code":
                return f"`{content}`"
            case "term":
                return text or content
            case "abbr":
                return re.sub(r"\s*\(.*\)$", "", content)
        raise self._refused(f"notebooks cannot show the role {found[0]}")

    def _label(self, name: str) -> Label:
        if name not in self.labels:
            raise self._refused(f"there is no label {name!r}")
        return self.labels[name]

    def _refused(self, reason: str) -> NotTranslatableError:
        return NotTranslatableError(f"chapters/{self.chapter}.md: {reason}")

    def _link(self, text: str, chapter: str, place: str = "") -> str:
        if chapter != self.chapter and chapter not in self.notebooks:
            return text
        goal = ("" if chapter == self.chapter else f"{chapter}.ipynb") + (f"#{place}" if place else "")
        return f"[{text}]({goal})" if goal else text

    def _citation(self, key: str, textual: bool) -> str:
        entry = _entries(self.bibliography).get(key)
        if entry is None:
            raise self._refused(f"{key!r} is not in {self.bibliography.name}")
        names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
        names = [name.replace("{", "").replace("}", "") for name in names]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        year, fields = entry.fields.get("year", "n.d."), entry.fields
        text = f"{who} ({year})" if textual else f"{who}, {year}"
        doi, eprint = fields.get("doi"), fields.get("eprint")
        url = fields.get("url") or (doi and f"https://doi.org/{doi}")
        url = url or (eprint and f"https://arxiv.org/abs/{eprint}")
        return f"[{text}]({url})" if url else text

    def _glue(self, content: str) -> str:
        name, _, form = content.partition(":")
        if name not in self.glued:
            return f"`{name}`"  # not executed yet
        value = self.glued[name]
        return minus(format(float(value), form) if form else value.strip("'\""))


@cache
def _entries(path: Path) -> Mapping:
    return parse_file(str(path)).entries
