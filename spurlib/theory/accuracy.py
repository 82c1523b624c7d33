"""Accuracies of kernel regression on Gaussian data, predicted from Hermite coefficients."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, ndtr

from .._checks import choice, numbers, one_given, plain
from ..activations import activation
from .alignment import energies, inner_product, share
from .spectrum import Spectrum

__all__ = ["Prediction", "predict_accuracy"]

LINEAR = math.sqrt(2 / math.pi)  # E[|t|], the linear part of the sign of a standard normal t
_MOST_LEARNED = 0.1  # fraction of degree two; test accuracies are then 0.02 below the formula at d = 50 and 100
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_T = 4.5 * (_NODES + 1)  # |t| from 0 to 9
_DENSITY = 4.5 * _WEIGHTS * 2 * np.exp(-(_T**2) / 2) / math.sqrt(2 * math.pi)


def absolute_normal() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes |t| and weights for means over the absolute value of a standard normal."""
    return _T, _DENSITY


@dataclass(frozen=True)
class Prediction:
    """The result of `predict_accuracy`: floats, or arrays of the shape of its arguments broadcast together.

    Attributes
    ----------
    test : float or ndarray
        Accuracy on new samples.
    spurious : float or ndarray
        Spurious accuracy: fraction of training labels that equal the sign of the prediction at the spurious query,
        whose core is fresh.
    covariance : float or ndarray
        Covariance of training labels and predictions at the spurious queries.
    risk : float or ndarray
        Mean squared error on new samples.
    alignment : float or ndarray
        Mean of :math:`[k(z_i^s, Z) (K + \\lambda I)^{-1}]_i`, the coefficient of the leave-one-out residual of a sample
        in the prediction at its spurious query; without a ridge it is the feature alignment.
    margin : float or ndarray
        Mean of prediction times label on new samples.
    spread : float or ndarray
        Standard deviation of prediction times label at the spurious queries.
    """

    test: Any
    spurious: Any
    covariance: Any
    risk: Any
    alignment: Any
    margin: Any
    spread: Any


def predict_accuracy(
    act: Any,
    alpha: Any = None,
    *,
    n: Any,
    d: Any = None,
    k: Any = None,
    ridge: Any = 0.0,
    kind: str = "rf",
    spectrum: Any = None,
    intercept: bool = False,
) -> Prediction:
    r"""Predict accuracies, risk and memorization of kernel ridge regression on Gaussian data without fitted parameters.

    Samples are Gaussian, labels are the sign of the projection of the core onto a direction, and queries have fresh
    cores, as for `synthetic` data or data with a covariance.

    Parameters
    ----------
    act : str, Activation or kernel
        The activation, of which the Hermite coefficients are used; or an inner-product kernel as for `gamma_kernel`: an
        `InnerProductKernel`, an `InfiniteWidth` of any depth, a kernel of scikit-learn, or an object with ``gram``.
    alpha : float or array
        Fraction of spurious coordinates, in (0, 1). Omitted if `spectrum` is given.
    n, d : int or array
        Numbers of training samples and of coordinates; `d` is omitted if `spectrum` is given.
    k : int or array, optional
        Width. Default: infinitely many features. Not for a kernel.
    ridge : float or array
        Number that is added to the diagonal of a kernel matrix: of that of `RandomFeatures` or `TangentFeatures` of
        width `k`; if `k` is None, of that of infinitely many features divided by their number; or of that of the given
        kernel. Zero is the limit of a small ridge: interpolation for more features than samples, least squares for
        fewer.
    kind : {"rf", "ntk"}
        Random or tangent features of the activation. The width of tangent features enters through `ridge` only.
    spectrum : pair of arrays, optional
        Eigenvalues of the covariances of the core and of the spurious part, which are uncorrelated. Their mean must be
        one, that is :math:`E\|z\|^2 = d`. The direction of the labels is then random. Default: ones.
    intercept : bool
        Count the constant part of random features, or of a kernel, as one more direction, of energy :math:`\mu_0^2` or
        :math:`a_0`, which is learned from the same samples and shared by a sample and its query. The effect is of order
        1 / n, and larger for a large ridge; it vanishes for :math:`\mu_0 = 0`. Default: False, as in the theorem for
        infinite width.

    Returns
    -------
    Prediction
        `alpha`, `n`, `d`, `k` and `ridge` are broadcast together.

    Raises
    ------
    ValueError
        `alpha`, `n`, `d`, `k`, `ridge`, `kind` or `spectrum` is out of range; both or neither of `alpha` and
        `spectrum`, or of `d` and `spectrum`, are given; `k` or ``kind="ntk"`` with a kernel, or several `d` with a
        kernel; a constant activation or kernel; at most as many tangent features as samples. Without a ridge
        also: n = k, where the risk is infinite; and n and k so large that the kernel is singular, that is at least the
        number of directions for a linear activation, or the number of monomials of degree up to L for a polynomial of
        degree L.

    Warns
    -----
    UserWarning
        n is not small compared with d (d + 1) / 2, so that more than a tenth of degree two would be learned.

    Notes
    -----
    The formulas are limits as n, d, k and the numbers of core and spurious coordinates tend to infinity at fixed
    ratios. Random features are replaced by Gaussian vectors with the covariance
    :math:`\Sigma_\varphi = \mu_1^2 V \Sigma V^\top + c I` and the cross-covariance
    :math:`\Sigma_\varphi^s = \mu_1^2 V \Sigma_s V^\top + c_\alpha I` of query and sample. Deterministic equivalents of
    ridge regression are then applied, first for the samples and then for the weights. Derivation: chapters
    `predicted-curves` (infinite width) and `predicted-width`.

    For a kernel, :math:`\mu_0^2`, :math:`\mu_1^2`, c and :math:`c_\alpha` are replaced by its numbers a0, a1, c and
    c_alpha (`KernelNumbers`, chapter `any-kernel`).

    For core and spurious part on spheres and :math:`\mu_1 \ne 0`, the formulas are proved at infinite width, and for
    random features of Lipschitz activations at widths with :math:`n^2 = o(k)`. They are a recipe, tested by simulation,
    for k in proportion to n, for a spectrum, and for the intercept. With the effective penalty :math:`\kappa_0` without
    the constant part, this part has :math:`\eta_0 = \mu_0^2 d / (\mu_0^2 d + \mu_1^2 \kappa_0)` degrees of freedom,
    which the other directions lack. With the intercept, the alignment is the exact limit as d tends to infinity at
    fixed n.

    Examples
    --------
    >>> found = predict_accuracy("h1+h2", 0.5, n=[100, 1000], d=1000)
    >>> found.test.round(3), found.spurious.round(3), found.alignment.round(3)
    (array([0.58 , 0.741]), array([0.995, 0.733]), array([0.372, 0.345]))
    """
    choice(kind, "kind", ("rf", "ntk"))
    one_given(alpha=alpha, spectrum=spectrum)
    one_given(d=d, spectrum=spectrum)
    samples = numbers(n, "n", least=1, whole=True)
    if spectrum is None:
        directions = Spectrum.isotropic(*np.broadcast_arrays(share(alpha), numbers(d, "d", least=1, whole=True)))
    else:
        directions = Spectrum.of(spectrum)
    width = np.asarray(np.inf) if k is None else numbers(k, "k", least=1, whole=True)
    lam = numbers(ridge, "ridge", least=0)
    constant: float = 0.0
    if is_kernel(act):
        if k is not None or kind != "rf":
            raise ValueError("k and kind are for activations: a kernel has neither")
        name, constant, linear, rest, damped, quadratic, degree = _of_kernel(act, directions)
        constant *= intercept
    else:
        act = activation(act)
        name, terms = act.name, act.polynomial
        degree = None if terms is None else max((l for l, c in enumerate(terms) if c), default=0)
        if kind == "rf":
            linear, rest, damped, quadratic = energies(act, directions.alpha, 2)
            constant = float(act.coefficients(0)[0]) ** 2 if intercept else 0.0
        else:
            linear, rest, damped, quadratic = energies(act.derivative, directions.alpha, 1)
            damped, width = damped * directions.alpha, width * directions.d
    if linear == 0 and rest == 0:
        raise ValueError(f"act: {name!r} has no energy beyond its constant")
    if k is not None:  # of the kernel divided by the number of features
        lam = lam / width
    _refuse_singular(name, degree, directions, samples, width, lam, rest, kind)
    _warn_of_degree_two(directions, samples, quadratic / (rest + lam) if rest else 0.0)
    narrow = np.asarray(0.0) if kind == "ntk" else 1 / width
    scale = directions.d / max(linear, 1e-30 * rest)
    learns = float(linear > 0)
    return _predict(
        directions,
        samples,
        narrow,
        lam * scale,
        rest * scale,
        damped * scale,
        np.asarray(constant * scale),
        learns=learns,
    )


def is_kernel(act: Any) -> bool:
    """Return whether `act` is a kernel: it has ``gram``, or ``diag`` as kernels of scikit-learn do."""
    return not isinstance(act, (str, type)) and (hasattr(act, "gram") or hasattr(act, "diag"))


def _of_kernel(kernel: Any, directions: Spectrum) -> tuple[str, float, float, float, np.ndarray, float, int | None]:
    """Name, a_0, a_1, c, c_alpha, a_2, and the degree of a polynomial kernel."""
    sizes = np.unique(directions.d)
    if len(sizes) > 1:
        raise ValueError("d must be one number for a kernel, which depends on it")
    on_sphere = inner_product(kernel, round(float(sizes[0])))
    found = on_sphere.numbers(directions.alpha)
    damped = np.asarray(found.c_alpha)
    return on_sphere.name, found.a0, found.a1, found.c, damped, found.a2, on_sphere.degree


def _refuse_singular(
    name: str,
    degree: int | None,
    directions: Spectrum,
    n: np.ndarray,
    width: np.ndarray,
    ridge: np.ndarray,
    rest: float,
    kind: str,
) -> None:
    """Raise where the kernel is singular or the risk infinite, or tangent features are too few for the formula."""
    if kind == "ntk" and (n >= width).any():
        raise ValueError(
            "k: the formula for tangent features needs many more features k d than samples n; here n >= k d"
        )
    bare = ridge == 0
    if (bare & (n == width)).any():
        raise ValueError("k: without a ridge n must differ from k, where the risk is infinite")
    fewer = np.minimum(n, width)
    if rest == 0 and (bare & (fewer >= directions.rank)).any():
        raise ValueError(f"act: {name!r} is linear: without a ridge n or k must be below the number of directions")
    if degree is not None:
        monomials = np.exp(gammaln(directions.rank + degree + 1) - gammaln(directions.rank + 1) - gammaln(degree + 1))
        if (bare & (fewer >= np.round(monomials))).any():
            raise ValueError(
                f"act: {name!r} is a polynomial: without a ridge n or k must be below its number of monomials"
            )


def _warn_of_degree_two(directions: Spectrum, n: np.ndarray, share: np.ndarray | float) -> None:
    """Warn if n is so large that degree two, which the formula counts as noise, is learned; `share` is its fraction."""
    n, share, pairs = np.broadcast_arrays(n, share, directions.rank * (directions.rank + 1) / 2)
    worst = np.argmax(n * share / pairs)
    learned = float((n * share / pairs).flat[worst])
    if learned > _MOST_LEARNED:
        warnings.warn(
            f"n = {n.flat[worst]:.0f} is not small against d (d + 1) / 2 = {pairs.flat[worst]:.0f}: about "
            f"{min(learned, 1):.0%} of degree two is learned, which the formula counts as noise; the test accuracy is "
            "lower than predicted",
            stacklevel=3,
        )


def _predict(
    directions: Spectrum,
    n: np.ndarray,
    narrow: np.ndarray,
    ridge: np.ndarray,
    noise: np.ndarray,
    damped: np.ndarray,
    constant: np.ndarray,
    *,
    learns: float,
) -> Prediction:
    """In units of the linear part, mu_1^2 / d = 1: `narrow` is 1 / k, `noise` c d / mu_1^2, `damped` c_a d / mu_1^2.

    `constant` is the energy mu_0^2 d / mu_1^2 of one direction that sample and query share. Its degrees of freedom are
    subtracted from n and from k. `learns` is 0 if mu_1 = 0, where these units stand for a limit.
    """
    one = constant / (constant + directions.penalty(n, noise, narrow, ridge)) if constant.any() else np.asarray(0.0)
    narrow, ridge = narrow / (1 - one * narrow), ridge / (1 - one * narrow)
    kappa = directions.penalty(n - one, noise, narrow, ridge)
    at = directions.degrees(kappa)
    z = at.first + noise / kappa  # tr C (C + x)^-1, x the penalty in the space of features
    beyond = narrow / (1 - at.second * narrow)  # 1 / (k - tr Sigma^2 (Sigma + kappa)^-2)
    wide = z - at.second
    left = (1 - z * narrow) / (1 - at.second * narrow)
    second = one**2 + at.second + wide**2 * beyond  # tr C^2 (C + x)^-2
    shared = one + at.spurious + damped / kappa  # tr C_s (C + x)^-1
    moved = one - one**2 + at.spurious - at.spurious_second + damped / kappa  # left * moved is x tr C_s (C + x)^-2
    apart = at.second - at.spurious_second + wide * beyond * (wide - moved)  # second minus tr C_s C (C + x)^-2
    fit, bent = learns * at.fit, learns * (at.fit - at.fit_second)
    risk = (1 - LINEAR**2 * (fit + left * bent)) / (1 - second / n)
    slope = LINEAR * fit  # E[f t], t the coordinate whose sign is the label
    signal = LINEAR**2 * (learns * at.fit_second + wide * beyond * bent)  # of E[f^2]
    gamma = shared / n
    noise_s = np.sqrt(
        np.maximum(
            signal * (1 + gamma**2)
            - gamma**2 * slope**2
            - 2 * gamma * LINEAR**2 * bent * moved * beyond
            + risk / n * (second * (1 - gamma) ** 2 + 2 * gamma * apart),
            0.0,
        )
    )  # of f(z^s), given t: the root of q + gamma^2 (q - slope^2) - 2 gamma q_s without its cancellations,
    # q = E[f^2] and q_s = E[f(z^s) f(z)] without sample z, risk / n (second - apart) + b^2 bent * moved * beyond
    answer = gamma[..., None] * (1 - slope[..., None] * _T)
    with np.errstate(divide="ignore"):
        spurious = ndtr(answer / noise_s[..., None]) @ _DENSITY
    spread = np.sqrt(noise_s**2 + gamma**2 * slope**2 * (1 - LINEAR**2))
    out = (
        1 - np.arccos(np.clip(slope / np.sqrt(signal + risk * second / n), -1, 1)) / np.pi,
        spurious,
        gamma * (1 - LINEAR * slope),
        risk,
        gamma,
        LINEAR * slope,
        spread,
    )
    return Prediction(*(plain(np.asarray(value)) for value in out))
