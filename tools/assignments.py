"""Make the weekly assignments from the exercises of the chapters, and grade what students hand in.

``python -m tools.assignments make [WEEK ...]`` writes for each week a notebook for students, without solutions and
outputs, and one for the teacher, with solutions, hidden tests and rubrics, from which `grade` takes all it needs.
``python -m tools.assignments grade WEEK FOLDER`` runs and grades the notebooks in a folder. Submissions are code that
is run: see ``teaching/README.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import yaml
from docutils import nodes
from nbformat import NotebookNode
from sphinx.util.docutils import SphinxDirective

from .chapters import BUILD, ROOT, SourceError, any_terminal, contents, read, sources
from .exercises import Exercise, exercises
from .feedback import grade
from .grading import Sandbox
from .markup import labels
from .sheets import expected, links, name_of, spoken, student, teacher

TEACHING = ROOT / "teaching"
MADE = BUILD / "assignments"


def plan() -> dict[str, list[str]]:
    """Return the labels of the exercises of each week, ``"1"`` to ``"12"``, and of those of the short course."""
    return {str(week): list(names) for week, names in yaml.safe_load(read(TEACHING / "assignments.yml")).items()}


def table() -> str:
    """Return all assignments as a table in MyST: chapters, exercises, and where the students' notebook is."""
    place = {label.name: label.chapter for label in labels(sources(), contents()) if label.kind == "exercise"}
    rows = ["| assignment | chapters | exercises | for students |", "|---|---|---|---|"]
    for week, chosen in plan().items():
        chapters = ", ".join(f"{{doc}}`{name}`" for name in dict.fromkeys(place[label] for label in chosen))
        there = [f"{{download}}`notebook <../teaching/{name_of(week)}.ipynb>`"]
        there += [f"[{where}]({link})" for where, link in links(week).items()]
        named = ", ".join(f"{{ref}}`{label}`" for label in chosen)
        rows.append(f"| {spoken(week)} | {chapters} | {named} | {', '.join(there)} |")
    return "\n".join(rows)


class Assignments(SphinxDirective):
    """Directive ``assignments``: the table of all assignments, from ``teaching/assignments.yml``."""

    def run(self) -> list[nodes.Node]:
        """Write the table in MyST and let the parser of the page read it."""
        self.env.note_dependency(str(TEACHING / "assignments.yml"))
        return self.parse_text_to_nodes(table())


def reference(chosen: list[Exercise], sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """Return what the tests of exercises compare with, by label and name: what their solutions define."""
    cells: list[dict[str, Any]] = []
    for exercise in chosen:
        lines = "\n".join(["import numpy as np", *exercise.imports.values()])
        names = [item.name for item in exercise.items]
        cells += [{"source": lines}, {"source": exercise.sheet}, {"source": exercise.answer, "collect": names}]
    found = {}
    for number, done in enumerate(sandbox.run(cells)):
        exercise = chosen[number // 3]
        if done["error"]:
            raise SourceError(f"chapters/{exercise.chapter}.md: {exercise.label}: {done['error']}\n{done['text']}")
        for item in exercise.items if number % 3 == 2 else ():
            try:
                found[f"{exercise.label} {item.name}"] = expected(item, done["values"][item.name])
            except SourceError as error:
                raise SourceError(f"chapters/{exercise.chapter}.md: {exercise.label}: {error}") from None
    return found


def make(weeks: list[str], jobs: int = 2) -> dict[str, NotebookNode]:
    """Return the teacher's notebook of each week."""
    known, planned = exercises(), plan()
    for week in weeks:
        if week not in planned:
            raise SourceError(f"teaching/assignments.yml has no week {week}")
        if missing := [label for label in planned[week] if label not in known]:
            raise SourceError(f"teaching/assignments.yml: nothing that can be graded is named {' or '.join(missing)}")

    def one(share: list[str]) -> dict[str, NotebookNode]:
        with Sandbox() as sandbox:
            chosen = {week: [known[label] for label in planned[week]] for week in share}
            return {week: teacher(week, these, reference(these, sandbox)) for week, these in chosen.items()}

    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(one, [weeks[i::jobs] for i in range(min(jobs, len(weeks)))])
    made = {week: key for part in parts for week, key in part.items()}
    return {week: made[week] for week in weeks}


def write(key: NotebookNode) -> Path:
    """Write both notebooks of a week, and the students' also where Colab and Binder find it; return the folder."""
    name = name_of(key.metadata.spurlib.week)
    folder = MADE / name
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(key, folder / f"{name}-teacher.ipynb")
    nbformat.write(student(key), folder / f"{name}.ipynb")
    shutil.copyfile(folder / f"{name}.ipynb", TEACHING / f"{name}.ipynb")
    return folder


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.assignments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write the notebooks of weeks (default: of all)")
    making.add_argument("weeks", nargs="*")
    grading = commands.add_parser("grade", help="grade the notebooks in a folder")
    grading.add_argument("week")
    grading.add_argument("folder", type=Path)
    grading.add_argument("--out", type=Path, help="folder of the results (default: graded, beside the notebooks)")
    grading.add_argument("--solutions", action="store_true", help="show the solutions in the feedback")
    options = parser.parse_args()
    any_terminal()
    jobs = min(2, os.cpu_count() or 1)
    try:
        if options.command == "make":
            for week, key in make(options.weeks or list(plan()), jobs).items():
                print("  ".join(["", str(write(key).relative_to(ROOT)), *links(week).values()]))
            return 0
        folder = MADE / name_of(options.week)
        path = folder / f"{folder.name}-teacher.ipynb"
        if not path.exists():
            raise SourceError(f"{path} does not exist: run `make assignments`")
        out = options.out or folder / "graded"
        warnings.simplefilter("ignore")  # of nbformat, about what students and their programs do to notebooks
        done = grade(nbformat.read(path, 4), options.folder, out, jobs, options.solutions)
        left = sum(mark.given is None for one in done for mark in one.marks)
        print(f"{len(done)} notebooks graded: {out / 'marks.csv'}, {out / 'feedback'}")
        if left:
            print(f"{left} criteria are to be read: enter points in {out / 'by-hand.csv'}, and grade again")
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
