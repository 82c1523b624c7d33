"""Spectral filters (early stopping, gradient methods, boosting, cut-off, ridge), and regression with a filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ._checks import Array, integer, like, number, square, tensor
from ._cholesky import SingularKernelError
from .evaluation import Evaluation, Fit, checked_labels, same_rows

__all__ = ["Filter", "FilteredSolve", "boosting", "cutoff", "descent", "flow", "momentum", "ridge"]


@dataclass(frozen=True)
class Filter:
    r"""A function q of the eigenvalues of a kernel matrix; it defines the fit :math:`f(z) = k(z, Z)\, q(K)\, g`.

    Attributes
    ----------
    name : str
        Name for messages and legends.
    q : callable
        The function :math:`q(s)` of an array of eigenvalues :math:`s \ge 0`.
    breaks : tuple of float
        The eigenvalues at which q jumps.

    Notes
    -----
    Chapter `filters`.

    Examples
    --------
    >>> import numpy as np
    >>> flow(2.0)(np.array([0.0, 1.0])).round(4)
    array([2.    , 0.8647])
    """

    name: str
    q: Callable[[np.ndarray], np.ndarray]
    breaks: tuple[float, ...] = ()

    def __call__(self, s: Any) -> np.ndarray:
        """Values at eigenvalues; a ``ValueError`` is raised if they are not finite or have another shape."""
        s = np.asarray(s, dtype=np.float64)
        with np.errstate(all="ignore"):
            out = np.asarray(self.q(s), dtype=np.float64)
        if out.shape != s.shape or not np.isfinite(out).all():
            raise ValueError(
                f"filter {self.name} must be finite and entry-wise on eigenvalues from {s.min():.3g} to {s.max():.3g}"
            )
        return out

    def __repr__(self) -> str:
        return self.name


def filter_of(q: Any) -> Filter:
    """Return a `Filter` as it is, and turn any other function of an array of eigenvalues into one."""
    if isinstance(q, Filter):
        return q
    if not callable(q):
        raise ValueError(f"filter must be a function of the eigenvalues, got {type(q).__name__}")
    return Filter(str(getattr(q, "__name__", "filter")), q)


def ridge(strength: float) -> Filter:
    r"""Define ridge regression, :math:`q(s) = 1 / (s + \lambda)`.

    Parameters
    ----------
    strength : float
        :math:`\lambda \ge 0`; zero gives the interpolator.

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `strength` is negative or not finite.

    Examples
    --------
    >>> float(ridge(1.0)(3.0))
    0.25
    """
    strength = number(strength, "strength", least=0.0)
    return Filter(f"ridge({strength:g})", partial(_ridge, strength))


def _ridge(strength: float, s: np.ndarray) -> np.ndarray:
    return 1 / (s + strength)


def flow(time: float) -> Filter:
    r"""Define gradient flow from zero on half the sum of squared errors, up to T: :math:`q(s) = (1 - e^{-T s}) / s`.

    Parameters
    ----------
    time : float
        The time :math:`T > 0`.

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `time` is not a positive number.

    Examples
    --------
    >>> round(float(flow(2.0)(1.0)), 4)
    0.8647
    """
    time = number(time, "time", above=0.0)
    return Filter(f"flow({time:g})", partial(_flow, time))


def _flow(time: float, s: np.ndarray) -> np.ndarray:
    return np.where(s > 0, -np.expm1(-time * s) / np.where(s > 0, s, 1), time)


def descent(steps: int, rate: float) -> Filter:
    r"""Define gradient descent from zero on half the sum of squared errors: :math:`q(s) = (1 - (1 - \nu s)^j) / s`.

    Parameters
    ----------
    steps : int
        The number j of steps.
    rate : float
        The step size :math:`\nu`, below 2 over the largest eigenvalue, which is checked when the filter is applied.

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `steps` or `rate` is not positive.

    Examples
    --------
    >>> float(descent(2, 0.5)(1.0))
    0.75
    """
    return momentum(steps, rate, 0.0)


def momentum(steps: int, rate: float, weight: float) -> Filter:
    r"""Define heavy-ball descent: a step is :math:`\nu` times the negative gradient plus `weight` times the last step.

    Parameters
    ----------
    steps, rate
        As for `descent`; the rate must be below 2 (1 + weight) over the largest eigenvalue.
    weight : float
        Weight of momentum, in [0, 1).

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `steps` or `rate` is not positive, or `weight` is out of range.

    Examples
    --------
    >>> float(momentum(2, 0.5, 0.5)(1.0))
    1.0
    """
    steps, rate = integer(steps, "steps", least=1), number(rate, "rate", above=0.0)
    weight = number(weight, "weight", least=0.0, below=1.0)

    name = f"momentum({steps}, {rate:g}, {weight:g})" if weight else f"descent({steps}, {rate:g})"
    return Filter(name, partial(_momentum, steps, rate, weight))


def _momentum(steps: int, rate: float, weight: float, s: np.ndarray) -> np.ndarray:
    if s.size and rate * s.max() >= 2 * (1 + weight):
        raise ValueError(
            f"rate {rate:g} diverges: it must be below {2 * (1 + weight) / s.max():.3g}, "
            f"for the largest eigenvalue {s.max():.3g}"
        )
    last, out = np.zeros_like(s), np.full_like(s, rate)
    for _ in range(steps - 1):
        last, out = out, (1 + weight - rate * s) * out - weight * last + rate
    return out


def boosting(rounds: int, rate: float, strength: float) -> Filter:
    r"""Define boosting of ridge regression with the squared loss: each round adds `rate` times a fit of the residuals.

    Parameters
    ----------
    rounds : int
        The number j of rounds.
    rate : float
        The shrinkage :math:`\nu`, in (0, 1].
    strength : float
        The ridge :math:`\lambda > 0` of the regressions: :math:`q(s) = (1 - (1 - \nu s / (s + \lambda))^j) / s`.

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `rounds` or `strength` is not positive, or `rate` is out of range.

    Examples
    --------
    >>> round(float(boosting(2, 1.0, 1.0)(1.0)), 4)
    0.75
    """
    rounds = integer(rounds, "rounds", least=1)
    rate, strength = number(rate, "rate", above=0.0), number(strength, "strength", above=0.0)
    if rate > 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate:g}")

    return Filter(f"boosting({rounds}, {rate:g}, {strength:g})", partial(_boosting, rounds, rate, strength))


def _boosting(rounds: int, rate: float, strength: float, s: np.ndarray) -> np.ndarray:
    fitted = -np.expm1(rounds * np.log1p(-rate * s / (s + strength)))  # accurate for small s too
    return np.where(s > 0, fitted / np.where(s > 0, s, 1), rounds * rate / strength)


def cutoff(level: float) -> Filter:
    """Define principal component regression, q(s) = 1 / s for eigenvalues s of at least `level`, and zero below.

    Parameters
    ----------
    level : float
        The level, positive.

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        `level` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> cutoff(0.5)(np.array([0.25, 2.0]))
    array([0. , 0.5])
    """
    level = number(level, "level", above=0.0)
    return Filter(f"cutoff({level:g})", partial(_cutoff, level), (level,))


def _cutoff(level: float, s: np.ndarray) -> np.ndarray:
    return np.where(s >= level, 1 / np.maximum(s, level), 0.0)


class FilteredSolve:
    r"""Regression with a spectral filter, :math:`f(z) = k(z, Z)\, q(K)\, g`; the counterpart of `Solve`.

    Parameters
    ----------
    K : array or tensor, shape (n, n)
        Kernel matrix of the training samples; it may be singular.
    g : array or tensor, shape (n,) or (n, outputs)
        Training labels.
    filter : Filter or callable
        :math:`q`, such as ``filters.flow(2.0)``.

    Attributes
    ----------
    eigenvalues : ndarray, shape (n,)
        Eigenvalues of `K` in increasing order.
    coefficients : tensor, shape (n,) or (n, outputs)
        :math:`q(K)\, g`.

    Raises
    ------
    ValueError
        Wrong shapes, a matrix that is not symmetric, NaN or infinite values; a filter that is not finite on the
        spectrum, or diverges there.
    SingularKernelError
        `K` is not positive semidefinite.

    Notes
    -----
    The alignment F(z, z_i) = [k(z, Z) q(K)]_i is the coefficient of label i in the prediction at z. The change of the
    prediction when a sample is left out has a closed form for a ridge only, so stabilities are not available. See
    chapter `filters`.

    Examples
    --------
    >>> solve = FilteredSolve([[2.0, 1.0], [1.0, 2.0]], [1.0, -1.0], flow(1.0))
    >>> solve.predict([[2.0, 1.0]]).round(4), solve.filtered(ridge(0.0)).predict([[2.0, 1.0]]).round(4)
    (array([0.6321]), array([1.]))
    """

    def __init__(self, K: Array, g: Array, filter: Any):
        matrix = square(K, "K", device=K.device if isinstance(K, torch.Tensor) else torch.device("cpu"))
        self.g, self._kind = checked_labels(g, len(matrix)).to(matrix.device, copy=True), g
        values, self._vectors = torch.linalg.eigh(matrix)
        if float(values[0]) < -1e-10 * float(values[-1]) * len(values):
            raise SingularKernelError(
                "K is not positive semidefinite, so not a kernel matrix: its eigenvalues go from "
                f"{float(values[0]):.3g} to {float(values[-1]):.3g}"
            )
        self.eigenvalues: np.ndarray = values.clamp(min=0).cpu().numpy()
        self._apply(filter)

    def _apply(self, filter: Any) -> None:
        self.filter = filter_of(filter)
        weights = torch.from_numpy(self.filter(self.eigenvalues)).to(self.g.device)
        inverse = (self._vectors * weights) @ self._vectors.T
        self.coefficients = inverse @ self.g
        self.fit = Fit(self.g, self.coefficients, inverse, None)

    def filtered(self, filter: Any) -> FilteredSolve:
        """Return the fit of the same kernel matrix and labels with another filter, from the same eigenvectors.

        The errors are those of the class.
        """
        out = FilteredSolve.__new__(FilteredSolve)
        vars(out).update(vars(self))
        out._apply(filter)
        return out

    def at(self, rows: Array) -> Evaluation:
        """Return predictions and alignments at queries, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        Evaluation
            With ``.predictions`` and ``.alignment``; for n queries also ``.own``.

        Raises
        ------
        ValueError
            `rows` does not have n columns, is empty, or holds NaN or infinite values.
        """
        found = tensor(rows, "rows", ndim=2, columns=len(self.g), device=self.g.device)
        return Evaluation(self.fit, found, same_rows, rows)

    def predict(self, rows: Array) -> Array:
        """Return the predictions f(z) at queries, shape (q,) or (q, outputs), from their kernel rows, shape (q, n)."""
        return self.at(rows).predictions

    def alignment(self, rows: Array) -> Array:
        """Return the alignments [k(z, Z) q(K)]_i of queries with all samples, shape (q, n), from their kernel rows."""
        return self.at(rows).alignment

    @property
    def residuals(self) -> Array:
        """Training residuals g - K q(K) g, shape (n,) or (n, outputs), the kind of the labels."""
        values = torch.from_numpy(self.eigenvalues * self.filter(self.eigenvalues)).to(self.g.device)
        return like(self.g - (self._vectors * values) @ (self._vectors.T @ self.g), self._kind)
