"""Results are kept as long as what they rest on, failures are told in full, and a stop leaves nothing half done."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.channels import HBChannel
from nbformat.v4 import new_code_cell, new_notebook

from tools import execute
from tools.chapters import ROOT, SourceError

NOTEBOOKS = {
    "good": new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("x + 1")]),
    "bad": new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("x / 0")]),
}
STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests run in the background
sys.path.insert(0, {tests!r})
import test_execute, pathlib
from nbformat.v4 import new_code_cell, new_notebook
slow = new_notebook(cells=[new_code_cell("import time; open('asleep', 'w').close(); time.sleep(600)")])
test_execute.NOTEBOOKS["slow"] = test_execute.NOTEBOOKS["slower"] = slow
test_execute.at(pathlib.Path({folder!r}), setattr)
sys.argv = ["execute", "--fresh", "slow", "slower"]
sys.exit(test_execute.execute.main())
"""


def at(folder, patch):
    """Let the executor work in a folder, on the notebooks above."""
    (folder / "chapters").mkdir(exist_ok=True)
    patch(execute, "ROOT", folder)
    patch(execute, "EXECUTED", folder / "executed")
    patch(execute, "CACHE", folder / "cache")
    patch(execute, "notebook", lambda name: copy.deepcopy(NOTEBOOKS[name]))
    patch(execute, "environment", lambda: "same")
    patch(execute, "named", lambda names: names)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    at(tmp_path, monkeypatch.setattr)
    return tmp_path


def test_a_failing_cell_is_shown_and_the_others_are_kept(folder, capsys):
    assert not execute.execute(["bad", "good"])
    shown = capsys.readouterr().out
    assert "chapters/bad.md, code cell 2 of 2:\nx / 0" in shown
    assert "ZeroDivisionError: division by zero" in shown
    assert "\x1b" not in shown
    assert execute.stored("bad") is None
    done = execute.stored("good")
    assert done is not None
    assert done.cells[1].outputs[0].data["text/plain"] == "2"
    assert execute.execute(["good"])
    assert "Executing 0 of 1" in capsys.readouterr().out
    assert execute.execute(["good"], fresh=True)
    assert "Executing 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["a kernel starts", "cells run"])
def test_a_stop_ends_the_kernels_and_keeps_nothing(tmp_path, when):
    script = STOPPED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"SPUR_JOBS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        started, running = (lambda: _children(process.pid)), (tmp_path / "chapters" / "asleep").exists
        _wait(started if when == "a kernel starts" else running)
        children = _children(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.endswith("Stopped; chapters that were done are kept.\n")
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    assert not (tmp_path / "executed").exists()


def test_no_thread_listens_for_a_heartbeat(folder, monkeypatch):
    monkeypatch.setattr(HBChannel, "start", lambda self: pytest.fail("a stop may come while it opens its socket"))
    assert execute.execute(["good"])


def _wait(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return listed.read_text(encoding="utf-8").split()


def test_this_interpreter_runs_the_chapters_whatever_else_has_its_name(folder, monkeypatch):
    other = folder / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    monkeypatch.setitem(NOTEBOOKS, "who", new_notebook(cells=[new_code_cell("import sys; print(sys.executable)")]))
    assert execute.execute(["who"])
    assert execute.stored("who").cells[0].outputs[0].text == f"{sys.executable}\n"


def test_the_chapters_run_with_the_library_that_their_results_are_filed_under(folder, monkeypatch):
    for place in (folder, folder / "another"):
        (place / "spurlib").mkdir(parents=True)
        (place / "spurlib" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder / "another"))
    cell = new_code_cell("import spurlib; print(spurlib.__file__)")
    monkeypatch.setitem(NOTEBOOKS, "which", new_notebook(cells=[cell]))
    assert execute.execute(["which"])
    assert execute.stored("which").cells[0].outputs[0].text == f"{folder / 'spurlib' / '__init__.py'}\n"


def test_what_was_cut_short_is_executed_again(folder, capsys):
    assert execute.execute(["good"])
    path = execute.EXECUTED / "good.ipynb"
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, 50):
        path.write_bytes(whole[:end])
        assert execute.stored("good") is None
    capsys.readouterr()
    assert execute.execute(["good"])
    assert "Executing 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "{}", '{"cells": 1, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "\0"])
def test_what_is_no_result_is_none(folder, text):
    execute.EXECUTED.mkdir()
    (execute.EXECUTED / "good.ipynb").write_text(text)
    assert execute.stored("good") is None


def test_a_cache_that_was_cut_short_is_made_anew(folder):
    assert execute.execute(["good"])
    execute.offer(["good"])
    for path in execute.CACHE.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    execute.offer(["good"])
    cached = execute.get_cache(execute.CACHE).merge_match_into_notebook(execute.notebook("good"))[1]
    assert cached.cells[1].outputs[0].data["text/plain"] == "2"


def test_a_chapter_that_was_edited_meanwhile_is_not_given_the_results_of_before(folder, monkeypatch):
    assert execute.execute(["good"])
    monkeypatch.setitem(NOTEBOOKS, "good", new_notebook(cells=[new_code_cell("x = 3"), new_code_cell("x + 1")]))
    with pytest.raises(SourceError, match=r"chapters/good\.md was edited"):
        execute.offer(["good"])
    assert not execute.up_to_date("good", "same")


@pytest.mark.parametrize("variable", ["SPUR_JOBS", "SPUR_THREADS"])
@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1e9"])
def test_a_number_of_processes_that_is_none_is_refused_by_name(folder, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SourceError, match=f"{variable} must be a positive number .*{value!r}"):
        execute.execute(["good"])


def test_the_command_names_the_chapters_where_one_is_unknown():
    done = subprocess.run(
        [sys.executable, "-m", "tools.execute", "nope"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("no chapter that runs is named 'nope'; there are: index, ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Give the executor a folder with a library of one module and one file of data."""
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    for variable in execute.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "spurlib").mkdir()
    (tmp_path / "spurlib" / "a.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "spurlib" / "a.npz").write_bytes(b"1")
    (tmp_path / "requirements.txt").write_text("numpy")
    for folder in ("records", "chapters"):
        (tmp_path / folder).mkdir()
    return tmp_path


MODULE = '''"""A module."""
a = 1  # one


class A:
    """A class."""

    def f(self, x):
        """Return it."""
        return x
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# one", "# 1"),
        ("A module.", "Another text."),
        ("A class.", "Über x."),
        ('        """Return it."""\n', ""),
        ("a = 1  #", "\n\na = (1)  #"),
    ],
)
def test_results_outlive_what_is_only_for_readers(library, old, new):
    before = execute.environment()
    assert old in MODULE
    (library / "spurlib" / "a.py").write_text(MODULE.replace(old, new), encoding="utf-8")
    assert execute.environment() == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("spurlib/a.py", MODULE.replace("a = 1", "a = 2")),
        ("spurlib/a.py", MODULE.replace("return x", "return -x")),
        ("spurlib/a.py", MODULE.replace("def f(self, x)", "def f(self, x=1)")),
        ("spurlib/a.py", "no syntax"),
        ("spurlib/b.py", ""),
        ("spurlib/a.npz", "2"),
        ("requirements.txt", "numpy==2"),
        ("records/a.csv", "1"),
    ],
)
def test_results_are_stale_when_what_they_rest_on_changes(library, file, text):
    before = execute.environment()
    (library / file).write_text(text, encoding="utf-8")
    assert execute.environment() != before


def test_results_are_stale_when_a_variable_of_the_library_changes(library, monkeypatch):
    seen = [execute.environment()]
    for variable in execute.VARIABLES:
        monkeypatch.setenv(variable, "other")
        seen.append(execute.environment())
    assert len(set(seen)) == len(seen)


def test_results_are_stale_when_records_elsewhere_change(library, monkeypatch):
    (library / "other").mkdir()
    for value in (str(library / "other"), "../other"):  # chapters run in their own folder
        monkeypatch.setenv("SPURLIB_RECORDS", value)
        before = execute.environment()
        (library / "other" / f"{len(value)}.csv").write_text("1")
        assert execute.environment() != before


def test_all_variables_that_the_library_reads_are_known():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "spurlib").rglob("*.py"))
    named = re.findall(r"(?:environ\.get\(|environ\[|getenv\()[\"'](\w+)", text)
    assert named
    # Where other pictures are: what rests on them is recorded. The commit: only new records carry it.
    assert {*named} <= {*execute.VARIABLES, "SPURLIB_DATA", "SPURLIB_COMMIT"}
