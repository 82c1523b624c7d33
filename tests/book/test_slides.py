"""How slides are cut out of a page, tried on small pages; test_site.py looks at the decks themselves."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document

from tools import slides
from tools.chapters import contents, sources
from tools.markup import labels
from tools.panels import SVG, frame, panels, texts
from tools.translate import Translator

PAGE = """\
<script>window.MathJax = {}</script><script defer="defer" src="../_static/mathjax/tex.js"></script>
<nav><!--slide--><p>not of the article</p></nav>
<article class="bd-article"><section id="one">
<h1><span class="section-number">3. </span>One<a class="headerlink" href="#one">#</a></h1>
<div class="admonition tip"><p class="admonition-title">You will be able to</p>
<ul><li>Goal<span class="spurlib-ran"> The page ran.</span></li></ul></div>
%s
<section id="summary"><h2>Summary</h2><ul><li>All of it.</li></ul></section>
</section></article>
"""
STATEMENT = """\
<section id="part"><h2>A part</h2>
%s<div class="proof lemma admonition" id="lem-a">
<p class="admonition-title"><span class="caption-number">Lemma 3.1 </span> (A <span>name)</span></p>
<section class="lemma-content" id="proof-content"><p>It holds.</p><p>Twice.</p>
<p class="spurlib-checks">Numerical checks</p></section></div>
%s<div class="proof admonition" id="proof"><p>Proof. <strong>Step 1 (first).</strong> So.</p>
<p><strong>Step 2 (second).</strong> And <a href="two.html#eq-b">(4.1)</a> with <a href="#part">here</a>.</p>
%s<div class="math" id="equation-eq-a">x = y</div>
%s<p>The end.</p></div></section>
"""
FIGURE = """\
<!--slide--><div class="cell tag_hide-input"><div class="cell_output"><figure id="fig-a"><img src="../_images/a.svg">
<figcaption><p><span class="caption-number">Fig. 3.1 </span>
<span class="caption-text">It <em>grows</em> with <span>d.</span> Bars: errors.</span></p></figcaption></figure></div>
<details class="spurlib-code"><summary>Code</summary></details></div>
"""


def cut(body):
    """Return the slides of a page between the first and the last, and the faults."""
    done, faults, count = slides.deck(PAGE % body, "one")
    found = BeautifulSoup(done, "html.parser").select(".slides > section")
    assert len(found) == count
    return found[1:-1], faults


def title(slide):
    return slide.h2.get_text()


def test_a_deck_begins_with_the_title_and_ends_with_the_summary():
    done, faults, count = slides.deck(PAGE % "<!--slide: A title--><p>Text.</p>", "one")
    first, slide, last = BeautifulSoup(done, "html.parser").select(".slides > section")
    assert faults == [] and count == 3
    assert first.h1.get_text() == "3. One"
    assert first.li.get_text() == "Goal"
    assert (title(slide), slide.p.get_text()) == ("A title", "Text.")
    assert (title(last), last.li.get_text()) == ("Summary", "All of it.")
    assert "window.MathJax = {}" in done and "../_static/mathjax/tex.js" in done


def test_a_page_without_marks_has_no_deck():
    assert slides.deck(PAGE % "<p>Text.</p><!--slider-->", "one") == ("", [], 0)


def test_a_statement_gives_its_name_to_the_slide():
    (slide,), faults = cut(STATEMENT % ("<!--slide-->", "", "", ""))
    assert faults == []
    assert title(slide) == "A name"
    box = slide.select_one("div.lemma")
    assert box.select_one(".admonition-title").get_text(strip=True) == "Lemma 3.1"
    assert "Numerical checks" not in box.get_text()
    assert not slide.select("section") and not slide.select(".body [id]")
    assert slide.footer.a["href"] == "../chapters/one.html#lem-a"


def test_a_formula_of_a_proof_says_what_it_proves():
    (slide,), _ = cut(STATEMENT % ("<!--slide: Another-->", "", "<!--slide+-->", "<!--slide+-->"))
    assert title(slide) == "Another"
    assert [part.get_text() for part in slide.select("p.source")] == ["Proof of Lemma 3.1 – Step 2 (second)"]
    (slide,), _ = cut(STATEMENT % ("", "", "<!--slide-->", ""))
    assert title(slide) == "Proof of Lemma 3.1 – Step 2 (second)"
    assert slide.footer.a["href"] == "../chapters/one.html#equation-eq-a"


def test_a_proof_stands_under_its_own_title_with_links_to_the_page():
    (slide,), _ = cut(STATEMENT % ("", "<!--slide 2-->", "", ""))
    assert title(slide) == "Proof of Lemma 3.1"
    assert slide.select_one(".body").get_text(strip=True).startswith("Step 2 (second).")
    links = [link["href"] for link in slide.select(".body a")]
    assert links == ["../chapters/two.html#eq-b", "../chapters/one.html#part"]
    (slide,), _ = cut(STATEMENT % ("", "<!--slide 1-->", "", ""))
    assert slide.select_one(".body").get_text(strip=True) == "Step 1 (first).So."


def test_a_figure_gives_its_first_sentence_and_hides_its_code():
    (slide,), _ = cut(FIGURE)
    assert slide.h2.decode_contents() == "It <em>grows</em> with <span>d</span>"
    assert slide.select_one("figcaption").get_text(" ", strip=True) == "Fig. 3.1 Bars: errors."
    assert slide.img["src"] == "../_images/a.svg"
    assert "Code" not in slide.get_text()


def test_an_exercise_is_a_question():
    head = '<div class="exercise admonition" id="ex"><p class="admonition-title">Exercise 3.1</p>'
    for kind, expected in (("Short.", "A short question"), ("Open.", "A question")):
        (slide,), _ = cut(f"<!--slide-->{head}<section><p><em>{kind}</em> Why?</p></section></div>")
        assert title(slide) == expected
        assert slide.section is None and slide.div.get_text(" ", strip=True).count(kind) == 0


def test_shown_code_keeps_its_output():
    code, output = '<div class="cell_input"><pre>1 + 1</pre></div>', '<div class="cell_output"><div>2</div></div>'
    (slide,), _ = cut(f'<!--slide: Sum--><div class="cell">{code}{output}</div>')
    assert slide.select_one(".body").get_text(" ", strip=True) == "1 + 1 2"


def test_titles_come_from_the_first_block_that_has_one_or_from_the_section():
    text = "<section id='part'><h2>A part<a class='headerlink'>#</a></h2><!--slide--><p>Text.</p>{}</section>"
    assert title(cut(text.format(""))[0][0]) == "A part"
    assert title(cut(text.format("<!--slide+-->" + "<p><strong>Control.</strong> More.</p>"))[0][0]) == "Control"
    assert cut("<!--slide: $x$ & y--><p>Text.</p>")[0][0].h2.decode_contents() == (
        '<span class="math notranslate nohighlight">\\(x\\)</span> &amp; y'
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two.", ["One.", "Two."]),
        (
            "Some i.i.d. Variables of Fig. 3 are e.g. Gaussian. Two.",
            ["Some i.i.d. Variables of Fig. 3 are e.g. Gaussian.", "Two."],
        ),
        ("<strong>Heuristic.</strong> One. Two.", ["<strong>Heuristic.</strong> One.", "Two."]),
        (
            "Let <span>x.</span> Then <em>y</em>. So <span>z</span>",
            ["Let <span>x.</span>", "Then <em>y</em>.", "So <span>z</span>"],
        ),
        ("One. <span>x</span> is two.", ["One.", "<span>x</span> is two."]),
        ("It (see above.) Ends here.", ["It (see above.)", "Ends here."]),
        ("At 0.5 it is so: it is.", ["At 0.5 it is so: it is."]),
    ],
)
def test_sentences(text, parts):
    paragraph = BeautifulSoup(f"<p>{text}</p>", "html.parser").p
    assert [slides.html(part) for part in slides.sentences(list(paragraph.children))] == parts


def test_parts_of_a_block():
    (slide,), _ = cut("<!--slide 2-3: T--><p>One. Two. Three. Four.</p>")
    assert slide.select_one(".body").get_text(strip=True) == "Two. Three."
    (slide,), _ = cut("<!--slide 2: T--><ol><li>One</li><li>Two</li></ol>")
    assert (slide.ol["start"], slide.ol.get_text()) == ("2", "Two")
    text = "<section><p><em>Short.</em> Why? How? With code:</p><pre>1</pre></section>"
    (slide,), _ = cut(f'<!--slide 1-2--><div class="exercise">{text}</div>')
    assert slide.select_one("div.exercise").get_text(strip=True) == "Why? How?"
    (slide,), _ = cut(STATEMENT % ("<!--slide 1-->", "", "", ""))
    assert slide.select_one("div.lemma").get_text(" ", strip=True) == "Lemma 3.1 It holds."


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<!--slide 3--><p>One. Two.</p>", "has 2 sentences"),
        ("<!--slide 1--><table></table>", "can be shown in part"),
        ("<!--slide+--><p>Text.</p>", "no slide to which"),
        ("<!--slide: T--><section id='s'><h2>A heading</h2></section>", "not before a heading"),
        ("<section id='s'><h2>A heading</h2><!--slide--></section>", "no block after"),
        ("<p>Proof. % slide</p>", "first line of a proof"),
    ],
)
def test_marks_that_cannot_be_followed_are_named(body, fault):
    first = "" if "slide+" in body else "<!--slide: First--><p>Text.</p>"
    _, faults, _ = slides.deck(PAGE % (first + body), "one")
    assert len(faults) == 1 and fault in faults[0]


def test_marks_stay_on_the_page_as_comments(monkeypatch):
    said = []
    monkeypatch.setattr(slides.logger, "warning", lambda message, *rest, **_: said.append(message % rest))
    document = new_document("page")
    for text in ("slide: One", "slide+ 1-2", "another comment", "slide One", "slide: One -- two"):
        document += nodes.comment(text, text)
    slides.marked(SimpleNamespace(), document, "chapters/one")
    assert [node.astext() for node in document.findall(nodes.raw)] == ["<!--slide: One-->", "<!--slide+ 1-2-->"]
    assert [message.split(" is not")[0] for message in said] == ["'% slide One'", "'% slide: One -- two'"]


def test_notebooks_do_not_show_marks():
    texts = sources()
    name = slides.with_slides()[0]
    translator = Translator(name, labels(texts, contents()), {}, [], None, {})
    assert translator.text("One.\n\n% slide: A title\nTwo.\n\n% slide+\n```{math}\nx\n```") == (
        translator.text("One.\n\nTwo.\n\n```{math}\nx\n```")
    )


@pytest.mark.parametrize(
    ("frame", "heads"),
    [
        (pd.DataFrame({"x": [1], "y": [2]}, index=pd.Index([5], name="N")), [["N", "x", "y"]]),
        (
            pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)], names=["data", "N"])),
            [["data", "N", "x"]],
        ),
        (pd.DataFrame({"x": [1]}), [["", "x"]]),
        (
            pd.DataFrame({"x": [1]}, index=pd.Index([5], name="N")).rename_axis(columns="act"),
            [["act", "x"], ["N", ""]],
        ),
    ],
)
def test_names_of_an_index_take_no_row_of_their_own(frame, heads):
    block = BeautifulSoup(f"<div>{frame.to_html()}</div>", "html.parser").div
    slides.bring(block)
    assert [[cell.text for cell in row.find_all("th")] for row in block.thead.find_all("tr")] == heads


def svg(**how):
    """Return matplotlib's drawing of two panels."""
    fig, axes = plt.subplots(**how)
    for ax in np.atleast_1d(axes).flat:
        ax.plot([0, 1], [2, 3])
        ax.set(xlabel="x" if how.get("sharex") is None else None, ylabel="y")
    out = io.StringIO()
    fig.savefig(out, format="svg")
    plt.close(fig)
    return out.getvalue()


def test_a_column_of_panels_can_be_cut_between_labels_and_next_panel():
    drawing = svg(nrows=2, figsize=(5, 8))
    (one,), (two,) = panels(drawing)
    assert one[0] == 0 and one[1] == two[0] and two[1] == 1
    # By hand: below the label of the first horizontal axis and above the frame of the second panel.
    root = ElementTree.fromstring(drawing)
    height = float(root.get("viewBox").split()[3])
    first, second = root.find(f"{SVG}g").findall(f"{SVG}g")[1:]
    bottom, top = frame(first)[3] / height, frame(second)[2] / height
    assert bottom < one[1] < top
    assert max(low for _, low in texts(first)) / height < one[1]


def test_a_panel_without_labels_is_shown_with_those_of_the_last_one():
    first, second = panels(svg(nrows=2, sharex=True, figsize=(5, 8)))
    assert [len(first), len(second)] == [2, 1]
    assert first[1][0] > second[0][0] and first[1][1] == 1
    assert first[0][1] < second[0][0] + 0.02


@pytest.mark.parametrize("how", [{}, {"ncols": 2}, {"nrows": 2, "ncols": 2}])
def test_other_drawings_are_not_cut(how):
    assert panels(svg(**how)) == []


def test_a_legend_below_the_panels_is_one_more():
    fig, axes = plt.subplots(2, figsize=(5, 8))
    for ax in axes:
        ax.plot([0, 1], label="a")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    fig.set_layout_engine("constrained")
    out = io.StringIO()
    fig.savefig(out, format="svg")
    plt.close(fig)
    bands = panels(out.getvalue())
    assert len(bands) == 3 and bands[2][0][1] == 1
    assert bands[1][0][1] == bands[2][0][0] > 0.9


def test_the_deck_says_where_its_drawings_can_be_cut(tmp_path):
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images" / "a.svg").write_text(svg(nrows=2, figsize=(5, 8)), encoding="utf-8")
    (tmp_path / "_images" / "b.svg").write_text(svg(), encoding="utf-8")
    done = slides.divided('<img src="../_images/a.svg" alt="A"/><img src="../_images/b.svg"/>', tmp_path)
    first, second = BeautifulSoup(done, "html.parser").find_all("img")
    assert len(json.loads(first["data-panels"])) == 2 and first["data-axes"] == "2"
    assert "data-panels" not in second.attrs
