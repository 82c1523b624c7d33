"""Normalized probabilists' Hermite polynomials and the Hermite coefficients of functions on the real line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ._checks import Array, integer, is_tensor, numbers, places, points
from ._quadrature import PROBE, TOLERANCE, clenshaw, coefficients, recurrence, refuse_not_entrywise

__all__ = ["dual_kernel", "gaussian_expectation", "hermite_basis", "hermite_coefficients", "hermite_series"]


def hermite_basis(u: Array, order: int) -> Array:
    r"""Compute the values of the normalized probabilists' Hermite polynomials :math:`h_0, \dots, h_L`.

    Parameters
    ----------
    u : array or tensor, any shape
        Points of evaluation; integers count as float64.
    order : int
        The highest degree L.

    Returns
    -------
    array or tensor, shape (order + 1, *u.shape)
        Row l holds the values of :math:`h_l`; of the kind of `u`.

    Raises
    ------
    ValueError
        `order` is not a nonnegative integer, or `u` does not hold real numbers.

    Notes
    -----
    :math:`\sqrt{l+1}\, h_{l+1}(u) = u h_l(u) - \sqrt{l}\, h_{l-1}(u)`, and
    :math:`E[h_l(u) h_m(u)] = \delta_{lm}` for u standard Gaussian.

    Examples
    --------
    >>> hermite_basis([0.0, 1.0, 2.0], 2).round(4)
    array([[ 1.    ,  1.    ,  1.    ],
           [ 0.    ,  1.    ,  2.    ],
           [-0.7071,  0.    ,  2.1213]])
    """
    order = integer(order, "order", least=0)
    u = _double(u, "u")
    shape = (order + 1, *u.shape)
    out = u.new_empty(shape) if is_tensor(u) else np.empty(shape)
    for l, h in zip(range(order + 1), recurrence(u, 0 * u + 1), strict=False):
        out[l] = h
    return out


def _double(x: Array, name: str) -> Array:
    """Floating-point numbers: a tensor stays a tensor, anything else becomes a float64 array."""
    x = points(x, name)
    return x if is_tensor(x) else x.astype(np.float64, copy=False)


def hermite_coefficients(
    f: Callable[[np.ndarray], Any], order: int, *, kinks: Iterable[float] | None = None
) -> np.ndarray:
    r"""Compute the Hermite coefficients :math:`\mu_l = E[f(u) h_l(u)]`, l = 0, ..., order, for standard Gaussian u.

    Parameters
    ----------
    f : Activation or callable
        A function on the real line, applied entry-wise to an array.
    order : int
        The highest degree L.
    kinks : iterable of float, optional
        Where `f` or its derivatives jump. Default: ``f.kinks`` if there is such an attribute, else none.

    Returns
    -------
    ndarray, shape (order + 1,)
        The coefficients. For piecewise smooth `f` the error is about 1e-12 times the largest :math:`E|f h_l|`.

    Raises
    ------
    ValueError
        The integrals do not converge under refinement, for instance because of an undeclared kink; `f` grows too fast,
        is not finite or does not act entry-wise; `order` is not a nonnegative integer, or `kinks` is not a list of
        finite numbers.

    Notes
    -----
    The integrals are computed by composite Gauss-Legendre quadrature. The panels end at the kinks, shrink toward them,
    and are halved until the integrals no longer change. They cover [-18, 18], or a longer interval for a function of
    fast growth, so that the integrand is negligible at the ends. For ReLU, Gauss-Hermite quadrature with 100 nodes,
    the usual choice, is wrong in the third digit.

    Examples
    --------
    >>> import numpy as np
    >>> hermite_coefficients(lambda u: np.maximum(u, 0), 2, kinks=[0]).round(4)
    array([0.3989, 0.5   , 0.2821])
    """
    order = integer(order, "order", least=0)
    at = _kinks(f, kinks)
    if not hasattr(f, "kinks"):
        refuse_not_entrywise(f, PROBE, "f")
    return coefficients(f, order, at, TOLERANCE)


def gaussian_expectation(f: Callable[[np.ndarray], Any], *, kinks: Iterable[float] | None = None) -> float:
    """Compute the expectation E[f(u)] for standard Gaussian u.

    Parameters
    ----------
    f : Activation or callable
        A function on the real line, applied entry-wise to an array.
    kinks : iterable of float, optional
        Where `f` or its derivatives jump. Default: ``f.kinks`` if there is such an attribute, else none.

    Returns
    -------
    float
        The expectation, with an error of about 1e-12 times E|f(u)|.

    Raises
    ------
    ValueError
        As for `hermite_coefficients`.

    Examples
    --------
    >>> round(gaussian_expectation(lambda u: u**4), 12)
    3.0
    """
    return float(hermite_coefficients(f, 0, kinks=kinks)[0])


def _kinks(f: Any, kinks: Iterable[float] | None) -> tuple[float, ...]:
    return places(getattr(f, "kinks", ()) if kinks is None else kinks, "kinks")


def hermite_series(mu: Any, u: Array) -> Array:
    r"""Compute the sum :math:`\sum_l \mu_l h_l(u)`.

    Parameters
    ----------
    mu : array, shape (L + 1,)
        Coefficients.
    u : array or tensor, any shape
        Points of evaluation; integers count as float64.

    Returns
    -------
    array or tensor, the shape and kind of `u`

    Raises
    ------
    ValueError
        `mu` is not a list of finite numbers, or `u` does not hold real numbers.

    Examples
    --------
    >>> hermite_series([1.0, 0.0, 2**0.5], [1.0, 2.0, 3.0]).round(12)  # u squared
    array([1., 4., 9.])
    """
    return clenshaw(_list(mu), _double(u, "u"))


def _list(mu: Any) -> list[float]:
    found = np.atleast_1d(numbers(mu, "mu"))
    if found.ndim > 1:
        raise ValueError(f"mu must be a list of coefficients, got an array of shape {found.shape}")
    return [float(c) for c in found]


def dual_kernel(mu: Any, rho: Array) -> Array:
    r"""Return the dual kernel :math:`\sum_l \mu_l^2 \rho^l = E[f(u) f(v)]` for standard normal u, v of correlation rho.

    Parameters
    ----------
    mu : array, shape (L + 1,)
        Hermite coefficients of f; coefficients of higher degrees count as zero.
    rho : array or tensor, any shape
        Correlations, in [-1, 1]; integers count as float64.

    Returns
    -------
    array or tensor, the shape and kind of `rho`

    Raises
    ------
    ValueError
        `mu` is not a list of finite numbers, or `rho` does not hold real numbers.

    Notes
    -----
    Proof: chapter `hermite`.

    Examples
    --------
    >>> dual_kernel([0.0, 1.0, 1.0], [0.5, 1.0])
    array([0.75, 2.  ])
    """
    rho = _double(rho, "rho")
    total = 0 * rho
    for c in reversed(_list(mu)):
        total = total * rho + c**2
    return total
