"""Accuracies of kernel regression on Gaussian data, predicted from Hermite coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from .activations import Activation, activation
from .theory import _alphas, _energies, _float

__all__ = ["Prediction", "predict_accuracy"]

_WIDE = 1e11  # features per sample or coordinate, whichever are more: stands for infinitely many
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
    alpha: Any,
    *,
    n: Any,
    d: Any,
    k: Any = None,
    ridge: Any = 0.0,
    kind: str = "rf",
) -> Prediction:
    r"""Accuracies, risk and memorization of kernel ridge regression on `synthetic` data, no parameter fitted.

    Samples are standard Gaussian, labels the sign of a direction in the core, queries have fresh cores.

    Parameters
    ----------
    act : str or Activation
        The activation; its Hermite coefficients enter.
    alpha : float or array
        Share of the spurious coordinates, in (0, 1).
    n, d : int or array
        Numbers of training samples and of coordinates.
    k : int or array, optional
        Width. Default: infinitely many features.
    ridge : float or array
        Added to the diagonal of the kernel matrix of `RandomFeatures` or `TangentFeatures` of width `k`; of the kernel
        divided by the number of features when `k` is None.
    kind : {"rf", "ntk"}
        Random or tangent features. The width of tangent features enters through `ridge` alone.

    Returns
    -------
    Prediction
        All arguments but `act` and `kind` are broadcast together.

    Raises
    ------
    ValueError
        alpha, n, d, k, ridge or kind out of range; without a ridge, a kernel matrix of too small a rank.

    Notes
    -----
    Asymptotic: n, d, k to infinity at fixed ratios. Random features are replaced by Gaussian vectors of covariance
    :math:`C = \mu_1^2 V V^\top + c I` and cross-covariance :math:`C_s = \alpha \mu_1^2 V V^\top + c_\alpha I` between
    a sample and its query; then deterministic equivalents of ridge regression, the spectrum of :math:`V V^\top` by
    Marchenko and Pastur. With kappa the root of :math:`\operatorname{tr} C (C + \kappa)^{-1} + \lambda / \kappa = n`,
    the alignment is :math:`\operatorname{tr} C_s (C + \kappa)^{-1} / n`. Not a theorem at finite k.
    """
    if kind not in ("rf", "ntk"):
        raise ValueError(f"kind must be 'rf' or 'ntk', got {kind!r}")
    act, a = activation(act), _alphas(alpha)
    samples, dim = (_counts(value, name) for value, name in ((n, "n"), (d, "d")))
    width = None if k is None else _counts(k, "k")
    lam = np.asarray(ridge, dtype=float)
    if lam.size == 0 or not ((lam >= 0) & np.isfinite(lam)).all():
        raise ValueError(f"ridge must be zero or positive, got {ridge!r}")
    linear, rest, damped = _energies(act, a, 2) if kind == "rf" else _energies(act.derivative, a, 1)
    if linear == 0 and rest == 0:
        raise ValueError(f"act: {act.name!r} has no energy beyond its constant")

    shapes = [a, samples, dim, lam] + ([] if width is None else [width])
    a, samples, dim, lam, *more = np.broadcast_arrays(*shapes)
    damped = np.broadcast_to(damped, a.shape) * (a if kind == "ntk" else 1.0)
    features = _WIDE * np.maximum(samples, dim)
    if kind == "ntk":
        lam = lam * features / (more[0] * dim if more else 1.0)
    elif more:
        features = more[0]
    else:
        lam = lam * features
    rank = features if rest > 0 else np.minimum(features, dim)
    if ((lam == 0) & (rank <= samples)).any():
        raise ValueError(
            "k: without a ridge there must be more features than samples"
            if rest > 0
            else f"act: {act.name!r} is linear: without a ridge n must be below d and k"
        )
    return _predict(a, samples, dim, features, lam, max(linear, 1e-30 * rest), rest, damped)


def _counts(value: Any, name: str) -> np.ndarray:
    x = np.asarray(value, dtype=float)
    if x.size == 0 or not ((x >= 1) & (x == np.floor(x)) & np.isfinite(x)).all():
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return x


def _resolvent(x: np.ndarray, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of 1 / (s + x) and 1 / (s + x)^2 over the spectrum of V^T V, V of shape (psi d, d), entries N(0, 1/d)."""
    b = x + psi - 1
    root = np.sqrt(b**2 + 4 * x)
    g = np.where(b > 0, 2 / (b + root), (root - b) / (2 * x))  # x g^2 + (x + psi - 1) g - 1 = 0
    return g, g * (1 + g) / root  # minus its derivative; 2 x g + x + psi - 1 is the root


def _kappa(n: np.ndarray, lam: np.ndarray, degrees: Any, trace: np.ndarray) -> np.ndarray:
    """Root of D_1(kappa) + lam / kappa = n, which falls with kappa: Newton's steps in its logarithm, in a bracket."""
    high = np.log((trace + lam) / n)
    low = high - 80.0
    u = high - 1.0
    for _ in range(200):
        kappa = np.exp(u)
        first, second = degrees(kappa)
        value = first + lam / kappa - n
        low, high = np.where(value > 0, u, low), np.where(value > 0, high, u)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = u + value / (first - second + lam / kappa)  # the derivative in log kappa is minus this
        new = np.where((step > low) & (step < high), step, (low + high) / 2)
        done = np.abs(new - u) <= 1e-14 * (1 + np.abs(u))
        u = new
        if done.all():
            break
    return np.exp(u)


def _predict(
    a: np.ndarray,
    n: np.ndarray,
    d: np.ndarray,
    k: np.ndarray,
    lam: np.ndarray,
    m: float,
    c: float,
    damped: np.ndarray,
) -> Prediction:
    psi = k / d

    def degrees(kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Traces of C (C + kappa)^{-1} and of its square."""
        g, g2 = _resolvent((c + kappa) / m, psi)
        y, flat = kappa / m, c / (c + kappa)
        return d * (1 - y * g) + (k - d) * flat, d * (1 - 2 * y * g + y**2 * g2) + (k - d) * flat**2

    kappa = _kappa(n, lam, degrees, k * (m + c))
    _, second = degrees(kappa)
    x = (c + kappa) / m
    g, g2 = _resolvent(x, psi)
    shared = d * (a * (1 - x * g) + damped / m * g) + (k - d) * damped / (c + kappa)  # tr C_s (C + kappa)^-1
    squared = d * (a / m * (g - x * g2) + damped / m**2 * g2) + (k - d) * damped / (c + kappa) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        known = 1 - c / m * _resolvent(np.asarray(c / m), psi)[0] if c > 0 else np.minimum(psi, 1.0)
    fit = 1 - x * g  # w^T (C + kappa)^-1 w, w = mu_1 V u; `known` is its value at kappa = 0
    bias = known - 2 * fit + (fit - kappa / m * (g - x * g2))
    risk = (_LINEAR**2 * bias + 1 - _LINEAR**2 * known) / (1 - second / n)
    slope = _LINEAR * fit  # E[f t], t the coordinate whose sign is the label
    q = risk - 1 + 2 * _LINEAR * slope  # E[f^2]
    q_s = risk / n * (shared - kappa * squared) + _LINEAR**2 * (
        a * x**2 * (g2 - g**2) + damped / m * (g - x * g2)
    )  # E[f(z^s) f(z)], without sample z
    gamma = shared / n
    noise = np.sqrt(np.maximum(q + gamma**2 * (q - slope**2) - 2 * gamma * q_s, 0.0))  # given t
    answer = gamma[..., None] * (1 - slope[..., None] * _T)
    with np.errstate(divide="ignore"):
        spurious = ndtr(answer / noise[..., None]) @ _DENSITY
    spread = np.sqrt(noise**2 + gamma**2 * slope**2 * (1 - _LINEAR**2))
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
