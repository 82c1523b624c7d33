"""A test of the tests: the comparison of notebooks finds a wrong number, and only that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, output_from_msg

from spurlib.book import Claim
from tests import nbval_settings
from tests.perturbed import options
from tools.chapters import ROOT

CLAIM = 'from spurlib import claim\nclaim("lem-a", name="two is two", value=2, near=2, tol=0)'


def cell(source, *outputs, tags=()):
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)})


def printed(text):
    return output_from_msg({"header": {"msg_type": "stream"}, "content": {"name": "stdout", "text": text}})


def claimed(name="two is two", value=2.0, target="near 2 within 0", **flags):
    data = Claim("lem-a", name, value, target, flags.get("falsifies", False), True)._repr_mimebundle_()
    return output_from_msg({"header": {"msg_type": "display_data"}, "content": {"data": data, "metadata": {}}})


CELLS = {
    "right": cell("print(1 + 1)", printed("2\n")),
    "wrong-number": cell("print(1 + 1)", printed("3\n")),
    "silenced": cell("x = 1\nx;"),
    "silenced-before-a-comment": cell("x;  # a note"),
    "silenced-before-a-line-of-comment": cell("x;\n# a note\n"),
    "not-silenced": cell("x  # a note;"),
    "the-result-before": cell("_", output_from_msg({
        "header": {"msg_type": "execute_result"},
        "content": {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 1},
    })),
    "missing-output": cell("print(1 + 1)"),
    "folder-of-the-interpreter": cell("import sys; print(sys.executable)", printed(f"{sys.executable}\n")),
    "library-of-this-checkout": cell("import spurlib; print(spurlib.__path__)", printed(f"['{ROOT}/spurlib']\n")),
    "claim-right": cell(CLAIM, claimed()),
    "claim-with-other-digits": cell(CLAIM, claimed(value=2.0000001)),
    "claim-with-another-value": cell(CLAIM, claimed(value=42)),
    "claim-with-another-target": cell(CLAIM, claimed(target="near 42 within 0")),
    "claim-with-another-tolerance": cell(CLAIM, claimed(target="near 2 within 1")),
    "claim-renamed": cell(CLAIM, claimed(name="two is three")),
    "claim-that-became-a-falsification": cell(CLAIM, claimed(falsifies=True)),
    "claim-that-fails": cell(CLAIM.replace("value=2", "value=3"), claimed()),
}  # fmt: skip
PASSING = {
    *("right", "silenced", "silenced-before-a-comment", "silenced-before-a-line-of-comment", "the-result-before"),
    *(
        "library-of-this-checkout",
        "folder-of-the-interpreter",
        "claim-right",
        "claim-with-other-digits",
        "claim-with-another-value",
    ),
}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Run nbval, as the Makefile does, on cells with and without faults, where another kernel has our kernel's name."""
    folder = tmp_path_factory.mktemp("notebooks")
    other = folder / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    nbformat.write(new_notebook(cells=list(CELLS.values())), folder / "cells.ipynb")
    command = [sys.executable, "-m", "pytest", "-rA", *options(), "-p", "no:cacheprovider"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environ |= {"JUPYTER_PATH": str(folder / "jupyter"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(folder)], cwd=ROOT, env=environ, capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout


@pytest.mark.parametrize(("number", "name"), list(enumerate(CELLS)))
def test_only_faults_are_found(comparison, number, name):
    verdict = "PASSED" if name in PASSING else "FAILED"
    assert re.search(rf"^{verdict} (?:\S*/)?cells\.ipynb::Cell {number}\b", comparison, re.MULTILINE), comparison


def test_the_notebooks_that_take_longest_come_first(tmp_path, monkeypatch):
    class Item:
        def __init__(self, name, cell=True):
            self.path = tmp_path / name
            if cell:
                self.cell = None

    took = {"a.ipynb": 1.0, "b.ipynb": 3.0, "c.ipynb": 2.0}
    monkeypatch.setattr(nbval_settings, "seconds", lambda path: took[path.name])
    items = [Item(name) for name in ("a.ipynb", "a.ipynb", "b.ipynb", "b.ipynb", "c.ipynb")] + [Item("test.py", False)]
    nbval_settings.pytest_collection_modifyitems(items)
    assert [Path(item.path).name for item in items] == [
        "b.ipynb",
        "b.ipynb",
        "c.ipynb",
        "a.ipynb",
        "a.ipynb",
        "test.py",
    ]
