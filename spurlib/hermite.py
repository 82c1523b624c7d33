"""Normalized probabilists' Hermite polynomials and the Hermite coefficients of functions on the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["dual_kernel", "gaussian_expectation", "hermite_basis", "hermite_coefficients", "hermite_series"]

_CUT = 18.0  # beyond it exp(-u^2 / 4) < 1e-35: see `_quadrature`
_NODES = 32  # Gauss-Legendre nodes a panel


def hermite_basis(u: Any, order: int) -> Any:
    r"""Values of the normalized probabilists' Hermite polynomials :math:`h_0, \dots, h_L`.

    Parameters
    ----------
    u : array or tensor, any shape
        Points of evaluation.
    order : int
        The highest degree L.

    Returns
    -------
    array or tensor, shape (order + 1, *u.shape)
        The same kind as `u`.

    Notes
    -----
    :math:`\sqrt{l+1}\, h_{l+1}(u) = u h_l(u) - \sqrt{l}\, h_{l-1}(u)`, and
    :math:`E[h_l(u) h_m(u)] = \delta_{lm}` for u standard Gaussian.
    """
    order = _order(order)
    if hasattr(u, "new_empty"):  # a torch tensor, which this module need not import
        out = u.new_empty((order + 1, *u.shape))
        one = u * 0 + 1
    else:
        u = np.asarray(u, dtype=float)
        out = np.empty((order + 1, *u.shape))
        one = np.ones_like(u)
    for l, h in zip(range(order + 1), _recurrence(u, one), strict=False):
        out[l] = h
    return out


def _recurrence(u: Any, start: Any) -> Iterator[Any]:
    """Yield start * h_0(u), start * h_1(u), ... without end."""
    previous, current, l = 0.0 * start, start, 0
    while True:
        yield current
        previous, current = current, (u * current - l**0.5 * previous) / (l + 1) ** 0.5
        l += 1


def _order(order: Any) -> int:
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise ValueError(f"order must be a nonnegative integer, got {order!r}")
    return int(order)


@lru_cache(maxsize=64)
def _quadrature(kinks: tuple[float, ...], refinement: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes u and weights w exp(-u^2/4) / (2 pi)^(1/4) of a composite Gauss-Legendre rule split at the kinks.

    Half of the Gaussian weight is left out, for the recurrence to start from: the functions
    h_l(u) exp(-u^2/4) are bounded for every degree l, while h_l alone overflows. The product of both halves with
    a function of moderate growth is negligible beyond the cut for every degree.
    """
    grid = np.linspace(-_CUT, _CUT, int(2 * _CUT) * refinement + 1)
    steps = 4.0 ** -np.arange(1, 11 + 2 * refinement)  # finer towards a kink, where f may be like |x|^0.5
    edges = np.concatenate([grid, *(k + np.r_[-steps, 0, steps] for k in kinks if abs(k) < _CUT)])
    edges = np.unique(edges[abs(edges) <= _CUT])
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    u = (edges[:-1, None] + half + half * x).ravel()
    return u, (half * w).ravel() * np.exp(-(u**2) / 4) / (2 * np.pi) ** 0.25


def _converged(integrals: Callable[[np.ndarray, np.ndarray], np.ndarray], kinks: Iterable[float]) -> np.ndarray:
    """Refine the quadrature until the integrals stand still."""
    cuts = tuple(sorted(float(k) for k in kinks))
    old = integrals(*_quadrature(cuts, 1))
    gap = np.inf
    for refinement in (2, 4, 8, 16, 32):
        new = integrals(*_quadrature(cuts, refinement))
        gap = float(np.abs(new - old).max())
        if gap <= 2e-12 * max(1.0, float(np.abs(new).max())):
            return new
        old = new
    raise ValueError(
        f"f: its Gaussian integrals do not settle (last change {gap:.1e}): a kink or jump that `kinks` does not name, "
        "or growth too fast for square integrability"
    )


def _values(f: Callable[[np.ndarray], Any], u: np.ndarray) -> np.ndarray:
    values = np.asarray(f(u), dtype=float)
    if values.shape != u.shape:
        values = np.broadcast_to(values, u.shape)
    if not np.isfinite(values).all():
        raise ValueError(f"f is not finite on the whole of [-{_CUT:g}, {_CUT:g}]")
    return values


def hermite_coefficients(
    f: Callable[[np.ndarray], Any], order: int, *, kinks: Iterable[float] | None = None
) -> np.ndarray:
    r"""Hermite coefficients :math:`\mu_l = E[f(u) h_l(u)]`, u standard Gaussian, for l = 0, ..., order.

    Parameters
    ----------
    f : Activation or callable
        A function of the line, applied entry-wise to an array.
    order : int
        The highest degree L.
    kinks : iterable of float, optional
        Where `f` or its derivatives jump. Default: ``f.kinks`` if there is such an attribute, else none.

    Returns
    -------
    ndarray, shape (order + 1,)
        The coefficients, to about 1e-12 in absolute terms for piecewise smooth `f` of unit size.

    Raises
    ------
    ValueError
        The integrals do not settle under refinement (an undeclared kink), or `f` is not finite.

    Notes
    -----
    Gauss-Legendre panels that shrink towards the kinks and end there, halved until nothing moves. Gauss-Hermite
    quadrature, the usual choice, is wrong in the third digit for ReLU with 100 nodes.
    """
    order = _order(order)

    def integrals(u: np.ndarray, w: np.ndarray) -> np.ndarray:
        weighted = _values(f, u) * w
        half_gaussian = np.exp(-(u**2) / 4) / (2 * np.pi) ** 0.25
        basis = _recurrence(u, half_gaussian)
        return np.array([weighted @ next(basis) for _ in range(order + 1)])

    return _converged(integrals, _kinks(f, kinks))


def gaussian_expectation(f: Callable[[np.ndarray], Any], *, kinks: Iterable[float] | None = None) -> float:
    """Expectation E[f(u)], u standard Gaussian.

    Parameters
    ----------
    f : callable
        A function of the line, applied entry-wise to an array.
    kinks : iterable of float, optional
        Where `f` or its derivatives jump. Default: ``f.kinks`` if there is such an attribute, else none.

    Returns
    -------
    float
        The expectation, to about 1e-12 relative to the size of `f`.

    Raises
    ------
    ValueError
        As for `hermite_coefficients`.
    """
    return float(hermite_coefficients(f, 0, kinks=_kinks(f, kinks))[0])


def _kinks(f: Any, kinks: Iterable[float] | None) -> Iterable[float]:
    return getattr(f, "kinks", ()) if kinks is None else kinks


def hermite_series(mu: Any, u: Any) -> Any:
    r"""Sum :math:`\sum_l \mu_l h_l(u)`.

    Parameters
    ----------
    mu : array, shape (L + 1,)
        Coefficients.
    u : array or tensor, any shape
        Points of evaluation.

    Returns
    -------
    array or tensor, the shape and kind of `u`
    """
    u = u if hasattr(u, "new_empty") else np.asarray(u, dtype=float)
    coefficients = [float(c) for c in np.atleast_1d(np.asarray(mu, dtype=float))]
    total: Any = 0.0  # Clenshaw's rule: few passes over a large u, and numbers stay numbers as long as they can
    above: Any = 0.0
    for l in reversed(range(len(coefficients))):
        once = coefficients[l] + (l + 1) ** -0.5 * total * u if l + 1 < len(coefficients) else coefficients[l]
        if l + 2 < len(coefficients):
            once = once - ((l + 1) / (l + 2)) ** 0.5 * above
        total, above = once, total
    return total + 0 * u if isinstance(total, float) else total


def dual_kernel(mu: Any, rho: Any) -> Any:
    r"""The dual kernel :math:`\sum_l \mu_l^2 \rho^l = E[f(u) f(v)]`, (u, v) Gaussian with correlation rho.

    Parameters
    ----------
    mu : array, shape (L + 1,)
        Hermite coefficients of f.
    rho : array or tensor, any shape
        Correlations, in [-1, 1].

    Returns
    -------
    array or tensor, the shape and kind of `rho`
    """
    rho = rho if hasattr(rho, "new_empty") else np.asarray(rho, dtype=float)
    total = 0 * rho
    for c in np.asarray(mu, dtype=float)[::-1]:
        total = total * rho + float(c) ** 2
    return total
