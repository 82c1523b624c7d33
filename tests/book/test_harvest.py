"""What nbval executes is kept for the pages: all of a chapter, as it ran, or nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.perturbed import options
from tools import execute
from tools.chapters import ROOT

HEADER = "---\njupytext:\n  text_representation:\n    format_name: myst\nkernelspec:\n  name: python3\n---\n"
FIGURE = """\
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.show()"""
GLUE = "from myst_nb import glue\nglue('two', 2, display=False)"
CHAPTERS = {
    "good": ["x = 1\nx + 1", "print('a')\nprint('b')", "x;  # silenced", FIGURE, GLUE],
    "differs": ["print(3)"],
    "raises": ["x = 1", "1 / 0"],
    "edited": ["print(1)"],
}
STORED = CHAPTERS | {"edited": ["print(2)"], "elsewhere": ["print(1)"]}
PLUGIN = """\
import pathlib
from tools import chapters, execute

folder = pathlib.Path({folder!r})
execute.EXECUTED = folder / "executed"
for module in (chapters, execute):
    module.ROOT = folder
chapters.CHAPTERS = folder / "chapters"
"""


def myst(cells):
    return HEADER + "# Title\n" + "".join(f"\n```{{code-cell}} ipython3\n{cell}\n```\n" for cell in cells)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Let nbval compare small notebooks in a folder, as the Makefile does; keep what it executes."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "chapters").mkdir()
    (folder / "elsewhere").mkdir()
    listed = "".join(f"  - file: chapters/{name}\n" for name in CHAPTERS)
    (folder / "_toc.yml").write_text(f"root: chapters/good\nparts:\n- numbered: 1\n  chapters:\n{listed}")
    (folder / "_config.yml").write_text((ROOT / "_config.yml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "moved.py").write_text(PLUGIN.format(folder=str(folder)), encoding="utf-8")
    for name, cells in CHAPTERS.items():
        (folder / "chapters" / f"{name}.md").write_text(myst(cells), encoding="utf-8")
    for name, cells in STORED.items():
        place = folder / ("elsewhere" if name == "elsewhere" else "chapters") / f"{name}.ipynb"
        installs = new_code_cell("# brings the library", execution_count=1)
        executed = [new_code_cell(cell, execution_count=i) for i, cell in enumerate(cells, 2)]
        nbformat.write(new_notebook(cells=[installs, *executed]), place)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "moved", *options(), "--keep", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(folder / "chapters"), str(folder / "elsewhere")],
        cwd=ROOT,
        env=execute.limited(1) | {"PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        encoding="utf-8",
    )
    return folder, done.stdout


def kept(folder):
    return {path.stem: nbformat.read(path, 4) for path in (folder / "executed").iterdir()}


def test_only_chapters_that_ran_to_their_end_are_kept(run):
    folder, said = run
    assert set(kept(folder)) == {"good", "differs"}, said
    # The stored notebooks hold no outputs: nbval has found the differences, and they do not matter here.
    assert re.search(r"\d+ failed", said), said


def test_outputs_are_those_of_the_chapter(run, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(execute, "EXECUTED", folder / "executed")
    nb = execute.stored("good")
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.source for cell in cells] == CHAPTERS["good"]
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5]
    assert cells[0].outputs[0].output_type == "execute_result"
    assert cells[0].outputs[0].execution_count == 1
    assert cells[0].outputs[0].data["text/plain"] == "2"
    assert [output.text for output in cells[1].outputs] == ["a\nb\n"]
    assert cells[2].outputs == []
    assert "image/png" in cells[3].outputs[0].data
    assert cells[4].outputs[0].metadata["scrapbook"]["name"] == "two"
    assert nb.metadata.spurlib["seconds"] > 0


def test_what_was_kept_is_up_to_date(run, monkeypatch):
    folder, _ = run
    for name in ("ROOT", "CHAPTERS"):
        monkeypatch.setattr(f"tools.chapters.{name}", folder / (name.lower() if name == "CHAPTERS" else ""))
    monkeypatch.setattr("tools.chapters.contents", lambda: dict.fromkeys(CHAPTERS))
    monkeypatch.setattr(execute, "EXECUTED", folder / "executed")
    monkeypatch.setattr(execute, "ROOT", folder)
    base = execute.environment()
    assert {name: execute.up_to_date(name, base) for name in CHAPTERS} == {
        "good": True,
        "differs": True,
        "raises": False,
        "edited": False,
    }
