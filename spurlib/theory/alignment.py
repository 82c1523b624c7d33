"""Formulas for the feature alignment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import numbers, one_given, plain
from ..activations import Activation, activation
from .spectrum import Spectrum

if TYPE_CHECKING:
    from ..kernels import InnerProductKernel

__all__ = ["gamma_kernel", "gamma_ntk", "gamma_rf", "gamma_rf_bound"]

_MOST_TERMS = 4000  # of a Hermite series; beyond alpha = 0.993 most activations need more, and go by quadrature


def share(alpha: Any) -> np.ndarray:
    return numbers(alpha, "alpha", above=0.0, below=1.0)


def energies(act: Activation, alpha: np.ndarray, first: int) -> tuple[float, float, np.ndarray, float]:
    """Return squared coefficients and energies of an activation, from which its alignment is computed.

    They are the squared coefficient of degree first - 1, the energy from degree `first` on, the same with the factor
    alpha^l in degree l, and the squared coefficient of degree `first`. Values that are zero up to the errors of the
    quadrature are set to zero. The errors are relative to the energy in degrees at least one, with a further rounding
    error if the constant is large.
    """
    terms = min(_MOST_TERMS, max(8, math.ceil(math.log(1e-12) / math.log(float(alpha.max())))))
    mu, variance = act.coefficients(terms), act.variance
    squares = np.where(mu**2 > 1e-20 * variance + 1e-30 * mu[0] ** 2, mu**2, 0.0)
    rest = variance - float(squares[1:first].sum())
    if rest <= 1e-12 * variance + 4e-16 * abs(mu[0]) * variance**0.5 + 1e-26 * mu[0] ** 2:
        return float(squares[first - 1]), 0.0, np.zeros_like(alpha), 0.0
    damped = np.array(np.polynomial.polynomial.polyval(alpha, np.r_[np.zeros(first), squares[first:]]))
    beyond = (rest - float(squares[first:].sum())) * alpha ** (terms + 1)  # at most what the series leaves out
    cut = np.asarray(beyond > 1e-11 * rest)
    if cut.any():
        from .._duals import correlation  # it imports torch, which most calls do not need

        low = np.polynomial.polynomial.polyval(alpha[cut], np.r_[0.0, squares[1:first]])
        damped[cut] = correlation(act, alpha[cut]) - low
    return float(squares[first - 1]), rest, damped, float(squares[first])


def _sharp(linear: float, rest: float, damped: np.ndarray, alpha: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """(alpha m tau + c_a) / (m tau + c), tau = kappa / (1 + kappa), 1 / (1 + kappa) + (c / m) / kappa = N / d."""
    if linear == 0:
        return np.asarray(damped / rest + 0 * ratio)
    s = rest / linear
    b = ratio - 1 - s
    root = np.sqrt(b**2 + 4 * ratio * s)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(b > 0, 2 * s / (b + root), (root - b) / (2 * ratio))
    tau = kappa / (1 + kappa)
    return np.asarray((alpha * linear * tau + damped) / (linear * tau + rest))


def _explained(linear: float, rest: float, damped: Any, directions: Spectrum, ratio: np.ndarray) -> np.ndarray:
    """(tr Sigma_s (Sigma + kappa)^-1 + L_a / kappa) / N, tr Sigma (Sigma + kappa)^-1 + L / kappa = N, L = c d / m."""
    if linear == 0:
        return np.asarray(damped / rest + 0 * ratio)
    scale = directions.d / linear
    kappa = directions.penalty(ratio * directions.d, rest * scale)
    return np.asarray((directions.degrees(kappa).spurious + damped * scale / kappa) / (ratio * directions.d))


def gamma_rf(act: str | Activation, alpha: Any = None, *, ratio: Any, spectrum: Any = None) -> Any:
    r"""Return the feature alignment of random features at a finite ratio N / d: the sharp formula.

    Parameters
    ----------
    act : str or Activation
        The activation.
    alpha : float or array
        Fraction of spurious coordinates, in (0, 1). Omitted if `spectrum` is given.
    ratio : float or array
        N / d, positive; broadcast against `alpha`.
    spectrum : pair of arrays, optional
        Eigenvalues of the covariances of the core and of the spurious part, which are uncorrelated. Their mean must be
        one, that is :math:`E\|z\|^2 = d`. Default: ones.

    Returns
    -------
    float or ndarray
        :math:`(\alpha \mu_1^2 \tau + c_\alpha) / (\mu_1^2 \tau + c)` with :math:`c = \sum_{l \ge 2} \mu_l^2`,
        :math:`c_\alpha = \sum_{l \ge 2} \mu_l^2 \alpha^l`, :math:`\tau = \kappa / (1 + \kappa)` and kappa the positive
        root of :math:`1 / (1 + \kappa) + (c / \mu_1^2) / \kappa = N / d`. With a spectrum, alpha is the fraction of the
        variance in the spurious part, and tau is replaced by
        :math:`\operatorname{tr} \kappa \Sigma (\Sigma + \kappa I)^{-1} / d` in the denominator and alpha tau by the
        part of this trace in the spurious block in the numerator, with kappa the root of
        :math:`\operatorname{tr} \Sigma (\Sigma + \kappa I)^{-1} + (c d / \mu_1^2) / \kappa = N`.

    Raises
    ------
    ValueError
        `alpha`, `ratio` or `spectrum` is out of range, or not exactly one of `alpha` and `spectrum` is given; the
        activation is constant, or is linear with at least as many samples as directions, where the kernel is singular;
        its Gaussian integrals do not exist, as for `hermite_coefficients`.

    Notes
    -----
    The formula is the limit as N, d and the numbers of core and spurious coordinates tend to infinity at fixed ratios.
    It is a theorem for infinite width, and for Lipschitz activations at widths with :math:`N \log^2 N = o(k)` (chapter
    `sharp-law`; with a spectrum, chapter `sharp-law-tangent`). For k > N in proportion to N it is a recipe: Gaussian
    features have the same limit at any such width, which is proved, but it is not proved that random features have the
    same alignment as Gaussian features. The recipe is inaccurate for high degrees and few neurons: for h1+h6 and
    alpha = 1 / 2, at N = d = 200 and k = 10 N a simulation gives 0.242 instead of 0.201.

    Examples
    --------
    >>> gamma_rf("h1+h2", 0.5, ratio=[0.1, 1.0, 10.0]).round(4)
    array([0.3719, 0.3455, 0.2725])
    """
    act, r = activation(act), numbers(ratio, "ratio", above=0.0)
    one_given(alpha=alpha, spectrum=spectrum)
    directions = None if spectrum is None else Spectrum.of(spectrum)
    a = share(alpha) if directions is None else directions.alpha
    linear, rest, damped, _ = energies(act, a, 2)
    if linear == 0 and rest == 0:
        raise ValueError(f"act: {act.name!r} is constant, and has no alignment")
    if rest == 0 and (r >= (1 if directions is None else directions.rank / directions.d)).any():
        raise ValueError(f"act: {act.name!r} is linear, and its kernel is singular for N >= d: ratio must be below 1")
    if directions is None:
        return plain(_sharp(linear, rest, damped, a, r))
    return plain(_explained(linear, rest, damped, directions, r))


def gamma_rf_bound(act: str | Activation, alpha: Any) -> Any:
    r"""Return a lower bound on the feature alignment of random features.

    Parameters
    ----------
    act : str or Activation
        The activation.
    alpha : float or array
        Fraction of spurious coordinates, in (0, 1).

    Returns
    -------
    float or ndarray
        :math:`\sum_{l \ge 2} \mu_l^2 \alpha^l / \sum_{l \ge 1} \mu_l^2`.

    Raises
    ------
    ValueError
        `alpha` is out of range, or the activation is constant or has Gaussian integrals that do not exist.

    Notes
    -----
    Bombari and Mondelli (2024), Theorem 1; chapter `alignment-rf`.

    Examples
    --------
    >>> gamma_rf_bound("h1+h2", 0.5)
    0.125
    """
    act, a = activation(act), share(alpha)
    linear, rest, damped, _ = energies(act, a, 2)
    if linear == 0 and rest == 0:
        raise ValueError(f"act: {act.name!r} is constant, and has no alignment")
    return plain(damped / (linear + rest))


def gamma_ntk(act: str | Activation, alpha: Any = None, *, ratio: Any = None, spectrum: Any = None) -> Any:
    r"""Return the feature alignment of tangent features, in the limit of large N / d or at a finite ratio.

    Parameters
    ----------
    act : str or Activation
        The activation.
    alpha : float or array
        Fraction of spurious coordinates, in (0, 1). Omitted if `spectrum` is given.
    ratio : float or array, optional
        N / d, positive. Default: the limit as N / d tends to infinity.
    spectrum : pair of arrays, optional
        As for `gamma_rf`.

    Returns
    -------
    float or ndarray
        With the Hermite coefficients :math:`\mu'_l` of the derivative, :math:`c' = \sum_{l \ge 1} \mu_l'^2` and
        :math:`c'_\alpha = \sum_{l \ge 1} \mu_l'^2 \alpha^l`: in the limit :math:`\alpha c'_\alpha / c'`; at a finite
        ratio :math:`\alpha (\mu_0'^2 \tau + c'_\alpha) / (\mu_0'^2 \tau + c')`, where tau is that of `gamma_rf` with
        :math:`\mu_1` and c replaced by :math:`\mu'_0` and :math:`c'`.

    Raises
    ------
    ValueError
        `alpha`, `ratio` or `spectrum` is out of range, or not exactly one of `alpha` and `spectrum` is given; the
        derivative is constant, in the limit or at N >= d; the activation has no derivative, or has Gaussian integrals
        that do not exist.

    Notes
    -----
    Limit: Bombari and Mondelli (2024), Theorem 2; chapter `alignment-ntk`. The formula at a finite ratio
    is a theorem for Lipschitz derivatives at widths with :math:`\log^2 N = o(k)`, and for infinite width (chapter
    `sharp-law-tangent`).

    Examples
    --------
    >>> round(gamma_ntk("tanh", 0.5), 4), round(gamma_ntk("tanh", 0.5, ratio=2), 4)
    (0.0916, 0.2584)
    """
    slope = activation(act).derivative
    one_given(alpha=alpha, spectrum=spectrum)
    directions = None if spectrum is None else Spectrum.of(spectrum)
    a = share(alpha) if directions is None else directions.alpha
    r = None if ratio is None else numbers(ratio, "ratio", above=0.0)
    constant, rest, damped, _ = energies(slope, a, 1)
    most = 1 if directions is None else directions.rank / directions.d
    if rest == 0 and (constant == 0 or r is None or (r >= most).any()):
        raise ValueError(f"act: the derivative {slope.name!r} is constant, and the kernel singular for N >= d")
    if r is None:
        return plain(a * damped / rest)
    if directions is not None:
        return plain(_explained(constant, rest, a * damped, directions, r))
    # sample z = [x, y] enters twice: through the product of inner products, hence alpha in front
    return plain(a * _sharp(constant, rest, damped, np.ones_like(a), r))


def gamma_kernel(kernel: Any, alpha: Any, *, ratio: Any, d: int | None = None) -> Any:
    r"""Return the feature alignment of any inner-product kernel on the sphere, at a finite ratio N / d.

    Parameters
    ----------
    kernel : InnerProductKernel, InfiniteWidth, object with ``gram(A, B)``, or callable (A, B) -> matrix
        The kernel, such as one of scikit-learn's.
    alpha : float or array
        Fraction of spurious coordinates, in (0, 1).
    ratio : float or array
        N / d, positive; broadcast against `alpha`.
    d : int, optional
        Number of coordinates, at least 3, for kernels that depend on it, such as functions of the distance. It may be
        omitted for `InnerProductKernel` and `InfiniteWidth`, whose alignment does not depend on it.

    Returns
    -------
    float or ndarray
        :math:`(\alpha a_1 \tau + c_\alpha) / (a_1 \tau + c)` with the `KernelNumbers` of the kernel,
        :math:`\tau = \kappa / (1 + \kappa)` and kappa the positive root of
        :math:`1 / (1 + \kappa) + (c / a_1) / \kappa = N / d`.

    Raises
    ------
    ValueError
        `alpha`, `ratio` or `d` is out of range, or `d` is needed and missing; the kernel is not a function of the inner
        product with a nonnegative power series, as for `InnerProductKernel`; it is constant, or linear at N >= d, where
        it is singular.

    Notes
    -----
    This is a theorem (chapter `any-kernel`) for the mean alignment over the samples, as N and d tend to infinity at a
    fixed ratio, for c > 0 and core and spurious part on spheres of radius :math:`\sqrt{d_x}` and :math:`\sqrt{d_y}`.
    At finite N there are errors of order 1 / N, which are larger if a0 is much larger than a1 d / N.

    Examples
    --------
    >>> import numpy as np
    >>> from spurlib import InfiniteWidth, InnerProductKernel
    >>> laplace = InnerProductKernel(lambda rho: np.exp(-np.sqrt(2 - 2 * rho)), name="laplace")
    >>> gamma_kernel(laplace, 0.5, ratio=[0.25, 1.0, 4.0]).round(3)
    array([0.161, 0.15 , 0.121])
    >>> round(gamma_kernel(InfiniteWidth("relu", "ntk", depth=10, layers="all"), 0.5, ratio=1), 3)
    0.08
    """
    on_sphere = inner_product(kernel, d)
    a, r = share(alpha), numbers(ratio, "ratio", above=0.0)
    found = on_sphere.numbers(a)
    if found.a1 == 0 and found.c == 0:
        raise ValueError(f"kernel {on_sphere.name!r} is constant, and has no alignment")
    if found.c == 0 and (r >= 1).any():
        raise ValueError(f"kernel {on_sphere.name!r} is linear, and singular for N >= d: ratio must be below 1")
    return plain(_sharp(found.a1, found.c, np.asarray(found.c_alpha), a, r))


def inner_product(kernel: Any, d: int | None) -> InnerProductKernel:
    """Return the inner-product kernel that equals a kernel on the sphere of radius sqrt(d)."""
    from ..kernels import InfiniteWidth, InnerProductKernel

    if d is None and not isinstance(kernel, (InfiniteWidth, InnerProductKernel)):
        raise ValueError("d is needed: the values of this kernel on the sphere depend on the number of coordinates")
    return InnerProductKernel.of(kernel, 3 if d is None else d)
