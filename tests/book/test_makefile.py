"""What `make` runs, in a folder whose name holds a space."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tools.chapters import ROOT

PYTHON = """\
#!/bin/sh
echo "ran: $*"
echo "path: $PYTHONPATH, bytecode: ${PYTHONDONTWRITEBYTECODE-written}, text: $PYTHONUTF8, threads: $OMP_NUM_THREADS"
case "$*" in *"$FAILS"*) exit 1;; esac
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a target with an interpreter that only says what it was asked to do."""
    folder = tmp_path / "a folder"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for path in (ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("requirements*")):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    python = folder / ".venv" / "bin" / "python"
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)

    def run(target, fails="nothing"):
        (folder / ".venv" / ".ready").touch()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        environ |= {"FAILS": fails, "HOME": str(tmp_path / "no home"), "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["make", target], cwd=folder, env=environ, capture_output=True, encoding="utf-8", check=False
        )
        said = done.stdout.splitlines()
        expected = f"path: {folder}, bytecode: written, text: 1, threads: "
        assert all(line.startswith(expected) for line in said if line.startswith("path: ")), done.stdout
        return done.returncode, [line.removeprefix("ran: ") for line in said if line.startswith("ran: ")]

    return run


@pytest.mark.parametrize(("fails", "status"), [("nothing", 0), ("--nbval", 2), ("--cov", 2), ("pytest", 2)])
def test_both_halves_of_the_tests_run_whatever_the_first_one_finds(make, fails, status):
    done, ran = make("test", fails)
    assert done == status
    notebooks, others = ran
    assert "--nbval " in notebooks and "--keep" in notebooks and notebooks.endswith(" chapters")
    assert "--nbval" not in others and "--cov=spurlib" in others and others.endswith(" tests/book/test_site.py tests")


def test_the_notebooks_come_before_the_pages_that_are_made_of_them(make):
    assert ["--keep" in command for command in make("test")[1]] == [True, False]


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("book", "-m tools.build --fresh"),
        ("html", "-m tools.build"),
        ("pdf", "-m tools.pdf"),
        ("problems", "-m tools.problems"),
        ("slides", "-m tools.slides"),
        ("assignments", "-m tools.assignments make"),
        ("notebooks", "-m tools.notebooks"),
        ("perturbed", "-m tests.perturbed"),
    ],
)
def test_a_target_runs_its_command_and_fails_with_it(make, target, command):
    for fails, status in (("nothing", 0), (command, 2)):
        done, ran = make(target, fails)
        assert done == status
        assert [line.rstrip() for line in ran] == [command]
