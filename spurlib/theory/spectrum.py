"""Ridge regression on a population with a given covariance: what a penalty leaves of each direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import numbers

__all__ = ["Degrees", "Spectrum"]

_OF = "spectrum: eigenvalues of the"


@dataclass(frozen=True)
class Degrees:
    """Degrees of freedom at one penalty, of the shape of the penalties.

    Attributes
    ----------
    first, second : ndarray
        :math:`\\operatorname{tr} \\Sigma (\\Sigma + \\kappa)^{-1}` and the trace of the square.
    spurious, spurious_second : ndarray
        The same over the directions of the spurious part.
    fit, fit_second : ndarray
        Means of :math:`s / (s + \\kappa)` and of its square over the core, weighted with the variances `s`.
    """

    first: np.ndarray
    second: np.ndarray
    spurious: np.ndarray
    spurious_second: np.ndarray
    fit: np.ndarray
    fit_second: np.ndarray


class Spectrum:
    """Eigenvalues of the covariances of core and spurious part, of mean one.

    Attributes
    ----------
    alpha : ndarray
        Share of the spurious part in the variance.
    d : ndarray
        Number of coordinates.
    rank : ndarray
        Number of directions that vary.
    """

    def __init__(self, values: np.ndarray, core: np.ndarray, spurious: np.ndarray) -> None:
        self._values, self._core, self._spurious = values, core, spurious  # the last two: multiplicities, (..., m)
        self.d = (core + spurious).sum(-1)
        self.alpha = (values * spurious).sum(-1) / self.d
        self.rank = ((core + spurious) * (values > 0)).sum(-1)
        self._teacher = values * core / (values * core).sum(-1, keepdims=True)

    @classmethod
    def isotropic(cls, alpha: np.ndarray, d: np.ndarray) -> Spectrum:
        """`d` coordinates of variance one, a share `alpha` of them spurious."""
        out = cls(np.ones(1), ((1 - alpha) * d)[..., None], (alpha * d)[..., None])
        out.rank = d  # without rounding, for comparisons
        return out

    @classmethod
    def of(cls, pair: Any) -> Spectrum:
        """Checked: two lists of eigenvalues, of the core and of the spurious part."""
        try:
            core, spurious = pair
        except (TypeError, ValueError):
            raise ValueError("spectrum must be a pair: eigenvalues of the core, of the spurious part") from None
        core, spurious = (numbers(core, f"{_OF} core", least=0), numbers(spurious, f"{_OF} spurious part", least=0))
        for values, part in ((core, "core"), (spurious, "spurious part")):
            if values.ndim != 1 or not values.any():
                raise ValueError(f"{_OF} {part} must be a list, not all zero; got an array of shape {values.shape}")
        both = np.concatenate([core, spurious])
        if abs(both.mean() - 1) > 0.01:
            raise ValueError(f"spectrum must have mean 1 (samples scaled to E|z|^2 = d), has {both.mean():.4g}")
        is_core = np.arange(both.size) < core.size
        return cls(both, is_core.astype(float), (~is_core).astype(float))

    def degrees(self, kappa: np.ndarray) -> Degrees:
        """Degrees of freedom at penalties `kappa` > 0."""
        x = self._values / (self._values + kappa[..., None])
        core, spurious, teacher = self._core * x, self._spurious * x, self._teacher * x
        return Degrees(
            (core + spurious).sum(-1),
            ((core + spurious) * x).sum(-1),
            spurious.sum(-1),
            (spurious * x).sum(-1),
            teacher.sum(-1),
            (teacher * x).sum(-1),
        )

    def penalty(
        self, n: np.ndarray, noise: np.ndarray, narrow: np.ndarray | float = 0.0, ridge: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Root kappa of z + ridge / (kappa (1 - z narrow)) = n, z = tr Sigma (Sigma + kappa)^-1 + noise / kappa.

        `narrow` is one over the number of features; z stays below this number, and without a ridge it is the smaller
        of `n` and of this number. Newton's steps in the logarithm of kappa, within a bracket.
        """
        n, noise, narrow, ridge = np.broadcast_arrays(n, noise, narrow, ridge, self.d)[:4]
        with np.errstate(divide="ignore"):
            width = np.where(narrow > 0, 1 / narrow, np.inf)
        goal = np.where(ridge > 0, n, np.minimum(n, width))
        high = np.log(np.maximum(2 * (self.d + noise) / np.minimum(n, width), 4 * ridge / n))
        low = high - 80.0
        u = high - 1.0
        for _ in range(200):
            kappa = np.exp(u)
            degrees = self.degrees(kappa)
            z = degrees.first + noise / kappa
            room = 1 - z * narrow
            with np.errstate(divide="ignore", invalid="ignore"):
                term = np.where(ridge > 0, ridge / (kappa * room), 0.0)
                value = np.where((room <= 0) & (ridge > 0), np.inf, z + term - goal)
                fall = z - degrees.second  # minus the derivative of z in log kappa
                step = u + value / (fall + term * (1 + narrow * fall / room))
            low, high = np.where(value > 0, u, low), np.where(value > 0, high, u)
            new = np.where((step > low) & (step < high), step, (low + high) / 2)
            done = np.abs(new - u) <= 1e-14 * (1 + np.abs(u))
            u = new
            if done.all():
                break
        return np.exp(u)
