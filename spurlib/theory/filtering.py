"""Alignment and accuracies of regression with any spectral filter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr

from .._checks import number, numbers, plain
from .accuracy import LINEAR, Prediction, absolute_normal
from .alignment import inner_product

__all__ = ["gamma_filter", "predict_filter"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def gamma_filter(kernel: Any, alpha: float, *, ratio: Any, filter: Any, d: int | None = None) -> Any:
    r"""Return the feature alignment of regression with a spectral filter, :math:`f(z) = k(z, Z)\, q(K)\, g`.

    Parameters
    ----------
    kernel, d
        As for `gamma_kernel`.
    alpha : float
        Fraction of spurious coordinates, in (0, 1).
    ratio : float or array
        N / d, positive.
    filter : Filter or callable
        :math:`q`, a function of an array of eigenvalues, such as ``filters.flow(2.0)``.

    Returns
    -------
    float or ndarray
        :math:`E[(\alpha a_1 x + c_\alpha)\, q(c + a_1 x)]`, where x has the Marchenko-Pastur distribution, the limit of
        the eigenvalues of :math:`Z Z^\top / d`, and a1, c and c_alpha are the `KernelNumbers` of the kernel.

    Raises
    ------
    ValueError
        `alpha`, `ratio` or `d` is out of range, or `d` is needed and missing; the kernel is not a function of the inner
        product with a nonnegative power series, or has no linear part; the filter is not finite on the spectrum.

    Notes
    -----
    This is a theorem (chapter `filters`) for the mean alignment over the samples as N and d tend to infinity at a fixed
    ratio, for core and spurious part on spheres, if c > 0, q is continuous and s q(s) is bounded. The spectrum is that
    of the kernel matrix without its constant direction, whose eigenvalue is about N a0: a step size that is accepted
    here may diverge on the whole matrix.

    Examples
    --------
    >>> from spurlib import InfiniteWidth, filters
    >>> kernel = InfiniteWidth("relu")
    >>> early = gamma_filter(kernel, 0.5, ratio=1.0, filter=filters.flow(0.6))
    >>> late = gamma_filter(kernel, 0.5, ratio=1.0, filter=filters.flow(60.0))
    >>> round(early, 4), round(late, 4)
    (0.0744, 0.3762)
    """
    return predict_filter(kernel, alpha, ratio=ratio, filter=filter, d=d).alignment


def predict_filter(
    kernel: Any, alpha: float, *, ratio: Any, filter: Any, flips: float = 0.0, d: int | None = None
) -> Prediction:
    r"""Predict accuracies, risk and memorization of regression with a spectral filter, without fitted parameters.

    Samples are Gaussian or on spheres, labels are the sign of the projection of the core onto a direction, and queries
    have fresh cores.

    Parameters
    ----------
    kernel, alpha, ratio, filter, d
        As for `gamma_filter`.
    flips : float
        Probability that a training label is flipped, in [0, 1/2).

    Returns
    -------
    Prediction
        With the shape of `ratio`. ``test``, ``risk`` and ``margin`` refer to the correct labels of new samples;
        ``spurious``, ``covariance`` and ``spread`` to the labels in the training set, including flipped ones.

    Raises
    ------
    ValueError
        As for `gamma_filter`, or `flips` is out of range.

    Notes
    -----
    The formulas are limits of traces of free random matrices, proved under the assumptions stated in `gamma_filter`
    (chapter `filters`). For a ridge and no flips they agree with those of `predict_accuracy`, whose derivation is
    different.

    Examples
    --------
    >>> from spurlib import InfiniteWidth, filters
    >>> found = predict_filter(InfiniteWidth("relu"), 0.5, ratio=1.0, filter=filters.flow(3.0))
    >>> round(found.test, 3), round(found.spurious, 3), round(found.alignment, 3)
    (0.736, 0.671, 0.227)
    """
    from ..filters import filter_of

    a, q = number(alpha, "alpha", above=0.0, below=1.0), filter_of(filter)
    r = numbers(ratio, "ratio", above=0.0)
    eta = number(flips, "flips", least=0.0, below=0.5)
    on_sphere = inner_product(kernel, d)
    found = on_sphere.numbers(a)
    if found.a1 == 0:
        raise ValueError(f"kernel {on_sphere.name!r} has no linear part: a1 = 0")
    one = [_predict(found.a1, found.c, float(found.c_alpha), a, float(value), q, eta) for value in r.ravel()]
    names = Prediction.__dataclass_fields__
    return Prediction(**{name: plain(np.array([p[name] for p in one]).reshape(r.shape)) for name in names})


def _predict(a1: float, c: float, ca: float, alpha: float, r: float, q: Any, eta: float) -> dict[str, float]:
    """All quantities at one ratio; the names are those of chapter `filters`."""
    x, weight, empty = _marchenko_pastur(r, [(s - c) / a1 for s in q.breaks])
    values = q(c + a1 * x)
    atom = float(q(np.array([c]))[0]) if empty > 0 else 0.0

    def mean(h: np.ndarray, power: int = 1, zero: float = 0.0) -> float:
        """Mean of h(x) q^power over the eigenvalues x of Z Z' / d; `zero` is h(0)."""
        return float((weight * h * values**power).sum()) + empty * zero * atom**power

    one = np.ones_like(x)
    linear, square = mean(x), mean(x**2)
    gamma = mean(alpha * a1 * x + ca, zero=ca)
    along = mean(alpha * a1 * x * (x - r) + ca * x)
    noise = (
        ca**2 * mean(one, 2, 1.0)
        + 2 * ca * a1 * alpha * mean(x, 2)
        + a1**2 * (alpha**2 * mean(x**2, 2) + (1 - alpha) * alpha * r * mean(x, 2))
    )
    signal = (
        ca**2 * mean(x, 2)
        + 2 * ca * a1 * alpha * (mean(x**2, 2) - r * linear**2)
        + a1**2
        * (
            alpha**2 * (mean(x**3, 2) - 2 * r * square * linear)
            + (1 - alpha) * alpha * r * mean(x**2, 2)
            + alpha * (2 * alpha - 1) * r**2 * linear**2
        )
    )
    beta = LINEAR * (1 - 2 * eta)
    rest = 1 - beta**2
    core = a1**2 * (
        rest * (1 - alpha) * r * mean(x, 2) + beta**2 * ((1 - alpha) * r * mean(x**2, 2) + alpha * r**2 * linear**2)
    )
    variance = rest * noise + beta**2 * signal + core - gamma**2 * rest - beta**2 * along**2
    slope, power = a1 * beta * r * linear, a1**2 * (rest * r * mean(x, 2) + beta**2 * r * mean(x**2, 2))
    t, density = absolute_normal()
    step, sd = beta * (along - gamma) * t, math.sqrt(max(variance, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        read = (1 - eta) * ndtr((gamma + step) / sd) + eta * ndtr((gamma - step) / sd)
    read = np.nan_to_num(read, nan=0.5)  # predictions are zero if the filter is
    covariance = gamma * rest + beta**2 * along
    given = (1 - eta) * (gamma + step) ** 2 + eta * (gamma - step) ** 2  # of the output times the label
    return {
        "test": 1 - math.acos(min(slope / math.sqrt(power), 1.0)) / math.pi if power > 0 else 0.5,
        "spurious": float(read @ density),
        "covariance": covariance,
        "risk": 1 - 2 * LINEAR * slope + power,
        "alignment": gamma,
        "margin": LINEAR * slope,
        "spread": math.sqrt(max(variance + float(given @ density) - covariance**2, 0.0)),
    }


def _marchenko_pastur(r: float, breaks: list[float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Nodes and weights of the positive eigenvalues of Z Z' / d, N = r d, and the fraction of zero ones.

    x = 1 + r + 2 sqrt(r) cos(phi) has the density (2 / pi) sin(phi)^2 / x in phi. Panels shrink toward phi = pi, where
    x is small for r near 1, and their ends include the jumps of the filter.
    """
    edges = np.r_[np.linspace(0, math.pi / 2, 9), math.pi - math.pi / 2 * 2.0 ** -np.arange(1, 40), math.pi]
    inside = [(b - 1 - r) / (2 * math.sqrt(r)) for b in breaks]
    edges = np.unique(np.r_[edges, [math.acos(v) for v in inside if -1 < v < 1]])
    half = np.diff(edges) / 2
    phi = (edges[:-1, None] + half[:, None] * (1 + _NODES)).ravel()
    # 1 + r + 2 sqrt(r) cos(phi), without cancellation at phi near pi
    x = (1 - math.sqrt(r)) ** 2 + 4 * math.sqrt(r) * np.cos(phi / 2) ** 2
    weight = (half[:, None] * _WEIGHTS).ravel() * 2 / math.pi * np.sin(phi) ** 2 / x
    return x, weight, max(0.0, 1 - 1 / r)
