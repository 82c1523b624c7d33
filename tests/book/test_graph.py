"""The graph of what the main results use follows from statements and proofs."""

from __future__ import annotations

from tools.chapters import contents, sources
from tools.graph import REFERENCE, below, drawing, ordered, uses
from tools.markup import TO_BE_CLAIMED, Directive, labels, parse

FIRST = """\
# First

:::{prf:lemma} A
:label: lem-a
One.
:::

:::{prf:proof}
Compare {prf:ref}`thm-late`.
:::
"""

SECOND = """\
# Second

:::{prf:theorem} Late
:label: thm-late
Two.
:::

:::{prf:lemma} B
:label: lem-b
Three.
:::

:::{prf:proof}
By {prf:ref}`lem-a`, see {prf:ref}`rem-c`.
:::

:::{prf:remark} C
:label: rem-c
Four.
:::

:::{prf:proof}
By {prf:ref}`the first lemma <lem-a>` and {prf:ref}`lem-b`.
:::

:::{prf:corollary} D
:label: cor-d
Five.
:::

:::{prf:corollary} E
:label: cor-e
Six.
:::

:::{prf:proof} (of {prf:ref}`cor-d` and {prf:ref}`cor-e`)
By {prf:ref}`thm-late`, as {prf:ref}`cor-d` shows.
:::
"""

BOOK = {"first": FIRST, "second": SECOND}


def test_a_proof_belongs_to_the_last_statement_without_one():
    found = uses(BOOK)
    assert found["lem-b"] == {"lem-a", "rem-c"}
    assert found["thm-late"] == {"lem-a", "lem-b"}


def test_a_proof_belongs_to_the_statements_that_it_names():
    found = uses(BOOK)
    assert found["cor-d"] == found["cor-e"] == {"thm-late"}


def test_nothing_uses_a_later_chapter():
    assert uses(BOOK)["lem-a"] == set()


def test_what_an_appendix_proves_can_be_used_before_it():
    book = {"first": FIRST, "tools": SECOND}
    assert uses(book)["lem-a"] == {"thm-late"}
    assert uses(book)["thm-late"] == {"lem-b"}
    assert "lem-data-consequences" in uses(sources())["lem-hadamard"]
    drawn = drawing(sources(), ["thm-sharp-law"])
    assert 'href="tools.html#lem-data-consequences"' in drawn and "Appendix: " in drawn


def test_every_statement_that_a_proof_names_is_known():
    """No proof rests on a later chapter: a reference that were dropped would leave a gap in the graph."""
    order = [*ordered(sources())]
    place = {label.name: label.chapter for label in labels(sources(), contents()) if label.kind in TO_BE_CLAIMED}
    later = [
        (name, used)
        for name, text in sources().items()
        for _, block in parse(text.split("\n"))
        if isinstance(block, Directive) and block.kind == "proof"
        for used in REFERENCE.findall("\n".join(block.body))
        if used in place and order.index(place[used]) > order.index(name)
    ]
    assert later == []


def test_what_is_used_through_others_is_not_drawn_twice():
    assert below(BOOK, ["thm-late"]) == {"thm-late": {"lem-b"}, "lem-b": {"lem-a"}, "lem-a": set()}


def test_the_graph_of_the_book_has_no_circle():
    found = below(sources(), uses(sources()).keys() & {"thm-sharp-law", "thm-predicted-wide", "thm-privacy-reading"})
    done: set[str] = set()
    while ready := {name for name, used in found.items() if name not in done and used <= done}:
        done |= ready
    assert done == found.keys()


def test_a_statement_links_to_its_place():
    drawn = drawing(sources(), ["thm-sharp-law"])
    assert 'href="sharp-law.html#thm-sharp-law"' in drawn
    assert drawn.count('class="main"') == 1
