"""What the chapters print does not hang on the last digits of a kernel matrix, as it would on another processor."""

from __future__ import annotations

import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import spurlib as sl
from tests.perturbed import compare
from tools.notebooks import path_of

pytestmark = pytest.mark.timeout(900)
CHAPTERS = ("stability", "interpolation")  # quick ones; `make perturbed` does this for all
SET_UP = (
    "import numpy as np, spurlib as sl\nK = sl.InfiniteWidth('tanh').gram(np.random.default_rng(0).normal(size=(3, 5)))"
)
ROUNDED, EXACT = "print(f'{K[0, 1]:.6f}')", "print(repr(float(K[0, 1])))"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Compare the chapters, and a notebook that prints all digits of an entry."""
    folder = tmp_path_factory.mktemp("perturbed")
    K = sl.InfiniteWidth("tanh").gram(np.random.default_rng(0).normal(size=(3, 5)))
    shown = ["", f"{K[0, 1]:.6f}\n", f"{float(K[0, 1])!r}\n"]
    cells = [
        new_code_cell(source, execution_count=i, outputs=[new_output("stream", text=text)] if text else [])
        for i, (source, text) in enumerate(zip((SET_UP, ROUNDED, EXACT), shown, strict=True), 1)
    ]
    nbformat.write(new_notebook(cells=cells), folder / "digits.ipynb")
    return compare([*map(path_of, CHAPTERS), folder / "digits.ipynb"], folder / "settings").stdout


def failed(comparison):
    """Return file and cell of what was not equal; pytest names no file outside of the repository."""
    return re.findall(r"^FAILED (\S*)::Cell (\d+)", comparison, re.MULTILINE)


@pytest.mark.parametrize("name", CHAPTERS)
def test_outputs_are_equal(comparison, name):
    assert re.search(r"\d+ passed in", comparison), comparison
    assert [cell for file, cell in failed(comparison) if name in file] == [], comparison


def test_the_perturbation_is_seen_where_all_digits_are_printed(comparison):
    assert [cell for file, cell in failed(comparison) if not file.startswith("chapters/")] == ["2"], comparison
