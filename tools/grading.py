"""Grade the notebooks that students handed in: run them, compare, write ``marks.csv`` and pages with feedback.

The code of students runs in `tools.sandbox`; what it defined is compared here, where that code is not.
"""

from __future__ import annotations

import csv
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from string import Template
from typing import Any

import nbformat
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from nbformat import NotebookNode

from .chapters import ROOT, SourceError
from .sheets import SOLUTION, WRITE, student

SECONDS, TOTAL, MEMORY = 60.0, 180.0, 4.0
"""Limits of a cell and of a submission in seconds, and of the memory of a submission in GiB."""
CANVAS = re.compile(r"^(?P<student>[^_]+?)_(?:LATE_)?(?P<id>\d+)_\d+_")
"""How Canvas names what students handed in."""
PAGE = Path(__file__).with_name("feedback.html")
BY_HAND = ["student", "exercise", "criterion", "points", "given", "remark", "for"]


class Sandbox:
    """A process that runs submissions, one at a time; it knows no reference value."""

    def __init__(self, seconds: float = SECONDS, total: float = TOTAL, memory: float = MEMORY) -> None:
        self.limits = {"seconds": seconds, "total": total, "memory": memory}
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT") if name in os.environ}
        self.home = tempfile.TemporaryDirectory(prefix="grading-")
        more = {"HOME": self.home.name, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools" / "sandbox.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept | one | more | {"IPYTHONDIR": f"{self.home.name}/ipython"},
            cwd=self.home.name,
            text=True,
        )

    def run(self, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run cells in order, in a fresh process; return text, error, pictures and values of each.

        A cell that ends the process, or that cannot be interrupted, is left out and the others run again. What is
        not reached within the whole time has an error that says so.
        """
        results: dict[int, dict[str, Any]] = {}
        gone: dict[int, str] = {}
        end = time.monotonic() + self.limits["total"]
        while (left := end - time.monotonic()) > 0:
            now = [cell | {"source": ""} if i in gone else cell for i, cell in enumerate(cells)]
            begun, results = self._once(now, left)
            if len(results) == len(cells) or begun in gone:
                break
            gone[begun] = "the process ended while this cell ran, or the cell did not stop when its time was up"
        lost = {"text": "", "error": "not run: the time of this notebook was up", "pictures": [], "values": {}}
        done = [results.get(i, lost) for i in range(len(cells))]
        return [one | {"error": gone[i]} if i in gone else one for i, one in enumerate(done)]

    def _once(self, cells: list[dict[str, Any]], total: float) -> tuple[int, dict[int, dict[str, Any]]]:
        """Run the cells once; return the cell that was begun last, and the results of those that ended."""
        with tempfile.TemporaryDirectory(dir=self.home.name) as folder:
            Path(folder, "cells.json").write_text(json.dumps(cells), encoding="utf-8")
            assert self.process.stdin is not None and self.process.stdout is not None
            print(json.dumps(self.limits | {"folder": folder, "total": total}), file=self.process.stdin, flush=True)
            if not self.process.stdout.readline():
                raise SourceError("the process that runs submissions has ended")
            begun, results = 0, {}
            log = Path(folder, "results.jsonl")
            for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
                with_cell = _loaded(line)
                begun = with_cell.get("start", begun)
                if "cell" in with_cell:
                    results[with_cell["cell"]] = with_cell
            return begun, results

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.home.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _loaded(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # cut short, when its process was killed
        return {}
    return found if isinstance(found, dict) else {}


# ---- what a submission consists of


PLACEHOLDERS = (WRITE, "YOUR ANSWER HERE")


@dataclass
class Work:
    """What a student did for one exercise: own code in order, and text."""

    code: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def owners(key: NotebookNode) -> dict[str, str]:
    """Return to which exercise each cell of the teacher's notebook belongs, by name; empty for those before."""
    found, label = {}, ""
    for cell in key.cells:
        if (name := _id(cell)).endswith("-statement"):
            label = name.removesuffix("-statement")
        found[name] = label
    return found


def work(key: NotebookNode, submission: NotebookNode) -> dict[str, Work]:
    """Return what is a student's own in a submission, by exercise (empty: before the first one).

    Cells may be deleted, moved, copied, added, or without their metadata; what is not the student's is taken from the
    notebook of the teacher.
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
            found[label].text.append(source)
    return found


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
    close = [abs(a - b) <= want["tol"] for a, b in zip(got["entries"], want["entries"], strict=True)]
    return "" if all(close) else f"differs from the reference in {close.count(False)} of {len(close)} entries"


@dataclass
class Mark:
    """One line of the marks: points that can be had, and that were given (None: somebody has to read it first)."""

    exercise: str
    number: str
    about: str
    points: int
    given: int | float | None
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
            found.append(Mark(about["exercise"], about["number"], about["want"]["name"], about["want"]["points"], 0))
        for count, (points, text) in enumerate(about.get("rubric", ()), 1):
            found.append(Mark(about["exercise"], about["number"], text, points, None, criterion=count))
    return found


def mark(key: NotebookNode, student: str, text: str, sandbox: Sandbox) -> Graded:
    """Grade one submission, given its text; whatever is wrong with it is said in the marks."""
    done = Graded(student, lines(key))
    try:
        done.own = work(key, nbformat.reads(text, as_version=4))
    except Exception as error:  # whatever a file can be instead of a notebook
        done.remark = f"the file is not a notebook that can be read: {type(error).__name__}"
        for one in done.marks:
            one.given, one.remark = 0, "not handed in"
        return done
    cells = programme(key, done.own)
    done.ran = [cell | result for cell, result in zip(cells, sandbox.run(cells), strict=True)]
    got = {(cell["of"], name): value for cell in done.ran for name, value in cell["values"].items()}
    wants = {
        (w["exercise"], w["want"]["name"]): w["want"]
        for c in key.cells
        if "want" in (w := c.metadata.get("spurlib", {}))
    }
    for one in done.marks:
        if one.criterion:
            if not answered(done.own[one.exercise].text):
                one.given, one.remark = 0, "no answer"
        else:
            one.remark = fault(wants[one.exercise, one.about], got.get((one.exercise, one.about)))
            one.given = 0 if one.remark else one.points
    return done


def answered(texts: list[str]) -> bool:
    """Return whether a written answer says more than the sheet did."""
    text = "\n".join(texts)
    for given in PLACEHOLDERS:
        text = text.replace(given, "")
    return bool(re.sub(r"\*\*Written answer to Exercise [\d.]+\*\*", "", text).strip())


def names(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Return name and number of the student, and the notebook, for what lies in a folder or in folders in it."""
    used: dict[str, int] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        canvas = CANVAS.match(parts[0]) if len(parts) == 1 else None
        name, number = (canvas["student"], canvas["id"]) if canvas else (Path(parts[0]).stem, "")
        used[name] = used.get(name, 0) + 1
        yield name + (f" ({used[name]})" if used[name] > 1 else ""), number, path


def grade(key: NotebookNode, folder: Path, out: Path, jobs: int = 2, solutions: bool = False) -> list[Graded]:
    """Grade all notebooks in a folder; write ``marks.csv``, ``by-hand.csv`` and ``feedback/NAME.html`` into another.

    What a person has entered into ``by-hand.csv`` is kept, and counts when the folder is graded again.

    Parameters
    ----------
    key : NotebookNode
        The teacher's notebook.
    folder : path
        Where the submissions are: ``NAME.ipynb``, or ``NAME/ANYTHING.ipynb``.
    out : path
        Where the results go.
    jobs : int
        How many submissions run at a time.
    solutions : bool
        Whether the feedback shows the solutions.
    """
    found = list(names(folder))
    if not found:
        raise SourceError(f"there is no notebook in {folder}")
    jobs = min(jobs, len(found))
    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        free = Queue[Sandbox]()
        for _ in range(jobs):
            free.put(stack.enter_context(Sandbox()))

        def one(name: str, path: Path) -> Graded:
            sandbox = free.get()
            try:
                return mark(key, name, path.read_text(encoding="utf-8", errors="replace"), sandbox)
            finally:
                free.put(sandbox)

        done = list(pool.map(one, *zip(*((name, path) for name, _, path in found), strict=True)))
    report(key, done, {name: number for name, number, _ in found}, out, solutions)
    return done


def report(key: NotebookNode, done: list[Graded], ids: dict[str, str], out: Path, solutions: bool) -> None:
    """Write marks, what is to be read by hand, and feedback."""
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    hand = out / "by-hand.csv"
    entered = {}
    if hand.exists():
        with open(hand, encoding="utf-8-sig", newline="") as file:
            entered = {(row["student"], row["exercise"], row["criterion"]): row for row in csv.DictReader(file)}
    rows = []
    for one in done:
        for line in filter(lambda line: line.criterion, one.marks):
            row = entered.get((safe(one.student), line.exercise, str(line.criterion)), {})
            if text := row.get("given", "").strip():
                line.given, line.remark = _points(hand, text, line), row["remark"]
            given = "" if line.given is None else f"{line.given:g}"
            rows.append([safe(one.student), line.exercise, line.criterion, line.points, given, line.remark, line.about])
    with open(hand, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([BY_HAND, *rows])
    kinds = list(dict.fromkeys((line.exercise, bool(line.criterion)) for line in lines(key)))
    heads = [f"{label}{' (by hand)' if by_hand else ''}" for label, by_hand in kinds]
    most = [sum(m.points for m in lines(key) if (m.exercise, bool(m.criterion)) == kind) for kind in kinds]
    title = f"Week {key.metadata.spurlib.week}"
    table = [
        ["Student", "ID", *heads, title, "To be read", "Remark"],
        ["Points possible", "", *most, sum(most), "", ""],
    ]
    for one in done:
        parts = [sum(m.given or 0 for m in one.marks if (m.exercise, bool(m.criterion)) == kind) for kind in kinds]
        left = sum(m.points for m in one.marks if m.given is None)
        points = [f"{points:g}" for points in (*parts, one.total(), left)]
        table.append([safe(one.student), ids.get(one.student, ""), *points, one.remark])
        path = out / "feedback" / (re.sub(r"[^\w .()-]", "_", one.student) + ".html")
        path.write_text(feedback(key, one, solutions), encoding="utf-8")
    with open(out / "marks.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(table)


def _points(path: Path, text: str, line: Mark) -> float:
    try:
        points = float(text.replace(",", "."))
    except ValueError:
        points = -1
    if not 0 <= points <= line.points:
        raise SourceError(f"{path}: {text!r} is not a number of points from 0 to {line.points}, for: {line.about}")
    return points


def safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


# ---- feedback


def _formula(start: str, end: str) -> Callable[..., str]:
    def show(_: RendererHTML, tokens: list[Token], at: int, *__: object) -> str:
        return f"{start}{html.escape(tokens[at].content)}{end}"

    return show


def _markdown() -> Callable[[str], str]:
    """Return a function that makes HTML of Markdown with formulas; HTML in it is shown, not used."""
    parser = create_md_parser(MdParserConfig(enable_extensions={"dollarmath", "amsmath"}), RendererHTML)
    parser.disable(["html_block", "html_inline"])
    for kind, (start, end) in {
        "math_inline": ("\\(", "\\)"),
        "math_block": ("\\[", "\\]"),
        "amsmath": ("", ""),
    }.items():
        parser.add_render_rule(kind, _formula(start, end))
    return lambda text: str(parser.render(text))


def feedback(key: NotebookNode, done: Graded, solutions: bool = False) -> str:
    """Return the page that a student gets: marks, what was handed in, what it showed when it ran."""
    show, of = _markdown(), owners(key)
    parts = []
    for label in dict.fromkeys(filter(None, of.values())):
        cells = {_id(cell): cell for cell in key.cells if of[_id(cell)] == label}
        parts.append(f"<section>{show(cells[f'{label}-statement'].source)}{_table(show, done, label)}")
        if text := "\n\n".join(done.own.get(label, Work()).text):
            parts.append(f"<h3>Your written answer</h3><div class=text>{show(text)}</div>")
        for one in done.ran:
            if one["of"] == label and one["own"]:
                parts.append(f"<h3>Your code</h3><pre class=code>{html.escape(one['source'])}</pre>")
                if one["text"]:
                    parts.append(f"<pre>{html.escape(one['text'])}</pre>")
                parts += [f'<img alt="A figure of yours" src="data:image/png;base64,{p}">' for p in one["pictures"]]
            if one["of"] == label and one["error"]:
                parts.append(f"<pre class=error>{html.escape(one['error'])}</pre>")
        if solutions:
            said = [SOLUTION.search(cell.source) for cell in cells.values()]
            texts = [found[0].split("\n", 1)[1].rpartition("\n")[0] for found in said if found]
            kinds = [cell.cell_type for cell, found in zip(cells.values(), said, strict=True) if found]
            shown = [
                show(t) if kind == "markdown" else f"<pre class=code>{html.escape(t)}</pre>"
                for t, kind in zip(texts, kinds, strict=True)
            ]
            parts.append(f"<details><summary>Solution</summary>{''.join(shown)}</details>")
        parts.append("</section>")
    points, left = sum(m.points for m in done.marks), sum(m.points for m in done.marks if m.given is None)
    total = f"{done.total():g} of {points} points" + (f"; {left} are still to be read" if left else "")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=f"Week {key.metadata.spurlib.week}: {html.escape(done.student)}",
        total=total,
        remark=html.escape(done.remark),
        parts="\n".join(parts),
    )


def _table(show: Callable[[str], str], done: Graded, label: str) -> str:
    rows = []
    for one in (one for one in done.marks if one.exercise == label):
        about = show(one.about) if one.criterion else f"<code>{one.about}</code>"
        given = "…" if one.given is None else f"{one.given:g}"
        remark = html.escape(one.remark or ("right" if one.given == one.points else ""))
        rows.append(f"<tr><td>{about}</td><td>{given} / {one.points}</td><td>{remark}</td></tr>")
    return f"<table><tr><th>For</th><th>Points</th><th>Remark</th></tr>{''.join(rows)}</table>"
