"""Claims: numerical checks that raise an error if they fail, display one line, and are listed in the ledger."""

from __future__ import annotations

import html
import math
import sys
from dataclasses import asdict, dataclass
from typing import Any, SupportsFloat

__all__ = ["Claim", "ClaimError", "claim"]

MIME = "application/vnd.spurlib.claim+json"
"""MIME type under which a claim is stored among the outputs of its cell."""


class ClaimError(AssertionError):
    """A claim of the book does not hold; the message gives value and target."""


@dataclass(frozen=True)
class Claim:
    """One checked statement.

    Attributes
    ----------
    statement : str
        Label in the book of the statement that is checked, such as ``"lem-stability"``.
    name : str
        What is claimed, in a few words.
    value : float
        The measured number.
    target : str
        The target in words, such as ``"near 0.5 within 0.01"``.
    falsifies : bool
        True for a negative control: an assumption is violated, and the conclusion must fail.
    holds : bool
        Whether the number meets the target.
    """

    statement: str
    name: str
    value: float
    target: str
    falsifies: bool
    holds: bool

    def _parts(self) -> tuple[str, str, str]:
        verdict = "fails, as expected" if self.falsifies else "holds"
        return (
            ("✓", self.statement, f"{self.name}: {verdict}")
            if self.holds
            else ("✗", self.statement, f"{self.name}: FAILS")
        )

    def _line(self) -> str:
        return "{} {}, {}".format(*self._parts())

    def __str__(self) -> str:
        return f"{self._line()}; value {self.value:.3g}, {self.target}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, object]:
        classes = "spurlib-claim" + (" spurlib-falsifies" if self.falsifies else "")
        mark, statement, rest = map(html.escape, self._parts())
        page = (
            f'<div class="{classes}">{mark} <span class="spurlib-statement">{statement}</span>, {rest} '
            f'<span class="spurlib-target">value <data class="spurlib-value">{self.value:.3g}</data>, '
            f"{html.escape(self.target)}</span></div>"
        )
        return {MIME: asdict(self), "text/html": page, "text/plain": self._line()}


def claim(
    statement: str,
    *,
    name: str,
    value: SupportsFloat,
    near: SupportsFloat | None = None,
    tol: SupportsFloat | None = None,
    below: SupportsFloat | None = None,
    above: SupportsFloat | None = None,
    falsifies: bool = False,
) -> None:
    """Check a number against its target, show the verdict, and store it for the ledger.

    Parameters
    ----------
    statement : str
        Label of the theorem, lemma or exercise that is checked.
    name : str
        What is claimed, in a few words; together with `statement` it should be unique in the book.
    value : float
        The measured number: a Python or numpy scalar, or a tensor with one element.
    near, tol : float, optional
        Require ``abs(value - near) <= tol``. The two are given together.
    below, above : float, optional
        Require ``value < below`` or ``value > above``; both together define an open interval.
    falsifies : bool
        Mark the claim as a negative control: an assumption is violated on purpose, and the number shows that the
        conclusion then fails.

    Raises
    ------
    ClaimError
        The number misses its target or is not finite.
    ValueError
        `statement` is not a label, no target is given, `near` and `tol` are not given together, or `tol` is negative.

    Notes
    -----
    In a notebook the claim is displayed and stored in the outputs of its cell, from which the page `claims` of the book
    is generated. Outside a notebook the line is printed.

    Examples
    --------
    >>> claim("lem-stability", name="two ways to one number", value=0.5, near=0.5, tol=1e-12)
    ✓ lem-stability, two ways to one number: holds; value 0.5, near 0.5 within 1e-12
    """
    if not isinstance(statement, str) or not statement:
        raise ValueError(f"statement must be the label of a statement, a nonempty string; got {statement!r}")
    if (near is None) != (tol is None):
        raise ValueError("near and tol are given together: a target without a tolerance cannot be checked")
    if near is None and below is None and above is None:
        raise ValueError("a claim needs a target: near with tol, or below, or above")
    number, holds, parts = float(value), True, []
    if near is not None and tol is not None:
        if not float(tol) >= 0:
            raise ValueError(f"tol must be nonnegative, got {tol!r}")
        holds &= abs(number - float(near)) <= float(tol)
        parts.append(f"near {float(near):.3g} within {float(tol):.3g}")
    if below is not None:
        holds &= number < float(below)
        parts.append(f"below {float(below):.3g}")
    if above is not None:
        holds &= number > float(above)
        parts.append(f"above {float(above):.3g}")
    checked = Claim(
        statement, name, number, " and ".join(parts), bool(falsifies), bool(holds and math.isfinite(number))
    )
    if not checked.holds:
        raise ClaimError(str(checked))
    _show(checked)


def _show(checked: Claim) -> None:
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    try:
        print(checked) if shell is None else display(checked)
    except UnicodeEncodeError:  # a terminal without check marks
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        print(str(checked).encode(encoding, "replace").decode(encoding))
