"""Ridge regression on a population with a given covariance: what a penalty leaves of each direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize.elementwise import find_root

from .._checks import numbers

__all__ = ["Degrees", "Spectrum", "penalties_of"]

_OF = "spectrum: eigenvalues of the"


@dataclass(frozen=True)
class Degrees:
    """Degrees of freedom at given penalties, in arrays of their shape.

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
    """Eigenvalues of the covariances of core and spurious part, with mean one.

    Attributes
    ----------
    alpha : ndarray
        Fraction of the variance in the spurious part.
    d : ndarray
        Number of coordinates.
    rank : ndarray
        Number of directions of positive variance.
    """

    def __init__(self, values: np.ndarray, core: np.ndarray, spurious: np.ndarray) -> None:
        self._values, self._core, self._spurious = values, core, spurious  # the last two: multiplicities, (..., m)
        self.d = (core + spurious).sum(-1)
        self.alpha = (values * spurious).sum(-1) / self.d
        self.rank = ((core + spurious) * (values > 0)).sum(-1)
        self._teacher = values * core / (values * core).sum(-1, keepdims=True)

    @classmethod
    def isotropic(cls, alpha: np.ndarray, d: np.ndarray) -> Spectrum:
        """Return `d` coordinates of variance one, a fraction `alpha` of them spurious."""
        out = cls(np.ones(1), ((1 - alpha) * d)[..., None], (alpha * d)[..., None])
        out.rank = d  # without rounding, for comparisons
        return out

    @classmethod
    def of(cls, pair: Any) -> Spectrum:
        """Check two lists of eigenvalues, of the core and of the spurious part."""
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
        """Return the degrees of freedom at penalties `kappa` > 0."""
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
        """Find the kappa with z + ridge / (kappa (1 - z narrow)) = n, z = tr Sigma (Sigma + kappa)^-1 + noise / kappa.

        `narrow` is one over the number of features. The root has z below this number; without a ridge, z is the smaller
        of `n` and this number.
        """
        n, noise, narrow, ridge = np.broadcast_arrays(n, noise, narrow, ridge, self.d)[:4]
        with np.errstate(divide="ignore"):
            width = np.where(narrow > 0, 1 / narrow, np.inf)
        goal = np.where(ridge > 0, n, np.minimum(n, width))
        every = np.broadcast_to(self._core + self._spurious, (*n.shape, self._values.size)).reshape(n.size, -1)

        def above(u: np.ndarray, at: np.ndarray, noise: np.ndarray, *others: np.ndarray) -> np.ndarray:
            """The left-hand side minus the goal at kappa = exp(u), a decreasing function."""
            narrow, ridge, goal = others
            kappa = np.exp(u)
            z = (every[at] * (self._values / (self._values + kappa[..., None]))).sum(-1) + noise / kappa
            room = 1 - z * narrow
            with np.errstate(divide="ignore", invalid="ignore"):
                value = z + np.where(ridge > 0, ridge / (kappa * room), 0.0) - goal
            return np.where((room <= 0) & (ridge > 0), 1e300, value)

        high = np.log(np.maximum(2 * (self.d + noise) / np.minimum(n, width), 4 * ridge / n))
        given = (np.arange(n.size), *(x.ravel() for x in (noise, narrow, ridge, goal)))
        found = find_root(above, (high.ravel() - 80, high.ravel()), args=given, tolerances={"xatol": 1e-15})
        return np.asarray(np.exp(found.x)).reshape(n.shape)


def penalties_of(values: np.ndarray, n: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the roots kappa of sum s / (s + kappa) + noise / kappa = n, over eigenvalues s of multiplicity one."""
    return Spectrum(values, np.ones_like(values), np.zeros_like(values)).penalty(n, noise)
