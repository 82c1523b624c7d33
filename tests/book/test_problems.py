"""How exercises and solutions are cut out of pages, tried on small pages."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from tools import problems
from tools.chapters import contents

FIRST, SECOND = [name for name, number in contents().items() if number][:2]
PAGE = """\
<link rel="stylesheet" href="../_static/a.css"><link rel="index" href="../genindex.html">
<script>window.MathJax = {}</script><script defer="defer" src="../_static/mathjax/tex.js"></script>
<article class="bd-article"><section id="one"><h1>One</h1><p>Text of the chapter.</p>
%s
</section></article>
"""
EXERCISE = """\
<div class="exercise admonition" id="ex-{0}">
<p class="admonition-title"><span class="caption-number">Exercise {1} </span></p><section id="exercise-content">
<p id="id3">Prove <a href="#lem-a">Lemma 3.1</a> as in <a href="#ex-a">Exercise 3.1</a>, with
<a href="https://doi.org/1">this</a>.</p>
<div class="cell">
<details class="spurlib-code spurlib-data"><summary>Data</summary><pre>data = 1</pre></details></div>{2}</section></div>
"""
SOLUTION = """\
<div class="solution dropdown admonition" id="solution-{0}">
<p class="admonition-title">Solution to<a href="#ex-{0}"> Exercise {1}</a></p>
<section id="solution-content"><p>By induction.</p>
<div class="cell"><div class="cell_input"><pre>print(data)</pre></div><div class="cell_output"><pre>1</pre></div></div>
<details class="spurlib-code"><pre>folded</pre></details><p class="spurlib-checks">Numerical checks</p></section></div>
"""
TWO = EXERCISE.format("a", "3.1", "") + SOLUTION.format("a", "3.1") + EXERCISE.format("b", "3.2", "")


def printed(kind, **pages):
    """Return what is printed of small pages, and the chapters of which there is something."""
    text, _, names = problems.document({name: PAGE % body for name, body in pages.items()}, kind)
    return BeautifulSoup(text, "html.parser"), names


def heads(soup):
    return [head.get_text().strip() for head in soup.select("p.admonition-title")]


def test_exercises_and_solutions_are_apart_and_keep_their_numbers():
    questions, _ = printed("exercise", **{FIRST: TWO})
    answers, _ = printed("solution", **{FIRST: TWO})
    assert heads(questions) == ["Exercise 3.1", "Exercise 3.2"]
    assert heads(answers) == ["Solution to Exercise 3.1"]
    assert "By induction" not in questions.get_text() and "print" not in questions.get_text()
    assert "Prove" not in answers.get_text()
    assert not any("Text of the chapter" in soup.get_text() for soup in (questions, answers))


def test_a_solution_inside_an_exercise_is_not_printed_with_it():
    body = EXERCISE.format("a", "3.1", SOLUTION.format("a", "3.1"))
    assert "By induction" not in printed("exercise", **{FIRST: body})[0].get_text()
    assert heads(printed("solution", **{FIRST: body})[0]) == ["Solution to Exercise 3.1"]


def test_data_and_open_code_are_printed_and_folded_code_is_not():
    assert printed("exercise", **{FIRST: TWO})[0].pre.get_text() == "data = 1"
    (box,) = printed("solution", **{FIRST: TWO})[0].select("div.solution")
    assert [part.get_text() for part in box.select("pre")] == ["print(data)", "1"]
    assert "Numerical checks" not in box.get_text()


def test_parts_and_chapters_are_in_reading_order_and_only_where_there_is_something():
    pages = {SECOND: EXERCISE.format("c", "4.1", ""), FIRST: TWO}
    soup, names = printed("exercise", **pages)
    assert [head["id"] for head in soup.select("h2")] == [f"document-chapters/{name}" for name in (FIRST, SECOND)]
    assert len(soup.select("h1")) == 1 and {*names} == {FIRST, SECOND}
    assert heads(soup) == ["Exercise 3.1", "Exercise 3.2", "Exercise 4.1"]
    soup, names = printed("solution", **pages)
    assert names == [FIRST] and len(soup.select("h2")) == 1


@pytest.mark.parametrize("site", ["", "https://someone.github.io/book/"])
def test_links_lead_to_what_is_printed_or_published_and_their_texts_stay(monkeypatch, site):
    monkeypatch.setattr(problems, "published", lambda url: site)
    soup, _ = printed("exercise", **{FIRST: TWO, SECOND: PAGE})
    paragraph = soup.select_one("div.exercise section p")
    assert paragraph.get_text().startswith("Prove Lemma 3.1 as in Exercise 3.1")
    away = [f"{site}chapters/{FIRST}.html#lem-a"] if site else []
    assert [link["href"] for link in paragraph.select("a")] == [*away, "#ex-a", "https://doi.org/1"]
    names = [part["id"] for part in soup.select("[id]")]
    assert len(names) == len({*names}) and "exercise-content" not in names and "id3" not in names


def test_styles_and_formulas_are_those_of_the_pages():
    text, title, _ = problems.document({FIRST: PAGE % TWO}, "solution")
    assert "a.css" in text and "genindex" not in text
    assert "window.MathJax = {}" in text and "../_static/mathjax/tex.js" in text
    assert title.endswith(": solutions") and f"<title>{title}</title>" in text


def test_without_a_browser_or_with_faults_nothing_is_printed(monkeypatch):
    monkeypatch.setattr(problems, "printed", lambda *_: pytest.fail("printed"))
    for able, built in ((False, True), (True, False)):
        monkeypatch.setattr(problems, "able", lambda able=able: able)
        monkeypatch.setattr(problems, "build", lambda built=built: built)
        assert problems.main() == 1


def test_both_files_have_a_title_a_license_and_page_numbers(monkeypatch, tmp_path):
    if not problems.able():
        pytest.skip("there is no browser")
    out = {kind: tmp_path / f"{kind}.pdf" for kind in problems.KINDS}
    monkeypatch.setattr(problems, "OUT", out)
    folder = tmp_path / "html"
    (folder / "_static" / "mathjax").mkdir(parents=True)
    (folder / "_static" / "a.css").touch()
    script = "window.MathJax = {startup: {promise: Promise.resolve()}}"
    (folder / "_static" / "mathjax" / "tex.js").write_text(script, encoding="utf-8")
    problems.printed({FIRST: PAGE % TWO}, folder)
    for kind, path in out.items():
        first, *rest = [page.extract_text() for page in PdfReader(path).pages]
        first = " ".join(first.split())
        assert f": {kind}" in first and "the spurlib authors" in first and "CC BY 4.0" in first
        assert "Exercise 3.1" in "".join(rest)
