"""Minimum-norm interpolation and kernel ridge regression, with leave-one-out in closed form."""

from __future__ import annotations

from numbers import Real
from typing import Any, Protocol

import numpy as np
import torch

from ._checks import Array, like, tensor

__all__ = ["Interpolator", "Kernel", "SingularKernelError"]

_LEVERAGE = {torch.float64: 1e-10, torch.float32: 1e-5}  # below it a sample is no news beside the others


class Kernel(Protocol):
    """What `Interpolator` asks of a kernel, such as `RandomFeatures`.

    Two attributes are read where a kernel has them: ``dtype``, the precision it is computed in (default float64), and
    ``n_features``, which bounds the rank of its matrices.
    """

    def gram(self, A: Array, B: Array, /) -> Array:
        """Kernel matrix of the rows of `A` with the rows of `B`, shape (len(A), len(B))."""


class SingularKernelError(ValueError):
    """The kernel matrix has no usable inverse.

    Attributes
    ----------
    rows : list of int
        The samples at fault, where they can be named: each lies, in feature space, in the span of the others.
    """

    def __init__(self, message: str, rows: list[int] | None = None):
        super().__init__(message)
        self.rows = rows or []


class Interpolator:
    r"""The interpolator of least norm, or the ridge regression, that a kernel and a training set define.

    One Cholesky factorization in float64 serves predictions, all alignments, all stabilities and all leave-one-out
    residuals.

    Parameters
    ----------
    kernel : Kernel
        Anything with ``gram(A, B)``: `RandomFeatures`, `TangentFeatures`, ...
    Z : array or tensor, shape (n, d)
        Training samples.
    g : array or tensor, shape (n,)
        Training labels.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.

    Attributes
    ----------
    K : tensor, shape (n, n)
        The kernel matrix (without ridge), float64.
    coefficients : tensor, shape (n,)
        :math:`(K + \lambda I)^{-1} g`.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinite values, an empty set, a label count that is not n, a negative ridge.
    SingularKernelError
        At ridge 0: more samples than features, equal samples, or samples whose features nearly depend on the others;
        ``.rows`` names them. There is no silent jitter: it would change the interpolator.

    Notes
    -----
    With :math:`M = (K + \lambda I)^{-1}` (block inversion, derived in chapter "interpolation"):

    - prediction :math:`f(z) = k(z, Z) M g`;
    - alignment :math:`F(z, z_i) = [k(z, Z) M]_i`;
    - held-out residual :math:`g_i - f_{-i}(z_i) = [M g]_i / M_{ii}`;
    - stability :math:`S_{z_i}(z) = f(z) - f_{-i}(z) = F(z, z_i) [M g]_i / M_{ii}`.
    """

    def __init__(self, kernel: Kernel, Z: Array, g: Array, *, ridge: float = 0.0):
        if not callable(getattr(kernel, "gram", None)):
            raise ValueError(f"kernel must have a method gram(A, B), got {type(kernel).__name__}")
        z = tensor(Z, "Z", ndim=2, columns=getattr(kernel, "d", None))
        ridge = _checked_ridge(ridge)
        _checked_labels(g, len(z))
        if ridge == 0:
            _refuse_too_many(len(z), getattr(kernel, "n_features", None))
            _refuse_equal(z)
        self.kernel: Kernel | None = kernel
        self.Z: Array = Z
        self._fit(kernel.gram(Z, Z), g, ridge, getattr(kernel, "dtype", torch.float64))

    @classmethod
    def from_gram(cls, K: Array, g: Array, *, ridge: float = 0.0, dtype: torch.dtype = torch.float64) -> Interpolator:
        """Fit on a kernel matrix computed beforehand.

        Its methods then take kernel rows k(Q, Z), shape (q, n), in place of queries Q. One gram matrix of a large
        training set so serves all smaller ones, and one set of rows serves predictions and alignments.

        Parameters
        ----------
        K : array or tensor, shape (n, n)
            Kernel matrix of the training samples.
        g, ridge
            As for the class.
        dtype : torch.dtype
            The precision in which `K` was computed: float32 makes the test for singularity stricter.

        Returns
        -------
        Interpolator

        Raises
        ------
        ValueError, SingularKernelError
            As for the class; `K` must be square and symmetric.
        """
        self = cls.__new__(cls)
        self.kernel, self.Z = None, None
        n = len(tensor(K, "K", ndim=2))
        ridge = _checked_ridge(ridge)
        _checked_labels(g, n)
        self._fit(K, g, ridge, dtype)
        return self

    def _fit(self, K: Array, g: Array, ridge: float, dtype: torch.dtype) -> None:
        device = K.device if isinstance(K, torch.Tensor) else torch.device("cpu")
        self.g = tensor(g, "g", ndim=1, device=device)
        self.K = tensor(K, "K", ndim=2, columns=len(self.g), device=device)
        if len(self.K) != len(self.g) or (self.K - self.K.T).abs().max() > 1e-4 * self.K.abs().max():
            raise ValueError(f"K must be square and symmetric, got shape {tuple(self.K.shape)}")
        self.ridge, self._kind = ridge, g
        n = len(self.K)
        system = self.K if ridge == 0 else self.K + ridge * torch.eye(n, device=device, dtype=torch.float64)
        self._factor, info = torch.linalg.cholesky_ex(system)
        if int(info) == 0:
            M = torch.cholesky_inverse(self._factor)
            self._diagonal = M.diagonal().clone()
            leverage = 1 / (self._diagonal * system.diagonal())
        else:
            leverage = _leverage_by_eigenvalues(system)
        low = ~(leverage > _LEVERAGE.get(dtype, 1e-10))
        if int(info) != 0 or bool(low.any()):
            raise _singular(low.nonzero().flatten().tolist(), ridge)
        self.coefficients = torch.cholesky_solve(self.g[:, None], self._factor)[:, 0]

    def _cross(self, Q: Array) -> torch.Tensor:
        if self.kernel is None:
            return tensor(Q, "Q", ndim=2, columns=len(self.K), device=self.K.device)
        tensor(Q, "Q", ndim=2, columns=np.shape(self.Z)[1])
        rows = self.kernel.gram(Q, self.Z)
        return tensor(rows, "kernel.gram(Q, Z)", ndim=2, columns=len(self.K), device=self.K.device)

    def predict(self, Q: Array) -> Array:
        """Predictions f(z) at the rows of `Q`.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries (kernel rows, shape (q, n), after `from_gram`).

        Returns
        -------
        array or tensor, shape (q,), the kind of `Q`
        """
        return like(self._cross(Q) @ self.coefficients, Q)

    def alignment(self, Q: Array) -> Array:
        """Feature alignments F(z, z_i) of the rows z of `Q` with all training samples.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries (kernel rows, shape (q, n), after `from_gram`).

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. With Q the n spurious queries, its diagonal holds F(z_i^s, z_i).
        """
        return like(torch.cholesky_solve(self._cross(Q).T, self._factor).T, Q)

    def stability(self, Q: Array) -> Array:
        """Changes f(z) - f_{-i}(z) of the predictions at the rows of `Q` when training sample i is left out.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries (kernel rows, shape (q, n), after `from_gram`).

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            Exact for every ridge; no refit is done.
        """
        moved = torch.cholesky_solve(self._cross(Q).T, self._factor).T * self._residuals
        return like(moved, Q)

    @property
    def _residuals(self) -> torch.Tensor:
        return self.coefficients / self._diagonal

    @property
    def loo_residuals(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (n,), the kind of the labels."""
        return like(self._residuals, self._kind)

    @property
    def perp_norms(self) -> Array:
        """Squared norms of the part of each feature vector orthogonal to the other samples', 1 / [K^{-1}]_ii.

        Shape (n,), the kind of the labels; with a ridge, 1 / [(K + ridge I)^{-1}]_ii.
        """
        return like(1 / self._diagonal, self._kind)


def _checked_ridge(ridge: Any) -> float:
    if not (isinstance(ridge, Real) and 0 <= float(ridge) < float("inf")):
        raise ValueError(f"ridge must be a finite number of at least 0, got {ridge!r}")
    return float(ridge)


def _checked_labels(g: Array, n: int) -> None:
    labels = tensor(g, "g", ndim=1)
    if len(labels) != n:
        raise ValueError(f"g must have one label a sample: {n} samples, {len(labels)} labels")


def _refuse_too_many(n: int, n_features: int | None) -> None:
    if n_features is not None and n > n_features:
        raise SingularKernelError(
            f"Z has n = {n} samples but the kernel only {n_features} features: its matrix has rank at most "
            f"{n_features}. Use fewer samples, a wider kernel, or ridge > 0"
        )


def _refuse_equal(z: torch.Tensor) -> None:
    _, group, counts = torch.unique(z, dim=0, return_inverse=True, return_counts=True)
    rows = (counts[group] > 1).nonzero().flatten().tolist()
    if rows:
        raise SingularKernelError(f"Z holds equal samples: rows {_some(rows)}. Drop them, or use ridge > 0", rows)


def _leverage_by_eigenvalues(system: torch.Tensor) -> torch.Tensor:
    """Relative weight of each sample off the span of the others, for a matrix that has no Cholesky factor."""
    values, vectors = torch.linalg.eigh(system)
    floor = values[-1] * len(values) * torch.finfo(torch.float64).eps
    inverse_diagonal = (vectors**2 / values.clamp(min=float(floor) + 1e-300)).sum(dim=1)
    return 1 / (inverse_diagonal * system.diagonal())


def _singular(rows: list[int], ridge: float) -> SingularKernelError:
    found = (
        f"rows {_some(rows)} lie in the span of the other samples in feature space"
        if rows
        else "no single row is at fault"
    )
    advice = (
        "Drop repeated samples, use a wider kernel, float64 features, or ridge > 0"
        if ridge == 0
        else "Use a larger ridge"
    )
    return SingularKernelError(f"Z gives a kernel matrix without a usable inverse: {found}. {advice}", rows)


def _some(rows: list[int], most: int = 12) -> str:
    more = f", ... ({len(rows)} in all)" if len(rows) > most else ""
    return ", ".join(map(str, rows[:most])) + more
