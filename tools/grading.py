"""Grade the notebooks that students handed in: run them, and compare what they define with the reference.

The code of students runs in `tools.sandbox`; the values are compared here, where that code does not run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode

from .chapters import ROOT
from .sheets import WRITE, student, text_marker

SECONDS, TOTAL, MEMORY = 60.0, 180.0, 4.0
"""Limits of a cell and of a submission in seconds, and of the memory of a submission in GiB."""
PLACEHOLDERS = (WRITE, "YOUR ANSWER HERE")
NO_ANSWER = "no answer"
LOST = {"text": "", "error": "not run: the time of this notebook was up", "pictures": [], "values": {}}
ENDED = "the process ended while this cell ran, or the cell did not stop when its time was up"
UNSEEN = "An attachment that cannot be shown here, because it is not a PNG, JPEG, GIF or WebP:"
PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
ROUNDED = 3e-3  # of the largest entry: a value so near was perhaps rounded, or a series cut off
KINDS = {"number": float, "truth": float, "text": str}


class Sandbox:
    """A process that runs submissions, one at a time; it contains no reference value."""

    def __init__(self, seconds: float = SECONDS, total: float = TOTAL, memory: float = MEMORY) -> None:
        self.limits = {"seconds": seconds, "total": total, "memory": memory}
        self.home = tempfile.TemporaryDirectory(prefix="grading-")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
        home = {"HOME": self.home.name, "IPYTHONDIR": f"{self.home.name}/ipython"}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tools" / "sandbox.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept | one | home | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
            cwd=self.home.name,
            text=True,
            encoding="utf-8",
        )

    def run(self, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run cells in order, in a fresh process; return text, error, pictures and values of each.

        A cell that ends the process, or that cannot be interrupted, is left out and the others run again. What is
        not reached within the whole time has an error that says so.
        """
        results: dict[int, dict[str, Any]] = {}
        gone = set[int]()
        end = time.monotonic() + self.limits["total"]
        while len(results) < len(cells) and (left := end - time.monotonic()) > 0:
            now = [cell | {"source": ""} if i in gone else cell for i, cell in enumerate(cells)]
            begun, results = self._once(now, left)
            if len(results) < len(cells) and begun in gone:
                break
            gone |= {begun} if len(results) < len(cells) else set()
        done = [results.get(i, LOST) for i in range(len(cells))]
        return [one | {"error": ENDED} if i in gone else one for i, one in enumerate(done)]

    def _once(self, cells: list[dict[str, Any]], total: float) -> tuple[int, dict[int, dict[str, Any]]]:
        """Run the cells once; return the cell that was begun last, and the results of those that ended."""
        with tempfile.TemporaryDirectory(dir=self.home.name) as folder:
            Path(folder, "cells.json").write_text(json.dumps(cells), encoding="utf-8")
            assert self.process.stdin is not None and self.process.stdout is not None
            print(json.dumps(self.limits | {"folder": folder, "total": total}), file=self.process.stdin, flush=True)
            if not self.process.stdout.readline():  # killed by what it ran
                self.process.communicate()
                self.process = self._start()
            log = Path(folder, "results.jsonl")
            return read_log(log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "", len(cells))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.home.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_log(text: str, count: int) -> tuple[int, dict[int, dict[str, Any]]]:
    """Return the cell that was begun last and the results of those that ended; submitted code may have changed the log.

    Parameters
    ----------
    text : str
        One JSON object on each line; all other lines are ignored.
    count : int
        Number of cells.
    """
    begun, results = 0, {}
    for line in text.splitlines():
        try:
            found = json.loads(line)
            if found.get("start") in range(count):
                begun = found["start"]
            if found.get("cell") in range(count):
                results[found["cell"]] = {
                    "text": str(found["text"]),
                    "error": str(found["error"]),
                    "pictures": [p for p in found["pictures"] if re.fullmatch(r"[\w+/=]+", p)],
                    "values": {str(name): _value(one) for name, one in found["values"].items()},
                }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    return begun, results


def _value(found: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(str(found["kind"]))
    if kind is None:
        return {"kind": str(found["kind"])}
    shape, entries = [int(size) for size in found["shape"]], [kind(entry) for entry in found["entries"]]
    return {"kind": found["kind"], "shape": shape, "entries": entries}


# ---- what a submission consists of


@dataclass
class Work:
    """What a student did for one exercise: own code in order, and text."""

    code: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def owners(key: NotebookNode) -> dict[str, str]:
    """Return to which exercise each cell of the teacher's notebook belongs, by name; empty before the first."""
    found, label = {}, ""
    for cell in key.cells:
        if (name := _id(cell)).endswith("-statement"):
            label = name.removesuffix("-statement")
        found[name] = label
    return found


def work(key: NotebookNode, submission: NotebookNode) -> dict[str, Work]:
    """Return what is a student's own in a submission, by exercise (empty: before the first one).

    Cells may be deleted, moved, copied or added, or may lack their metadata; what is not the student's is taken from
    the notebook of the teacher.
    """
    of, seen, label = owners(key), set[str](), ""
    key = student(key)
    marked = {cell.source.split("\n")[0]: _id(cell) for cell in key.cells if _id(cell).endswith(("-answer", "-text"))}
    given = {cell.source.strip(): _id(cell) for cell in key.cells}
    found = {label: Work() for label in of.values()}
    for cell in submission.cells:
        source = "".join(cell.get("source", ""))
        name = _id(cell)
        if name not in of or name in seen:
            name = marked.get(source.strip().split("\n")[0], "") or given.get(source.strip(), "")
        seen.add(name)
        label = of.get(name, label)
        if cell.cell_type == "code" and (not name or name.endswith("-answer")):
            found[label].code.append(source)
        elif cell.cell_type == "markdown" and (not name or name.endswith("-text")):
            found[label].text.append(_with_pictures(source, cell.get("attachments")))
    return found


def _with_pictures(source: str, attachments: Any) -> str:
    """Return the text of a cell with the pictures that were pasted into it, such as a photograph of a derivation.

    A picture without a place in the text comes after it, and what cannot be shown is named there.
    """
    for name, kinds in attachments.items() if isinstance(attachments, dict) else ():
        shown = sorted(PICTURES.intersection(kinds if isinstance(kinds, dict) else ()))
        if not shown:
            source += f"\n\n{UNSEEN} {quote(name)}"
            continue
        picture = f"(data:{shown[0]};base64,{re.sub('[^A-Za-z0-9+/=]', '', str(kinds[shown[0]]))})"
        placed = source.replace(f"(attachment:{name})", picture).replace(f"(attachment:{quote(name)})", picture)
        source = placed if placed != source else f"{source}\n\n![{quote(name)}]{picture}"
    return source


def programme(key: NotebookNode, own: dict[str, Work]) -> list[dict[str, Any]]:
    """Return the cells to run: the teacher's imports and data, the student's code, and what is to be collected."""
    of = owners(key)
    cells = []
    for label in dict.fromkeys(of.values()):
        here = [cell for cell in key.cells if of[_id(cell)] == label]
        names = [cell.metadata.spurlib["want"]["name"] for cell in here if "want" in cell.metadata.get("spurlib", {})]
        # The imports again for each exercise: an answer must not spoil the next one.
        given = [cell.source for cell in key.cells if _id(cell) in ("imports", f"{label}-sheet")]
        cells += [{"of": label, "own": False, "source": source} for source in given]
        cells += [{"of": label, "own": True, "source": source} for source in own.get(label, Work()).code]
        cells += [{"of": label, "own": False, "source": "", "collect": names}]
    return cells


# ---- marks


def fault(want: dict[str, Any], got: dict[str, Any] | None) -> str:
    """Return in words what is wrong with a value, given the reference; nothing when it is right.

    Parameters
    ----------
    want : dict
        Name, kind, shape, entries and tolerance of the reference.
    got : dict or None
        What the sandbox collected.
    """
    if got is None or got["kind"] == "none":
        return "not defined"
    if got["kind"] != want["kind"] and {got["kind"], want["kind"]} - {"number", "truth"}:
        return f"not of the kind asked for ({want['kind']}), but of the kind {got['kind']}"
    if list(got["shape"]) != list(want["shape"]):
        return f"of shape {tuple(got['shape'])}, not {tuple(want['shape'])}"
    if want["kind"] == "text":
        return "" if got["entries"] == want["entries"] else "differs from the reference"
    apart = [abs(a - b) for a, b in zip(got["entries"], want["entries"], strict=True)]
    wrong = sum(not gap <= want["tol"] for gap in apart)
    rounded = all(gap <= ROUNDED * max(map(abs, want["entries"])) for gap in apart)
    near = "; it is near: was it rounded, or a series cut off?" if rounded and want["tol"] else ""
    where = f" in {wrong} of {len(apart)} entries" if want["shape"] else ""
    return f"differs from the reference{where}{near}" if wrong else ""


@dataclass
class Mark:
    """One line of the marks: possible points, and points given (None if a person must read the answer first)."""

    exercise: str
    about: str
    points: int
    given: float | None
    remark: str = ""
    criterion: int = 0


@dataclass
class Graded:
    """A graded submission."""

    student: str
    marks: list[Mark]
    own: dict[str, Work] = field(default_factory=dict)
    ran: list[dict[str, Any]] = field(default_factory=list)
    remark: str = ""

    def total(self) -> float:
        """Return the points given so far."""
        return sum(mark.given or 0 for mark in self.marks)


def lines(key: NotebookNode) -> list[Mark]:
    """Return what can be marked in an assignment, without points."""
    found = []
    for cell in key.cells:
        about = cell.metadata.get("spurlib", {})
        if "want" in about:
            found.append(Mark(about["exercise"], about["want"]["name"], about["want"]["points"], 0))
        for count, (points, text) in enumerate(about.get("rubric", ()), 1):
            found.append(Mark(about["exercise"], text, points, None, criterion=count))
    return found


def mark(key: NotebookNode, student: str, text: str, sandbox: Sandbox) -> Graded:
    """Grade one submission, given its text; faults are described in the marks."""
    done = Graded(student, lines(key))
    try:
        done.own = work(key, nbformat.reads(text, as_version=4))
    except Exception as error:  # whatever a file can be instead of a notebook
        done.remark = f"the file is not a notebook that can be read: {type(error).__name__}"
        for one in done.marks:
            one.given = 0
    if any(UNSEEN in text for one in done.own.values() for text in one.text):
        done.remark = "a picture cannot be shown: see the feedback"
    cells = programme(key, done.own)
    done.ran = [cell | result for cell, result in zip(cells, sandbox.run(cells), strict=True)]
    got = {(cell["of"], name): value for cell in done.ran for name, value in cell["values"].items()}
    abouts = [cell.metadata.get("spurlib", {}) for cell in key.cells]
    wants = {(about["exercise"], about["want"]["name"]): about["want"] for about in abouts if "want" in about}
    for one in done.marks:
        if not one.criterion:
            one.remark = fault(wants[one.exercise, one.about], got.get((one.exercise, one.about)))
            one.given = 0 if one.remark else one.points
        elif not answered(done.own.get(one.exercise, Work()).text):
            one.given, one.remark = 0, NO_ANSWER
    return done


def answered(texts: list[str]) -> bool:
    """Return whether a written answer says more than the sheet did."""
    text = "\n".join(texts)
    for given in PLACEHOLDERS:
        text = text.replace(given, "")
    return bool(re.sub(re.escape(text_marker("@")).replace("@", r"[\w.]+"), "", text).strip())
