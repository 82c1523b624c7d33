"""Translate the MyST of a chapter into the plain Markdown that Jupyter and Colab show.

Equations keep their numbers (as ``\\tag``), statements become bold headings with the numbers of the book,
references become text, with a link where they lead to another notebook.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from pybtex.database import parse_file

from .markup import KINDS, TARGET, Directive, Label, figure, parse

ROLE = re.compile(r"\{([\w:.-]+)\}`([^`]+)`")
TITLED = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)
ADMONITIONS = ("note", "tip", "hint", "important", "warning", "caution", "attention", "seealso")
DROPPED = ("bibliography", "tableofcontents", "raw", "exercise-end", "solution-end", "claims-ledger")


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
        own = [label for label in labels if label.chapter == chapter]
        # What needs no name to be numbered is met in the same order as it was indexed.
        self.statements = iter([label for label in own if label.kind in KINDS])
        self.exercises = iter([label for label in own if label.kind == "exercise"])
        self.figures = iter([label for label in own if label.kind == "figure"])
        self.tables = iter([label for label in own if label.kind == "table"])

    def text(self, source: str) -> str:
        """Translate the text of one cell."""
        return re.sub(r"\n{3,}", "\n\n", self._lines(source.splitlines())).strip()

    def caption(self, metadata: Mapping[str, object]) -> str | None:
        """Return the caption of the figure that a cell with this metadata shows, or None if it shows none."""
        shown = figure(metadata)
        if shown is None:
            return None
        return f"**{next(self.figures).text}.** {self.text(str(shown.get('caption', '')))}"

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
        name, title = block.name, self._inline([block.argument])
        if name in DROPPED:
            return ""
        if name == "math":
            return self._math(block)
        if name.startswith("prf:") and block.kind in KINDS:
            text = next(self.statements).text
            return f"**{text}{f' ({title})' if title else ''}.**\n\n{self._lines(block.body)}"
        if name == "prf:proof":
            return f"*Proof{f' {title}' if title else ''}.* {self._lines(block.body).strip()} ∎"
        if name in ("exercise", "exercise-start"):
            text = next(self.exercises).text
            return f"**{text}{f' ({title})' if title else ''}.**\n\n{self._lines(block.body)}"
        if name in ("solution", "solution-start"):
            return f"**Solution to {self._label(block.argument).text}.**\n\n{self._lines(block.body)}"
        if name in ADMONITIONS:
            start = f"{title}\n\n" if title else ""  # MyST reads a note's first line as text
            return f"**{'See also' if name == 'seealso' else name.capitalize()}.** {start}{self._lines(block.body)}"
        if name in ("admonition", "dropdown", "margin", "sidebar", "topic"):
            return f"**{title}.** {self._lines(block.body)}" if title else self._lines(block.body)
        if name in ("figure", "image"):
            picture = f"![{block.options.get('alt', '')}]({block.argument})"
            if name == "image":  # has no caption and no number
                return picture
            return f"{picture}\n\n**{next(self.figures).text}.** {self._lines(block.body).strip()}"
        if name in ("table", "list-table"):
            rows = self._lines(block.body) if name == "table" else self._rows(block)
            return (f"**{next(self.tables).text}.** {title}\n\n" if title else "") + rows
        if name in ("", "code", "code-block"):
            return "\n".join([f"```{block.argument}", *block.body, "```"])
        raise NotTranslatableError(f"chapters/{self.chapter}.md: notebooks cannot show the directive {name!r}")

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

    def _role(self, match: re.Match[str]) -> str:
        role, content = match[1], match[2]
        named = TITLED.match(content)
        text, target = (named[1], named[2]) if named else ("", content)
        if role == "eq":
            return self._link(f"({self._label(target).number})", self._label(target).chapter)
        if role in ("prf:ref", "numref", "ref"):
            label = self._label(target)
            shown = text.replace("%s", label.number).replace("{number}", label.number) or label.text
            return self._link(shown, label.chapter)
        if role == "doc":
            chapter = Path(target).stem
            if chapter not in self.titles:
                raise NotTranslatableError(f"chapters/{self.chapter}.md: there is no chapter {target!r}")
            return self._link(text or self.titles[chapter], chapter)
        if role in ("cite:t", "cite:p", "cite"):
            cited = [self._citation(key.strip(), role == "cite:t") for key in target.split(",")]
            return ", ".join(cited) if role == "cite:t" else f"({'; '.join(cited)})"
        if role.startswith("glue:"):
            return self._glue(content)
        simple: dict[str, Callable[[str], str]] = {
            "math": lambda body: f"${body}$",
            "code": lambda body: f"`{body}`",
            "term": lambda body: text or body,
            "abbr": lambda body: re.sub(r"\s*\(.*\)$", "", body),
            "func": lambda body: f"`{body.lstrip('~')}`",
        }
        try:
            return simple[role.removeprefix("py:")](content)
        except KeyError:
            message = f"chapters/{self.chapter}.md: notebooks cannot show the role {match[0]}"
            raise NotTranslatableError(message) from None

    def _label(self, name: str) -> Label:
        try:
            return self.labels[name]
        except KeyError:
            raise NotTranslatableError(f"chapters/{self.chapter}.md: there is no label {name!r}") from None

    def _link(self, text: str, chapter: str) -> str:
        elsewhere = chapter != self.chapter and chapter in self.notebooks
        return f"[{text}]({chapter}.ipynb)" if elsewhere else text

    def _citation(self, key: str, textual: bool) -> str:
        entry = _entries(self.bibliography).get(key)
        if entry is None:
            raise NotTranslatableError(f"chapters/{self.chapter}.md: {key!r} is not in {self.bibliography.name}")
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
        return format(float(value), form) if form else value.strip("'\"")


@cache
def _entries(path: Path) -> Mapping:
    return parse_file(str(path)).entries
