"""Moments of samples that the theory restricts: scale, effective dimensions, and correlation of the two parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._checks import numbers

__all__ = ["Concentration", "concentration"]

_MOST = 2000  # samples that are used: the first ones


@dataclass(frozen=True)
class Concentration:
    r"""Moments of a sample z = [x, y] that indicate whether the feature alignments concentrate at one number.

    Attributes
    ----------
    scale : float
        Mean of :math:`\|z\|^2 / d`. The formulas are for 1.
    mean : float
        Fraction of :math:`E\|z\|^2` that is due to :math:`E z`. The formulas are for 0.
    norms : float
        Standard deviation of :math:`\|z\|^2` over its mean. The alignment of a sample depends on its norm.
    alpha : float
        Fraction of the variance that is in the spurious part; 0 where no coordinate is spurious.
    dimension_core, dimension_spurious : float
        Effective dimensions :math:`(\operatorname{tr} \Sigma)^2 / \operatorname{tr} \Sigma^2` of the two parts, with
        the covariance of each part. Inner products of samples, divided by the mean squared norm, have a standard
        deviation of one over the square root of this dimension. NaN if a part has no coordinates or no variance.
    correlation : float
        :math:`\operatorname{tr} \Sigma_{xy} \Sigma_{yx} / (\operatorname{tr} \Sigma_x^2 \operatorname{tr}
        \Sigma_y^2)^{1/2}`, where each of the three traces is estimated without bias: 0 for uncorrelated parts, 1 if y
        is a rotation of x.
    correlation_error : float
        Standard error of `correlation` for independent parts.
    """

    scale: float
    mean: float
    norms: float
    alpha: float
    dimension_core: float
    dimension_spurious: float
    correlation: float
    correlation_error: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Deviations to correct, or to note, before formulas for the alignment are compared with measurements."""
        found = []
        if self.mean > 0.1:
            found.append(f"{self.mean:.0%} of |z|^2 is the mean sample: subtract it")
        if not 0.5 <= self.scale <= 2:
            found.append(f"|z|^2 / d is {self.scale:.4g} on average, the formulas are for 1: divide by its root")
        if self.norms > 0.25:
            found.append(
                f"|z|^2 varies by {self.norms:.0%}: each sample has an alignment of its own, which depends on its norm"
            )
        for name, dimension in (("core", self.dimension_core), ("spurious part", self.dimension_spurious)):
            if dimension < 20:
                found.append(
                    f"the {name} has an effective dimension of {dimension:.3g}: inner products do not concentrate "
                    "(pass the eigenvalues of its covariance as `spectrum`, and expect a spread)"
                )
        if self.correlation > max(0.05, 4 * self.correlation_error):
            found.append(
                f"core and spurious part are correlated ({self.correlation:.2f} from 0 to 1): part of the spurious "
                "accuracy is learned, not memorized"
            )
        return tuple(found)


def concentration(Z: np.ndarray, spurious: np.ndarray) -> Concentration:
    """Measure the moments of samples that the theory restricts.

    Parameters
    ----------
    Z : array, shape (n, d)
        Samples, n at least 4; the first 2000 are used.
    spurious : array of bool, shape (d,)
        True at the spurious coordinates.

    Returns
    -------
    Concentration
        Its ``warnings`` describe the deviations in words.

    Raises
    ------
    ValueError
        Shapes do not match, there are fewer than four samples, entries are NaN or infinite, or all samples are zero.

    Notes
    -----
    Traces of products of covariances are estimated without bias from pairs of different samples, as in Song et al.
    (2012), "Feature selection via dependence maximization". See chapter `questions`.

    Examples
    --------
    >>> import numpy as np
    >>> Z = 100 * np.random.default_rng(0).standard_normal((200, 50))
    >>> concentration(Z, np.arange(50) >= 25).warnings
    ('|z|^2 / d is 9962 on average, the formulas are for 1: divide by its root',)
    """
    Z = numbers(Z, "Z")
    if Z.ndim != 2 or len(Z) < 4:
        raise ValueError(f"Z must have two axes and four rows or more, got shape {Z.shape}")
    mask = mask_of(spurious, Z.shape[1])
    Z = Z[:_MOST]
    squares = np.square(Z).sum(axis=1)
    size = float(squares.mean())
    if size == 0:
        raise ValueError("Z is zero: nothing can be measured")
    center = Z.mean(axis=0)
    n = len(Z)
    parts = [(Z - center)[:, part] for part in (~mask, mask)]
    variances = [float(np.square(part).sum()) / (n - 1) for part in parts]
    x, y = (_centered(part @ part.T) for part in parts)
    pairs = [float((a * b).sum()) / (n * (n - 3)) for a, b in ((x, x), (y, y), (x, y))]
    dimensions = [v**2 / p if v > 0 and p > 0 else math.nan for v, p in zip(variances, pairs, strict=False)]
    both = math.sqrt(pairs[0] * pairs[1])
    return Concentration(
        scale=size / Z.shape[1],
        mean=max(0.0, 1 - sum(variances) / size),
        norms=float(squares.std(ddof=1)) / size,
        alpha=variances[1] / sum(variances) if sum(variances) > 0 else 0.0,
        dimension_core=dimensions[0],
        dimension_spurious=dimensions[1],
        correlation=pairs[2] / both if both > 0 else 0.0,
        correlation_error=math.sqrt(2 / (n * (n - 3))),
    )


def _centered(gram: np.ndarray) -> np.ndarray:
    """Center a Gram matrix such that sums of products of its entries are unbiased; its diagonal becomes zero."""
    n = len(gram)
    gram = gram - np.diag(np.diag(gram))
    rows = gram.sum(axis=1)
    gram += rows.sum() / ((n - 1) * (n - 2)) - (rows[:, None] + rows) / (n - 2)
    np.fill_diagonal(gram, 0)
    return gram


def mask_of(spurious: np.ndarray, d: int) -> np.ndarray:
    """Check which of d coordinates are spurious."""
    mask = np.asarray(spurious)
    if mask.dtype != bool or mask.shape != (d,):
        raise ValueError(f"spurious must be a bool for each of the {d} coordinates, got {mask.dtype} of {mask.shape}")
    return mask
