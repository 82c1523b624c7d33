"""Every assignment is made, solved, left empty, and solved wrongly; whatever is handed in is graded."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell

from tests.book.clean import environ, environment
from tools.assignments import TEACHING, make, plan, reference, table
from tools.chapters import CHAPTERS, ROOT, SourceError, myst, read
from tools.exercises import Exercise, Item, exercises
from tools.feedback import feedback, grade, names
from tools.grading import Sandbox, fault, mark, programme, read_log, work
from tools.sheets import SOLUTION, name_of, opening, spoken, student, teacher

WEEKS = plan()
LONG = [week for week in WEEKS if week.isdigit()]
SHORT = ["1", "2", *(week for week in WEEKS if not week.isdigit())]
KINDS = ["solved", "empty", "first wrong", "others wrong"]
LIMITS = {"seconds": 60, "total": 120, "memory": 2}
ALL_SECONDS = 360
KEPT = re.compile(r"^\w+(?:, \w+)* = ", re.MULTILINE)


@pytest.fixture(scope="module")
def known():
    """Return the exercises that can be assigned."""
    return exercises()


@pytest.fixture(scope="module")
def used():
    """Return a function that tells the seconds of processors that processes have taken since."""

    def seconds():
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    before = seconds()
    return lambda: seconds() - before


@pytest.fixture(scope="module")
def keys(used):
    """Make all assignments."""
    return make(list(WEEKS))


def solved(key, mistakes=None):
    """Return an assignment with the teacher's answers, and for some names a mistake instead, by label and name."""
    nb = student(key)
    for cell, whole in zip(nb.cells, key.cells, strict=True):
        if found := SOLUTION.search(whole.source):
            cell.source = whole.source.replace(found[0], found[1])
            label = whole.metadata.spurlib["exercise"]
            for (of, name), mistake in (mistakes or {}).items() if cell.cell_type == "code" else ():
                cell.source += f"\n{name} = {mistake}" if of == label else ""
    return nb


@pytest.fixture(scope="module")
def patient():
    """Return a sandbox with the limits that an assignment has to keep."""
    with Sandbox(**LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def mistakes(known):
    """Return the mistakes of each week and kind of submission: the first name of each exercise, or all others."""
    found = {}
    for week, labels in WEEKS.items():
        items = [(label, n, item) for label in labels for n, item in enumerate(known[label].items)]
        found[week, "first wrong"] = {(label, item.name): item.mistake for label, n, item in items if not n}
        found[week, "others wrong"] = {(label, item.name): item.mistake for label, n, item in items if n}
    return found


@pytest.fixture(scope="module")
def graded(keys, mistakes):
    """Grade four submissions of every week, in the limits that an assignment has to keep."""

    def one(weeks):
        with Sandbox(**LIMITS) as sandbox:
            for week in weeks:
                for kind in KINDS:
                    nb = student(keys[week]) if kind == "empty" else solved(keys[week], mistakes.get((week, kind)))
                    yield (week, kind), mark(keys[week], kind, nbformat.writes(nb), sandbox)

    with ThreadPoolExecutor(2) as pool:
        return dict(pair for part in pool.map(list, map(one, (list(WEEKS)[::2], list(WEEKS)[1::2]))) for pair in part)


def by_machine(done):
    return {(mark.exercise, mark.about): mark for mark in done.marks if not mark.criterion}


# ---- all assignments


@pytest.mark.parametrize("week", WEEKS)
def test_the_solution_has_full_marks(graded, week):
    done = graded[week, "solved"]
    assert [one["error"] for one in done.ran if one["error"]] == []
    assert {mark.about: mark.remark for mark in done.marks if mark.remark} == {}
    assert done.total() == sum(mark.points for mark in by_machine(done).values())
    assert all(mark.given is None for mark in done.marks if mark.criterion)  # somebody reads them


@pytest.mark.parametrize("week", WEEKS)
def test_an_empty_submission_has_no_marks(graded, week):
    done = graded[week, "empty"]
    assert {mark.given for mark in done.marks} == {0}
    assert {mark.remark for mark in done.marks} <= {"not defined", "no answer"}
    assert [one["error"] for one in done.ran if one["error"]] == []


@pytest.mark.parametrize("kind", ["first wrong", "others wrong"])
@pytest.mark.parametrize("week", WEEKS)
def test_a_mistake_loses_its_marks_and_no_others(graded, mistakes, week, kind):
    done = graded[week, kind]
    assert [one["error"] for one in done.ran if one["error"]] == []
    lost = {key for key, mark in by_machine(done).items() if mark.given == 0}
    assert lost == set(mistakes[week, kind])
    assert all(mark.given == mark.points for key, mark in by_machine(done).items() if key not in lost)


@pytest.mark.parametrize("week", WEEKS)
def test_students_get_no_solution(keys, known, week):
    nb = student(keys[week])
    text = nbformat.writes(nb)
    for word in ("BEGIN SOLUTION", "HIDDEN", "% grade", "% rubric", "claim("):
        assert word not in text
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in nb.cells)
    assert all(set(cell.metadata) == {"nbgrader"} for cell in nb.cells)
    shown = "\n".join(cell.source for cell in nb.cells)
    for exercise in map(known.get, WEEKS[week]):
        secret = [line for line in exercise.answer.splitlines() if KEPT.match(line) and line not in exercise.sheet]
        secret += [row for row in exercise.solution.split(". ") if len(row) > 30]
        secret += [text for _, text in exercise.rubric if text not in exercise.statement]
        assert [row for row in secret if row.strip() in shown] == []
    for cell in keys[week].cells:
        for entry in cell.metadata.get("spurlib", {}).get("want", {}).get("entries", [])[:-1]:
            assert len(f"{entry}") < 6 or f"{entry}" not in shown


@pytest.mark.parametrize("week", WEEKS)
def test_the_stored_sheet_is_that_of_the_chapters(keys, week):
    stored = nbformat.read(TEACHING / f"{name_of(week)}.ipynb", 4)
    assert stored == nbformat.reads(nbformat.writes(student(keys[week])), 4), "run `make assignments`"


@pytest.mark.parametrize("week", ["1", "2"])
def test_the_first_two_weeks_need_numpy_only(keys, week):
    code = "\n".join(cell.source for cell in student(keys[week]).cells if cell.cell_type == "code")
    assert set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE)) == {"numpy"}


def test_the_refresher_needs_no_torch(tmp_path):
    cells = [cell for cell in nbformat.read(CHAPTERS / "refresher.ipynb", 4).cells if cell.cell_type == "code"]
    code = "\n".join(["import sys", "sys.modules['torch'] = None", *(cell.source for cell in cells)])
    script = tmp_path / "refresher.py"
    script.write_text(code, encoding="utf-8")
    settings = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    subprocess.run([sys.executable, script], cwd=CHAPTERS, env=settings, check=True)


def test_no_sheet_is_left_of_a_week_that_is_gone():
    assert sorted(path.stem for path in TEACHING.glob("*.ipynb")) == sorted(map(name_of, WEEKS))


@pytest.mark.parametrize("week", WEEKS)
def test_both_tests_pass_where_the_answers_are_right(keys, week, patient):
    """The visible ones in the students' notebook, the hidden ones of those who grade with nbgrader."""
    code = [{"source": cell.source} for cell in keys[week].cells if cell.cell_type == "code"]
    assert [one["error"] + one["text"] for one in patient.run(code) if one["error"]] == []


def test_statements_name_what_to_define(known):
    for label, exercise in known.items():
        for item in exercise.items:
            assert f"`{item.name}`" in exercise.statement, label
            assert item.name not in exercise.sheet.split(), label
        assert not exercise.items or exercise.answer, label


def test_what_is_not_planned_can_be_planned(known, patient):
    planned = {label for week in WEEKS.values() for label in week}
    rest = [exercise for label, exercise in known.items() if label not in planned]
    assert set(reference(rest, patient)) == {f"{one.label} {item.name}" for one in rest for item in one.items}


def test_a_week_has_computations_and_derivations(known):
    for course in (LONG, SHORT):
        labels = [label for week in course for label in WEEKS[week]]
        assert len(set(labels)) == len(labels)
    for week, labels in WEEKS.items():
        assert sum(bool(known[label].items) for label in labels) >= 2, week
        assert sum(bool(known[label].rubric) for label in labels) >= 2, week
        assert 15 <= sum(known[label].points for label in labels) <= 30, week


@pytest.mark.parametrize("course", [LONG, SHORT])
def test_the_course_has_treated_what_is_assigned(known, course):
    _, long, short = re.split(r"^## (?:Twelve|Four) weeks$", read(CHAPTERS / "course.md"), flags=re.MULTILINE)
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (long if course is LONG else short).partition("\n## ")[0], re.MULTILINE)
    week_of = {name: int(week) for week, lectures in rows for name in re.findall(r"\{doc\}`([\w-]+)`", lectures)}
    assert len(rows) == len(course)
    chapters = [(int(week[-2:].strip("-")), known[label].chapter) for week in course for label in WEEKS[week]]
    assert [one for one in chapters if week_of[one[1]] > one[0]] == []


def test_the_course_page_lists_all_assignments(known):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table().split("\n")[2:]]
    assert [row[0] for row in rows] == [*map(spoken, WEEKS)]
    for week, row in zip(WEEKS, rows, strict=True):
        assert {*re.findall(r"`([\w-]+)`", row[1])} == {known[label].chapter for label in WEEKS[week]}
        assert re.findall(r"`([\w-]+)`", row[2]) == WEEKS[week]
        (path,) = re.findall(r"<\.\./(.+)>", row[3])
        assert (ROOT / path).exists()
    assert "```{assignments}" in read(CHAPTERS / "course.md")


def test_all_assignments_take_less_than_six_minutes(graded, used):
    assert used() < ALL_SECONDS


# ---- whatever is handed in

CHOSEN = [
    Exercise(
        label=f"ex-{name}",
        chapter="stability",
        number=f"3.{number}",
        statement=f"Define `{name}`.",
        sheet=f"x = np.arange({number + 3}.0)",
        answer=f"{name} = {number} * x",
        solution="It is a product.",
        items=[Item(name, 3, 1e-6, "x")],
        rubric=[(2, "the *product* $x < y$"), (1, "the rest")],
    )
    for number, name in ((2, "double"), (4, "quadruple"))
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=2, total=40, memory=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def key(sandbox):
    return teacher("7", CHOSEN, reference(CHOSEN, sandbox))


def handed_in(key, **answers):
    """Return a solved assignment with other code in some answers, or without the cell (None)."""
    nb = solved(key)
    for cell in list(nb.cells):
        name = cell.id.removeprefix("ex-").removesuffix("-answer")
        if name in answers:
            nb.cells.remove(cell) if answers[name] is None else cell.update(source=answers[name])
    return nb


def given(done):
    return [mark.given for mark in done.marks if not mark.criterion]


@pytest.mark.parametrize(
    ("answer", "remark", "shown"),
    [
        (None, "not defined", ""),
        ("double = (", "not defined", "SyntaxError"),
        ("while True: pass", "not defined", "TimeLimitError: stopped after 2 seconds"),
        (
            "while True:\n    try:\n        while True: len(list(x))\n    except BaseException: pass",  # all in the try
            "not defined",
            "did not stop",
        ),
        ("import os\nos._exit(0)", "not defined", "the process ended"),
        ("import sys\ndouble = 2 * x\nsys.exit()", "", "SystemExit"),
        ("np.ones((60_000, 60_000))", "not defined", "MemoryError"),
        ("double = np.array([])", "of shape (0,), not (5,)", ""),
        ("double = 2 * x + np.nan", "differs from the reference in 5 of 5 entries", ""),
        ("double = lambda: 2 * x", "not of the kind asked for (number), but of the kind function", ""),
        ("double = 2 * x\ndel np", "", ""),
        ("double = [float(2 * y) for y in x]", "", ""),
        ("import torch\ndouble = torch.tensor(2 * x, requires_grad=True)", "", ""),
        ("%matplotlib inline\n!echo hello\ndouble = 2 * x", "", ""),
        ("np.abs = np.asarray = lambda *_, **__: 0\ndouble = x", "differs", ""),
        ("double = input()", "not defined", "EOFError"),
    ],
)
def test_what_does_not_work_costs_its_own_marks_only(key, sandbox, answer, remark, shown):
    done = mark(key, "x", nbformat.writes(handed_in(key, double=answer)), sandbox)
    first, _ = (one for one in done.marks if not one.criterion)
    assert first.remark.startswith(remark) and bool(first.remark) == bool(remark)
    assert given(done) == [0 if remark else 3, 3]
    errors = [one["error"] for one in done.ran if one["error"]]
    assert any(shown in error for error in errors) if shown else errors == []
    feedback(key, done)


def test_code_that_kills_what_runs_it_does_not_stop_the_grading(key, sandbox):
    killer = handed_in(key, double="import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    assert given(mark(key, "killer", nbformat.writes(killer), sandbox))[0] == 0
    assert given(mark(key, "next", nbformat.writes(solved(key)), sandbox)) == [3, 3]


def test_what_is_printed_is_cut_short(key, sandbox):
    done = mark(
        key, "x", nbformat.writes(handed_in(key, double="double = 2 * x\nfor i in range(10**5): print(i)")), sandbox
    )
    (said,) = [one["text"] for one in done.ran if one["text"]]
    assert len(said) < 5000 and said.endswith("more characters")
    assert given(done) == [3, 3]


def test_an_answer_does_not_change_the_next_one(key, sandbox):
    done = mark(key, "x", nbformat.writes(handed_in(key, double="double = 2 * x\nquadruple = double\nx = 0")), sandbox)
    assert given(done) == [3, 3]
    done = mark(
        key, "x", nbformat.writes(handed_in(key, double="quadruple = 4 * np.arange(7.0)", quadruple="")), sandbox
    )
    assert given(done) == [0, 3]  # a name may be defined earlier


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}', "\0"])
def test_what_is_no_notebook_is_graded(key, sandbox, text):
    done = mark(key, "x", text, sandbox)
    assert done.total() == 0 and "not a notebook" in done.remark
    assert {one.given for one in done.marks} == {0}
    assert "not a notebook" in feedback(key, done)


def disturbed(nb, how):
    """Do to a notebook what students and programs do."""
    nb = copy.deepcopy(nb)
    if how == "no metadata":
        for cell in nb.cells:
            cell.metadata = {}
    elif how == "only answers":
        nb.cells = [cell for cell in nb.cells if cell.id.endswith(("-answer", "-text"))]
    elif how == "data changed":
        for cell in nb.cells:
            if cell.id.endswith("-sheet"):
                cell.source = "x = 5"
    elif how == "in another order":
        nb.cells = nb.cells[::-1]
    elif how == "twice":
        nb.cells = [copy.deepcopy(cell) for cell in nb.cells for _ in range(2)]
    elif how == "a helper":
        for cell in nb.cells:
            cell.source = cell.source.replace("2 * x", "helper(x)")
        here = next(i for i, cell in enumerate(nb.cells) if cell.id == "ex-double-answer")
        nb.cells.insert(here, new_code_cell("def helper(x):\n    return 2 * x"))
        nb.cells.insert(here, new_markdown_cell("A helper."))
    return nb


@pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")
@pytest.mark.parametrize(
    "how", ["no metadata", "only answers", "data changed", "in another order", "twice", "a helper"]
)
def test_cells_may_be_lost_changed_moved_copied_and_added(key, sandbox, how):
    done = mark(key, "x", nbformat.writes(disturbed(solved(key), how)), sandbox)
    assert given(done) == [3, 3]
    assert all(one.given is None for one in done.marks if one.criterion)
    empty = mark(key, "x", nbformat.writes(disturbed(student(key), how)), sandbox)
    assert empty.total() == 0


def test_what_is_no_result_is_not_read():
    result = {"cell": 0, "text": "", "error": "", "pictures": ["AA==", '"><script>'], "values": {}}
    bad = [[], 3, {"cell": 7}, {"cell": [0]}, {"start": "x"}, {"cell": 1}, result | {"cell": 1, "values": {"x": 3}}]
    number = {"kind": "number", "shape": [1], "entries": ["many"]}
    bad.append(result | {"cell": 1, "values": {"x": number}})
    text = "\n".join(["{", "[" * 10**5, *map(json.dumps, bad), json.dumps({"start": 1}), json.dumps(result)])
    begun, results = read_log(text, 2)
    assert begun == 1 and results == {0: {"text": "", "error": "", "pictures": ["AA=="], "values": {}}}


def test_the_process_that_runs_submissions_gets_no_reference(key):
    said = json.dumps(programme(key, work(key, student(key))))
    assert "want" not in said and "SOLUTION" not in said and "12.0" not in said
    wanted = [
        cell.metadata.spurlib["want"]["entries"] for cell in key.cells if "want" in cell.metadata.get("spurlib", {})
    ]
    assert [max(entries) for entries in wanted] == [8.0, 24.0]


# ---- marks and feedback


def test_marks_and_what_a_person_reads(key, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "Ben").mkdir(parents=True)
    evil = handed_in(key, double='double = 2 * x\nprint("<script>alert(1)</script>")')
    text = next(cell for cell in evil.cells if cell.id == "ex-double-text")
    text.source += "\n\n<script>alert(2)</script> and $a < b$ ![on paper](attachment:a.png) ![](attachment:b%20c.png)"
    text.source += "\n\nIt is $$x < y$$ in a line."
    text.attachments = {
        name: {"image/png": "iVBO\nRw0K", "text/html": "<script>alert(3)</script>"}
        for name in ("a.png", "b c.png", "without a place.png")
    } | {"d.heic": {"image/heic": "AAAA"}}
    nbformat.write(evil, folder / "Ben" / "anything.ipynb")
    nbformat.write(student(key), folder / "archer_12_345_week-07.ipynb")
    (folder / "=HYPERLINK(1).ipynb").write_text("no notebook")
    grade(key, folder, out, jobs=1)

    def marks():
        with open(out / "marks.csv", encoding="utf-8-sig", newline="") as file:
            return {row["Student"]: row for row in csv.DictReader(file)}

    first = marks()
    assert set(first) == {"Points possible", "Ben", "archer", "'=HYPERLINK(1)"}
    assert first["Points possible"]["Week 7"] == "12" and first["archer"]["ID"] == "12"
    assert (first["Ben"]["Week 7"], first["Ben"]["To be read"]) == ("6", "6")
    assert (first["archer"]["Week 7"], first["archer"]["To be read"]) == ("0", "0")
    page = (out / "feedback" / "Ben.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert") == 3  # code, output, text
    assert (
        "6 of 6 points; 6 more are still to be read" in page
        and page.count('src="data:image/png;base64,iVBORw0K"') == 3
        and r"\(a &lt; b\)" in page
        and r"It is \[x &lt; y\] in a line." in page
    )
    assert "cannot be shown here" in page and "d.heic" in page and "AAAA" not in page
    assert first["Ben"]["Remark"] == "a picture cannot be shown: see the feedback"
    assert "Solution" not in page

    hand = out / "by-hand.csv"
    rows = list(csv.reader(hand.read_text(encoding="utf-8-sig").splitlines()))
    for row in rows[1:]:
        if row[0] == "Ben":
            row[4:6] = ["1.5" if row[3] == "2" else "1", "The product is <right>."]
    with open(hand, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    grade(key, folder, out, jobs=1, solutions=True)
    assert marks()["Ben"] | {"Week 7": "11", "To be read": "0", "ex-double (by hand)": "2.5"} == marks()["Ben"]
    page = (out / "feedback" / "Ben.html").read_text(encoding="utf-8")
    assert "11 of 12 points" in page and "The product is &lt;right&gt;." in page and "Solution" in page
    hand.write_text(hand.read_text(encoding="utf-8-sig").replace("1.5", "2.5"), encoding="utf-8")
    with pytest.raises(SourceError, match="not a number of points from 0 to 2"):
        grade(key, folder, out, jobs=1)
    with pytest.raises(SourceError, match="no notebook"):
        grade(key, tmp_path / "nothing", out)


def test_names_of_what_was_handed_in(tmp_path):
    for path in (
        "a.ipynb",
        "a/b.ipynb",
        "c/.ipynb_checkpoints/d.ipynb",
        "doejane_LATE_7_8_week-01-1.ipynb",
        "e f/g.ipynb",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert [(name, number) for name, number, _ in names(tmp_path)] == [
        ("a", ""),
        ("a (2)", ""),
        ("doejane", "7"),
        ("e f", ""),
    ]


NUMBER = {"name": "x", "kind": "number", "shape": [2], "entries": [1.0, 2.0], "tol": 0.1}


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({"entries": [1.05, 1.95]}, ""),
        ({"entries": [1.05, 2.15]}, "differs from the reference in 1 of 2 entries"),
        ({"entries": [float("nan"), 2.0]}, "differs from the reference in 1 of 2 entries"),
        ({"shape": [1, 2]}, "of shape (1, 2), not (2,)"),
        ({"kind": "text", "shape": [], "entries": ["1"]}, "not of the kind asked for (number), but of the kind text"),
        ({"kind": "none"}, "not defined"),
    ],
)
def test_what_is_wrong_with_a_value(got, said):
    assert fault(NUMBER, NUMBER | got) == said


@pytest.mark.parametrize(("value", "near"), [(1.0059, True), (1.0061, False)])
def test_a_rounded_value_is_told_so(value, near):
    said = fault(NUMBER | {"tol": 1e-6}, NUMBER | {"entries": [value, 2.0]})
    hint = "; it is near: was it rounded, or a series cut off?"
    assert said == "differs from the reference in 1 of 2 entries" + near * hint


# ---- comment lines of the chapters


@pytest.mark.parametrize("line", ["% grade: 3 points for change", "% rubric: the block inverse", "% grade: x"])
def test_a_line_that_says_nothing_is_refused(line, monkeypatch):
    chapter = read(CHAPTERS / "stability.md").replace(
        "% rubric: 1 point for the mean", f"{line}\n% rubric: 1 point for the mean"
    )
    nb = read_myst_markdown_notebook(chapter, myst(), add_source_map=True)
    monkeypatch.setattr("tools.exercises.notebook", lambda _: nb)
    with pytest.raises(SourceError, match=re.escape(f"ex-stability-mean: not a line for the grader: {line!r}")):
        exercises(["stability"])


def test_an_exercise_that_cannot_be_graded_is_not_planned(monkeypatch):
    monkeypatch.setattr("tools.assignments.plan", lambda: {"1": ["ex-none"]})
    with pytest.raises(SourceError, match="nothing that can be graded is named ex-none"):
        make(["1"])
    with pytest.raises(SourceError, match="has no week 2"):
        make(["2"])


def test_links_lead_to_colab_binder_and_the_pages_once_there_is_an_address(monkeypatch, known):
    for module in ("sheets", "exercises"):
        monkeypatch.setattr(f"tools.{module}.repository", lambda: "https://github.com/someone/book")
    top = opening("2", [known[label] for label in WEEKS["2"]])
    assert "(https://colab.research.google.com/github/someone/book/blob/main/teaching/week-02.ipynb)" in table()
    assert "(https://colab.research.google.com/github/someone/book/blob/main/teaching/week-02.ipynb)" in top
    assert "(https://mybinder.org/v2/gh/someone/book/main?urlpath=lab/tree/teaching/week-02.ipynb)" in top
    bare = Exercise(label="ex-bare", chapter="stability", imports={"sl": "import spurlib as sl"})
    install = teacher("5", [bare], {}).cells[1].source
    assert "git clone --quiet --depth 1 https://github.com/someone/book book" in install and "# " not in install
    linked = exercises(["stability"])["ex-stability-two"]
    assert "(https://someone.github.io/book/chapters/interpolation.html#prop-leave-one-out)" in linked.solution
    assert "](" not in known["ex-stability-two"].solution


# ---- nbgrader


@pytest.mark.installs
@pytest.mark.timeout(900)
def test_nbgrader_makes_the_same_sheet_and_gives_the_same_marks(key, tmp_path):
    python = environment(tmp_path / "env", "nbgrader", "numpy", "ipykernel", "torch", "scipy")
    course = tmp_path / "course"
    (course / "source" / "w").mkdir(parents=True)
    nbformat.write(key, course / "source" / "w" / "w.ipynb")
    command = [python.parent / "nbgrader"]

    def run(*arguments):
        path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
        done = subprocess.run(
            [*command, *arguments],
            cwd=course,
            capture_output=True,
            text=True,
            env=environ(PATH=path, PYTHONPATH=str(ROOT), HOME=str(tmp_path), JUPYTER_PREFER_ENV_PATH="1"),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("generate_assignment", "w", "--create")
    release = nbformat.read(course / "release" / "w" / "w.ipynb", 4)
    ours = {cell.id: cell.source for cell in student(key).cells}
    own = ("-answer", "-text")
    assert {cell.id: cell.source for cell in release.cells if not cell.id.endswith(own)} == {
        name: source for name, source in ours.items() if not name.endswith(own)
    }
    assert not any("It is a product" in cell.source or "* x" in cell.source for cell in release.cells)
    for name, nb in {"good": solved(key), "half": handed_in(key, double="double = x")}.items():
        folder = course / "submitted" / name / "w"
        folder.mkdir(parents=True)
        nbformat.write(nb, folder / "w.ipynb")
    run("autograde", "w", "--create")
    run("export")
    with open(course / "grades.csv", encoding="utf-8") as file:
        rows = {row["student_id"]: (float(row["raw_score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == {"good": (6.0, 12.0), "half": (3.0, 12.0)}
