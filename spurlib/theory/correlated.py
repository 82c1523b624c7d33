"""Accuracies of kernel regression if core and spurious part are correlated: learned and memorized parts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from .._checks import numbers, plain
from ..activations import activation
from .accuracy import LINEAR, absolute_normal, is_kernel
from .alignment import inner_product
from .spectrum import penalties_of

__all__ = ["CorrelatedPrediction", "predict_correlated"]


@dataclass(frozen=True)
class CorrelatedPrediction:
    """The result of `predict_correlated`: floats, or arrays of the shape of `n` and `ridge` broadcast together.

    Attributes
    ----------
    test : float or ndarray
        Accuracy on new samples.
    spurious : float or ndarray
        Spurious accuracy: fraction of training labels that equal the sign of the prediction at the spurious query,
        whose core is fresh.
    unseen : float or ndarray
        The same fraction for samples that are not in the training set, which is due to the learned part only.
    covariance : float or ndarray
        Covariance of training labels and predictions at the spurious queries: ``learned + memorized``.
    learned : float or ndarray
        The same covariance for samples that are not in the training set.
    memorized : float or ndarray
        The alignment times the mean product of label and leave-one-out residual.
    alignment : float or ndarray
        Feature alignment of a sample with its own query.
    risk : float or ndarray
        Mean squared error on new samples.
    spread : float or ndarray
        Standard deviation of prediction times label at the spurious queries.
    """

    test: Any
    spurious: Any
    unseen: Any
    covariance: Any
    learned: Any
    memorized: Any
    alignment: Any
    risk: Any
    spread: Any


def predict_correlated(
    act: Any, covariance: Any, theta: Any, spurious: Any, *, n: Any, ridge: Any = 0.0
) -> CorrelatedPrediction:
    r"""Predict accuracies of kernel ridge regression for correlated core and spurious part, without fitted parameters.

    Samples z = [x, y] are Gaussian with a given covariance, labels are the sign of the projection of the core onto a
    direction, and queries consist of y and the core of an independent sample.

    Parameters
    ----------
    act : str, Activation or kernel
        An inner-product kernel as for `gamma_kernel`, or an activation, whose kernel of infinite width is used.
    covariance : array, shape (d, d)
        :math:`\Sigma`, of trace d.
    theta : array, shape (d,)
        The direction of the labels, zero on the spurious coordinates; its length does not matter.
    spurious : array of bool, shape (d,)
        Which coordinates are spurious.
    n : int or array
        Number of training samples.
    ridge : float or array
        Added to the diagonal of the kernel matrix; broadcast against `n`.

    Returns
    -------
    CorrelatedPrediction

    Raises
    ------
    ValueError
        Shapes do not match; the covariance is not symmetric, not positive semidefinite, or not of trace d; theta is
        zero, has no variance, or is not zero on the spurious coordinates; there are no spurious or no core coordinates;
        `n` or `ridge` is out of range; the kernel has no linear part, or is linear, without a ridge and with n at least
        the rank of the covariance.

    Warns
    -----
    UserWarning
        n is not small compared with d (d + 1) / 2, as for `predict_accuracy`.

    Notes
    -----
    Let :math:`S = \Sigma + \kappa I`, where :math:`\kappa` is the root of
    :math:`\operatorname{tr} \Sigma S^{-1} + (c + \lambda) (d / a_1) / \kappa = n`. With the projector
    :math:`\Pi_y` onto the spurious coordinates, :math:`\theta^\top \Sigma \theta = 1` and :math:`b^2 = 2 / \pi`:

    - learned part :math:`b^2\, \theta^\top \Sigma S^{-1} \Pi_y \Sigma \theta`;
    - alignment
      :math:`\gamma = (\operatorname{tr} \Pi_y \Sigma S^{-1} + (c_\alpha d / a_1) / \kappa) / n`, where
      :math:`\alpha = \operatorname{tr} \Pi_y \Sigma / d`;
    - memorized part :math:`\gamma\, (1 - b^2\, \theta^\top \Sigma S^{-1} \Sigma \theta)`.

    These are limits as n and d tend to infinity in proportion. The theorem is stated and proved for samples that are
    scaled to the norm :math:`\sqrt d` (chapter `correlation`). The learned part is the spurious correlation of Bombari
    and Mondelli (2025).

    Examples
    --------
    >>> import numpy as np
    >>> d, rho = 200, 0.6
    >>> cross = np.kron([[0, rho], [rho, 0]], np.eye(d // 2))
    >>> theta = np.r_[1.0, np.zeros(d - 1)]
    >>> found = predict_correlated("relu", np.eye(d) + cross, theta, np.arange(d) >= d // 2, n=[100, 400])
    >>> found.learned.round(3), found.memorized.round(3)
    (array([0.054, 0.05 ]), array([0.296, 0.159]))
    """
    sigma, direction, mask = _checked(covariance, theta, spurious)
    d = len(sigma)
    samples, lam = np.broadcast_arrays(numbers(n, "n", least=1, whole=True), numbers(ridge, "ridge", least=0))
    if not is_kernel(act):
        from ..kernels import InfiniteWidth

        act = InfiniteWidth(activation(act))
    kernel = inner_product(act, d)
    found = kernel.numbers(float(np.trace(sigma[mask][:, mask])) / d)
    if found.a1 == 0:
        raise ValueError(f"act: kernel {kernel.name!r} has no linear part: a1 = 0")
    values, vectors = np.linalg.eigh(sigma)
    values = np.maximum(values, 0.0)
    noise, damped = (found.c + lam) * d / found.a1, found.c_alpha * d / found.a1
    if ((noise == 0) & (samples >= (values > 1e-12 * values.max()).sum())).any():
        raise ValueError(
            f"act: kernel {kernel.name!r} is linear: without a ridge n must be below the number of directions"
        )
    learned = samples * found.a2 / (found.c + lam + 1e-300) / (d * (d + 1) / 2)
    if learned.max() > 0.1:
        warnings.warn(
            f"n is not small against d (d + 1) / 2 = {d * (d + 1) // 2}: a part of degree two is learned, which the "
            "formulas count as noise",
            stacklevel=2,
        )
    P = np.where(mask, 1.0, 0.0)
    query = sigma * (mask[:, None] == mask)  # the core of a query is independent of its spurious part
    cross = (P[:, None] * sigma + sigma * P) / 2
    seen = sigma @ direction  # covariances of the coordinates with the label's
    rotated = [vectors.T @ M @ vectors for M in (query, cross, P[:, None] * sigma)]
    teacher, v = vectors.T @ direction, vectors.T @ (P * seen)
    penalties = penalties_of(values, samples, noise)
    one = [
        _predict(values, rotated, teacher, v, float(n), float(t), damped)
        for n, t in zip(samples.flat, penalties.flat, strict=True)
    ]
    names = CorrelatedPrediction.__dataclass_fields__
    return CorrelatedPrediction(
        **{name: plain(np.array([p[name] for p in one]).reshape(samples.shape)) for name in names}
    )


def _predict(
    values: np.ndarray,
    rotated: list[np.ndarray],
    theta: np.ndarray,
    v: np.ndarray,
    n: float,
    t: float,
    damped: float,
) -> dict[str, float]:
    """In the basis of the eigenvectors, and in units of a_1 / d; v is P Sigma theta."""
    query, cross, spurious = rotated
    u = values * theta
    inverse = 1 / (values + t)
    shrunk = values * inverse
    gamma = float((np.diag(spurious) * inverse).sum() + damped / t) / n
    w = LINEAR * inverse * u  # mean of the coefficients
    slope, moved = float(w @ u), float(w @ v)  # covariances of outputs and t, on samples and on queries
    teacher = float((values * (t * inverse * theta) ** 2).sum())
    risk = (1 - LINEAR**2 + LINEAR**2 * teacher) / (1 - (shrunk**2).sum() / n)
    power = float(w @ (values * w)) + risk / n * float((shrunk**2).sum())
    scatter = inverse**2 * values * risk / n  # variances of the coefficients, along the eigenvectors
    reads = float(w @ query @ w + scatter @ np.diag(query))
    both = float(w @ cross @ w + scatter @ np.diag(cross))
    step = moved - gamma * slope
    sd = np.sqrt(max(reads - 2 * gamma * both + gamma**2 * power - step**2, 0.0))
    a, density = absolute_normal()
    mean = gamma + step * a
    with np.errstate(divide="ignore"):
        read = float(ndtr(mean / sd) @ density)
    learned, memorized = LINEAR * moved, gamma * (1 - LINEAR * slope)
    return {
        "test": 1 - np.arccos(min(slope / np.sqrt(power), 1.0)) / np.pi,
        "spurious": read,
        "unseen": 1 - np.arccos(np.clip(moved / np.sqrt(reads), -1, 1)) / np.pi,
        "covariance": learned + memorized,
        "learned": learned,
        "memorized": memorized,
        "alignment": gamma,
        "risk": risk,
        "spread": float(np.sqrt(max(sd**2 + mean**2 @ density - (learned + memorized) ** 2, 0.0))),
    }


def _checked(covariance: Any, theta: Any, spurious: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sigma = numbers(covariance, "covariance")
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1]:
        raise ValueError(f"covariance must be a square matrix, got shape {sigma.shape}")
    d = len(sigma)
    if not np.allclose(sigma, sigma.T, rtol=0, atol=1e-10 * np.abs(sigma).max()):
        raise ValueError("covariance must be symmetric")
    if np.linalg.eigvalsh(sigma)[0] < -1e-9 * d:
        raise ValueError("covariance must be positive semidefinite")
    if abs(np.trace(sigma) / d - 1) > 0.01:
        raise ValueError(
            f"covariance must have trace d (samples scaled to E|z|^2 = d), has {np.trace(sigma) / d:.4g} d"
        )
    mask = np.asarray(spurious)
    if mask.shape != (d,) or mask.dtype != bool or mask.all() or not mask.any():
        raise ValueError(f"spurious must be {d} truth values, some true and some false")
    direction = numbers(theta, "theta")
    if direction.shape != (d,) or direction[mask].any():
        raise ValueError(f"theta must have {d} entries, zero on the spurious coordinates")
    size = float(direction @ sigma @ direction)
    if size <= 0:
        raise ValueError("theta must be a direction in which the core varies")
    return (sigma + sigma.T) / 2, direction / size**0.5, mask
