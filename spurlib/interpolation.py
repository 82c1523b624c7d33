"""Minimum-norm interpolation and kernel ridge regression, with leave-one-out in closed form."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from ._checks import Array, like, number, precision, tensor
from ._cholesky import SingularKernelError, System, invert, listed, silent
from .evaluation import Evaluation, Fit, checked_labels, same_rows
from .filters import FilteredSolve

__all__ = ["Evaluation", "Interpolator", "Kernel", "SingularKernelError", "Solve"]


class Kernel(Protocol):
    """The interface that `Interpolator` requires of a kernel, such as `RandomFeatures`.

    Three attributes are used if a kernel has them: ``d``, the dimension of a sample; ``n_features``, which bounds the
    rank of its matrices; and ``dtype``, the precision in which they are computed (default: that of the matrix that
    ``gram`` returns). The fit overwrites the matrix: a kernel that keeps it must return a copy or a read-only array.
    """

    def gram(self, A: Array, B: Array, /) -> Array:
        """Return the kernel matrix of the rows of `A` with the rows of `B`, shape (len(A), len(B))."""


class Solve:
    r"""The minimum-norm interpolator, or the ridge regression, that a kernel matrix and labels define.

    It holds no samples and no kernel: its methods take **kernel rows** k(Q, Z), shape (q, n), of queries Q with the
    training samples Z, not the queries themselves, which `Interpolator` takes. One kernel matrix of a large training
    set can therefore be used for all smaller ones, and one set of rows for predictions and alignments. Predictions,
    alignments, stabilities and leave-one-out residuals are all computed from one inverse in float64.

    Parameters
    ----------
    K : array or tensor, shape (n, n)
        Kernel matrix k(Z, Z) of the training samples.
    g : array or tensor, shape (n,) or (n, outputs)
        Training labels; several columns are several regressions with one kernel.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.
    dtype : torch.dtype, numpy dtype or str, optional
        The precision in which `K` was computed, ``"float32"`` or ``"float64"``. Default: that of `K`; a finer precision
        is ignored. Single precision makes the test for singularity stricter, so the precision of a float64 matrix that
        was computed in float32, for instance from features in float32, must be declared here.
    overwrite : bool
        Whether `K`, if it is a writable float64 matrix, may be overwritten, even by a fit that fails. It is replaced by
        the inverse, and no other matrix of its size is made. Default: copies are made.
    progress : bool or callable
        True prints the fraction of the work that is done; a callable is called with it, a number from 0 to 1.

    Attributes
    ----------
    K : tensor, shape (n, n)
        The kernel matrix (without ridge), float64, a copy; none with `overwrite`.
    g : tensor, shape (n,) or (n, outputs)
        The labels, float64, a copy.
    ridge : float
    coefficients : tensor, shape (n,) or (n, outputs)
        :math:`(K + \lambda I)^{-1} g`.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinite values, an empty set, a number of labels other than n, a negative ridge, a matrix
        that is not symmetric or is in half precision, or coefficients that overflow.
    SingularKernelError
        At ridge 0: samples without features. At ridge 0, or at a ridge that is lost in rounding: equal samples, or
        samples whose features are nearly linear combinations of those of the others. In these cases ``.rows`` lists the
        samples. At any ridge: a matrix that is found not to be positive semidefinite. Nothing is added to the diagonal
        silently, because this would change the interpolator.

    Notes
    -----
    With :math:`M = (K + \lambda I)^{-1}` (proofs by block inversion: chapters `interpolation` and `stability`):

    - prediction :math:`f(z) = k(z, Z) M g`;
    - alignment :math:`F(z, z_i) = [k(z, Z) M]_i`;
    - leave-one-out residual :math:`g_i - f_{-i}(z_i) = [M g]_i / M_{ii}`;
    - stability :math:`S_{z_i}(z) = f(z) - f_{-i}(z) = F(z, z_i) [M g]_i / M_{ii}`.

    The fit takes n^3 multiplications and additions. With `overwrite` the only matrix in memory is M; otherwise there
    are M, the copy of K, and the given K. Besides these the fit needs fewer than a thousand rows of n numbers. Only a
    matrix without a Cholesky factor needs more memory, for the eigenvectors that show which samples are at fault.

    Examples
    --------
    >>> import numpy as np
    >>> K, rows = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0]])
    >>> Solve(K, [1.0, -1.0]).predict(rows).round(12)
    array([-1.])
    >>> Solve(K, np.eye(2)).predict(rows).argmax(axis=1)  # a column of labels for each class
    array([1])
    """

    def __init__(
        self,
        K: Array,
        g: Array,
        *,
        ridge: float = 0.0,
        dtype: Any = None,
        overwrite: bool = False,
        progress: bool | Callable[[float], object] = False,
    ):
        tell = _reporter(progress)
        system = System(K, ridge=ridge, dtype=dtype, overwrite=overwrite)
        self.ridge, A = system.ridge, system.matrix
        self.g, self._kind = checked_labels(g, len(A)).to(A.device, copy=True), g
        if not overwrite:
            self.K = A.clone()
        system.factor(tell)
        y = torch.linalg.solve_triangular(A, self.g.view(len(A), -1), upper=False)
        self.coefficients = torch.linalg.solve_triangular(A.T, y, upper=True).view(self.g.shape)
        invert(A, tell)
        self._diagonal = A.diagonal().clone()
        system.refuse_singular(self._diagonal)
        if not torch.isfinite(self.coefficients).all():
            raise ValueError("g is too large for K: the coefficients overflow float64")
        self._residuals = self.coefficients / self._diagonal.view(-1, *[1] * (self.g.ndim - 1))
        self.fit = Fit(self.g, self.coefficients, A, self._residuals)

    def at(self, rows: Array) -> Evaluation:
        """Return predictions, alignments and stabilities at queries, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries. They are not copied.

        Returns
        -------
        Evaluation
            With ``.predictions``, ``.alignment`` and ``.stability``; for n queries also ``.own`` and
            ``.own_stability``.

        Raises
        ------
        ValueError
            `rows` does not have n columns, is empty, or holds NaN or infinite values.
        """
        return Evaluation(
            self.fit, tensor(rows, "rows", ndim=2, columns=len(self.g), device=self.g.device), same_rows, rows
        )

    def predict(self, rows: Array) -> Array:
        """Return the predictions f(z) at queries, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q,) or (q, outputs), the kind of `rows`
        """
        return self.at(rows).predictions

    def alignment(self, rows: Array) -> Array:
        """Return the feature alignments F(z, z_i) of queries z with all training samples, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `rows`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. For the diagonal alone, ``at(rows).own`` is faster.
        """
        return self.at(rows).alignment

    def stability(self, rows: Array) -> Array:
        """Return the changes f(z) - f_{-i}(z) of the predictions at queries when training sample i is left out.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q, n) or (q, n, outputs), the kind of `rows`
            Exact for every ridge; no refit is done.
        """
        return self.at(rows).stability

    @property
    def loo_residuals(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (n,) or (n, outputs), the kind of the labels."""
        return like(self._residuals, self._kind)

    @property
    def perp_norms(self) -> Array:
        """Squared norms 1 / [K^{-1}]_ii of the part of each feature vector that is orthogonal to all others.

        Shape (n,), the kind of the labels; with a ridge, 1 / [(K + ridge I)^{-1}]_ii.
        """
        return like(1 / self._diagonal, self._kind)


class Interpolator:
    r"""The minimum-norm interpolator, or the ridge regression, that a kernel and a training set define.

    Its methods take queries and compute their kernel rows; the formulas are those of `Solve`.

    Parameters
    ----------
    kernel : Kernel or callable
        Anything with ``gram(A, B)``: `RandomFeatures`, `TangentFeatures`, ...; or a callable (A, B) -> kernel matrix,
        such as the kernels of scikit-learn. See Notes.
    Z : array or tensor, shape (n, d)
        Training samples; a copy is kept.
    g : array or tensor, shape (n,) or (n, outputs)
        Training labels; several columns are several regressions with one kernel.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.
    filter : Filter or callable, optional
        A function of the eigenvalues of the kernel matrix, such as ``filters.flow(2.0)``, instead of a ridge. The fit
        is then a `FilteredSolve`, by one eigendecomposition, and all stabilities, ``loo_residuals`` and ``perp_norms``
        raise a ``ValueError``.
    progress : bool or callable
        As for `Solve`; it refers to the fit after the kernel matrix has been computed.

    Attributes
    ----------
    solve : Solve or FilteredSolve
        The fit, whose methods take kernel rows instead of queries.
    K : tensor, shape (n, n)
        The kernel matrix, computed anew at each access because the fit overwrites it.
    g, ridge, coefficients
        As for `Solve`.

    Raises
    ------
    ValueError
        As for `Solve`, or with a filter as for `FilteredSolve`; samples whose dimension is not that of the kernel; both
        a ridge and a filter.
    SingularKernelError
        As for `Solve`, or with a filter as for `FilteredSolve`; more samples than features, with neither ridge nor
        filter.

    Notes
    -----
    The kernel is called for two matrices, k(Z, Z) and k(Q, Z), always with two arguments. The fit overwrites the first:
    a kernel that keeps it must return a copy or a read-only array. scikit-learn's ``WhiteKernel`` is zero between two
    sets, even equal ones: ``WhiteKernel()(Z)`` is the identity, ``WhiteKernel()(Z, Z)`` is zero. In a sum of kernels it
    therefore has no effect here; pass its noise level as `ridge`.

    Examples
    --------
    >>> import numpy as np
    >>> m = Interpolator(lambda A, B: (1 + A @ B.T) ** 2, np.array([[0.0], [1.0], [2.0]]), [0.0, 1.0, 4.0])
    >>> at = m.at(np.array([[3.0], [-1.0], [4.0]]))
    >>> at.predictions.round(9), at.own.round(9)
    (array([ 9.,  1., 16.]), array([ 1., -3.,  6.]))
    """

    def __init__(
        self,
        kernel: Any,
        Z: Array,
        g: Array,
        *,
        ridge: float = 0.0,
        filter: Any = None,
        progress: bool | Callable[[float], object] = False,
    ):
        gram = getattr(kernel, "gram", None)
        gram = gram if callable(gram) else kernel
        if isinstance(kernel, type) or not callable(gram):
            raise ValueError(
                f"kernel must have a method gram(A, B), or be a callable (A, B) -> matrix, got {type(kernel).__name__}"
            )
        z = tensor(Z, "Z", ndim=2, columns=getattr(kernel, "d", None))
        n, self._d = z.shape
        ridge = number(ridge, "ridge", least=0.0)
        checked_labels(g, n)
        _reporter(progress)
        dtype = getattr(kernel, "dtype", None)
        dtype = None if dtype is None else precision(dtype, "kernel.dtype")
        if filter is not None and ridge:
            raise ValueError("filter takes the place of the ridge: give one of them")
        if ridge == 0 and filter is None:
            _refuse_too_many(n, getattr(kernel, "n_features", None))
            _refuse_equal(z)
        self.kernel, self._kernel = kernel, gram
        self.Z: Array = Z.detach().clone() if isinstance(Z, torch.Tensor) else np.array(Z)
        self.solve: Solve | FilteredSolve
        if filter is None:
            self.solve = Solve(self._gram(), g, ridge=ridge, dtype=dtype, overwrite=True, progress=progress)
        else:
            self.solve = FilteredSolve(self._gram(), g, filter)
        self.g, self.ridge, self.coefficients = self.solve.g, ridge, self.solve.coefficients

    @staticmethod
    def from_gram(
        K: Array,
        g: Array,
        *,
        ridge: float = 0.0,
        dtype: Any = None,
        overwrite: bool = False,
        progress: bool | Callable[[float], object] = False,
    ) -> Solve:
        """Fit on a kernel matrix computed beforehand: another name for `Solve`, whose methods take kernel rows.

        Parameters
        ----------
        K, g, ridge, dtype, overwrite, progress
            As for `Solve`.

        Returns
        -------
        Solve

        Raises
        ------
        ValueError, SingularKernelError
            As for `Solve`.
        """
        return Solve(K, g, ridge=ridge, dtype=dtype, overwrite=overwrite, progress=progress)

    def filtered(self, filter: Any) -> Interpolator:
        """Return the same kernel, samples and labels with another filter, from the same eigenvectors.

        Parameters
        ----------
        filter : Filter or callable
            A function of the eigenvalues, such as ``filters.flow(2.0)``.

        Returns
        -------
        Interpolator

        Raises
        ------
        ValueError
            This interpolator was fitted without a filter, or `filter` is not finite on the spectrum.

        Examples
        --------
        >>> import numpy as np
        >>> from spurlib import InfiniteWidth, filters
        >>> early = Interpolator(InfiniteWidth("relu"), np.eye(3), [1.0, -1.0, 1.0], filter=filters.flow(0.1))
        >>> early.predict(np.eye(3)[:1]).round(4), early.filtered(filters.ridge(0.0)).predict(np.eye(3)[:1]).round(4)
        (array([0.0165]), array([1.]))
        """
        if not isinstance(self.solve, FilteredSolve):
            raise ValueError("filtered needs a fit with a filter: Interpolator(kernel, Z, g, filter=...)")
        out = Interpolator.__new__(Interpolator)
        vars(out).update(vars(self), solve=self.solve.filtered(filter))
        out.coefficients = out.solve.coefficients
        return out

    def _ask(self, A: Array) -> Array:
        return self._kernel(A, self.Z)

    def _gram(self) -> Array:
        K, n = self._ask(self.Z), len(self.Z)
        if np.shape(K) != (n, n):
            raise ValueError(f"K = kernel.gram(Z, Z) must have shape {(n, n)}, got {np.shape(K)}")
        return K

    def _rows(self, Q: Array) -> torch.Tensor:
        rows = tensor(self._ask(Q), "kernel.gram(Q, Z)", ndim=2, columns=len(self.g), device=self.g.device)
        if len(rows) != len(Q):
            raise ValueError(f"kernel.gram(Q, Z) must have a row for each of {len(Q)} queries, got {len(rows)}")
        return rows

    @property
    def K(self) -> torch.Tensor:
        """The kernel matrix of the training samples, float64, shape (n, n), computed anew."""
        return tensor(self._gram(), "kernel.gram(Z, Z)", ndim=2, device=self.g.device)

    def at(self, Q: Array) -> Evaluation:
        """Return predictions, alignments and stabilities at the rows of `Q`, all from one kernel matrix.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        Evaluation
            With ``.predictions``, ``.alignment`` and ``.stability``; for n queries also ``.own`` and
            ``.own_stability``.

        Raises
        ------
        ValueError
            `Q` does not have d columns, is empty, or holds NaN or infinite values.
        """
        tensor(Q, "Q", ndim=2, columns=self._d)
        return Evaluation(self.solve.fit, Q if isinstance(Q, torch.Tensor) else np.asarray(Q), self._rows, Q)

    def predict(self, Q: Array) -> Array:
        """Return the predictions f(z) at the rows of `Q`.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q,) or (q, outputs), the kind of `Q`
        """
        return self.at(Q).predictions

    def alignment(self, Q: Array) -> Array:
        """Return the feature alignments F(z, z_i) of the rows z of `Q` with all training samples.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``, or ``[k(z, Z) q(K)]_i`` with a filter q. For F(z_i^s, z_i) alone,
            ``at(Q).own`` is faster.
        """
        return self.at(Q).alignment

    def stability(self, Q: Array) -> Array:
        """Return the changes f(z) - f_{-i}(z) of the predictions at the rows of `Q` when training sample i is left out.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q, n) or (q, n, outputs), the kind of `Q`
            Exact for every ridge; no refit is done.
        """
        return self.at(Q).stability

    @property
    def loo_residuals(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (n,) or (n, outputs), the kind of the labels."""
        return self._by_ridge.loo_residuals

    @property
    def perp_norms(self) -> Array:
        """Squared norms 1 / [K^{-1}]_ii of the part of each feature vector that is orthogonal to all others.

        Shape (n,), the kind of the labels; with a ridge, 1 / [(K + ridge I)^{-1}]_ii.
        """
        return self._by_ridge.perp_norms

    @property
    def _by_ridge(self) -> Solve:
        if isinstance(self.solve, FilteredSolve):
            raise ValueError("leaving a sample out has a closed form for a ridge only, not for a filter")
        return self.solve


def _reporter(progress: Any) -> Callable[[float], object]:
    if callable(progress):
        told: Callable[[float], object] = progress
        return told
    if not isinstance(progress, bool):
        raise ValueError(f"progress must be True, False or a callable, got {type(progress).__name__}")
    return _print_share if progress else silent


def _print_share(share: float) -> None:
    print(f"\rfit: {share:4.0%}", end="" if share < 1 else "\n", file=sys.stderr, flush=True)


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
        raise SingularKernelError(f"Z holds equal samples: rows {listed(rows)}. Drop them, or use ridge > 0", rows)
