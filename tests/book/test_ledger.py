"""Every statement of the book has claims and falsifications; and the check of this finds planted faults."""

from __future__ import annotations

import pytest
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from spurlib.book import Claim
from tools import ledger
from tools.chapters import executable, sources
from tools.notebooks import load

LEMMA = """\
# A chapter

:::{prf:lemma} Squares
:label: lem-squares
$x^2 \\ge 0$.
:::

```{exercise}
:label: ex-squares
Show it.
```

```{math}
:label: eq-squares
x^2
```
"""


def claim(statement="lem-squares", name="holds", falsifies=False, holds=True):
    return ledger.Entry("chapter", Claim(statement, name, 1.0, "above 0", falsifies, holds))


COVERED = (claim(), claim(name="fails", falsifies=True), claim("ex-squares"))


def test_every_statement_of_the_book_is_claimed_and_falsified():
    notebooks = {name: load(name) for name in executable()}
    claims = [entry for name, nb in notebooks.items() if nb for entry in ledger.entries(name, nb)]
    assert ledger.faults(sources(), claims) == []


def test_a_covered_lemma_passes():
    assert ledger.faults({"chapter": LEMMA}, COVERED) == []


@pytest.mark.parametrize(
    ("text", "claims", "complaint"),
    [
        (LEMMA, [], "has no claim"),
        (LEMMA, COVERED[1:], "has no claim"),
        (LEMMA, COVERED[:1], "has no falsification"),
        (LEMMA.replace(":label: lem-squares\n", ""), [], "has no label"),
        (LEMMA.replace("prf:lemma", "prf:corollary"), [], "corollary 'lem-squares' has no claim"),
        (LEMMA, [*COVERED, claim("lem-cubes")], "no statement or exercise has this label"),
        (LEMMA, [*COVERED, claim("eq-squares")], "no statement or exercise has this label"),
        (LEMMA, [*COVERED, claim()], "2 claims about 'lem-squares' are named 'holds'"),
        (LEMMA, [*COVERED, claim(name="misses", holds=False)], "does not hold"),
        (LEMMA.replace(":::", "::::"), [], "has no claim"),
        ("::::{note}\n" + LEMMA + "::::\n", [], "has no claim"),
    ],
)
def test_a_planted_fault_is_found(text, claims, complaint):
    assert any(complaint in fault for fault in ledger.faults({"chapter": text}, claims))


def test_a_build_refuses_only_what_the_ledger_cannot_show():
    assert ledger.contradictions({"chapter": LEMMA}, []) == []
    twice = ledger.contradictions({"chapter": LEMMA}, [*COVERED, claim()])
    assert twice == ["chapters/chapter.md: 2 claims about 'lem-squares' are named 'holds'"]


@pytest.mark.parametrize("kind", ["definition", "remark", "assumption", "example"])
def test_what_cannot_be_claimed_needs_no_claim(kind):
    assert ledger.faults({"chapter": LEMMA.replace("prf:lemma", f"prf:{kind}")}, []) == []


def test_the_page_lists_every_claim_and_marks_falsifications():
    page = ledger.page({"chapter": LEMMA}, COVERED, {"chapter": "A chapter"})
    assert "| {prf:ref}`lem-squares` (Squares) | 1 | 1 |" in page
    assert page.count("✓ holds") == 2
    assert page.count("✓ fails, as expected") == 1


NAMES = ("<b>bold</b>", "a | b", "$x$ and `y`", "*a* _b_ [c](d)", "{prf:ref}`lem-squares`", "two\nlines", "\\ & &amp;")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_names_as_they_are(name):
    text = ledger.page({"chapter": LEMMA}, [claim(name=name)], {"chapter": "A chapter"})
    row = next(line for line in text.splitlines() if "✓" in line)
    tokens = create_md_parser(MdParserConfig(enable_extensions={"dollarmath"}), RendererHTML).parse(
        "| a | b | c | d | e |\n| - | - | - | - | - |\n" + row
    )
    cells = [token for token in tokens if token.type == "inline"][5:]
    assert len(cells) == 5
    assert {child.type for child in cells[1].children} <= {"text", "text_special"}
    assert "".join(child.content for child in cells[1].children) == " ".join(name.split())


@pytest.mark.parametrize("name", executable())
def test_stored_claims_are_as_they_were_made(name):
    for entry in ledger.entries(name, nb := load(name)):
        shown = entry.claim._repr_mimebundle_()
        assert any(
            output.get("data", {}) == shown for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs
        ), entry
