"""Grade all notebooks in a folder; write ``marks.csv``, ``by-hand.csv`` and a page with feedback for each student."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from string import Template
from typing import Any

from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from nbformat import NotebookNode

from .chapters import SourceError
from .grading import NO_ANSWER, Graded, Mark, Sandbox, Work, lines, mark, owners
from .sheets import SOLUTION, spoken

CANVAS = re.compile(r"^(?P<student>[^_]+?)_(?:LATE_)?(?P<id>\d+)_\d+_")
"""How Canvas names what students handed in."""
PAGE = Path(__file__).with_name("feedback.html")
BY_HAND = ["student", "exercise", "criterion", "points", "given", "remark", "for"]
DELIMITERS = {
    "math_inline": ("\\(", "\\)"),
    "math_inline_double": ("\\[", "\\]"),
    "math_block": ("\\[", "\\]"),
    "amsmath": ("", ""),
}


def names(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield name and number of the student, and the path, for each notebook in a folder or its subfolders."""
    used: dict[str, int] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
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
            except Exception as error:  # one submission must not stop the others
                return Graded(name, lines(key), remark=f"could not be graded: {type(error).__name__}: {error}")
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
    rows: list[list[Any]] = [BY_HAND]
    for one in done:
        for line in filter(lambda line: line.criterion, one.marks):
            row = entered.get((safe(one.student), line.exercise, str(line.criterion)), {})
            text, remark = row.get("given", "").strip(), row.get("remark", "")
            if text and (text, remark) != ("0", NO_ANSWER):  # which may have been handed in since
                line.given, line.remark = _points(hand, text, line), remark
            given = "" if line.given is None else f"{line.given:g}"
            rows.append([safe(one.student), line.exercise, line.criterion, line.points, given, line.remark, line.about])
    with open(hand, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(rows)
    kinds = list(dict.fromkeys((line.exercise, bool(line.criterion)) for line in lines(key)))
    heads = [f"{label}{' (by hand)' if by_hand else ''}" for label, by_hand in kinds]
    most = [sum(m.points for m in lines(key) if (m.exercise, bool(m.criterion)) == kind) for kind in kinds]
    title = spoken(key.metadata.spurlib.week)
    table: list[list[Any]] = [
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
    settings = MdParserConfig(enable_extensions={"dollarmath", "amsmath"}, dmath_double_inline=True)
    parser = create_md_parser(settings, RendererHTML)
    parser.disable(["html_block", "html_inline"])
    for kind, (start, end) in DELIMITERS.items():
        parser.add_render_rule(kind, _formula(start, end))
    return lambda text: str(parser.render(text))


def _code(text: str, kind: str = "code") -> str:
    return f'<pre class="{kind}">{html.escape(text)}</pre>' if text else ""


def feedback(key: NotebookNode, done: Graded, solutions: bool = False) -> str:
    """Return the page that a student gets, with the marks, the submission, and what it displayed when it ran."""
    show, of = _markdown(), owners(key)
    parts = []
    for label in dict.fromkeys(of.values()):
        cells = {name: cell for name, cell in zip(of, key.cells, strict=True) if of[name] == label}
        parts.append("<section>")
        if label:
            parts += [show(cells[f"{label}-statement"].source), _table(show, done, label)]
        if label and (text := "\n\n".join(done.own.get(label, Work()).text)):
            parts.append(f"<h3>Your written answer</h3><div class=text>{show(text)}</div>")
        for one in (one for one in done.ran if one["of"] == label):
            if one["own"]:
                parts += ["<h3>Your code</h3>", _code(one["source"]), _code(one["text"], "text")]
                parts += [f'<img alt="A figure of yours" src="data:image/png;base64,{p}">' for p in one["pictures"]]
            parts.append(_code(one["error"], "error"))
        if solutions and label:
            parts.append("<details><summary>Solution</summary>")
            for cell in cells.values():
                for said in SOLUTION.findall(cell.source):
                    parts.append(show(said) if cell.cell_type == "markdown" else _code(said))
            parts.append("</details>")
        parts.append("</section>")
    points, left = sum(m.points for m in done.marks), sum(m.points for m in done.marks if m.given is None)
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=f"{spoken(key.metadata.spurlib.week)}: {html.escape(done.student)}",
        total=f"{done.total():g} of {points - left} points" + (f"; {left} more are still to be read" if left else ""),
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
