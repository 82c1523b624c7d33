"""Words that the book does not use, and letters that have one meaning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tools.chapters import ROOT, contents, read, sources

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


TEXTS = {**{f"chapters/{name}.md": text for name, text in sources().items()}, "README.md": read(ROOT / "README.md")}


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


def test_formulas_do_not_end_the_text():
    kept = prose("one\n```{math}\na\n```\ntwo\n```{code-cell}\ncode\n```\n```{exercise-start}\n:label: x\n```\nthree\n")
    assert kept.split() == ["one", "two", ":label:", "x", "three"]
    words = {name: len(prose(text).split()) for name, text in TEXTS.items()}
    assert words["chapters/stability.md"] > 2500 and words["chapters/sharp-law.md"] > 2500


def rows():
    """Return symbol, other cells and section of each row on the page of the notation."""
    section, found = "", []
    for line in sources()["notation"].splitlines():
        if mark := re.match(r"\((notation-\w+)\)=", line):
            section = mark[1]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and "$" in cells[0]:
            found.append((section, *cells))
    return found


def letters(cell: str) -> list[str]:
    """Return the symbols that a cell introduces: before what they equal or belong to."""
    return [re.split(r"\\in\b|=|:|\\sim", formula)[0].strip() for formula in re.findall(r"\$([^$]+)\$", cell)]


def test_a_letter_of_the_book_has_one_meaning():
    of_book = Counter(
        letter for section, symbol, *_ in rows() if section != "notation-local" for letter in letters(symbol)
    )
    assert len(of_book) > 80
    assert [letter for letter, count in of_book.items() if count > 1] == []


def test_a_letter_of_a_chapter_has_one_meaning_there():
    local = Counter()
    for section, symbol, chapters, _ in rows():
        if section == "notation-local":
            named = re.findall(r"\{doc\}`([\w-]+)`", chapters)
            assert named and set(named) <= set(contents()), symbol
            local.update((chapter, letter) for chapter in named for letter in letters(symbol))
    assert [entry for entry, count in local.items() if count > 1] == []
