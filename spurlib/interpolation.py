"""Minimum-norm interpolation and kernel ridge regression, with leave-one-out in closed form."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from ._checks import Array, like, number, precision, square, tensor

__all__ = ["Interpolator", "Kernel", "SingularKernelError", "Solve"]

_LEVERAGE = {torch.float64: 1e-10, torch.float32: 1e-5}  # below it a sample is no news beside the others


class Kernel(Protocol):
    """What `Interpolator` asks of a kernel, such as `RandomFeatures`.

    Three attributes are read where a kernel has them: ``d``, the dimension of a sample; ``n_features``, which bounds
    the rank of its matrices; and ``dtype``, the precision in which they are computed (default: that of the matrix that
    ``gram`` returns).
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


class Solve:
    r"""The interpolator of least norm, or the ridge regression, that a kernel matrix and labels define.

    It holds no samples and no kernel: its methods take **kernel rows** k(Q, Z), shape (q, n), of queries Q with the
    training samples Z, never the queries themselves (for these: `Interpolator`). One kernel matrix of a large training
    set so serves all smaller ones, and one set of rows serves predictions and alignments. One Cholesky factorization
    in float64 serves predictions, all alignments, all stabilities and all leave-one-out residuals.

    Parameters
    ----------
    K : array or tensor, shape (n, n)
        Kernel matrix k(Z, Z) of the training samples.
    g : array or tensor, shape (n,)
        Training labels.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.
    dtype : torch.dtype, numpy dtype or str, optional
        The precision in which `K` was computed, ``"float32"`` or ``"float64"``; default: that of `K`, and never a finer
        one. Single precision makes the test for singularity stricter: a float64 matrix that was computed in float32,
        such as those of features in float32, must be declared here.

    Attributes
    ----------
    K : tensor, shape (n, n)
        The kernel matrix (without ridge), float64, a copy.
    g : tensor, shape (n,)
        The labels, float64, a copy.
    ridge : float
    coefficients : tensor, shape (n,)
        :math:`(K + \lambda I)^{-1} g`.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinite values, an empty set, a label count that is not n, a negative ridge, a matrix that
        is not symmetric, or one in half precision.
    SingularKernelError
        At ridge 0: equal samples, samples without features, or samples whose features nearly depend on the others;
        ``.rows`` names them. At any ridge: a matrix that is not positive semidefinite, where that shows. There is no
        silent jitter: it would change the interpolator.

    Notes
    -----
    With :math:`M = (K + \lambda I)^{-1}` (block inversion, derived in chapter "interpolation"):

    - prediction :math:`f(z) = k(z, Z) M g`;
    - alignment :math:`F(z, z_i) = [k(z, Z) M]_i`;
    - held-out residual :math:`g_i - f_{-i}(z_i) = [M g]_i / M_{ii}`;
    - stability :math:`S_{z_i}(z) = f(z) - f_{-i}(z) = F(z, z_i) [M g]_i / M_{ii}`.

    Examples
    --------
    >>> import numpy as np
    >>> K, rows = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0]])
    >>> Solve(K, [1.0, -1.0]).predict(rows)
    array([-1.])
    """

    def __init__(self, K: Array, g: Array, *, ridge: float = 0.0, dtype: Any = None):
        device = K.device if isinstance(K, torch.Tensor) else torch.device("cpu")
        matrix = square(K, "K", device=device)
        self.ridge = _checked_ridge(ridge)
        self.g = _checked_labels(g, len(matrix)).to(device, copy=True)
        least = _LEVERAGE[_judged_in(K, dtype)]
        _refuse_indefinite(matrix, self.ridge)
        system = matrix
        if self.ridge > 0:
            system = matrix.clone()
            system.diagonal().add_(self.ridge)
        self._factor, info = torch.linalg.cholesky_ex(system)
        if int(info) == 0:
            M = torch.cholesky_inverse(self._factor)
            self._diagonal = M.diagonal().clone()
            del M
            leverage = 1 / (self._diagonal * system.diagonal())
        else:
            leverage = _leverage_by_eigenvalues(system, self.ridge, least)
        low = ~(leverage > least)
        if int(info) != 0 or bool(low.any()):
            raise _singular(low.nonzero().flatten().tolist(), self.ridge)
        self.coefficients = torch.cholesky_solve(self.g[:, None], self._factor)[:, 0]
        if not torch.isfinite(self.coefficients).all():
            raise ValueError("g is too large for K: the coefficients overflow float64")
        self.K, self._kind = matrix.clone(), g

    def _rows(self, rows: Array) -> torch.Tensor:
        return tensor(rows, "rows", ndim=2, columns=len(self.g), device=self.g.device)

    def predict(self, rows: Array) -> Array:
        """Predictions f(z) at queries, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q,), the kind of `rows`
        """
        return like(self._rows(rows) @ self.coefficients, rows)

    def alignment(self, rows: Array) -> Array:
        """Feature alignments F(z, z_i) of queries z with all training samples, from the queries' kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `rows`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. With the rows of the n spurious queries, its diagonal holds
            F(z_i^s, z_i).
        """
        return like(torch.cholesky_solve(self._rows(rows).T, self._factor).T, rows)

    def stability(self, rows: Array) -> Array:
        """Changes f(z) - f_{-i}(z) of the predictions at queries when training sample i is left out.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `rows`
            Exact for every ridge; no refit is done.
        """
        moved = torch.cholesky_solve(self._rows(rows).T, self._factor).T * self._residuals
        return like(moved, rows)

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


class Interpolator:
    r"""The interpolator of least norm, or the ridge regression, that a kernel and a training set define.

    Its methods take queries, of which it computes the kernel rows; the algebra is that of `Solve`.

    Parameters
    ----------
    kernel : Kernel
        Anything with ``gram(A, B)``: `RandomFeatures`, `TangentFeatures`, ...
    Z : array or tensor, shape (n, d)
        Training samples; a copy is kept.
    g : array or tensor, shape (n,)
        Training labels.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.

    Attributes
    ----------
    solve : Solve
        What takes kernel rows in place of queries.
    K, g, ridge, coefficients
        As for `Solve`.

    Raises
    ------
    ValueError
        As for `Solve`; samples of another dimension than the kernel's.
    SingularKernelError
        As for `Solve`; more samples than features, at ridge 0.
    """

    def __init__(self, kernel: Kernel, Z: Array, g: Array, *, ridge: float = 0.0):
        if not callable(getattr(kernel, "gram", None)):
            raise ValueError(f"kernel must have a method gram(A, B), got {type(kernel).__name__}")
        z = tensor(Z, "Z", ndim=2, columns=getattr(kernel, "d", None))
        n, self._d = z.shape
        ridge = _checked_ridge(ridge)
        _checked_labels(g, n)
        dtype = getattr(kernel, "dtype", None)
        dtype = None if dtype is None else precision(dtype, "kernel.dtype")
        if ridge == 0:
            _refuse_too_many(n, getattr(kernel, "n_features", None))
            _refuse_equal(z)
        self.kernel = kernel
        self.Z: Array = Z.detach().clone() if isinstance(Z, torch.Tensor) else np.array(Z)
        K = kernel.gram(self.Z, self.Z)
        if np.shape(K) != (n, n):
            raise ValueError(f"K = kernel.gram(Z, Z) must have shape {(n, n)}, got {np.shape(K)}")
        self.solve = Solve(K, g, ridge=ridge, dtype=dtype)
        self.K, self.g, self.ridge = self.solve.K, self.solve.g, ridge
        self.coefficients = self.solve.coefficients

    @staticmethod
    def from_gram(K: Array, g: Array, *, ridge: float = 0.0, dtype: Any = None) -> Solve:
        """Fit on a kernel matrix computed beforehand: another name for `Solve`, whose methods take kernel rows.

        Parameters
        ----------
        K, g, ridge, dtype
            As for `Solve`.

        Returns
        -------
        Solve

        Raises
        ------
        ValueError, SingularKernelError
            As for `Solve`.
        """
        return Solve(K, g, ridge=ridge, dtype=dtype)

    def _rows(self, Q: Array) -> torch.Tensor:
        tensor(Q, "Q", ndim=2, columns=self._d)
        rows = self.kernel.gram(Q, self.Z)
        return tensor(rows, "kernel.gram(Q, Z)", ndim=2, columns=len(self.g), device=self.g.device)

    def predict(self, Q: Array) -> Array:
        """Predictions f(z) at the rows of `Q`.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q,), the kind of `Q`
        """
        return like(self.solve.predict(self._rows(Q)), Q)

    def alignment(self, Q: Array) -> Array:
        """Feature alignments F(z, z_i) of the rows z of `Q` with all training samples.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. With Q the n spurious queries, its diagonal holds F(z_i^s, z_i).
        """
        return like(self.solve.alignment(self._rows(Q)), Q)

    def stability(self, Q: Array) -> Array:
        """Changes f(z) - f_{-i}(z) of the predictions at the rows of `Q` when training sample i is left out.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            Exact for every ridge; no refit is done.
        """
        return like(self.solve.stability(self._rows(Q)), Q)

    @property
    def loo_residuals(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (n,), the kind of the labels."""
        return self.solve.loo_residuals

    @property
    def perp_norms(self) -> Array:
        """Squared norms of the part of each feature vector orthogonal to the other samples', 1 / [K^{-1}]_ii.

        Shape (n,), the kind of the labels; with a ridge, 1 / [(K + ridge I)^{-1}]_ii.
        """
        return self.solve.perp_norms


def _checked_ridge(ridge: Any) -> float:
    return number(ridge, "ridge", least=0.0)


def _checked_labels(g: Array, n: int) -> torch.Tensor:
    labels = tensor(g, "g", ndim=1)
    if len(labels) != n:
        raise ValueError(f"g must have one label a sample: {n} samples, {len(labels)} labels")
    return labels


def _judged_in(K: Array, told: Any) -> torch.dtype:
    """The precision in which a matrix was computed: what its numbers can hold, or a coarser one that was told."""
    kind = K.dtype if isinstance(K, torch.Tensor) else np.asarray(K).dtype
    floating = kind.is_floating_point if isinstance(kind, torch.dtype) else kind.kind == "f"
    if floating and kind.itemsize < 4:
        raise ValueError(f"K must be computed in float32 or float64: {kind} is too coarse for an inverse")
    own = torch.float32 if floating and kind.itemsize == 4 else torch.float64
    return own if told is None or own == torch.float32 else precision(told)


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


def _refuse_indefinite(K: torch.Tensor, ridge: float) -> None:
    """Refuse what no kernel matrix has, as far as entries tell: k(x, x) < 0, k(x, y)^2 > k(x, x) k(y, y)."""
    own, excess = K.diagonal(), K.abs()
    rounding = 1e-4 * excess.max()
    roots = own.clamp(min=0).sqrt()
    excess.sub_(torch.outer(roots, roots))
    rows = ((own < 0) | (excess > rounding).any(dim=1)).nonzero().flatten().tolist()
    if rows:
        raise SingularKernelError(
            f"K is not positive semidefinite, so not a kernel matrix: rows {_some(rows)} have a negative entry on its "
            "diagonal, or one off it larger than the two on it allow",
            rows,
        )
    rows = (own == 0).nonzero().flatten().tolist()
    if rows and ridge == 0:
        raise SingularKernelError(
            f"Z holds samples without features: rows {_some(rows)}, whose kernel with themselves is zero. Drop them, "
            "use another activation, or ridge > 0",
            rows,
        )


def _leverage_by_eigenvalues(system: torch.Tensor, ridge: float, least: float) -> torch.Tensor:
    """Relative weight of each sample off the span of the others, for a matrix that has no Cholesky factor."""
    values, vectors = torch.linalg.eigh(system)
    if values[0] < -least * values[-1]:
        low, high = float(values[0]) - ridge, float(values[-1]) - ridge
        raise SingularKernelError(
            f"K is not positive semidefinite, so not a kernel matrix: its eigenvalues go from {low:.3g} to {high:.3g}. "
            "If that is rounding, tell the precision in which it was computed (dtype), and use a ridge"
        )
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
