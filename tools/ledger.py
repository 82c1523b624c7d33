"""The ledger of claims: every checked number of the book, and what is still missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nbformat import NotebookNode

from spurlib.book.claims import MIME, Claim

from .chapters import executable
from .execute import stored
from .markup import KINDS, TO_BE_CLAIMED, Label, labels

CHECKS = "checks-"
"""What stands before the label of a statement in the anchor of its checks."""


@dataclass(frozen=True)
class Entry:
    """A claim and the chapter in which it was made."""

    chapter: str
    claim: Claim


def entries(chapter: str, nb: NotebookNode) -> list[Entry]:
    """Return the claims that an executed notebook made, in order."""
    cells = (cell for cell in nb.cells if cell.cell_type == "code")
    outputs = (output.get("data", {}) for cell in cells for output in cell.outputs)
    return [Entry(chapter, Claim(**data[MIME])) for data in outputs if MIME in data]


def claims() -> list[Entry]:
    """Return the claims of the executed chapters, in reading order."""
    return [entry for name in executable() if (nb := stored(name)) for entry in entries(name, nb)]


def faults(sources: dict[str, str], claims: Iterable[Entry]) -> list[str]:
    """Return what is wrong with the claims of a book, in words; an empty list when nothing is.

    Parameters
    ----------
    sources : dict
        Text of each chapter by name.
    claims : iterable of Entry
        The claims of the executed chapters.

    Returns
    -------
    list of str
        A theorem, lemma, proposition or corollary without a label, without a claim or without a
        negative control; and what `contradictions` finds.
    """
    claims = list(claims)
    wrong = []
    for label in statements(sources):
        own = [entry.claim for entry in claims if entry.claim.statement == label.name]
        who = f"chapters/{label.chapter}.md: {label.kind} {label.name or label.title or 'without a title'!r}"
        if not label.name:
            wrong.append(f"{who} has no label")
        elif not any(not claim.falsifies for claim in own):
            wrong.append(f"{who} has no claim")
        elif not any(claim.falsifies for claim in own):
            wrong.append(f"{who} has no falsification")
    return wrong + contradictions(sources, claims)


def contradictions(sources: dict[str, str], claims: Iterable[Entry]) -> list[str]:
    """Return in words which claims the ledger cannot show.

    These are claims about a label that no statement or exercise of the book has, claims with the same statement
    and name, and claims that do not hold. The arguments are those of `faults`.
    """
    claims = list(claims)
    claimable = {label.name for label in labels(sources, {}) if label.kind in (*KINDS, "exercise")}
    wrong = []
    for entry in claims:
        who = f"chapters/{entry.chapter}.md: claim {entry.claim.name!r} about {entry.claim.statement!r}"
        if entry.claim.statement not in claimable:
            wrong.append(f"{who}: no statement or exercise has this label")
        if not entry.claim.holds:
            wrong.append(f"{who} does not hold")
    names = Counter((entry.claim.statement, entry.claim.name) for entry in claims)
    for (statement, name), count in names.items():
        if count > 1:
            own = [entry.chapter for entry in claims if (entry.claim.statement, entry.claim.name) == (statement, name)]
            where = " and ".join(f"chapters/{chapter}.md" for chapter in dict.fromkeys(own))
            wrong.append(f"{where}: {count} claims about {statement!r} are named {name!r}")
    return wrong


def statements(sources: dict[str, str]) -> list[Label]:
    """Return the theorems, lemmas, propositions and corollaries of the book, in reading order."""
    return [label for label in labels(sources, {}) if label.kind in TO_BE_CLAIMED]


def page(sources: dict[str, str], claims: Iterable[Entry], titles: dict[str, str]) -> str:
    """Return the ledger as MyST text: how well each statement is covered, then all claims by chapter.

    Parameters
    ----------
    sources : dict
        Text of each chapter by name.
    claims : iterable of Entry
        The claims of the executed chapters.
    titles : dict
        Title of each chapter by name.
    """
    claims = list(claims)
    known = {label.name: label for label in labels(sources, {})}
    kinds = Counter("falsification" if entry.claim.falsifies else "claim" for entry in claims)
    lines = [
        "## Coverage",
        "",
        f"The chapters of this build contain {kinds['claim']} numerical checks and {kinds['falsification']} negative "
        "controls.",
        "",
        "| Statement | Numerical checks | Negative controls |",
        "| :--- | ---: | ---: |",
    ]
    first = dict[str, str]()  # a place to link to, at the first check of each statement
    for label in statements(sources):
        first[label.name] = f'<span id="{CHECKS}{label.name}"></span>'
        own = Counter(entry.claim.falsifies for entry in claims if entry.claim.statement == label.name)
        lines.append(f"| {_reference(label)} | {own[False]} | {own[True]} |")
    for chapter in sources:
        made = [entry.claim for entry in claims if entry.chapter == chapter]
        if not made:
            continue
        lines += ["", f"## {titles[chapter]}", ""]
        lines += ["| Statement | Numerical check | Verdict | Value | Target |", "| :--- | :--- | :--- | ---: | :--- |"]
        for claim in made:
            label_ = known.get(claim.statement)
            about = _reference(label_) if label_ else f"`{claim.statement}`"
            number, target = f"{claim.value:.3g}", _plain(claim.target)
            verdict = ("✓ fails, as expected" if claim.falsifies else "✓ holds") if claim.holds else "not met"
            about = first.pop(claim.statement, "") + about
            lines.append(f"| {about} | {_plain(claim.name)} | {verdict} | {number} | {target} |")
    return "\n".join(lines) + "\n"


def _reference(label: Label) -> str:
    role = "ref" if label.kind == "exercise" else "prf:ref"
    return f"{{{role}}}`{label.name}`" + (f" ({_cell(label.title)})" if label.title else "")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _plain(text: str) -> str:
    """Escape what MyST would not show as it stands."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
