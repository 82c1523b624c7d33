"""How far a size is from the assumptions of the theorems."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from typing import Any

from .._checks import choice, positive

__all__ = ["Regime", "regime"]


@dataclass(frozen=True)
class Regime:
    """How large, at one size, the ratios are that a theorem assumes to vanish.

    Attributes
    ----------
    title : str
        Kernel and sizes.
    ratios : dict of str to float
        Each assumption, written as a ratio that should be small.
    """

    title: str
    ratios: dict[str, float]

    def met(self, name: str) -> bool:
        """Whether a ratio is below 1: the least one can ask of a quantity that should vanish."""
        return self.ratios[name] < 1

    def __str__(self) -> str:
        rows = [f"{name} = {value:.3g} ({'below' if value < 1 else 'ABOVE'} 1)" for name, value in self.ratios.items()]
        return f"{self.title}: " + "; ".join(rows)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        def item(name: str, value: float) -> str:
            shown = re.sub(r"\^(\d)", r"<sup>\1</sup>", html.escape(name))
            return f"<li>{shown} = {value:.3g}: {'below 1' if value < 1 else '<b>above 1</b>'}</li>"

        items = "".join(item(*ratio) for ratio in self.ratios.items())
        page = (
            f'<details class="spurlib-regime"><summary>Regime of {html.escape(self.title)}: '
            f"{sum(v < 1 for v in self.ratios.values())} of {len(self.ratios)} ratios below 1</summary>"
            f"<ul>{items}</ul></details>"
        )
        return {"text/plain": str(self), "text/html": page}


def regime(*, n: int, d: int, k: int, kind: str = "rf") -> Regime:
    """Compare a size with the assumptions of the book's theorems, which are about limits.

    Parameters
    ----------
    n, d, k : int
        Number of samples, dimension of a sample, width.
    kind : {"rf", "ntk"}
        Random features (Theorem 1) or tangent features (Theorem 2).

    Returns
    -------
    Regime
        For each assumption its ratio at this size (natural logarithms; log^2 N counts as at least 1). The theorems ask
        for ratios that vanish; below 1 is the least one can ask at one size. A ratio above 1 does not make a statement
        false: the theorem does not cover this size.

    Raises
    ------
    ValueError
        A size below 1 or an unknown kind.

    Notes
    -----
    Theorems and proofs: chapters `alignment-rf` and `alignment-ntk`. They ask for less than Bombari and Mondelli
    (2024), who have N log^3 N / k and N log^8 N / (k d) in the first place of each list.

    Examples
    --------
    >>> found = regime(n=500, d=1000, k=20_000)
    >>> {name: round(ratio, 3) for name, ratio in found.ratios.items()}
    {'N log^2 N / k': 0.966, 'N^3 / d^4': 0.0, '1 / N': 0.002}
    """
    n, d, k, kind = positive(n, "n"), positive(d, "d"), positive(k, "k"), choice(kind, "kind", ("rf", "ntk"))
    sizes, many = f"N = {n}, d = {d}, k = {k}", n * max(1.0, math.log(n) ** 2)
    if kind == "rf":
        ratios = {"N log^2 N / k": many / k, "N^3 / d^4": n**3 / d**4, "1 / N": 1 / n}
        return Regime(f"random features, {sizes}", ratios)
    ratios = {"N log^2 N / (k d)": many / (k * d), "N^3 / d^4": n**3 / d**4, "d / N": d / n}
    return Regime(f"tangent features, {sizes}", ratios)
