"""Differentially private kernel regression: full-batch gradient descent with clipping and noise, and its accounting.

Two data sets are neighbors if they have the same number of samples and differ in one of them (replacement). The norm of
a clipped gradient is at most the clipping norm, so the sum of the clipped gradients of two neighbors differs by at most
twice the clipping norm, its sensitivity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, eigh
from scipy.optimize.elementwise import find_root
from scipy.special import erfcx, log_ndtr, ndtr, ndtri

from ._checks import number, numbers, plain, positive, seed_of, symmetric, tensor

__all__ = [
    "PrivateRun",
    "gdp_delta",
    "gdp_epsilon",
    "gdp_mu",
    "gdp_noise",
    "private_regression",
    "reading_bound",
]


def gdp_mu(noise: Any, steps: Any) -> Any:
    """Return the Gaussian differential privacy of `steps` noisy full-batch steps under replacement of one sample.

    Parameters
    ----------
    noise : float or array
        Noise multiplier: standard deviation of the noise that is added to the sum of the clipped gradients, over the
        clipping norm. Zero means no privacy.
    steps : int or array
        Number of steps.

    Returns
    -------
    float or ndarray
        ``mu = 2 sqrt(steps) / noise``: distinguishing neighboring data sets by the model and all its iterates is
        at least as hard as distinguishing N(0, 1) from N(mu, 1). The result is infinite without noise.

    Raises
    ------
    ValueError
        `noise` is negative, or `steps` is not an integer of at least one.

    Notes
    -----
    One step is a Gaussian mechanism whose sensitivity is twice the clipping norm, hence (2 / noise)-GDP, and the
    squares add up under adaptive composition: Dong, Roth and Su (2022), Theorem 2.7 and Corollary 3.3 in the numbering
    of the preprint. Under addition or removal of one sample, mu is half as large.

    Examples
    --------
    >>> gdp_mu(noise=10.0, steps=25)
    1.0
    """
    sigma, count = numbers(noise, "noise", least=0.0, finite=False), numbers(steps, "steps", least=1.0, whole=True)
    with np.errstate(divide="ignore"):
        return plain(2 * np.sqrt(count) / sigma)


def gdp_noise(mu: Any, steps: Any) -> Any:
    """Return the noise multiplier for which `steps` steps are mu-GDP under replacement: the inverse of `gdp_mu`.

    Parameters
    ----------
    mu : float or array
        Budget, positive; an infinite one means no privacy, and no noise.
    steps : int or array
        Number of steps.

    Returns
    -------
    float or ndarray
        ``2 sqrt(steps) / mu``.

    Raises
    ------
    ValueError
        `mu` is not positive, or `steps` is not an integer of at least one.

    Examples
    --------
    >>> gdp_noise(mu=1.0, steps=25)
    10.0
    """
    return gdp_mu(numbers(mu, "mu", above=0.0, finite=False), steps)


def gdp_delta(epsilon: Any, mu: Any) -> Any:
    r"""Return the smallest delta for which mu-GDP implies (epsilon, delta)-differential privacy.

    Parameters
    ----------
    epsilon : float or array
        Zero or positive. An infinite one guarantees nothing, and delta is zero.
    mu : float or array
        Budget, positive; for an infinite one there is no privacy, and delta is one for every finite epsilon.

    Returns
    -------
    float or ndarray
        :math:`\mathrm{cdf}(a) - e^\epsilon\, \mathrm{cdf}(a - \mu)` with :math:`a = \mu / 2 - \epsilon / \mu` and
        the standard normal distribution function :math:`\mathrm{cdf}`.

    Raises
    ------
    ValueError
        `epsilon` is negative, or `mu` is not positive.

    Notes
    -----
    Dong, Roth and Su (2022), Corollary 2.13 in the numbering of the preprint. Neighbors are those of `mu`.

    Examples
    --------
    >>> round(gdp_delta(epsilon=1.0, mu=1.0), 4)
    0.1269
    """
    e, m = numbers(epsilon, "epsilon", least=0.0, finite=False), numbers(mu, "mu", above=0.0, finite=False)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        a, b = -e / m + m / 2, -e / m - m / 2
        high, low = log_ndtr(a), e + log_ndtr(b)
        # the two terms of `low` cancel if they are large: exp(-b^2 / 2) is factored out, and b^2 / 2 - e = a^2 / 2
        low = np.where(b < -1e3, np.log(erfcx(-b / math.sqrt(2)) / 2) - a**2 / 2, low)
        delta = np.exp(high) * -np.expm1(np.minimum(low - high, 0.0))
    return plain(np.where(np.isinf(e) | np.isneginf(high), 0.0, delta))


def gdp_epsilon(mu: Any, delta: Any) -> Any:
    """Return the smallest epsilon for which mu-GDP implies (epsilon, delta)-differential privacy.

    Parameters
    ----------
    mu : float or array
        Budget, positive; an infinite one means no privacy.
    delta : float or array
        A number in (0, 1).

    Returns
    -------
    float or ndarray
        The epsilon at which `gdp_delta` equals `delta`; zero if `gdp_delta` is at most `delta` at epsilon zero, and
        infinite if `mu` is.

    Raises
    ------
    ValueError
        `mu` is not positive, or `delta` is outside (0, 1).

    Notes
    -----
    See `gdp_delta`.

    Examples
    --------
    >>> round(gdp_epsilon(mu=1.0, delta=1e-5), 3)
    4.377
    """
    m, d = np.broadcast_arrays(
        numbers(mu, "mu", above=0.0, finite=False), numbers(delta, "delta", above=0.0, below=1.0)
    )

    with np.errstate(over="ignore", invalid="ignore"):
        # for large mu, up to a relative 1 / mu^2, delta = cdf(mu / 2 - epsilon / mu); infinite at mu = inf
        found = m * (m / 2 - ndtri(d))
        found = np.where(gdp_delta(0.0, m) <= d, 0.0, found)
    some = (found > 0) & (m <= 1e8)
    one, small = m[some], d[some]
    if one.size:
        high = one**2 / 2 + one * np.sqrt(2 * np.log(1 / small)) + 1  # delta <= cdf(-eps / mu + mu / 2) there

        def above(epsilon: np.ndarray, one: np.ndarray, small: np.ndarray) -> np.ndarray:
            return np.asarray(np.log(np.maximum(gdp_delta(epsilon, one), 1e-320)) - np.log(small))

        found[some] = find_root(above, (np.zeros_like(one), high), args=(one, small), tolerances={"xatol": 1e-12}).x
    return plain(found)


def reading_bound(mu: Any) -> Any:
    """Return an upper bound on the accuracy of label inference from a mu-GDP model, for balanced labels.

    Parameters
    ----------
    mu : float or array
        Budget under replacement of one sample, positive or infinite.

    Returns
    -------
    float or ndarray
        The standard normal distribution function at mu / 2. It bounds the accuracy of every guess of a training label
        from the model, the spurious query and all other samples.

    Raises
    ------
    ValueError
        `mu` is not positive.

    Notes
    -----
    The assumptions, the theorem and its proof are in chapter `privacy`.

    Examples
    --------
    >>> round(reading_bound(1.0), 4)
    0.6915
    """
    return plain(ndtr(numbers(mu, "mu", above=0.0, finite=False) / 2))


@dataclass(frozen=True)
class PrivateRun:
    """The result of `private_regression`.

    Attributes
    ----------
    outputs : ndarray, shape (draws, m)
        Predictions after the last step at all points of the kernel matrix, the n training samples first.
    clipped : ndarray, shape (steps,)
        Fraction of the samples whose gradient was clipped, averaged over the draws.
    mu : float
        Budget of the whole run under replacement of one sample; infinite without noise or without clipping.
    """

    outputs: np.ndarray
    clipped: np.ndarray
    mu: float


def private_regression(
    K: Any,
    g: Any,
    *,
    steps: int,
    rate: float,
    clip: float,
    noise: float,
    draws: int = 1,
    seed: int = 0,
) -> PrivateRun:
    r"""Run private gradient descent on half the squared residuals, in terms of predictions, without forming gradients.

    The model with the feature map :math:`\varphi` is :math:`f(z) = \varphi(z)^\top \theta`, and :math:`\theta` starts
    at zero. The gradient of sample i is :math:`r_i \varphi(z_i)` with :math:`r_i = f(z_i) - g_i`, of norm
    :math:`|r_i| K_{ii}^{1/2}`, so clipping reduces the residual. A step subtracts `rate` / n times the sum of the
    clipped gradients and of independent Gaussian noise of standard deviation `noise` times `clip` in every parameter.
    The noise that a step adds to the predictions is therefore Gaussian with covariance proportional to `K`.

    Parameters
    ----------
    K : array, shape (m, m)
        Kernel matrix of all points at which predictions are computed, the training samples first.
    g : array, shape (n,)
        Training labels, n <= m.
    steps : int
        Number of steps.
    rate : float
        Step size for the mean loss. Without a clip it must not exceed 2 n over the largest eigenvalue of the training
        samples' block of `K`, above which the descent diverges; clipping bounds every step.
    clip : float
        The clipping norm, the largest norm of a gradient; ``inf`` for no clipping, and then there is no privacy.
    noise : float
        Noise multiplier: standard deviation over the clipping norm. If `clip` is infinite it must be zero.
    draws : int
        Number of independent runs on the same data.
    seed : int
        Seed of the noise, below 2^63.

    Returns
    -------
    PrivateRun

    Raises
    ------
    ValueError
        Shapes do not match, entries are NaN or infinite, the kernel matrix is not symmetric and positive semidefinite,
        a number is out of range, the descent diverges for this rate, or predictions overflow.

    Notes
    -----
    The cost is one Cholesky factorization of K, and 4 n^2 operations for each step and draw. The number of parameters,
    and hence the width, does not enter. With the kernel of infinite width the predictions are a function with added
    Gaussian noise, as in Hall, Rinaldo and Wasserman (2013). Derivation: chapter `privacy`.

    Examples
    --------
    >>> import numpy as np
    >>> run = private_regression(np.eye(3), [1.0, -1.0], steps=4, rate=0.5, clip=1.0, noise=0.0)
    >>> run.outputs[0, :2].round(2), run.mu
    (array([ 0.68, -0.68]), inf)
    """
    K, g = symmetric(K, "K"), tensor(g, "g", ndim=1).cpu().numpy()
    if g.size > len(K):
        raise ValueError(f"g must be a list of at most {len(K)} labels, got shape {g.shape}")
    n, count, runs = g.size, positive(steps, "steps"), positive(draws, "draws")
    eta, most = number(rate, "rate", above=0.0), number(clip, "clip", above=0.0, finite=False)
    sigma, seed = number(noise, "noise", least=0.0), seed_of(seed)
    if sigma > 0 and not math.isfinite(most):
        raise ValueError("noise must be zero when there is no clip: it is a multiple of the clip")
    scale = sigma * most if sigma > 0 else 0.0
    root = _root(K, (0.0, 1e-12, 1e-10) if scale > 0 else (1e-5,))
    if not math.isfinite(most):
        limit = 2 * n / float(eigh(K[:n, :n], eigvals_only=True, subset_by_index=[n - 1, n - 1])[0])
        if eta > (1 + 1e-9) * limit:
            raise ValueError(
                f"rate must be at most 2 n / (largest eigenvalue) = {limit:.6g} without a clip, got {eta!r}"
            )
    norms = np.sqrt(np.diag(K)[:n])
    rng = np.random.default_rng(seed)
    f, pulled, shaken = np.zeros((n, runs)), np.zeros((n, runs)), np.zeros((n, runs))
    clipped = np.empty(count)
    for step in range(count):
        residual = f - g[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.minimum(1.0, most / (np.abs(residual) * norms[:, None]))
        factor = np.where(residual == 0, 1.0, factor)
        clipped[step] = np.mean(factor < 1)
        move = factor * residual
        pulled += move
        change = K[:n, :n] @ move
        if scale > 0:
            xi = rng.standard_normal((n, runs))
            shaken += xi
            change += scale * (root[:n, :n] @ xi)
        f -= eta / n * change
    rest = -eta / n * (K[n:, :n] @ pulled)
    if scale > 0 and len(K) > n:
        late = math.sqrt(count) * rng.standard_normal((len(K) - n, runs))  # independent of the training samples
        rest -= eta / n * scale * (root[n:, :n] @ shaken + root[n:, n:] @ late)
    outputs = np.vstack([f, rest]).T
    if not np.isfinite(outputs).all():
        raise ValueError("rate, clip and noise give outputs that overflow float64")
    mu = gdp_mu(sigma, count) if math.isfinite(most) else math.inf
    return PrivateRun(outputs, clipped, float(mu))


def _root(K: np.ndarray, roundings: tuple[float, ...]) -> np.ndarray:
    """A lower triangular square root; if the matrix is singular, a rounding error is added to its diagonal."""
    for rounding in roundings:
        try:
            shifted = K + rounding * np.trace(K) / len(K) * np.eye(len(K))
            return np.asarray(cholesky(shifted, lower=True, check_finite=True))
        except np.linalg.LinAlgError:
            continue
    raise ValueError("K must be positive semidefinite")
