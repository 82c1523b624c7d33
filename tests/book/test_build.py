"""Pages follow an edit wherever it shows; pages with faults do not take the place of good ones; faults have a line."""

from __future__ import annotations

import ast
import html
import os
import re
import shutil
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import build, check
from tools.chapters import ROOT

HEADER = """\
---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
INDEX = "(index)=\n# The book\n\nStart.\n"
ONE = """\
(one)=
# Chapter of statements

(place)=
## A place

:::{prf:lemma} Squares
:label: lem-squares
$x^2 \\ge 0$.
:::

```{math}
:label: eq-squares
x^2
```

```{figure} assets/landing.png
:name: fig-squares
:alt: A picture of what is said
Caption.
```

```{exercise}
:label: ex-squares
Show it.
```
"""
IN_FRONT = """\
:::{prf:lemma} First
:label: lem-first
$1 > 0$.
:::

```{math}
:label: eq-first
1
```

```{figure} assets/landing.png
:name: fig-first
:alt: The same picture once more
Caption.
```

```{exercise}
:label: ex-first
Show this.
```

"""
IN_LIST = """\
- :::{prf:lemma} In a list
  :label: lem-listed
  $2 > 1$.
  :::

"""
CITING = (
    "Then {prf:ref}`lem-squares`, {eq}`eq-squares`, {numref}`fig-squares`, {ref}`ex-squares`, {ref}`place`, "
    "{doc}`one`, {cite:t}`work`.\n"
)
TEXT = f"(text)=\n# Chapter of text: né ∎\n\n{CITING}"
CODE = f"""\
{HEADER}(code)=
# Chapter of code

{CITING}
```{{code-cell}} ipython3
from spurlib import claim
claim("lem-squares", name="a <b>square</b>", value=1, above=0)
```
"""
APART = "(apart)=\n# Chapter apart\n\nNothing.\n"
CLAIMS = "(claims)=\n# Claims\n\n```{claims-ledger}\n```\n"
REFERENCES = "(references)=\n# References\n\n```{bibliography}\n```\n"
WORKS = "@article{work, author = {Ann Archer}, title = {T}, journal = {J}, year = 2024}\n"
BOOK = {
    "index": INDEX,
    "one": ONE,
    "text": TEXT,
    "code": CODE,
    "apart": APART,
    "claims": CLAIMS,
    "references": REFERENCES,
}
TOC = "format: jb-book\nroot: chapters/index\nparts:\n  - caption: All\n    numbered: 1\n    chapters:\n" + "".join(
    f"      - file: chapters/{name}\n" for name in BOOK if name != "index"
)


class Book:
    """A small book in a folder of its own, made with the tools and the settings of this one."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("tools", "chapters/assets"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "_config.yml", folder)
        (folder / "_toc.yml").write_text(TOC, encoding="utf-8")
        self.write("references.bib", WORKS)
        for name, text in BOOK.items():
            self.write(f"{name}.md", text)

    def write(self, name, text, encoding="utf-8"):
        (self.folder / "chapters" / name).write_text(text, encoding=encoding)

    def build(self):
        """Build, where nothing but ASCII is expected of terminals and files; return status and what was said."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environ |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "tools.build"],
            cwd=self.folder,
            env=environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        return done.returncode, done.stdout

    def page(self, name):
        """Return the text of a page, without marks."""
        text = (self.folder / "_build" / "html" / "chapters" / f"{name}.html").read_text(encoding="utf-8")
        return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())

    def written(self, name):
        """Return when a page was written."""
        return (self.folder / "_build" / "draft" / "_build" / "html" / "chapters" / f"{name}.html").stat().st_mtime_ns


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Build a book, edit it, build again, and so on; return what the pages said each time."""
    book = Book(tmp_path_factory.mktemp("a book") / "of its own")
    told = {}

    def tell(stage, *edits):
        for name, text in edits:
            book.write(name, text, encoding="utf-8-sig")  # as some editors save
        status, said = book.build()
        pages = {name: book.page(name) for name in BOOK}
        told[stage] = status, said, pages, {name: book.written(name) for name in BOOK if status == 0}

    tell("first")
    edited = ONE.replace("## A place", f"{IN_FRONT}## Another place").replace("(place)=\n", "")
    edited = edited.replace("## Another", "(place)=\n## Another")
    tell("numbers", ("one.md", edited), ("code.md", CODE))
    # A statement in a list has a number on its page, but is not found in the text.
    listed = ("one.md", edited.replace("(place)=", f"{IN_LIST}(place)="))
    tell("faults", ("references.bib", WORKS.replace("2024", "2025")), ("text.md", TEXT + "\n{nonsense}`√`\n"), listed)
    tell("mended", ("text.md", TEXT), ("one.md", edited.replace("of statements", "of lemmas")))
    return told


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["text", "code"])
def test_a_page_that_was_not_edited_shows_the_new_numbers(story, page):
    before = "Then Lemma 1.1 , (1.1) , Fig. 1.1 , Exercise 1.1 , A place , Chapter of statements , Archer (2024) ."
    assert before.replace(" ,", ",").replace(" .", ".") in story["first"][2][page], story["first"][1]
    after = before.replace("1.1", "1.2").replace("A place", "Another place").replace(" ,", ",").replace(" .", ".")
    assert after in story["numbers"][2][page], story["numbers"][1]


def test_claims_and_the_ledger_show_the_new_numbers(story):
    for stage, number in (("first", "1.1"), ("numbers", "1.2")):
        assert f"✓ Lemma {number}, a <b>square</b>: holds" in story[stage][2]["code"]
        assert f"Lemma {number} (Squares)" in story[stage][2]["claims"]
        assert "a <b>square</b> ✓ holds" in story[stage][2]["claims"]


def test_only_pages_that_show_something_else_are_written_again(story):
    first, then = story["first"][3], story["numbers"][3]
    assert {name for name in BOOK if first[name] != then[name]} == {*BOOK} - {"apart"}


def test_a_chapter_with_a_byte_order_mark_is_read(story):
    assert "Executing 1 of 1 chapters" in story["first"][1]
    assert "Executing 0 of 1 chapters" in story["numbers"][1]


def test_pages_with_faults_do_not_take_the_place_of_good_ones(story):
    status, said, pages, _ = story["faults"]
    assert status == 1
    assert "nonsense" in said
    assert pages == story["numbers"][2]


def test_pages_whose_notebooks_would_have_other_numbers_are_refused(story):
    said = " ".join(story["faults"][1].split())
    assert "'lem-squares' has the number '1.3' here and '1.2' in the notebooks" in said
    assert "has the number" not in "".join(story[stage][1] for stage in ("first", "numbers", "mended"))


def test_titles_and_years_are_new_on_every_page(story):
    status, said, pages, _ = story["mended"]
    assert status == 0, said
    assert all("Chapter of lemmas" in page and "Chapter of statements" not in page for page in pages.values())
    assert "Archer (2025)" in pages["text"]
    assert "Archer (2025)" in pages["code"]
    assert "2025" in pages["references"]


def test_what_was_left_of_a_build_that_stopped_is_not_built_upon(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.setattr(build, "DRAFT", tmp_path / "draft")
    monkeypatch.setattr(build, "COMMAND", ["false"])
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "whole").touch()
    assert build.render() == ""  # begins with what is whole, and fails
    assert (tmp_path / "draft" / "whole").exists()
    monkeypatch.setattr(build, "COMMAND", ["true"])
    assert build.render() is None
    assert not (tmp_path / "draft" / "whole").exists()
    assert not (tmp_path / "draft" / "unfinished").exists()


FIGURE_CELL = (
    "```{code-cell} ipython3\n---\nmystnb:\n  figure:\n    name: fig-cell\n    caption: See {prf:ref}`lem-squares`.\n"
    "  image:\n    alt: Five words or more here\n---\nclaim('lem-squares', 1)\n```\n"
)
FINE = ONE + CITING.replace("{cite:t}`work`", "{cite:p}`work,work`") + FIGURE_CELL


def find(text):
    found = check.faults({"index": INDEX, "one": text})
    return [str(fault) for fault in found]


def test_a_chapter_without_faults_has_none(bibliography):
    assert find(FINE) == []


@pytest.fixture
def bibliography(tmp_path, monkeypatch):
    (tmp_path / "references.bib").write_text(WORKS, encoding="utf-8")
    monkeypatch.setattr(check, "CHAPTERS", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "at", "complaint"),
    [
        (":alt: A picture of what is said\n", "", "```{figure}", "the figure assets/landing.png has no alternative"),
        ("A picture of what is said", "A picture", "```{figure}", "five words|5 words"),
        ("```{figure} assets/landing.png\n:name: fig-squares\n", "```{image} a.png\n", None, "fig-squares"),
        ("## A place", "![](a.png)\n\n## A place", "![](a.png)", "a picture has no alternative text"),
        (
            "    alt: Five words or more here\n",
            "    width: 1\n",
            "```{code-cell}",
            "the figure fig-cell has no alternative",
        ),
        ("{prf:ref}`lem-squares`, ", "{prf:ref}`lem-cubes`, ", "Then", "nothing has the label 'lem-cubes'"),
        ("{prf:ref}`lem-squares`, ", "{prf:ref}`this <lem-cubes>`, ", "Then", "nothing has the label 'lem-cubes'"),
        ("{prf:ref}`lem-squares`, ", "{prf:ref}`see lem-squares <lem-squares>`, ", "Then", "would not be shown"),
        ("## A place", ":::{prf:proof}\n$$\nx\n$$\n:::\n\n## A place", ":::{prf:proof}", "begins with a sentence"),
        ("## A place", ":::{prf:proof}\n1. x\n:::\n\n## A place", ":::{prf:proof}", "begins with a sentence"),
        ("{eq}`eq-squares`", "{eq}`lem-squares`", "Then", "{eq} does not refer to a thing of the kind 'lemma'"),
        ("{numref}`fig-squares`", "{numref}`fig`", "Then", "nothing has the label 'fig'"),
        ("{ref}`place`", "{ref}`nowhere`", "Then", "nothing has the label 'nowhere'"),
        ("{doc}`one`", "{doc}`three`", "Then", "there is no chapter 'three'"),
        ("`work,work`", "`work,other`", "Then", "references.bib has no entry 'other'"),
        ("See {prf:ref}`lem-squares`", "See {prf:ref}`lem-a`", "    caption", "nothing has the label 'lem-a'"),
        (
            "claim('lem-squares'",
            "claim(\n    'lem-cubes'",
            "claim(",
            "no statement or exercise has the label 'lem-cubes'",
        ),
        ("claim('lem-squares'", "claim('eq-squares'", "claim(", "no statement or exercise has the label 'eq-squares'"),
        (":label: ex-squares", ":label: lem-squares", "```{exercise}", "2 things have the label 'lem-squares'"),
        ("## A place", "$$\nx\n\n## A place", "$$", "is not closed"),
        ("## A place", "$$\nx\n$$\n\n$$\ny\n\n## A place", "$$\ny", "is not closed"),
        ("## A place", "$$\nx\n\n## A place\n\n$$\ny\n$$", "$$\nx", "is not closed before a heading"),
        ("$x^2 \\ge 0$.\n", "$$\nx^2 \\ge 0$.\n", "$$", "is not closed"),
        ("alt: Five words or more here\n---\n", "alt: [Five words\n---\n", "```{code-cell}", "are not YAML"),
    ],
)
def test_a_fault_is_found_with_its_line(bibliography, old, new, at, complaint):
    assert FINE.count(old) == 1
    text = FINE.replace(old, new)
    found = find(text)
    assert found
    assert any(re.search(complaint.replace("{", r"\{"), fault) for fault in found), found
    if at is not None:
        lines = {text[: place.start()].count("\n") + 1 for place in re.finditer(re.escape(at), text)}
        assert {int(found[0].split(":")[1])} <= lines, found


@pytest.mark.parametrize("end", [":::\n\n```{math}", "---\n"])
def test_what_is_not_closed_is_found(bibliography, end):
    text = HEADER + FINE
    cut = text.replace(end, end.removeprefix(":::\n").removeprefix("---\n"), 1) if end != "---\n" else "---\na: b\n"
    assert any("is not closed" in fault for fault in find(cut)), find(cut)


@pytest.mark.parametrize(
    "text", ["`` {prf:ref}`x` ``\n", "`$$`\n", "costs \\$\\$\n", "```python\n$$\n{eq}`a`\n```\n", "$$a$$\n"]
)
def test_what_only_looks_like_a_fault_is_none(bibliography, text):
    assert find(FINE + "\n" + text) == []


@pytest.mark.parametrize(
    ("tags", "alt", "count"), [((), None, 1), ((), "five words or more here", 0), (["remove-cell"], None, 0)]
)
def test_a_picture_that_nobody_described_is_found(monkeypatch, tags, alt, count):
    picture = new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"})
    metadata = {"tags": list(tags)} | ({"mystnb": {"image": {"alt": alt}}} if alt else {})
    nb = new_notebook(cells=[new_code_cell("plot()", outputs=[picture], metadata=metadata)])
    monkeypatch.setattr(check, "notebook", lambda name: new_notebook(metadata={"source_map": [41]}))
    assert [str(fault).split(" ")[0] for fault in check.results("one", nb)] == ["chapters/one.md:42:"] * count


def test_no_text_is_read_or_written_in_the_encoding_of_the_locale():
    found = []
    for path in sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "spurlib").glob("**/*.py")]):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and not any(keyword.arg == "encoding" for keyword in node.keywords):
                name = ast.unparse(node.func).replace("Image.open", "").replace("os.open", "").rpartition(".")[2]
                words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                binary = any(isinstance(word, str) and "b" in word for word in words)
                text = name in ("run", "Popen") and any(keyword.arg == "text" for keyword in node.keywords)
                if name in ("read_text", "write_text") or (name == "open" and not binary) or text:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
