"""Every statement of the book has claims and falsifications; and the check of this finds planted faults."""

from __future__ import annotations

import pytest

from spurlib.claims import Claim
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


@pytest.mark.parametrize("kind", ["definition", "remark", "assumption", "example"])
def test_what_cannot_be_claimed_needs_no_claim(kind):
    assert ledger.faults({"chapter": LEMMA.replace("prf:lemma", f"prf:{kind}")}, []) == []


def test_the_page_lists_every_claim_and_marks_falsifications():
    page = ledger.page({"chapter": LEMMA}, COVERED, {"chapter": "A chapter"})
    assert "| {prf:ref}`lem-squares` (Squares) | 1 | 1 |" in page
    assert page.count("✓ holds") == 2
    assert page.count("✗ fails, as it must") == 1
