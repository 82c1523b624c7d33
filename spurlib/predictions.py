"""Accuracies of kernel regression on Gaussian data, predicted from Hermite coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from ._spectrum import Spectrum
from .activations import Activation, activation
from .theory import _alphas, _energies, _float, _one_of

__all__ = ["Prediction", "predict_accuracy"]

_LINEAR = math.sqrt(2 / math.pi)  # E[|t|], the linear part of the sign of a standard normal t
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_T = 4.5 * (_NODES + 1)  # |t| from 0 to 9
_DENSITY = 4.5 * _WEIGHTS * 2 * np.exp(-(_T**2) / 2) / math.sqrt(2 * math.pi)


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
        Mean of :math:`[k(z_i^s, Z) (K + \\lambda I)^{-1}]_i`, by which the output at a spurious query answers to the
        leave-one-out residual of its sample; without a ridge it is the feature alignment.
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
    act: str | Activation,
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

    Samples are Gaussian, labels the sign of a direction in the core, queries have fresh cores: `synthetic` data, or
    data with a covariance.

    Parameters
    ----------
    act : str or Activation
        The activation; its Hermite coefficients enter.
    alpha : float or array
        Share of the spurious coordinates, in (0, 1). Left out when `spectrum` is given.
    n, d : int or array
        Numbers of training samples and of coordinates; `d` is left out when `spectrum` is given.
    k : int or array, optional
        Width. Default: infinitely many features.
    ridge : float or array
        Added to the diagonal of the kernel matrix of `RandomFeatures` or `TangentFeatures` of width `k`; of the kernel
        divided by the number of features when `k` is None. Zero is the limit of a small one: interpolation for
        more features than samples, least squares for fewer.
    kind : {"rf", "ntk"}
        Random or tangent features. The width of tangent features enters through `ridge` alone.
    spectrum : pair of arrays, optional
        Eigenvalues of the covariance of the core and of the spurious part, which are uncorrelated; of mean one, as
        samples are scaled to :math:`E\|z\|^2 = d`. Then the direction of the labels is a random one. Default: ones.

    intercept : bool
        Count the constant part of random features as one more direction, which is learned from the same samples and
        shared by a sample and its query. An effect of order 1 / n, for activations with mu_0 = 0 none: it matters for
        few samples.

    Returns
    -------
    Prediction
        `alpha`, `n`, `d`, `k` and `ridge` are broadcast together.

    Raises
    ------
    ValueError
        alpha, n, d, k, ridge, kind or spectrum out of range (n and k above 1 with an intercept); without a ridge, as
        many features as samples (the risk is infinite there) or, for a linear activation, not fewer samples than
        directions.

    Notes
    -----
    Asymptotic: n, d, k to infinity at fixed ratios. Random features are replaced by Gaussian vectors of covariance
    :math:`C = \mu_1^2 V \Sigma V^\top + c I` and cross-covariance :math:`C_s = \mu_1^2 V \Sigma_s V^\top + c_\alpha I`
    between a sample and its query; then deterministic equivalents of ridge regression, first for the samples, then
    for the weights. Derivation: chapter `predicted-curves`. A theorem for k much larger than n; not at finite k / n.
    """
    if kind not in ("rf", "ntk"):
        raise ValueError(f"kind must be 'rf' or 'ntk', got {kind!r}")
    act = activation(act)
    _one_of(alpha, spectrum)
    samples = _counts(n, "n")
    if spectrum is None:
        if d is None:
            raise TypeError("d: the number of coordinates is needed, unless spectrum is given")
        a, dim = np.broadcast_arrays(_alphas(alpha), _counts(d, "d"))
        directions = Spectrum.isotropic(a, dim)
    elif d is not None:
        raise TypeError("d: left out when spectrum is given, which has one eigenvalue for each coordinate")
    else:
        directions = Spectrum.of(spectrum)
    narrow = np.asarray(0.0) if k is None else 1 / _counts(k, "k")
    lam = np.asarray(ridge, dtype=float)
    if lam.size == 0 or not ((lam >= 0) & np.isfinite(lam)).all():
        raise ValueError(f"ridge must be zero or positive, got {ridge!r}")
    if k is not None:  # of the kernel divided by the number of features
        lam = lam * narrow / (directions.d if kind == "ntk" else 1.0)
    one = float(intercept and kind == "rf" and abs(act.coefficients(0)[0]) > 1e-9 * math.sqrt(act.energy))
    if one and ((samples <= 1).any() or (narrow >= 1).any()):
        raise ValueError(f"n and k must be above 1 with an intercept, got n = {n!r}, k = {k!r}")
    linear, rest, damped = (
        _energies(act, directions.alpha, 2) if kind == "rf" else _energies(act.derivative, directions.alpha, 1)
    )
    if kind == "ntk":
        narrow, damped = np.asarray(0.0), damped * directions.alpha
    if linear == 0 and rest == 0:
        raise ValueError(f"act: {act.name!r} has no energy beyond its constant")
    if ((lam == 0) & (samples * narrow == 1)).any():
        raise ValueError("k: without a ridge n must differ from k, where the risk is infinite")
    if rest == 0 and ((lam == 0) & (np.minimum(samples, 1 / np.maximum(narrow, 1e-300)) >= directions.rank)).any():
        raise ValueError(f"act: {act.name!r} is linear: without a ridge n or k must be below the number of directions")
    scale = directions.d / max(linear, 1e-30 * rest)
    return _predict(directions, samples, narrow, lam * scale, rest * scale, damped * scale, one)


def _counts(value: Any, name: str) -> np.ndarray:
    x = np.asarray(value, dtype=float)
    if x.size == 0 or not ((x >= 1) & (x == np.floor(x)) & np.isfinite(x)).all():
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return x


def _predict(
    directions: Spectrum,
    n: np.ndarray,
    narrow: np.ndarray,
    ridge: np.ndarray,
    noise: np.ndarray,
    damped: np.ndarray,
    one: float,
) -> Prediction:
    """In units of the linear part: mu_1^2 / d = 1. `narrow` is 1 / k, `noise` c d / mu_1^2, `damped` c_a d / mu_1^2.

    `one` is the number of constant directions, of infinite energy: it takes itself from n and from k.
    """
    narrow, ridge = narrow / (1 - one * narrow), ridge / (1 - one * narrow)
    kappa = directions.penalty(n - one, noise, narrow, ridge)
    at = directions.degrees(kappa)
    z = at.first + noise / kappa  # tr C (C + x)^-1, x the penalty in the space of features
    beyond = narrow / (1 - at.second * narrow)  # 1 / (k - tr Sigma^2 (Sigma + kappa)^-2)
    left = (1 - z * narrow) / (1 - at.second * narrow)
    second = one + at.second + (z - at.second) ** 2 * beyond  # tr C^2 (C + x)^-2
    shared = one + at.spurious + damped / kappa  # tr C_s (C + x)^-1
    moved = at.spurious - at.spurious_second + damped / kappa  # of which left * moved is x tr C_s (C + x)^-2
    bent = at.fit - at.fit_second
    risk = (1 - _LINEAR**2 * (at.fit + left * bent)) / (1 - second / n)
    slope = _LINEAR * at.fit  # E[f t], t the coordinate whose sign is the label
    q = risk - 1 + 2 * _LINEAR * slope  # E[f^2]
    q_s = risk / n * (shared - left * moved) + _LINEAR**2 * bent * moved * beyond  # E[f(z^s) f(z)], without sample z
    gamma = shared / n
    noise_s = np.sqrt(np.maximum(q + gamma**2 * (q - slope**2) - 2 * gamma * q_s, 0.0))  # given t
    answer = gamma[..., None] * (1 - slope[..., None] * _T)
    with np.errstate(divide="ignore"):
        spurious = ndtr(answer / noise_s[..., None]) @ _DENSITY
    spread = np.sqrt(noise_s**2 + gamma**2 * slope**2 * (1 - _LINEAR**2))
    out = (
        1 - np.arccos(np.clip(slope / np.sqrt(q), -1, 1)) / np.pi,
        spurious,
        gamma * (1 - _LINEAR * slope),
        risk,
        gamma,
        _LINEAR * slope,
        spread,
    )
    return Prediction(*(_float(np.asarray(value)) for value in out))
