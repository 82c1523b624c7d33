"""Gaussian expectations E[f(s u) f(t v)] for many scales and correlations: closed forms, series, quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import islice

import numpy as np
import torch
from numpy.polynomial import chebyshev

from ._quadrature import converged, half_gaussian, recurrence, values_of
from .activations import Activation, activation, activation_names
from .hermite import gaussian_expectation

__all__ = ["CLOSED", "Expectation", "closed_form", "correlation", "expectation", "second_moments"]

_ORDERS = (16, 32, 64, 128, 256, 512)  # at which a Hermite series is cut
_REST = 1e-11  # what a cut may leave, relative to the second moments
_CUTS = (8.5, 12.75, 17.0, 25.5, 34.0)  # of the plane: beyond the first the Gaussian weight is below 1e-16
_STEPS = np.r_[0, np.outer([-1, 1], 16.0 ** -np.arange(1, 5)).ravel()]  # about a kink, where f may be like |x|^0.5
_POINTS = 2**16  # of a quadrature, at a time: they stay in the cache

Expectation = Callable[[slice, slice, torch.Tensor], torch.Tensor]
"""E[f(s u) f(t v)] on a tile, as a function of its rows, its columns and its correlations."""


def _homogeneous(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """Closed form for f(x) = p x + q |x|."""
    plus, minus = f(np.array([1.0, -1.0]))
    p, q = (plus - minus) / 2, (plus + minus) / 2
    folded = (1 - rho).mul_(1 + rho).sqrt_().addcmul_(rho, rho.asin()).mul_(2 / np.pi * q**2)
    return folded.add_(rho, alpha=p**2).mul_(s).mul_(t)


def _two_valued(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """Closed form for f(x) = p + q sign(x); f(0) may differ from p."""
    at_zero, plus, minus = f(np.array([0.0, 1.0, -1.0]))
    p, q = (plus + minus) / 2, (plus - minus) / 2
    ps, pt = (torch.full_like(x, p).masked_fill_(x == 0, at_zero) for x in (s, t))
    return rho.asin().mul_(2 / np.pi * q**2).mul_(s > 0).mul_(t > 0).addcmul_(ps, pt)


def _erf(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    product = (s / (0.5 + s**2).sqrt()) * (t / (0.5 + t**2).sqrt())
    return product.mul_(rho).clamp_(-1, 1).asin_().mul_(2 / np.pi)


def _erf_slope(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    a, b = 2 * s**2, 2 * t**2  # (1 + a) (1 + b) - a b rho^2, without its cancellation
    return (1 - rho * rho).mul_(a).mul_(b).add_(1 + a).add_(b).rsqrt_().mul_(4 / np.pi)


def _cos(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """Mean of E[cos(s u - t v)] and, with the sign, E[cos(s u + t v)]: nothing overflows."""
    apart, product = -((s - t) ** 2) / 2, s * t
    difference, total = (product * (rho - 1)).add_(apart).exp_(), (product * (-1 - rho)).add_(apart).exp_()
    return difference.add_(total, alpha=sign).div_(2)


_sin = partial(_cos, sign=-1)

CLOSED: dict[tuple[str, str], Callable[..., torch.Tensor]] = {
    ("relu", "rf"): _homogeneous,
    ("leaky_relu", "rf"): _homogeneous,
    ("abs", "rf"): _homogeneous,
    ("step", "rf"): _two_valued,
    ("relu", "ntk"): _two_valued,
    ("leaky_relu", "ntk"): _two_valued,
    ("abs", "ntk"): _two_valued,
    ("erf", "rf"): _erf,
    ("erf", "ntk"): _erf_slope,
    ("sin", "rf"): _sin,
    ("sin", "ntk"): _cos,
    ("cos", "rf"): _cos,
    ("cos", "ntk"): _sin,
}


def closed_form(act: Activation, *, slope: bool = False) -> Callable[..., torch.Tensor] | None:
    """The closed form of one of the library's own activations, or of its derivative; None where there is none."""
    own = act.name in activation_names() and activation(act.name) is act
    return CLOSED.get((act.name, "ntk" if slope else "rf")) if own else None


def expectation(act: Activation, s: torch.Tensor, t: torch.Tensor, *, slope: bool = False) -> Expectation:
    """E[f(s u) f(t v)] of the activation, or of its derivative, for rows of scales s and columns of scales t."""
    f, closed = act.derivative if slope else act, closed_form(act, slope=slope)
    if closed:
        return _exact(closed, f, s, t)
    return _series(f, s, t) if f.polynomial is None else _polynomial(f.polynomial, s, t)


def second_moments(act: Activation, s: torch.Tensor) -> torch.Tensor:
    """E[f(s u)^2] for each scale."""
    closed = closed_form(act)
    if closed:
        return closed(act, s, s, torch.ones_like(s))
    if act.polynomial is not None:
        return _scaled(act.polynomial, s).square().sum(dim=0)
    return torch.from_numpy(_coefficients(act, s.cpu().numpy(), 0)[1]).to(s.device)


def _exact(closed: Callable[..., torch.Tensor], f: Activation, s: torch.Tensor, t: torch.Tensor) -> Expectation:
    return lambda i, j, rho: closed(f, s[i, None], t[j], rho)


def _polynomial(c: Sequence[float], s: torch.Tensor, t: torch.Tensor) -> Expectation:
    """Expectation for sums of Hermite polynomials, whose series ends at their degree."""
    mu, nu = _scaled(c, s), _scaled(c, t)
    return lambda i, j, rho: _horner(mu[:, i, None], nu[:, None, j], rho)


def _scaled(c: Sequence[float], s: torch.Tensor) -> torch.Tensor:
    r"""Hermite coefficients of f(s u), shape (L + 1, n), from the coefficients c of f.

    That of degree m in :math:`h_{m+2j}(s u)` is
    :math:`s^m (s^2 - 1)^j \sqrt{(m + 2j)! / m!} / (2^j j!)`.
    """
    rows = []
    for m in range(len(c)):
        ways, row = 1.0, torch.zeros_like(s)
        for j, degree in enumerate(range(m, len(c), 2)):
            ways *= math.sqrt(degree * (degree - 1)) / (2 * j) if j else 1.0
            if c[degree]:
                row += c[degree] * ways * (s**2 - 1) ** j
        rows.append(row * s**m)
    return torch.stack(rows)


def _series(f: Activation, s: torch.Tensor, t: torch.Tensor) -> Expectation:
    """Expectation for any f by its Hermite series, truncated at an order that depends on the correlations of a tile."""
    scales = torch.cat([s, t]).cpu().numpy()

    @cache
    def cut(order: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """Coefficients at the scales s and t, second moments at s, and the |rho| up to which the order suffices."""
        mu, energy = _coefficients(f, scales, order)
        rest = float(((energy - (mu**2).sum(axis=0)) / np.where(energy > 0, energy, 1.0)).max())
        radius = (_REST / rest) ** (1 / (order + 1)) if rest > _REST else np.inf
        table = torch.from_numpy(mu).to(s.device)
        return table[:, : len(s)], table[:, len(s) :], torch.from_numpy(energy).to(s.device), radius

    def expectation(rows: slice, columns: slice, rho: torch.Tensor) -> torch.Tensor:
        parallel = rho.abs() == 1
        size = rho.abs().masked_fill_(parallel, 0)
        orders = iter(_ORDERS)
        for order in orders:  # until few pairs are left
            mu, nu, energy, radius = cut(order)
            far = size > radius
            if far.sum() <= 0.05 * far.numel():
                break
        out = _horner(mu[:, rows, None], nu[:, None, columns], rho)
        i, j = far.nonzero(as_tuple=True)
        for order in orders:  # the higher orders, for the remaining pairs
            if len(i):
                mu, nu, _, radius = cut(order)
                near = size[i, j] <= radius
                p, q = i[near], j[near]
                out[p, q] = _horner(mu[:, rows][:, p], nu[:, columns][:, q], rho[p, q])
                i, j = i[~near], j[~near]
        out[i, j] = _by_quadrature(f, s[rows][i], t[columns][j], rho[i, j])
        i, j = parallel.nonzero(as_tuple=True)
        equal = (rho[i, j] == 1) & ((s[rows][i] - t[columns][j]).abs() <= 1e-12 * s[rows][i])
        out[i[equal], j[equal]] = energy[rows][i[equal]]
        i, j = i[~equal], j[~equal]
        out[i, j] = _by_quadrature(f, s[rows][i], t[columns][j], rho[i, j])
        return out

    return expectation


def _horner(mu: torch.Tensor, nu: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(rho)
    for m, n in zip(mu.flip(0), nu.flip(0), strict=True):
        total.mul_(rho).addcmul_(m, n)
    return total


def _coefficients(f: Activation, scales: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Hermite coefficients of f(s u), shape (order + 1, n), and second moments E[f(s u)^2], for each scale s."""
    table = np.zeros((order + 2, len(scales)))
    table[[0, -1]] = f(np.zeros((1, 1))) ** np.array([[1], [2]])  # where the scale is 0
    positive = np.flatnonzero(scales > 0)
    x = np.log(scales[positive]).round(12)
    band = np.floor((x - x.min(initial=0.0)) / 0.35)  # in a band, second moments are of similar size
    for o in np.unique(band):
        table[:, positive[band == o]] = _interpolated(lambda y: _columns(f, np.exp(y), order), x[band == o])
    return table[:-1], table[-1]


def _interpolated(columns: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Columns at the points x: by Chebyshev interpolation where the points are many (columns are analytic in them)."""
    points, index = np.unique(x, return_inverse=True)
    middle, half = (points[-1] + points[0]) / 2, (points[-1] - points[0]) / 2
    for degree in (16, 32, 64, 128):
        if len(points) <= degree + 1:
            break
        nodes = chebyshev.chebpts2(degree + 1)
        values = columns(middle + half * nodes)
        if values[-1].max() > 100 * values[-1].min():  # the error of the largest would hide the smallest
            out, low = np.empty((len(values), len(x))), x < middle
            for side in (low, ~low):
                out[:, side] = _interpolated(columns, x[side])
            return out
        fit = chebyshev.chebfit(nodes, values.T, degree)
        if np.abs(fit[-2:]).max() <= 1e-13 * np.abs(values).max():
            return np.asarray(chebyshev.chebval((x - middle) / half, fit))
    return columns(points)[:, index]


def _columns(f: Activation, scales: np.ndarray, order: int) -> np.ndarray:
    """The result of `_coefficients`, second moments last, without interpolation."""
    if len(scales) > 1 and any(f.kinks):  # the places of the kinks depend on the scale
        return np.hstack([_columns(f, scales[[k]], order) for k in range(len(scales))])

    def integrals(
        u: np.ndarray, w: np.ndarray, of: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        weight = half_gaussian(u)
        values = values_of(f, np.multiply.outer(u, scales))
        weighted, basis = of(w[:, None] * values), islice(recurrence(u, weight), order + 1)
        squares = ((w[:, None] * values) * (weight[:, None] * values)).sum(axis=0)
        return np.stack([of(h) @ weighted for h in basis]), squares[None]

    try:
        kinks = (c / scales[0] + step for c in f.kinks if abs(c) < 60 * scales[0] for step in _STEPS)
        return np.vstack(converged(integrals, kinks))
    except ValueError as error:
        scale = f"{scales.max():.3g}" if len(scales) == 1 else f"{scales.min():.3g} to {scales.max():.3g}"
        raise ValueError(f"act: {f.name!r} at scale |a| / sqrt(d) = {scale}: {error}") from error


def correlation(f: Activation, rho: np.ndarray) -> np.ndarray:
    """The dual kernel of f minus its mean, E[f(u) f(v)] - E[f(u)]^2 at correlations rho, by quadrature."""
    mean = gaussian_expectation(f)
    one = torch.ones(rho.size, dtype=torch.float64)
    return _by_quadrature(f.shifted(-mean), one, one, torch.from_numpy(rho.ravel())).numpy().reshape(rho.shape)


def _by_quadrature(f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """E[f(s u) f(t v)] for single pairs, shape (pairs,); panels are halved and the cut is moved until each converges.

    Both errors are relative to E|f(s u) f(t v)|.
    """
    out = torch.empty_like(rho)
    todo = torch.arange(len(rho), device=rho.device)
    for cut in _CUTS:
        beyond = []  # pairs with a part beyond the cut
        old = torch.full_like(rho[todo], torch.inf)
        for panels in (6, 12, 24, 48, 96, 192):
            if len(todo):
                new, size, end = _in_the_plane(f, s[todo], t[todo], rho[todo], int(panels * cut / _CUTS[0]), cut)
                far = end > 1e-11 * size
                settled = ~far & ((new - old).abs() <= 1e-10 * size)
                out[todo[settled]] = new[settled]
                beyond.append(todo[far])
                todo, old = todo[~far & ~settled], new[~far & ~settled]
        if len(todo):
            break
        todo = torch.cat(beyond) if beyond else todo
    if len(todo):
        longest = float(torch.maximum(s[todo], t[todo]).max())
        raise ValueError(
            f"act: {f.name!r} at scales |a| / sqrt(d) up to {longest:.3g}: the kernel of nearly parallel rows does not "
            "settle: a kink that is not declared, or rows much longer than sqrt(d)"
        )
    return out


def _in_the_plane(
    f: Activation, s: torch.Tensor, t: torch.Tensor, rho: torch.Tensor, panels: int, cut: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quadrature over independent x, y with u = c x + e y and v = c x - e y (the sign of v is changed if rho < 0).

    For fixed y the integrand is not smooth where s u or t v is a kink. The integral over x, as a function of y, is not
    smooth where two of these places coincide, and smooth elsewhere, however small e is. Returns the integral, the
    integral of the absolute value, and the part of the latter at the ends of the range.
    """
    t = torch.where(rho < 0, -t, t)
    c, e = ((1 + rho.abs()) / 2).sqrt(), ((1 - rho.abs()) / 2).sqrt()
    kinks = torch.tensor(f.kinks, dtype=s.dtype, device=s.device)
    ks, kt = kinks / s[:, None], kinks / t[:, None]
    if bool((e == 0).all()):
        panels *= 8  # one dimension is cheap
        y, wy = torch.zeros_like(e)[:, None], torch.ones_like(e)[:, None]
    else:
        meet = (ks[:, :, None] - kt[:, None, :]).flatten(1) / (2 * e[:, None])
        y, wy = _rule(meet, 8 + int(panels * float(e.max())), cut)
    out = []
    step = max(1, _POINTS // (y.shape[1] * 16 * (panels + 2 * len(kinks))))
    for p in (slice(k, k + step) for k in range(0, len(s), step)):
        tilt, cx = (e[p, None] * y[p])[:, :, None], c[p, None, None]
        x, wx = _rule(torch.cat([(ks[p, None] - tilt) / cx, (kt[p, None] + tilt) / cx], dim=2), panels, cut)
        inner = wx * f(s[p, None, None] * (cx * x + tilt)) * f(t[p, None, None] * (cx * x - tilt))
        value, size = inner.sum(dim=2), inner.abs_().sum(dim=2)
        end = torch.where(y[p].abs() > cut - 1, size, (inner * (x.abs() > cut - 1)).sum(dim=2))
        out.append(torch.stack([(wy[p] * part).sum(dim=1) for part in (value, size, end)]))
    value, size, end = torch.cat(out, dim=1)
    return value, size, end


def _rule(breaks: torch.Tensor, panels: int, cut: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights for the Gaussian measure, split at the breaks (last axis) as well as into equal panels."""
    z, w = (torch.from_numpy(q).to(breaks.device) for q in np.polynomial.legendre.leggauss(16))
    if breaks.shape[-1]:  # denser at the ends, where |x|^0.5 at a kink becomes smooth
        z, w = z * (3 - z**2) / 2, w * 1.5 * (1 - z**2)
    grid = torch.linspace(-cut, cut, panels + 1, dtype=breaks.dtype, device=breaks.device)
    edges = torch.cat([grid.expand(*breaks.shape[:-1], -1), breaks.clamp(-cut, cut)], dim=-1).sort(dim=-1).values
    half = edges.diff(dim=-1)[..., None] / 2
    x = (edges[..., :-1, None] + half * (1 + z)).flatten(-2)
    return x, (half * w).flatten(-2) * torch.exp(-(x**2) / 2) / (2 * np.pi) ** 0.5
