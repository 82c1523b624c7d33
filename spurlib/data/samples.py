"""Samples with a core and a spurious part, from arrays of the user or synthetic, Gaussian or on spheres."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checks import choice, fraction, number, numbers, positive, seed_of
from .moments import concentration, mask_of

QUERIES = ("fresh", "zero")


@dataclass(frozen=True)
class SpuriousData:
    """Training samples z = [x, y] with labels of x, their spurious queries, and a test set.

    Attributes
    ----------
    Z : ndarray, shape (n, d)
        Training samples.
    g : ndarray, shape (n,)
        Training labels, -1 or +1, which depend on the core and possibly on noise. For images of more than two classes
        the label is the position of the class, 0.0, 1.0, ... In `from_arrays` labels are any numbers.
    Z_spurious : ndarray, shape (n, d)
        Spurious queries: row i has the spurious part of sample i, but not its core (see `query`).
    Z_test : ndarray, shape (n_test, d)
        Test samples, cores and spurious parts both fresh.
    g_test : ndarray, shape (n_test,)
        Test labels.
    spurious : ndarray of bool, shape (d,)
        True at the spurious coordinates.
    query : str
        The core of the spurious queries: ``"fresh"``, drawn anew or taken from another sample; ``"zero"``; or
        ``"given"``, see `from_arrays`.
    source : str
        Where the data come from, and which copy.
    image_shape : tuple of int
        Height, width and channels of an image; empty for other data.
    offset, scale : ndarray of shape (d,), float
        The pixels of an image are ``offset + scale * z``, in [0, 1] for framed images.
    u : ndarray, shape (d_x,)
        Unit vector of the labels :math:`g = \\mathrm{sign}(u^\\top x)`, for synthetic data; empty for other data.
    """

    Z: np.ndarray
    g: np.ndarray
    Z_spurious: np.ndarray
    Z_test: np.ndarray
    g_test: np.ndarray
    spurious: np.ndarray
    query: str
    source: str
    image_shape: tuple[int, ...] = ()
    offset: np.ndarray = field(default_factory=lambda: np.empty(0))
    scale: float = 1.0
    u: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def alpha(self) -> float:
        """Fraction of spurious coordinates, d_y / d."""
        return float(self.spurious.mean())

    @classmethod
    def from_arrays(
        cls,
        Z: Any,
        g: Any,
        *,
        spurious: Any,
        query: Any = "zero",
        Z_test: Any = None,
        g_test: Any = None,
        source: str = "arrays",
        seed: int = 0,
    ) -> SpuriousData:
        """Make a data set from your own arrays, with spurious queries made from them.

        Parameters
        ----------
        Z : array, shape (n, d)
            Training samples, n at least 4.
        g : array, shape (n,)
            Labels.
        spurious : array of bool, shape (d,)
            True at the spurious coordinates.
        query : {"zero", "fresh"} or array, shape (n, d)
            The core of query i: zero, or that of another sample that is drawn with `seed`. An array holds the queries
            themselves, whose spurious coordinates must be those of `Z`.
        Z_test, g_test : array, shape (m, d) and (m,), optional
            Test samples. Default: none, and `Z_test` has no rows.
        source : str
            Where the data come from, in a few words.
        seed : int
            Seed of the choice of the other samples.

        Returns
        -------
        SpuriousData

        Raises
        ------
        ValueError
            Shapes do not match, there are fewer than four samples, all samples are zero, entries are NaN or infinite,
            `query` is unknown, only one of `Z_test` and `g_test` is given, or the spurious coordinates of queries and
            samples differ.

        Warns
        -----
        UserWarning
            For each deviation that `concentration` finds: the scale, the mean, the spread of norms, few directions, or
            correlated parts. Measured alignments are correct nevertheless, but formulas for them may not apply.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> Z = rng.standard_normal((50, 60))
        >>> own = SpuriousData.from_arrays(Z, np.sign(Z[:, 0]), spurious=np.arange(60) >= 30)
        >>> own.alpha, own.Z_spurious[:, :30].any().item()
        (0.5, False)
        """
        Z = numbers(Z, "Z")
        if Z.ndim != 2 or len(Z) < 4:
            raise ValueError(f"Z must have two axes and four rows or more, got shape {Z.shape}")
        mask, labels = mask_of(spurious, Z.shape[1]), _labels(g, "g", len(Z))
        if (Z_test is None) != (g_test is None):
            raise ValueError("Z_test and g_test are given together")
        test = np.empty((0, Z.shape[1])) if Z_test is None else numbers(Z_test, "Z_test")
        if test.ndim != 2 or test.shape[1] != Z.shape[1]:
            raise ValueError(f"Z_test must have two axes and {Z.shape[1]} columns, got shape {test.shape}")
        if isinstance(query, str):
            queries = Z.copy()
            others = (np.arange(len(Z)) + generators(seed, 1)[0].integers(1, len(Z), len(Z))) % len(Z)
            queries[:, ~mask] = 0.0 if choice(query, "query", QUERIES) == "zero" else Z[others][:, ~mask]
        else:
            queries = numbers(query, "query")
            if queries.shape != Z.shape or not (queries[:, mask] == Z[:, mask]).all():
                raise ValueError(f"query must have the shape of Z, {Z.shape}, and its spurious coordinates")
        for found in concentration(Z, mask).warnings:
            warnings.warn(f"Z: {found}", stacklevel=2)
        return cls(
            Z=Z,
            g=labels,
            Z_spurious=queries,
            Z_test=test,
            g_test=np.empty(0) if g_test is None else _labels(g_test, "g_test", len(test)),
            spurious=mask,
            query=query if isinstance(query, str) else "given",
            source=f"{source}, d = {Z.shape[1]}",
        )

    def image(self, z: np.ndarray) -> np.ndarray:
        """Return a sample, shape (d,), as an image clipped to [0, 1], shape (height, width) or (height, width, 3).

        A ``ValueError`` is raised for data that are not images, and for a sample of another shape.
        """
        if not self.image_shape:
            raise ValueError("image: these data are not images")
        z = numbers(z, "z")
        if z.shape != self.spurious.shape:
            raise ValueError(f"z must be one sample of shape {self.spurious.shape}, got {z.shape}")
        picture = np.clip(self.offset + self.scale * z, 0.0, 1.0).reshape(self.image_shape)
        return picture[..., 0] if self.image_shape[-1] == 1 else picture


def synthetic(
    *,
    n: int,
    d: int,
    alpha: float,
    n_test: int = 1000,
    label_noise: float = 0.0,
    query: str = "fresh",
    spherical: bool = False,
    seed: int = 0,
) -> SpuriousData:
    r"""Draw Gaussian or spherical samples with the labels :math:`g = \mathrm{sign}(u^\top x)`.

    Parameters
    ----------
    n, n_test : int
        Numbers of training and test samples.
    d : int
        Dimension of a sample.
    alpha : float
        Fraction of spurious coordinates, in (0, 1). The last d_y coordinates are spurious, where d_y is alpha d
        rounded.
    label_noise : float
        Probability, in [0, 1/2], with which a label (training and test) is flipped.
    query : {"fresh", "zero"}
        The core of a spurious query: drawn anew, or zero.
    spherical : bool
        False: standard Gaussian samples. True: the core is scaled to the norm :math:`\sqrt{d_x}` and the spurious part
        to :math:`\sqrt{d_y}`, so that both are uniform on spheres. These samples satisfy the assumptions on the data in
        chapter `random-features`.
    seed : int
        Seed of everything, including the direction u, which is uniform on the unit sphere. Training sets are nested:
        for equal seed, d and alpha, a smaller training set consists of the first samples of a larger one.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        A size is below 1, `alpha` or `label_noise` is out of range, `query` is unknown, or `alpha` leaves a part empty.

    Notes
    -----
    Chapter `spurious-features`.

    Examples
    --------
    >>> data = synthetic(n=4, d=6, alpha=0.5, n_test=2, seed=0)
    >>> data.Z.shape, data.spurious.astype(int), data.g
    ((4, 6), array([0, 0, 0, 1, 1, 1]), array([ 1.,  1., -1., -1.]))
    >>> bool((data.Z_spurious[:, data.spurious] == data.Z[:, data.spurious]).all())
    True
    """
    n, d, n_test = positive(n, "n"), positive(d, "d"), positive(n_test, "n_test")
    alpha = fraction(alpha, "alpha")
    d_y = round(alpha * d)
    if not 0 < d_y < d:
        raise ValueError(f"alpha = {alpha} leaves one of the two parts of a sample empty at d = {d}")
    label_noise = number(label_noise, "label_noise", least=0.0)
    if label_noise > 0.5:
        raise ValueError(f"label_noise must lie in [0, 1/2], got {label_noise!r}")
    query, d_x = choice(query, "query", QUERIES), d - d_y
    teacher, train, test, core, flips, test_flips = generators(seed, 6)
    u = teacher.standard_normal(d_x)
    u /= np.linalg.norm(u)

    def labels(Z: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        clean = np.where(Z[:, :d_x] @ u >= 0, 1.0, -1.0)
        return np.where(noise.random(len(Z)) < label_noise, -clean, clean)

    def parts(A: np.ndarray) -> np.ndarray:
        return A * (math.sqrt(A.shape[1]) / np.linalg.norm(A, axis=1, keepdims=True)) if spherical else A

    def samples(rng: np.random.Generator, count: int) -> np.ndarray:
        A = rng.standard_normal((count, d))
        return np.hstack([parts(A[:, :d_x]), parts(A[:, d_x:])])

    Z, Z_test = samples(train, n), samples(test, n_test)
    Z_spurious = Z.copy()
    Z_spurious[:, :d_x] = parts(core.standard_normal((n, d_x))) if query == "fresh" else 0.0
    spurious = np.arange(d) >= d_x
    return SpuriousData(
        Z=Z,
        g=labels(Z, flips),
        Z_spurious=Z_spurious,
        Z_test=Z_test,
        g_test=labels(Z_test, test_flips),
        spurious=spurious,
        query=query,
        source=f"{'uniform on spheres' if spherical else 'standard Gaussian'}, d = {d}",
        u=u,
    )


def _labels(g: Any, name: str, n: int) -> np.ndarray:
    labels = numbers(g, name)
    if labels.shape != (n,):
        raise ValueError(f"{name} must hold one label for each of the {n} samples, got shape {labels.shape}")
    return labels


def generators(seed: int, count: int) -> list[np.random.Generator]:
    """Independent generators, all from one seed."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed_of(seed)).spawn(count)]
