"""Links from symbols to the page of the notation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document

from tools import symbols
from tools.chapters import contents, sources
from tools.symbols import head, hint, known, linked, pieces, rows, symbol

APP = SimpleNamespace(builder=SimpleNamespace(name="html", get_relative_uri=lambda page, there: "notation.html"))


def page(*formulas):
    """Return a page with a title and a paragraph of formulas."""
    document = new_document("page")
    document += nodes.title("", "", nodes.math("N", "N"))
    document += nodes.paragraph("", "", *(nodes.math(one, one) for one in formulas))
    return document


def links(tree, chapter="stability"):
    linked(APP, tree, f"chapters/{chapter}")
    return [(link.astext(), link["refuri"].partition("#")[2]) for link in tree.findall(nodes.reference)]


@pytest.mark.parametrize(
    ("formula", "first"),
    [
        ("N \\ge 2", "N"),
        ("z = [x, y]", "z"),
        (r"S_{z_i}(z) = f(z) - f_{-i}(z)", "S_{z_i}(z)"),
        (r"\alpha \in (0,1)", r"\alpha"),
    ],
)
def test_a_formula_begins_with_a_symbol(formula, first):
    assert head(formula) == first


def test_commas_within_brackets_and_spaces_do_not_divide():
    assert [*pieces(r"F(z, z_i), a\, b")] == ["F(z, z_i)", r" a\, b"]


def test_a_symbol_is_linked_where_it_is_first_used_and_not_in_a_title():
    found = links(page("N = 3", "N", r"\gamma", "N + 1", "?"))
    assert found == [("N = 3", "symbol-n"), (r"\gamma", "symbol-gamma")]


def test_the_meaning_in_a_chapter_comes_before_that_of_the_book():
    (row,) = {known("interpolation")[one].name for one in ("A", r"A_{-i}")}
    assert row.startswith("symbol-interpolation")
    assert known("stability").get("A_{-i}") is None


def test_a_letter_with_other_arguments_is_known():
    letters = known("stability")
    assert letters[symbol("F(z_1^s, z_1)", letters)].name == letters["F(z,z_i)"].name
    assert letters[symbol("k(Z, z)", letters)] != letters["k"]
    assert letters[symbol("f(z)", letters)] == letters["f"]
    assert symbol("O(k)", letters | {"O": letters["k"]}) is None


def test_the_meaning_is_shown_where_it_is_plain_text():
    letters = known("stability")
    assert hint(letters["N"]) == "number of training samples"
    assert hint(letters[r"\gamma"]) == ""


def test_every_row_has_an_anchor_of_its_own():
    names = [row.name for row in rows()]
    assert len(names) > 200 and len(set(names)) == len(names)
    assert {chapter for row in rows() for chapter in row.chapters} <= {*contents()}


def test_the_rows_of_the_page_get_their_anchors(monkeypatch):
    monkeypatch.setattr(symbols, "rows", lambda: rows()[:2])
    tree = new_document("page")
    tree += nodes.tbody("", nodes.row(), nodes.row())
    linked(APP, tree, "chapters/notation")
    assert [row["ids"] for row in tree.findall(nodes.row)] == [[row.name] for row in rows()[:2]]


def test_pages_without_a_number_and_the_printed_book_have_no_links():
    assert links(page("N"), "course") == []
    printed = SimpleNamespace(builder=SimpleNamespace(name="singlehtml"))
    tree = page("N")
    linked(printed, tree, "chapters/stability")
    assert [*tree.findall(nodes.reference)] == []


@pytest.mark.parametrize("chapter", [name for name, number in contents().items() if number])
def test_a_chapter_uses_symbols_of_the_page(chapter):
    letters = known(chapter)
    used = {symbol(formula, letters) for formula in symbols.FORMULA.findall(sources()[chapter])} - {None}
    assert len(used) >= 10
