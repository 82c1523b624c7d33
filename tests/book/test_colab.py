"""Chapters, as the arrow delivers them, and assignments run on Colab, simulated, with the pandas that it pins."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.book.clean import copy_of_the_repository, environ, environment, has, version
from tests.book.test_downloads import links, pages
from tools.assignments import plan
from tools.environment import LOCK, pins
from tools.sheets import name_of

CHAPTERS = ["records", "stability"]
WEEKS = [*plan()]
PANDAS = "2.2.3"
FAKE = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"

pytestmark = [pytest.mark.installs, pytest.mark.timeout(900)]


@dataclass
class Colab:
    """A machine with what Colab has, a repository to install from, and the notebooks as the pages deliver them."""

    python: Path
    content: Path
    repository: Path
    site: Path

    def chapter(self, name: str) -> nbformat.NotebookNode:
        """Open the notebook that the page of a chapter offers, and run all its cells."""
        page = (self.site / "chapters" / f"{name}.html").read_text(encoding="utf-8")
        (there,) = {link for link in links(page, name) if link.endswith(".ipynb")}
        return self.run(nbformat.read(self.site / there, 4))

    def sheet(self, week: str) -> nbformat.NotebookNode:
        """Open the students' notebook of a week from the repository, and run all its cells."""
        return self.run(nbformat.read(self.repository / "teaching" / f"{name_of(week)}.ipynb", 4), allow_errors=True)

    def run(self, nb: nbformat.NotebookNode, **how: bool) -> nbformat.NotebookNode:
        """Run all cells of a notebook."""
        specs = KernelSpecManager(kernel_dirs=[str(self.content.parent / "kernels")])
        manager = KernelManager(kernel_name="colab", kernel_spec_manager=specs)
        client = NotebookClient(
            nb,
            timeout=300,
            kernel_name="colab",
            km=manager,
            resources={"metadata": {"path": str(self.content)}},
            **how,
        )
        home = str(self.content.parent)
        try:
            client.execute(
                env=environ(HOME=home, IPYTHONDIR=f"{home}/ipython", OMP_NUM_THREADS="2", GIT_CONFIG_NOSYSTEM="1")
            )
        finally:
            manager.shutdown_kernel(now=True)  # the client stops only kernels of managers of its own
        return nb


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody."""
    someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *someone, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Colab:
    """Make the machine, publish a copy of the repository, and build the pages of two chapters."""
    home = tmp_path_factory.mktemp("colab")
    locked, has_now = pins(LOCK.read_text(encoding="utf-8")), importlib.metadata.version
    names = ["numpy", "scipy", "matplotlib", "ipykernel", "ipython"]
    versions = [f"{name}=={has_now(name)}" for name in names] + [f"torchvision=={locked['torchvision']}"]
    python = environment(home / "env", "torch", f"pandas=={PANDAS}", *versions)
    for folder in ("content", "kernels/colab", "ipython/profile_default/startup", "site"):
        (home / folder).mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Colab", "language": "python"}
    (home / "kernels" / "colab" / "kernel.json").write_text(json.dumps(spec))
    (home / "ipython" / "profile_default" / "startup" / "colab.py").write_text(FAKE)

    repository = copy_of_the_repository(home / "repository")
    url, settings = repository.as_uri(), repository / "_config.yml"
    text, count = re.subn(r"(?m)^(repository:\n  url:).*$", rf"\1 {url}", settings.read_text(encoding="utf-8"))
    assert count == 1
    settings.write_text(text, encoding="utf-8")
    derive = [sys.executable, "-m", "tools.notebooks", "--text", *CHAPTERS]
    done = subprocess.run(
        derive, cwd=repository, env=environ(PYTHONPATH=str(repository)), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count("text only") == len(CHAPTERS), done.stdout + done.stderr
    make = [sys.executable, "-m", "tools.assignments", "make", *WEEKS]
    done = subprocess.run(make, cwd=repository, env=environ(PYTHONPATH=str(repository)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    git(repository, "init", "--initial-branch=main")
    git(repository, "add", "--all")
    git(repository, "commit", "--message=The book")
    pages(home / "site", url, ["index", *CHAPTERS], repository)
    return Colab(python, home / "content", repository, home / "site" / "html")


def test_two_chapters_run_on_colab_twice(colab):
    for chapter in CHAPTERS:
        first = colab.chapter(chapter)
        (colab.repository / "new.txt").write_text(chapter)
        git(colab.repository, "add", "--all")
        git(colab.repository, "commit", f"--message={chapter}")
        again = colab.chapter(chapter)
        # The second run keeps the clone, brings it up to date, and says nothing of it.
        assert (colab.content / "book" / "new.txt").read_text() == chapter
        for nb in (first, again):
            cells = [cell for cell in nb.cells if cell.cell_type == "code"]
            said = "".join(output.get("text", "") for output in cells[0].outputs)
            assert "fatal" not in said and "ERROR" not in said, said
            assert sum(len(cell.outputs) for cell in cells) > len(cells) / 3
    assert version(colab.python, "pandas") == PANDAS
    assert has(colab.python, "spurlib") and has(colab.python, "opacus")
    assert not has(colab.python, "sphinx") and not has(colab.python, "myst_nb")
    assert (colab.content / "records").resolve() == (colab.content / "book" / "records").resolve()


def test_assignments_run_on_colab(colab):
    """Nothing fails but the checks of what a student has still to define."""
    for week in WEEKS:
        cells = [cell for cell in colab.sheet(week).cells if cell.cell_type == "code"]
        failed = [out for cell in cells for out in cell.outputs if out.output_type == "error"]
        assert failed and {out.ename for out in failed} == {"AssertionError"}, failed
        assert all(out.evalue.startswith("define `") for out in failed)
        installs = any("google.colab" in cell.source for cell in cells)
        assert installs == any("spurlib" in cell.source for cell in cells[1:])
    assert has(colab.python, "spurlib")
