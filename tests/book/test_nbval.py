"""A test of the tests: the comparison of notebooks finds a wrong number, and only that."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, output_from_msg

from spurlib.claims import Claim
from tools.chapters import ROOT

CLAIM = 'from spurlib import claim\nclaim("lem-a", name="two is two", value=2, near=2, tol=0)'


def cell(source, *outputs, tags=()):
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)})


def printed(text):
    return output_from_msg({"header": {"msg_type": "stream"}, "content": {"name": "stdout", "text": text}})


def claimed(name="two is two", value=2.0):
    data = Claim("lem-a", name, value, "near 2 within 0", False, True)._repr_mimebundle_()
    return output_from_msg({"header": {"msg_type": "display_data"}, "content": {"data": data, "metadata": {}}})


NOTEBOOKS = {
    "right": [cell("print(1 + 1)", printed("2\n"))],
    "wrong-number": [cell("print(1 + 1)", printed("3\n"))],
    "silenced": [cell("x = 1\nx;")],
    "missing-output": [cell("print(1 + 1)")],
    "claim-right": [cell(CLAIM, claimed())],
    "claim-with-other-digits": [cell(CLAIM, claimed(value=2.0000001))],
    "claim-renamed": [cell(CLAIM, claimed(name="two is three"))],
    "claim-that-fails": [cell(CLAIM.replace("value=2", "value=3"), claimed())],
    "other-image-data": [cell("print(1 + 1)", printed("3\n"), tags=["image-data"])],
    "other-image-data-untagged": [cell("print(1 + 1)", printed("3\n"))],
    "other-image-data-raises": [cell("1 / 0", tags=["image-data"])],
}
PASSING = {"right", "silenced", "claim-right", "claim-with-other-digits", "other-image-data"}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Run nbval, as the Makefile does, on notebooks with and without faults."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, cells in NOTEBOOKS.items():
        data = ["none of ours"] if name.startswith("other") else []
        nbformat.write(new_notebook(cells=cells, metadata={"spurlib": {"data": data}}), folder / f"{name}.ipynb")
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^NBVAL := (.*)$", makefile, re.MULTILINE)
    assert options is not None
    command = [sys.executable, "-m", "pytest", "-rA", *options[1].split(), "-p", "no:cacheprovider", str(folder)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_only_faults_are_found(comparison, name):
    verdict = "PASSED" if name in PASSING else "FAILED"
    assert re.search(rf"^{verdict} (?:\S*/)?{name}\.ipynb", comparison, re.MULTILINE), comparison


def test_cells_that_were_not_compared_are_counted(comparison):
    assert re.search(r"^2 cells were executed but not compared", comparison, re.MULTILINE), comparison
