"""The stored notebooks are those that their chapters give; MyST becomes Markdown that Jupyter can show."""

from __future__ import annotations

import copy
import re
import sys
import types
from contextlib import nullcontext

import pytest
from pybtex.database import parse_file

from tools.chapters import CHAPTERS, executable, notebook, repository
from tools.markup import figure, labels, minus
from tools.notebooks import code_changed, differences, install_cell, load, path_of
from tools.translate import NotTranslatableError, Translator

CHAPTER = """\
(here)=
# Title

:::{prf:theorem} Pythagoras
:label: thm-p
If the angle is right,

$$
a^2 + b^2 = c^2 .
$$ (eq-p)
:::

:::{prf:lemma}
Unlabeled.
:::

```{math}
:label: eq-q
a &= b \\\\
  &= c
```
"""
OTHER = "# Other\n\n(there)=\n## Section\n\n:::{prf:lemma} Far\n:label: lem-far\nText.\n:::\n"
WORKS = """\
@article{two, author = {Ann Archer and Ben van Beek}, title = {T}, year = 2024, url = {https://example.org}}
@article{three, author = {Ann Archer and Ben Beek and Cy Cole}, title = {T}, year = 2023}
"""


@pytest.fixture
def translate(tmp_path):
    """Translate text that stands in a chapter after CHAPTER."""
    bibliography = tmp_path / "works.bib"
    bibliography.write_text(WORKS)
    return lambda text, glued=None: _translate(text, bibliography, glued or {})


def _translate(text, bibliography, glued):
    found = labels({"one": CHAPTER + text, "two": OTHER}, {"one": 1, "two": 2})
    titles = {"one": "Title", "two": "Other"}
    translator = Translator("one", found, titles, ["one", "two"], bibliography, glued)
    translator.text(CHAPTER)
    return translator.text(text)


def test_chapters_without_a_number_count_on():
    """As Sphinx does: a second one has Figure 2, where chapters with numbers have Figure 1.1 and 2.1."""
    figures = {name: f"```{{figure}} a.png\n:name: fig-{name}\n:alt: A\n```\n" for name in ("a", "b", "c")}
    assert [label.number for label in labels(figures, {"a": None, "b": 1, "c": None})] == ["1", "1.1", "2"]


@pytest.mark.parametrize("name", executable())
def test_stored_notebook_is_that_of_its_chapter(name):
    assert differences(name, load(name)) == [], "run `make notebooks-text`, or `make notebooks`"


@pytest.mark.parametrize("name", executable())
def test_stored_notebook_is_executed_and_shows_its_drawings(name):
    nb = load(name)
    assert nb is not None
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert all(cell.execution_count == i for i, cell in enumerate(cells, 1))
    for cell in cells:
        kinds = {mime for output in cell.outputs for mime in output.get("data", ())}
        assert {kind for kind in kinds if kind.startswith("image/")} <= {"image/svg+xml"}
        assert kinds & {"image/svg+xml", "text/html"} or not figure(cell.metadata)  # the explorer is HTML
    assert cells[0].source == install_cell(name, repository())
    assert sum(len(cell.outputs) for cell in cells) > 0


def test_no_notebook_is_left_of_a_chapter_that_is_gone():
    assert sorted(path.stem for path in CHAPTERS.glob("*.ipynb")) == sorted(executable())


def test_stored_drawings_are_small():
    assert sum(path_of(name).stat().st_size for name in executable()) < 25e6


def test_code_that_the_page_hides_is_folded():
    source = notebook("stability").cells
    tags = [cell.metadata.get("tags", []) for cell in source if cell.cell_type == "code"]
    stored = [cell for cell in load("stability").cells if cell.cell_type == "code"][1:]
    hidden = [cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in stored]
    assert hidden == [not {"hide-input", "remove-cell"}.isdisjoint(of) for of in tags]
    assert True in hidden
    assert False in hidden


@pytest.mark.parametrize(("kind", "complaint"), [("code", "code cell"), ("markdown", "markdown cell")])
def test_a_stale_notebook_is_found(kind, complaint):
    name = executable()[0]
    stale = copy.deepcopy(load(name))
    cell = next(cell for cell in stale.cells[3:] if cell.cell_type == kind)
    cell.source += "\nchanged"
    assert complaint in differences(name, stale)[0]
    assert "missing" in differences(name, None)[0]


def test_a_new_address_changes_the_text_of_a_notebook_only():
    name = executable()[0]
    stored = copy.deepcopy(load(name))
    first, second, *_ = (cell for cell in stored.cells if cell.cell_type == "code")
    first.source = install_cell(name, "https://github.com/someone/other")
    assert not code_changed(name, stored)
    second.source += "\nchanged"
    assert code_changed(name, stored)


def test_the_first_cell_installs_from_the_repository():
    cell = install_cell("hermite", "git@github.com:someone/book.git")
    assert "hermite.md" in cell
    assert cell.count("https://github.com/someone/book") == 2  # in words and in the command
    assert "{" not in cell and ".git " not in cell


@pytest.mark.parametrize("colab", [False, True])
def test_the_first_cell_says_that_there_is_no_repository(colab, monkeypatch):
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    cell = install_cell("hermite", "https://github.com/OWNER/REPOSITORY")
    assert "OWNER" not in cell
    with pytest.raises(RuntimeError, match="does not say where its repository is") if colab else nullcontext():
        exec(cell, {})


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("By {prf:ref}`thm-p` and {eq}`eq-p`.", "By [Theorem 1.1](#thm-p) and (1.1)."),
        ("{eq}`eq-q`", "(1.2)"),
        ("{prf:ref}`lem-far`", "[Lemma 2.1](two.ipynb#lem-far)"),
        ("{prf:ref}`the far lemma <lem-far>`", "[the far lemma](two.ipynb#lem-far)"),
        ("{ref}`there`, {doc}`two`", "[Section](two.ipynb), [Other](two.ipynb)"),
        ("{math}`x^2` and {code}`f(x)`", "$x^2$ and `f(x)`"),
        ("{glue:text}`accuracy:.2f` {glue:text}`accuracy`", "0.50 0.5"),
        ("(a-label)=\n## Heading", "## Heading"),
        ("% a comment\ntext", "text"),
        ("```python\n{eq}`eq-p`\n```", "```python\n{eq}`eq-p`\n```"),
        ("::::{prf:proof}\nSee {eq}`eq-p`.\n::::", "*Proof.* See (1.1). ∎"),
        (":::{admonition} Listen\n:class: tip\ntext\n:::", "**Listen.** text"),
        (":::{note}\ntext\n:::", "**Note.** text"),
        ("$$\na \\\\ b\n$$", "$$\n\\begin{aligned}\na \\\\ b\n\\end{aligned}\n$$"),
        ("```{math}\n:label: eq-r\nx\n```", "$$\nx\n\\tag{1.3}\n$$"),
        (
            "```{exercise-start} Try\n:label: ex-a\n```\nText\n```{exercise-end}\n```\n```{solution-start} ex-a\n"
            ":class: dropdown\n```\nDone\n```{solution-end}\n```",
            '<a id="ex-a"></a>**Exercise 1.1 (Try).**\n\nText\n\n**Solution to Exercise 1.1.**\n\nDone',
        ),
        ("```{bibliography}\n```", ""),
        (
            "```{list-table} Cap\n:name: tab-a\n* - a\n  - b\n* - c\n  - d\n```",
            '<a id="tab-a"></a>**Table 1.1.** Cap\n\n| a | b |\n| --- | --- |\n| c | d |',
        ),
        (
            "```{image} a.png\n:alt: An a\n```\n\n```{figure} b.png\n:name: fig-b\n:alt: A b\nB.\n```",
            '![An a](a.png)\n\n![A b](b.png)\n\n<a id="fig-b"></a>**Figure 1.1.** B.',
        ),
        ("```{image} a.png\n:alt: An a\n```", "![An a](a.png)"),
        (
            "```{figure} assets/a.png\n:name: fig-a\n:alt: An a\nThe caption.\n```\n{numref}`fig-a`",
            '![An a](assets/a.png)\n\n<a id="fig-a"></a>**Figure 1.1.** The caption.\n\n[Figure 1.1](#fig-a)',
        ),
    ],
)
def test_myst_becomes_markdown(translate, myst, markdown):
    assert translate(myst, {"accuracy": "0.5"}) == markdown


def test_minus_signs():
    text = "-0.4 (-0.5 to -.17), 1e-05, h-1, a - 1, 2-3"
    assert minus(text) == "−0.4 (−0.5 to −.17), 1e-05, h-1, a - 1, 2-3"


def test_a_negative_result_has_a_minus_sign(translate):
    assert translate("{glue:text}`slope:.1f`", {"slope": "-0.5"}) == "−0.5"


def test_citations_become_names_and_years(translate):
    assert translate("By {cite:t}`two`.") == "By [Archer and van Beek (2024)](https://example.org)."
    assert translate("{cite:p}`three,two`") == (
        "(Archer et al., 2023; [Archer and van Beek, 2024](https://example.org))"
    )


def test_no_two_works_are_cited_alike():
    works = parse_file(str(CHAPTERS / "references.bib")).entries
    translator = Translator("index", [], {}, (), CHAPTERS / "references.bib", {})
    cited = [re.sub(r"\(http[^)]*\)", "", translator.text(f"{{cite:p}}`{key}`")) for key in works]
    assert sorted(cited) == sorted({*cited})


@pytest.mark.parametrize(
    "myst", ["{nonsense}`x`", ":::{nonsense}\n:::", "{eq}`eq-none`", "{cite:t}`nobody`", "{doc}`no`"]
)
def test_what_notebooks_cannot_show_is_refused_by_name(translate, myst):
    with pytest.raises(NotTranslatableError, match=r"chapters/one\.md"):
        translate(myst)
