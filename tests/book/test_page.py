"""What the extension changes on a page, tried on small trees; test_site.py looks at the pages themselves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document
from myst_nb.sphinx_ import HideCodeCellNode

from tools import extension

APP = SimpleNamespace(
    env=SimpleNamespace(toc_fignumbers={"chapters/one": {"figure": {"fig-a": (6, 1)}}}),
    config=SimpleNamespace(numfig_format={"figure": "Fig. %s"}),
)


def page(*children):
    document = new_document("page")
    document += children
    return document


def cell(*outputs, mode="input", tags=()):
    """Return a cell as it is when MyST-NB has folded its code above its outputs."""
    code = nodes.container("", nodes.literal_block("1 + 1", "1 + 1"), nb_element="cell_code_source")
    fold = HideCodeCellNode("", code, prompt_show="Show", prompt_hide="Hide")
    shown = [nodes.container("", *outputs, nb_element="cell_code_output")] if outputs else []
    return nodes.container(
        "", fold, *shown, nb_element="cell_code", hide_mode=mode, classes=[f"tag_{tag}" for tag in tags]
    )


def check():
    return nodes.raw("", '<div class="spurlib-claim spurlib-falsifies">holds</div>', format="html")


@pytest.mark.parametrize(
    ("outputs", "title"),
    [
        ([], "Code"),
        ([nodes.paragraph(text="2")], "Code"),
        ([check()], "Code for this check"),
        ([check(), check()], "Code for these checks"),
        ([nodes.figure(ids=["fig-a"])], "Code for Fig. 6.1"),
        ([nodes.figure(ids=["fig-a"]), check()], "Code for Fig. 6.1"),
        ([nodes.figure(ids=["fig-without-number"])], "Code"),
    ],
)
def test_code_stands_folded_below_what_it_shows(outputs, title):
    tree = page(cell(*outputs))
    extension.folded(APP, tree, "chapters/one")
    parts = [part.get("nb_element") or part.astext() for part in tree[0].children]
    start = f'<details class="spurlib-code"><summary>{title}</summary>'
    assert parts == ["cell_code_output"] * bool(outputs) + [start, "cell_code_source", "</details>"]


def test_the_data_of_an_exercise_are_named():
    tree = page(cell(tags=["sheet", "hide-input"]))
    extension.folded(APP, tree, "chapters/one")
    title = '<details class="spurlib-code spurlib-data"><summary>Data of this exercise</summary>'
    assert tree[0].children[0].astext() == title


def test_other_cells_stay_as_they_are():
    tree = page(cell(check(), mode="output"), nodes.container("", check(), nb_element="cell_code"))
    before = tree.pformat()
    extension.folded(APP, tree, "chapters/one")
    assert tree.pformat() == before


@pytest.mark.parametrize(
    ("before", "after", "whole", "rest"),
    [
        ("Let (", "), then", "(x),", " then"),
        ("Let ", ". Then", "x.", " Then"),
        ("a ", "-th", "", "-th"),
        ("a ", " b", "", " b"),
        ("a ", "’s", "x’", "s"),
        ("see [", " b", "[x", " b"),
    ],
)
def test_punctuation_stays_with_its_formula(before, after, whole, rest):
    paragraph = nodes.paragraph("", "", nodes.Text(before), nodes.math("x", "x"), nodes.Text(after))
    extension.unbroken(APP, page(paragraph), "chapters/one")
    assert [node.astext() for node in paragraph.findall(nodes.inline)] == [whole] * bool(whole)
    assert paragraph.astext() == before + "x" + after
    assert paragraph.children[-1].astext() == rest


def test_equal_texts_are_told_apart():
    x, y = nodes.math("x", "x"), nodes.math("y", "y")
    paragraph = nodes.paragraph("", "", nodes.emphasis(text="a"), nodes.Text(", "), x, nodes.Text(", "), y)
    extension.unbroken(APP, page(paragraph), "chapters/one")
    assert [node.astext() for node in paragraph.children] == ["a", ", ", "x,", " ", "y"]


def test_two_formulas_in_a_row():
    paragraph = nodes.paragraph("", "", nodes.math("x", "x"), nodes.Text(", ("), nodes.math("y", "y"), nodes.Text(")"))
    extension.unbroken(APP, page(paragraph), "chapters/one")
    assert [node.astext() for node in paragraph.findall(nodes.inline)] == ["x,", "(y)"]
    assert paragraph.astext() == "x, (y)"


@pytest.mark.parametrize(
    ("inside", "width", "classes"),
    [
        ("<path/>", 300, ["spurlib-drawn"]),
        ("<path/>", 500, ["spurlib-drawn", "spurlib-wide"]),
        ("<image />", 300, []),
    ],
)
def test_drawings_are_told_from_pictures(tmp_path, inside, width, classes):
    (tmp_path / "a.svg").write_text(f'<svg xmlns="x" width="{width}pt" height="9pt">{inside}</svg>', encoding="utf-8")
    tree = page(nodes.figure("", nodes.image(uri="a.svg")), nodes.image(uri="gone.svg"), nodes.image(uri="a.png"))
    extension.drawn(SimpleNamespace(srcdir=tmp_path), tree, "chapters/one")
    assert [image["classes"] for image in tree.findall(nodes.image)] == [classes, [], []]
    assert all(node["classes"] == ["spurlib-scroll"] for node in tree.findall(nodes.container))
    scrolls = [type(node.parent) for node in tree.findall(nodes.container)]
    assert scrolls == [nodes.figure] * ("spurlib-wide" in classes)


@pytest.mark.parametrize(
    ("name", "stacked", "filtered"), [("claims", 1, 1), ("notation", 1, 0), ("terms", 1, 1), ("one", 0, 0)]
)
def test_long_pages_have_a_filter_and_some_tables_are_stacked(name, stacked, filtered):
    tree = page(nodes.section("", nodes.title(text="A page"), nodes.table()))
    extension.handy(APP, tree, f"chapters/{name}")
    assert sum("spurlib-stacked" in table["classes"] for table in tree.findall(nodes.table)) == stacked
    boxes = [node for node in tree.findall(nodes.raw) if "spurlib-filter" in node.astext()]
    assert len(boxes) == filtered
    assert all(tree[0].index(box) == 1 for box in boxes)
