"""Words that the book does not use, and letters that have one meaning."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.chapters import ROOT, contents, read, sources
from tools.symbols import LOCAL, head, rows

THINGS = r"(?:models?|kernels?|networks?|formulas?|theorems?|lemmas?|quer(?:y|ies)|predictions?|curves?|activations?)"
UNWANTED = {
    "things do not act as persons": rf"{THINGS} (?:hears?|knows?|speaks?|answers?|forgets?|remembers?|asks?)",
    "a voice": "hears|heard|deaf|louder|loud|whispers?|loyal",
    "an idiom": r"in the place of|as (?:near|slowly|close)(?: \w+)? as we (?:like|please)|hopeless",
    "an exclamation": "clearly|obviously|trivially|needless to say",
    "an old term": "foreign core|other core|strangers?|falsifications?|witness(?:es)?|Hermite recall|law on spheres",
    "a sign for a word": r"\d ?\\?% ",
    "British spelling": r"\w*(?:colour|behaviour|neighbour|labelled|modelling|centred)\w*|"
    r"(?:general|normal|minim|maxim|real|regular)is(?:e|ed|es|ing|ation)",
}
FENCE = re.compile(r"(`{3,})(?:\{([\w:-]+)\})?")
READ = re.compile(r"table|list-table|figure|exercise.*|solution.*|prf:.*")
CAPTIONS = re.compile(r"^ *(?:caption|alt): .*(?:\n {4,}.*)*", re.MULTILINE)


def prose(text: str) -> str:
    """Return what is read: the text without code, formulas and literals, and the captions of figures."""
    captions = "\n".join(CAPTIONS.findall(text))
    text = "\n".join(unfenced(text)) + captions
    return re.sub(r"\$\$.*?\$\$|\$[^$]+\$|`[^`]+`", " ", text, flags=re.DOTALL)


def unfenced(text: str) -> Iterator[str]:
    """Yield the lines outside of fences, and those within directives that hold text."""
    closing: list[tuple[str, bool]] = []
    for line in text.splitlines():
        fence = FENCE.match(line)
        if closing and fence and line.strip() == fence[1] and fence[1] >= closing[-1][0]:
            closing.pop()
        elif fence and line.strip() != fence[1] and all(shown for _, shown in closing):
            closing.append((fence[1], bool(READ.fullmatch(fence[2] or ""))))
        elif all(shown for _, shown in closing):
            yield line


def docstrings(path: Path) -> str:
    """Return the docstrings of a module, without literals and formulas."""
    tree = ast.parse(read(path))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    found = [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]
    return re.sub(r"``[^`]+``|^ *>>>.*$|^ *\.\.\. .*$", " ", "\n\n".join(found), flags=re.MULTILINE)


TEXTS = {
    **{f"chapters/{name}.md": text for name, text in sources().items()},
    **{str(path.relative_to(ROOT)): docstrings(path) for path in sorted((ROOT / "spurlib").rglob("*.py"))},
    **{name: read(ROOT / name) for name in ("README.md", "teaching/README.md")},
}


def pattern(kind: str) -> re.Pattern[str]:
    """Return what finds the words of one kind."""
    edge = r"\b" if UNWANTED[kind][0] != "\\" else ""
    return re.compile(rf"{edge}(?:{UNWANTED[kind]}){edge}", re.IGNORECASE)


@pytest.mark.parametrize("kind", UNWANTED)
def test_what_is_not_written(kind):
    text = {name: prose(text) for name, text in TEXTS.items()}
    found = [(name, hit[0]) for name in text for hit in pattern(kind).finditer(text[name])]
    assert found == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("things do not act as persons", "The kernel knows the label."),
        ("an old term", "```{code-cell}\n---\n    caption: >\n      A falsification,\n      seen.\n---\n```"),
        ("British spelling", ":::{prf:remark} Title\nIt generalises.\n:::"),
        ("a sign for a word", "By 5 % of it, as 3\\% are."),
    ],
)
def test_it_is_found_where_it_is_written(kind, text):
    assert pattern(kind).search(prose(text))
    assert not pattern(kind).search(prose(f"```{{code-cell}}\n{text.replace('```', '')}\n```".replace("caption", "x")))


def test_docstrings_are_read(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        '"""Of all."""\ndef f():\n    """The kernel knows ``hears``.\n\n    >>> deaf\n    """\n', encoding="utf-8"
    )
    text = docstrings(path)
    assert pattern("things do not act as persons").search(text) and not pattern("a voice").search(text)


def test_formulas_do_not_end_the_text():
    kept = prose("one\n```{math}\na\n```\ntwo\n```{code-cell}\ncode\n```\n```{exercise-start}\n:label: x\n```\nthree\n")
    assert kept.split() == ["one", "two", ":label:", "x", "three"]
    words = {name: len(prose(text).split()) for name, text in TEXTS.items()}
    assert words["chapters/stability.md"] > 2500 and words["chapters/sharp-law.md"] > 2500


def test_a_letter_of_the_book_has_one_meaning():
    of_book = Counter(head(letter) for row in rows() if not row.chapters for letter in row.letters)
    assert len(of_book) > 120
    assert [letter for letter, count in of_book.items() if count > 1] == []


def test_a_letter_of_a_chapter_has_one_meaning_there():
    local = Counter()
    for row in rows():
        if row.section == LOCAL:
            assert row.chapters and {*row.chapters} <= {*contents()}, row.letters
            local.update((chapter, head(letter)) for chapter in row.chapters for letter in row.letters)
    assert [entry for entry, count in local.items() if count > 1] == []


# ---- how long a chapter takes to read

WORDS, FORMULA, DISPLAY, LINE = 200, 1, 30, 4
"""Words a minute, and seconds for a formula in a line, a displayed formula and a line of code: chapters/course.md."""
SHOWN = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FOLDED = re.compile(r"hide-input|remove-cell|remove-input")


def minutes(text: str) -> float:
    """Return the minutes that a chapter takes to read without its exercises."""
    text = text.partition("\n## Exercises")[0]
    lines = sum(len(cell.strip().split("\n")) for cell in SHOWN.findall(text) if not FOLDED.search(cell))
    formulas = len(re.findall(r"(?<!\$)\$[^$\n]+\$", text))
    return len(prose(text).split()) / WORDS + (FORMULA * formulas + DISPLAY * text.count("{math}") + LINE * lines) / 60


@pytest.mark.parametrize("name", [name for name, number in contents().items() if number])
def test_the_time_to_read_is_that_of_the_length(name):
    text = sources()[name]
    stated = int(re.search(r"\*\*Time:\*\* (\d+) minutes to read", text)[1])
    assert stated % 5 == 0 and abs(stated - minutes(text)) < 4  # so that a changed sentence does not change it
    assert stated <= 45


def test_the_time_of_a_text_is_counted():
    text = (
        "one two $x$\n" * 100 + "```{code-cell} ipython3\na\nb\n```\n```{math}\nx\n```\n## Exercises\n" + "word " * 900
    )
    assert minutes(text) == pytest.approx(1 + (100 + 8 + 30) / 60)
