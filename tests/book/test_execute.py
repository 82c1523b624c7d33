"""Results are kept as long as what they rest on, failures are told in full, and a stop leaves nothing half done."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import execute

NOTEBOOKS = {
    "good": new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("x + 1")]),
    "bad": new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("x / 0")]),
}
STOPPED = """
import sys
sys.path.insert(0, {tests!r})
import test_execute, pathlib
from nbformat.v4 import new_code_cell, new_notebook
slow = new_notebook(cells=[new_code_cell("import time; print('asleep'); time.sleep(600)")])
test_execute.NOTEBOOKS["slow"] = slow
test_execute.at(pathlib.Path({folder!r}), setattr)
sys.argv = ["execute", "--fresh", "slow"]
print("started", flush=True)
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


def test_a_stop_ends_the_kernel_and_keeps_nothing(tmp_path):
    script = STOPPED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(6)
    children = _children(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert children
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    assert not (tmp_path / "executed" / "slow.ipynb").exists()


def _children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return listed.read_text().split()


def test_results_are_stale_when_what_they_rest_on_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    (tmp_path / "spurlib").mkdir()
    (tmp_path / "spurlib" / "a.py").write_text("a = 1")
    (tmp_path / "requirements.txt").write_text("numpy")
    seen = [execute.environment()]
    (tmp_path / "spurlib" / "a.py").write_text("a = 2")
    seen.append(execute.environment())
    (tmp_path / "requirements.txt").write_text("numpy==2")
    seen.append(execute.environment())
    for variable in ("SPUR_SCALE", "SPURLIB_DATA"):
        monkeypatch.setenv(variable, "other")
        seen.append(execute.environment())
    assert len(set(seen)) == len(seen)
    assert execute.environment() == seen[-1]


def test_results_are_stale_when_data_appear(monkeypatch):
    nb = new_notebook(cells=[new_code_cell('data = framed_images("mnist")')])
    monkeypatch.setattr(execute, "available", lambda name: False)
    without = execute.key(nb, "same")
    assert execute.data_used(nb) == ([], ["mnist"])
    monkeypatch.setattr(execute, "available", lambda name: True)
    assert execute.data_used(nb) == (["mnist"], [])
    assert execute.key(nb, "same") != without
