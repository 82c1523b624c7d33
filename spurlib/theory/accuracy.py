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
_MOST_LEARNED = 0.1  # of degree two; test accuracies are then 0.02 below the formula at d = 50 and 100
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_T = 4.5 * (_NODES + 1)  # |t| from 0 to 9
_DENSITY = 4.5 * _WEIGHTS * 2 * np.exp(-(_T**2) / 2) / math.sqrt(2 * math.pi)


def absolute_normal() -> tuple[np.ndarray, np.ndarray]:
    """Nodes |t| and weights for means over the absolute value of a standard normal."""
    return _T, _DENSITY


@dataclass(frozen=True)
class Prediction:
    """What `predict_accuracy` predicts: floats, or arrays of the shape of its arguments broadcast together.

    Attributes
    ----------
    test : float or ndarray
        Accuracy on new samples.
    spurious : float or ndarray
        Accuracy of the training labels read from the spurious queries, cores drawn anew.
    covariance : float or ndarray
        Covariance of training labels and outputs at the spurious queries.
    risk : float or ndarray
        Mean squared error on new samples.
    alignment : float or ndarray
        Mean of :math:`[k(z_i^s, Z) (K + \\lambda I)^{-1}]_i`, the coefficient of the leave-one-out
        residual of a sample in the output at its spurious query; without a ridge it is the feature alignment.
    margin : float or ndarray
        Mean of output times label on new samples.
    spread : float or ndarray
        Standard deviation of output times label at the spurious queries.
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
    r"""Accuracies, risk and memorization of kernel ridge regression on Gaussian data, no parameter fitted.

    Samples are Gaussian, labels the sign of a projection of the core, queries have fresh cores: `synthetic` data, or
    data with a covariance.

    Parameters
    ----------
    act : str, Activation or kernel
        The activation, whose Hermite coefficients enter; or an inner-product kernel as for `gamma_kernel`: an
        `InnerProductKernel`, an `InfiniteWidth` of any depth, or what has ``gram`` or is a kernel of scikit-learn.
    alpha : float or array
        Fraction of the spurious coordinates, in (0, 1). Left out when `spectrum` is given.
    n, d : int or array
        Numbers of training samples and of coordinates; `d` is left out when `spectrum` is given.
    k : int or array, optional
        Width. Default: infinitely many features. Not for a kernel.
    ridge : float or array
        Added to the diagonal of the kernel matrix of `RandomFeatures` or `TangentFeatures` of width `k`; of the kernel
        divided by the number of features when `k` is None; of the given kernel. Zero is the limit of a small one:
        interpolation for more features than samples, least squares for fewer.
    kind : {"rf", "ntk"}
        Random or tangent features of the activation. The width of tangent features enters through `ridge` alone.
    spectrum : pair of arrays, optional
        Eigenvalues of the covariance of the core and of the spurious part, which are uncorrelated; of mean one, as
        samples are scaled to :math:`E\|z\|^2 = d`. Then the direction of the labels is a random one. Default: ones.
    intercept : bool
        Count the constant part of random features, or of a kernel, as one more direction, of energy :math:`\mu_0^2` or
        :math:`a_0`, which is learned
        from the same samples and shared by a sample and its query. An effect of order 1 / n, and larger under a large
        ridge; none for activations with :math:`\mu_0 = 0`. Default: no, as in the theorem for infinite
        width.

    Returns
    -------
    Prediction
        `alpha`, `n`, `d`, `k` and `ridge` are broadcast together.

    Raises
    ------
    ValueError
        alpha, n, d, k, ridge, kind or spectrum out of range; both of alpha and spectrum, or neither, and d likewise; no
        more tangent features than samples. Without a ridge: as many features as samples (the risk is infinite there),
        for a linear activation not fewer samples than directions, for a sum of Hermite polynomials of degree L not
        fewer than there are monomials of degree up to L, where the kernel is singular.

    Warns
    -----
    UserWarning
        n is not small against d (d + 1) / 2, by which more than a tenth of degree two would be learned.

    Notes
    -----
    Asymptotic: n, d, k and the numbers of core and spurious coordinates to infinity at fixed ratios. Random features
    are replaced by Gaussian vectors of covariance :math:`C = \mu_1^2 V \Sigma V^\top + c I` and cross-covariance
    :math:`C_s = \mu_1^2 V \Sigma_s V^\top + c_\alpha I` between a sample and its query; then deterministic equivalents
    of ridge regression, first for the samples, then for the weights. Derivation: chapters `predicted-curves`
    (infinite width) and `predicted-width`.

    Of a kernel the numbers a0, a1, c and c_alpha (`KernelNumbers`) take the places of :math:`\mu_0^2`,
    :math:`\mu_1^2`, c and :math:`c_\alpha` (chapter `any-kernel`).

    Proved for infinite width, for core and spurious part on spheres and :math:`\mu_1 \ne 0`, and for Lipschitz
    activations at widths with :math:`n^2 = o(k)`. A recipe, tested by simulation, for k in proportion to n, and
    for the intercept: with :math:`\kappa` the penalty that n samples leave without the constant, and
    :math:`e = \mu_0^2 d / \mu_1^2`, the constant has :math:`e / (e + \kappa)` degrees of freedom, which the other
    directions lack. For n fixed and d to infinity the alignment is then the exact limit.

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
    """Whether it is a kernel, not an activation: it has ``gram``, or ``diag`` as scikit-learn's have."""
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
    """Warn where many samples learn degree two, which the formula counts as noise; `share` is its share of noise."""
    n, share, pairs = np.broadcast_arrays(n, share, directions.rank * (directions.rank + 1) / 2)
    worst = np.argmax(n * share / pairs)
    learned = float((n * share / pairs).flat[worst])
    if learned > _MOST_LEARNED:
        warnings.warn(
            f"n = {n.flat[worst]:.0f} is not small against d (d + 1) / 2 = {pairs.flat[worst]:.0f}: about "
            f"{min(learned, 1):.0%} of degree two are learned, which the formula counts as noise; the test accuracy is "
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
    """In units of the linear part: mu_1^2 / d = 1. `narrow` is 1 / k, `noise` c d / mu_1^2, `damped` c_a d / mu_1^2.

    `constant` is the energy mu_0^2 d / mu_1^2 of one direction that sample and query share. It takes its degrees of
    freedom from n and from k. `learns` is 0 where mu_1 = 0, and these units stand for a limit.
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
