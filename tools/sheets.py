"""The notebooks of an assignment: the teacher's, with solutions and hidden tests, and the students' without."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from .chapters import SourceError, config, repository, titles
from .exercises import Exercise, Item
from .notebooks import install_cell
from .repository import hosted, web

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WRITE = "*Write your answer here.*"
LOOKED_AT = 3
"""Entries that an array must have for the visible test to tell one of them."""
SOLUTION = re.compile(r"### BEGIN SOLUTION\n(.*?)\n### END SOLUTION", re.DOTALL)
HIDDEN = re.compile(r"\n### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS", re.DOTALL)


def name_of(week: str) -> str:
    """Return the name of a week's files: ``week-03`` for ``3``, ``short-week-03`` for ``short-3``."""
    course, _, number = week.rpartition("-")
    return f"{course}{'-' if course else ''}week-{number:0>2}"


def spoken(week: str) -> str:
    """Return what a week is called in a title."""
    course, _, number = week.rpartition("-")
    return f"Week {number}" + (f" of the {course} course" if course else "")


def counted(points: int) -> str:
    """Return a number of points with its noun, as in ``3 points``."""
    return f"{points} point{'' if points == 1 else 's'}"


def code_marker(number: str) -> str:
    """Return the line by which an answer is known when a program has dropped the metadata of its cell."""
    return f"# Answer to Exercise {number}"


def text_marker(number: str) -> str:
    """Return the line by which a written answer is known."""
    return f"**Written answer to Exercise {number}.**"


# ---- what the tests compare with


def tolerance(item: Item, entries: list[float]) -> float:
    """Return how much an entry may differ: a fraction of the largest one."""
    return item.within * (max(map(abs, entries), default=0.0) or 1.0)


def expected(item: Item, value: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored of a reference value: no more digits than the tolerance asks for.

    Parameters
    ----------
    item : Item
        What is compared.
    value : dict
        Kind, shape and entries as the sandbox returns them.
    """
    if value["kind"] not in ("number", "truth", "text"):
        raise SourceError(f"the solution defines {item.name!r} as {value['kind']!r}, which cannot be compared")
    entries, tol = value["entries"], 0.0
    if value["kind"] == "number":
        if not all(map(math.isfinite, entries)):
            raise SourceError(f"the solution defines {item.name!r} with entries that are not finite")
        tol = tolerance(item, entries)
        digits = 12 if tol == 0 else max(0, 2 - math.floor(math.log10(tol)))
        entries = [round(entry, digits) for entry in entries]
    return {"name": item.name, "points": item.points, "tol": tol} | value | {"entries": entries}


def visible(want: dict[str, Any]) -> str:
    """Return the test that students see: name, kind and shape, and for a longer array its approximate last entry."""
    name, shape, kind = want["name"], tuple(want["shape"]), want["kind"]
    lines = [f"# Check of `{name}`", f'assert {name} is not ..., "define `{name}`"']
    if kind == "text":
        return "\n".join([*lines, f'assert isinstance({name}, str), "`{name}` should be a text in quotation marks"'])
    if kind == "truth":
        lines.append(f'assert np.asarray({name}).dtype == bool, "`{name}` should consist of True and False"')
    if shape == ():
        lines.append(f'assert np.ndim({name}) == 0, "`{name}` should be a number, not an array"')
    else:
        lines.append(f'assert np.shape({name}) == {shape}, f"the shape should be {shape}, not {{np.shape({name})}}"')
    if kind == "number":
        lines.append(f'assert np.all(np.isfinite({name})), "`{name}` should be finite"')
        if math.prod(shape) >= LOOKED_AT and (last := want["entries"][-1]):
            about = float(f"{last:.2g}")
            slack = max(0.6 * 10 ** (math.floor(math.log10(abs(last))) - 1), want["tol"])
            said = f"the last entry is about {about:g}"
            lines.append(f'assert abs(np.ravel({name})[-1] - {about:g}) < {slack:.1g}, "{said}"')
    return "\n".join(lines)


def hidden(want: dict[str, Any]) -> str:
    """Return the test with the reference value, for those who grade with nbgrader."""
    name, entries = want["name"], want["entries"]
    if want["kind"] == "text":
        return f'assert {name} == {entries[0]!r}, "`{name}` differs from the reference"'
    reference = np.array(entries).reshape(want["shape"]).tolist()
    return (
        f"assert np.abs(np.asarray({name}, dtype=float) - {reference}).max() <= {want['tol']:.3g}, "
        f'"`{name}` differs from the reference"'
    )


# ---- notebooks


def cell(kind: str, source: str, name: str, **nbgrader: Any) -> NotebookNode:
    """Return a cell with the metadata of nbgrader, which also tell our grader what the cell is."""
    flags = {"grade": False, "solution": False, "locked": not nbgrader.get("solution"), "task": False}
    metadata = {"nbgrader": {"schema_version": 3, "grade_id": name, "cell_type": kind} | flags | nbgrader}
    new = new_code_cell if kind == "code" else new_markdown_cell
    made = new(source, metadata=metadata)
    made["id"] = name[:64]
    return made


def links(week: str) -> dict[str, str]:
    """Return where the students' notebook of a week can be opened with a browser only, once there is an address."""
    url, branch, path = web(repository()), config()["repository"]["branch"], f"teaching/{name_of(week)}.ipynb"
    if not (hosted(url) and url.startswith("https://github.com/")):
        return {}
    launch, repo = config()["launch_buttons"], url.removeprefix("https://github.com/")
    return {
        "Colab": f"{launch['colab_url']}/github/{repo}/blob/{branch}/{path}",
        "Binder": f"{launch['binderhub_url']}/v2/gh/{repo}/{branch}?urlpath=lab/tree/{path}",
    }


def opening(week: str, chosen: list[Exercise]) -> str:
    """Return the text at the top of an assignment."""
    names = titles()
    about = " · ".join(dict.fromkeys(names[exercise.chapter] for exercise in chosen))
    points = sum(exercise.points for exercise in chosen)
    lines = [f"# {spoken(week)}: {about}", ""]
    if there := links(week):
        lines += [f"Open it {' or '.join(f'[on {where}]({link})' for where, link in there.items())}.", ""]
    lines += [
        f"*{points} points.* Define the names that each exercise asks for in its answer cell, and write derivations "
        "and explanations in the text cells. Leave the other cells as they are; cells of your own may stand anywhere. "
        "The cell below an answer checks name and shape, and the last entry of longer arrays; all values are compared "
        "after you have handed in the notebook, so do not round them. A photograph of a derivation (PNG or JPEG) can "
        "be pasted into a text cell; a file that is only linked is not handed in. Notation is that of the chapters. "
        "Before you hand in, restart the kernel and run all cells.",
    ]
    return "\n".join(lines)


def heading(exercise: Exercise, known: set[str]) -> str:
    """Return the statement of an exercise with its points, and what it refers to that is not known yet."""
    points = [f"`{item.name}` {item.points}" for item in exercise.items]
    if exercise.rubric:
        points.append(f"written answer {sum(points for points, _ in exercise.rubric)}")
    else:
        points.append("no written answer is asked for")
    title = f" ({exercise.title})" if exercise.title else ""
    parts = [f"## Exercise {exercise.number}{title}: {exercise.points} points", exercise.statement]
    if new := [text for name, text in exercise.quoted.items() if name not in known]:
        parts += ["*In the book:*", *new]
    known.update(exercise.quoted)
    return "\n\n".join([*parts, f"*Points:* {', '.join(points)}."])


def teacher(week: str, chosen: list[Exercise], want: dict[str, dict[str, Any]]) -> NotebookNode:
    """Return the notebook of the teacher: a source for nbgrader, with what our grader needs in its metadata.

    Parameters
    ----------
    week : str
        The assignment.
    chosen : list of Exercise
        Its exercises.
    want : dict
        Reference values by label and name, joined by a space.
    """
    install = install_cell("", repository()).replace("make notebooks-text", "make assignments").split("\n")
    start = cell("code", "\n".join(line for line in install if not line.startswith("#")), "install")
    lines = sorted({"import numpy as np", *(line for exercise in chosen for line in exercise.imports.values())})
    cells = [
        cell("markdown", opening(week, chosen), "opening"),
        *([start] if any("spurlib" in line for line in lines) else []),  # NumPy is everywhere
        cell("code", "\n".join(sorted(lines, key=lambda line: (line.startswith("from"), line))), "imports"),
    ]
    known = set[str]()
    for exercise in chosen:
        label = exercise.label
        cells.append(cell("markdown", heading(exercise, known), f"{label}-statement"))
        if exercise.sheet:
            cells.append(cell("code", exercise.sheet, f"{label}-sheet"))
        if exercise.rubric:
            marks = "\n".join(f"- {counted(points)}: {text}" for points, text in exercise.rubric)
            solution = f"### BEGIN SOLUTION\n{exercise.solution}\n\n{marks}\n### END SOLUTION"
            source = f"{text_marker(exercise.number)}\n\n{solution}"
            points = sum(points for points, _ in exercise.rubric)
            made = cell("markdown", source, f"{label}-text", solution=True, grade=True, points=points)
            made.metadata["spurlib"] = {"exercise": label, "rubric": exercise.rubric}
            cells.append(made)
        if exercise.items:
            source = f"{code_marker(exercise.number)}\n### BEGIN SOLUTION\n{exercise.answer}\n### END SOLUTION"
            made = cell("code", source, f"{label}-answer", solution=True)
            made.metadata["spurlib"] = {"exercise": label, "names": [item.name for item in exercise.items]}
            cells.append(made)
        for item in exercise.items:
            wanted = want[f"{label} {item.name}"]
            source = f"{visible(wanted)}\n### BEGIN HIDDEN TESTS\n{hidden(wanted)}\n### END HIDDEN TESTS"
            made = cell("code", source, f"{label}-{item.name}", grade=True, points=item.points)
            made.metadata["spurlib"] = {"exercise": label, "want": wanted}
            cells.append(made)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "spurlib": {"week": week}}
    return nbformat.from_dict(new_notebook(cells=cells, metadata=metadata))


def student(key: NotebookNode) -> NotebookNode:
    """Return the students' notebook, given the teacher's: without solutions, hidden tests and reference values."""
    nb = copy.deepcopy(key)
    for cell in nb.cells:
        names = cell.metadata.get("spurlib", {}).get("names", [])
        blank = "\n".join(f"{name} = ..." for name in names) if cell.cell_type == "code" else WRITE
        cell.source = HIDDEN.sub("", SOLUTION.sub(blank, cell.source))
        cell.metadata.pop("spurlib", None)
    return nb
