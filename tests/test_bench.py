"""The benchmarks: their ways agree, the table shows what is slow and what fails, and results are kept by commit."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spurlib as sl

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "readme": {"n": 30, "d": 20, "k": 200},
    "accuracies": {"n": 20, "d": 10, "k": 100},
    "leave_one_out": {"n": 20, "d": 10, "k": 100},
    "own_alignments": {"n": 30, "d": 20, "k": 200},
    "curve": {"n": 100, "d": 20, "k": 200},
    "empirical_tangent": {"network": "small_cnn", "n": 3, "side": 8},
    "networks": {"n": 10, "d": 5, "count": 3, "epochs": 3},
    "predictions": {"d": 100, "count": 5},
    "gram": {"n": 5, "m": 0, "d": 4, "k": 100, "act": "relu"},
    "infinite_width": {"n": 5, "d": 4, "act": "tanh"},
    "fit": {"n": 5},
}
EXTRA = '''

@case("slow", "broken", sizes=[{"n": 7}])
def extra(n):
    """A case with a slow peer"""
    import time
    return lambda: time.sleep(0.02), lambda: time.sleep(0.4), lambda: 1 / 0
'''
SLOWER = """

_fast = predict_accuracy


def predict_accuracy(*arguments, n, **options):
    import time

    time.sleep(0.5 if getattr(n, "ndim", 0) else 0.0)
    return _fast(*arguments, n=n, **options)
"""


@pytest.fixture(scope="module")
def cases():
    spec = importlib.util.spec_from_file_location("cases", ROOT / "bench" / "cases" / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_case_is_here(cases):
    assert {name for name, found in vars(cases).items() if hasattr(found, "prepare")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_the_ways_of_a_case_compute_the_same(cases, name):
    ours, *others = (work() for work in getattr(cases, name).prepare(**SIZES[name]))
    assert (ours is None) == (name in ("gram", "infinite_width", "fit"))
    for other in [] if ours is None else others:
        single = name in ("networks", "empirical_tangent")
        for mine, theirs in zip(ours, other, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4 if single else 1e-9, atol=1e-6 if single else 1e-10)


def test_the_table_shows_what_is_slow_and_what_fails(tmp_path):
    """In a repository with this library, and one commit before it in which the predictions of many sizes are slow."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for folder in ("spurlib", "bench"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "history"))
    with (tmp_path / "bench" / "cases" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(EXTRA)
    path = tmp_path / Path(inspect.getsourcefile(sl.predict_accuracy)).relative_to(ROOT)
    fast = path.read_text(encoding="utf-8")
    subprocess.run([*git, "init", "--quiet"], check=True)
    for text in (fast + SLOWER, fast):
        path.write_text(text, encoding="utf-8")
        subprocess.run([*git, "add", "spurlib", "bench"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "a commit"], check=True)
    earlier = tmp_path / "bench" / "history" / "another-machine" / "0123abcd-checkout.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}", encoding="utf-8")

    command = [sys.executable, "bench/run.py", "--base", "HEAD~", "--only", "predictions|extra"]
    environ = os.environ | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stdout + done.stderr  # of the broken peer

    found = json.loads((tmp_path / "bench" / "ratios.json").read_text(encoding="utf-8"))
    rows = {row["peer"]: row for row in found["rows"]}
    assert list(rows) == ["slow", "broken", "one by one"]
    assert rows["slow"]["over_peer"] > 2  # 20 but for the load of the machine
    assert rows["broken"]["over_peer"] is rows["broken"]["control"] is None and rows["broken"]["over_base"] > 0
    many = rows["one by one"]
    assert many["over_base"] > max(2, many["control"])
    assert all(row["case"] in done.stdout for row in found["rows"])

    folder = earlier.parents[1] / found["machine"]["machine"]
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-checkout-*.json")]
    assert {results["commit_hash"] for results in kept} == {found["commit"], found["base"]}
    for results in kept:
        (values, *_) = results["results"]["predictions.time_work"]
        if results["commit_hash"] == found["commit"]:
            assert (values[0], values[1] / values[0]) == (many["spurlib"], many["over_peer"])
    assert earlier.read_text(encoding="utf-8") == "{}"
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "bench").rglob("*.json"))
    assert str(tmp_path) not in text and os.uname().nodename not in text.split('"')
