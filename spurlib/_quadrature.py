"""Gaussian integrals of functions with kinks, and the recurrences of Hermite polynomials: for arrays of numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = [
    "PROBE",
    "clenshaw",
    "coefficients",
    "converged",
    "half_gaussian",
    "recurrence",
    "refuse_not_entrywise",
    "rounding",
    "second_moment",
    "values_of",
]

_CUTS = range(18, 55, 2)  # beyond 18 exp(-u^2 / 4) < 1e-35, and beyond 54 no float64 times exp(-u^2 / 2) matters
TOLERANCE = 2e-12  # of an integral, relative to the integral of the absolute value
_NODES = 32  # Gauss-Legendre nodes per panel
PROBE = np.array([0.61, -2.23, 1.37, -0.47, 2.89, -1.11, 0.19, -2.71, 1.93, -0.83, 2.47, -1.73])


def recurrence(u: Any, start: Any) -> Iterator[Any]:
    """Yield start * h_0(u), start * h_1(u), ... without end."""
    previous, current, l = 0.0 * start, start, 0
    while True:
        yield current
        previous, current = current, (u * current - l**0.5 * previous) / (l + 1) ** 0.5
        l += 1


@lru_cache(maxsize=64)
def rule(kinks: tuple[float, ...], refinement: int, cut: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes u and weights w exp(-u^2/4) / (2 pi)^(1/4) of a composite Gauss-Legendre rule split at the kinks.

    The square root of the Gaussian weight is left out, and the recurrence starts from it: the functions
    h_l(u) exp(-u^2/4) are bounded for every degree l, while h_l alone overflows.
    """
    grid = np.linspace(-cut, cut, 2 * cut * refinement + 1)
    steps = 4.0 ** -np.arange(1, 11 + 2 * refinement)  # finer toward a kink, where f may be like |x|^0.5
    edges = np.concatenate([grid, *(k + np.r_[-steps, 0, steps] for k in kinks if abs(k) < cut)])
    edges = np.unique(edges[abs(edges) <= cut])
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    u = (edges[:-1, None] + half + half * x).ravel()
    rule = u, (half * w).ravel() * np.exp(-(u**2) / 4) / (2 * np.pi) ** 0.25
    for array in rule:
        array.setflags(write=False)  # they are kept for the whole process
    return rule


def half_gaussian(u: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-(u**2) / 4) / (2 * np.pi) ** 0.25)


Integrals = Callable[[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]], tuple[np.ndarray, ...]]
"""Arrays of integrals by the rule (u, w); the last argument is applied to the factors of each integrand."""


def converged(integrals: Integrals, kinks: Iterable[float], tolerance: float = TOLERANCE) -> tuple[np.ndarray, ...]:
    """Widen the quadrature until the part cut off is negligible, then refine it until the integrals converge.

    The scale is, column by column, the largest integral of an absolute value in each array.
    """
    at = tuple(sorted(float(k) for k in kinks))
    with np.errstate(over="ignore", invalid="ignore"):
        for cut in _CUTS:
            u, w = rule(at, 1, cut)
            sizes = [array.max(axis=0) for array in integrals(u, w, np.abs)]
            outer = abs(u) > cut - 1
            ends = [array.max(axis=0) for array in integrals(u[outer], w[outer], np.abs)]
            settled = (np.isfinite(size) & (end <= 1e-14 * size) for end, size in zip(ends, sizes, strict=True))
            if all(bool(np.all(which)) for which in settled):
                break
        else:
            raise ValueError(
                "f grows too fast: it is not square integrable against the Gaussian weight, or its integrals are "
                "beyond float64"
            )
        old = integrals(*rule(at, 1, cut), np.asarray)
        for refinement in (2, 4, 8, 16, 32):
            new = integrals(*rule(at, refinement, cut), np.asarray)
            gaps = [np.abs(b - a).max(axis=0) for a, b in zip(old, new, strict=True)]
            if all(bool(np.all(gap <= tolerance * size)) for gap, size in zip(gaps, sizes, strict=True)):
                return new
            old = new
    raise ValueError(
        f"f: its Gaussian integrals do not settle (last change {max(float(np.max(gap)) for gap in gaps):.1e}): a kink "
        "or jump that `kinks` does not name, or a pole that is not square integrable"
    )


def values_of(f: Callable[[np.ndarray], Any], u: np.ndarray) -> np.ndarray:
    """The values of f at `u`, an array that f may change."""
    at = u.copy()
    values = shaped(f(u), at.shape, "f")
    finite = np.isfinite(values)
    if not finite.all():
        first = at[~finite].flat[np.argmin(abs(at[~finite]))]
        raise ValueError(
            f"f is not finite at {first:.4g}, where its Gaussian integrals still need it: it is not defined there, "
            "or grows too fast"
        )
    return values


def shaped(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values as a float64 array of the given shape; one number stands for all."""
    values = np.asarray(values, dtype=float)
    if values.shape not in (shape, ()):
        raise ValueError(f"{name} must act entry-wise: shape {shape} in, {values.shape} out")
    return np.broadcast_to(values, shape)


def refuse_not_entrywise(f: Callable[[Any], Any], probe: np.ndarray, name: str) -> None:
    """Raise unless the values of f on a part of the probe are those on the whole."""
    with np.errstate(all="ignore"):
        whole = shaped(f(probe.copy()), probe.shape, name)
        for part in ((slice(None, None, 2),), (slice(1, None),) * probe.ndim):
            found = shaped(f(probe[part].copy()), probe[part].shape, name)
            room = 1e-5 * np.abs(whole, where=np.isfinite(whole), out=np.zeros(whole.shape)).max()
            if not np.allclose(found, whole[part], rtol=1e-5, atol=room, equal_nan=True):
                raise ValueError(
                    f"{name} must act entry-wise, and the same at each call: its values on a part of an array are not "
                    "those on the whole"
                )


def coefficients(f: Callable[[np.ndarray], Any], order: int, kinks: tuple[float, ...], tolerance: float) -> np.ndarray:
    def integrals(u: np.ndarray, w: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, ...]:
        weighted = of(values_of(f, u.copy()) * w)
        basis = recurrence(u, half_gaussian(u))
        return (np.array([weighted @ of(next(basis)) for _ in range(order + 1)]),)

    return converged(integrals, kinks, tolerance)[0]


def second_moment(f: Callable[[np.ndarray], Any], center: float, kinks: tuple[float, ...]) -> float:
    """E[(f(u) - center)^2], u standard Gaussian: the weight is applied before the square, which could overflow."""

    def integrals(u: np.ndarray, w: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, ...]:
        values = values_of(f, u.copy()) - center
        return (np.array([(values * w) @ (values * half_gaussian(u))]),)

    with np.errstate(over="ignore"):
        rough = float(integrals(*rule(kinks, 1, _CUTS[0]), np.asarray)[0][0])
    return float(converged(integrals, kinks, rounding(center, rough))[0][0])


def rounding(center: float, variance: float) -> float:
    """The tolerance for a function minus a large center: its values have the rounding errors of the center."""
    return TOLERANCE + (1e-15 * abs(center) / variance**0.5 if variance > 0 else 0.0)


def clenshaw(mu: Sequence[float], u: Any) -> Any:
    total: Any = 0.0  # Clenshaw's rule: few passes over a large u, and numbers stay numbers as long as they can
    above: Any = 0.0
    for l in reversed(range(len(mu))):
        once = mu[l] + (l + 1) ** -0.5 * total * u if l + 1 < len(mu) else mu[l]
        if l + 2 < len(mu):
            once = once - ((l + 1) / (l + 2)) ** 0.5 * above
        total, above = once, total
    return total + 0 * u if isinstance(total, float) else total
