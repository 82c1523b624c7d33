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
    """The values at one size of the ratios that a theorem assumes to vanish.

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
        """Return whether a ratio is below 1, the least that can be required of a quantity that should vanish."""
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
        Random features or tangent features.

    Returns
    -------
    Regime
        The ratio of each assumption at this size, with natural logarithms and log^2 N replaced by 1 if it is smaller.
        The theorems assume that the ratios tend to zero; at one size, they should at least be below 1. A ratio above 1
        does not imply that a statement is false: the theorem does not cover this size.

    Raises
    ------
    ValueError
        A size is below 1, or `kind` is unknown.

    Notes
    -----
    Theorems and proofs: chapters `alignment-rf` and `alignment-ntk`. Tangent features do not require that d / N
    vanishes if the derivative of the activation has mean zero; log^2 N / k must then vanish too. The power of
    the logarithm is lower than in Theorems 1 and 2 of Bombari and Mondelli (2024), where the first ratios are
    N log^3 N / k and N log^8 N / (k d).

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
