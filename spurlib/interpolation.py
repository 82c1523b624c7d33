"""Minimum-norm interpolation and kernel ridge regression, with leave-one-out in closed form."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from ._checks import Array, like, number, precision, tensor
from ._cholesky import SingularKernelError, System, invert, listed, silent

__all__ = ["Evaluation", "Interpolator", "Kernel", "SingularKernelError", "Solve"]

_ROWS = 2**26  # entries of kernel rows that are asked for at a time: half a gigabyte


class Kernel(Protocol):
    """What `Interpolator` asks of a kernel, such as `RandomFeatures`.

    Three attributes are read where a kernel has them: ``d``, the dimension of a sample; ``n_features``, which bounds
    the rank of its matrices; and ``dtype``, the precision in which they are computed (default: that of the matrix that
    ``gram`` returns). The matrix is overwritten by the fit: a kernel that keeps it must return a copy, or a read-only
    array.
    """

    def gram(self, A: Array, B: Array, /) -> Array:
        """Kernel matrix of the rows of `A` with the rows of `B`, shape (len(A), len(B))."""


class Evaluation:
    r"""Predictions, alignments and stabilities at queries, all from one kernel matrix of queries and samples.

    `Interpolator.at` and `Solve.at` make it. Each attribute is computed when it is first read, and kept. The kernel
    rows of the queries are computed once and kept where they take at most half a gigabyte. Those of more queries are
    computed in pieces and dropped: once for all of ``predictions``, ``own`` and ``own_stability``, and once more for
    ``alignment``. Queries must not be changed before the last attribute is read.

    Examples
    --------
    >>> import numpy as np
    >>> at = Solve(np.array([[2.0, 1.0], [1.0, 2.0]]), [1.0, -1.0]).at(np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> at.predictions.round(9), at.own.round(9), at.own_stability.round(9)
    (array([ 0.5, -0.5]), array([0.5, 0.5]), array([ 0.75, -0.75]))
    """

    def __init__(self, solve: Solve, Q: Array, rows: Callable[[Array], torch.Tensor], kind: Array):
        self._solve, self._Q, self._ask, self._kind = solve, Q, rows, kind

    @cached_property
    def _all_rows(self) -> torch.Tensor:
        return self._ask(self._Q)

    def _pieces(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The kernel rows: all of them, which are kept, or in pieces, which are not."""
        step = max(1, _ROWS // len(self._solve.g))
        if len(self._Q) <= step:
            yield slice(None), self._all_rows
            return
        for start in range(0, len(self._Q), step):
            part = slice(start, start + step)
            yield part, self._ask(self._Q[part])

    @cached_property
    def _pass(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predictions and, of as many queries as samples, own alignments: what one pass over the rows gives."""
        solve, q = self._solve, len(self._Q)
        predictions = solve.g.new_empty(q, *solve.g.shape[1:])
        own = solve.g.new_empty(q) if q == len(solve.g) else None
        for part, rows in self._pieces():
            predictions[part] = rows @ solve.coefficients
            if own is not None:
                own[part] = torch.einsum("ij,ij->i", rows, solve._inverse[part])
        return predictions, own

    @cached_property
    def _alignment(self) -> torch.Tensor:
        F = self._solve.g.new_empty(len(self._Q), len(self._solve.g))
        for part, rows in self._pieces():
            torch.mm(rows, self._solve._inverse, out=F[part])
        return F

    @property
    def _own(self) -> torch.Tensor:
        own = self._pass[1]
        if own is None:
            raise ValueError(
                "own pairs query i with training sample i: "
                f"there must be {len(self._solve.g)} queries, got {len(self._Q)}"
            )
        return own

    @cached_property
    def predictions(self) -> Array:
        """Predictions f(z), shape (q,), or (q, outputs) of labels with columns; the kind of the queries."""
        return like(self._pass[0], self._kind)

    @cached_property
    def alignment(self) -> Array:
        """Feature alignments F(z, z_i) = [k(z, Z) (K + ridge I)^{-1}]_i, shape (q, n); the kind of the queries."""
        return like(self._alignment, self._kind)

    @cached_property
    def stability(self) -> Array:
        """Changes f(z) - f_{-i}(z) when sample i is left out, for every ridge; the kind of the queries.

        Shape (q, n), or (q, n, outputs) of labels with columns.
        """
        return like(_times(self._alignment, self._solve._residuals), self._kind)

    @cached_property
    def own(self) -> Array:
        """Alignments F(q_i, z_i) of query i with sample i, shape (n,), for as many queries as samples.

        They take O(n^2) operations beside the kernel rows, while the diagonal of ``alignment`` takes O(n^3). With the
        spurious queries these are the F(z_i^s, z_i) of the theory. A ``ValueError`` when q is not n.
        """
        return like(self._own, self._kind)

    @cached_property
    def own_stability(self) -> Array:
        """Changes f(q_i) - f_{-i}(q_i), shape (n,) or (n, outputs), for as many queries as samples.

        O(n^2) operations beside the kernel rows. A ``ValueError`` when q is not n.
        """
        return like(_times(self._own, self._solve._residuals), self._kind)


class Solve:
    r"""The interpolator of least norm, or the ridge regression, that a kernel matrix and labels define.

    It holds no samples and no kernel: its methods take **kernel rows** k(Q, Z), shape (q, n), of queries Q with the
    training samples Z, never the queries themselves (for these: `Interpolator`). One kernel matrix of a large training
    set so serves all smaller ones, and one set of rows serves predictions and alignments. One inverse in float64
    serves predictions, all alignments, all stabilities and all leave-one-out residuals.

    Parameters
    ----------
    K : array or tensor, shape (n, n)
        Kernel matrix k(Z, Z) of the training samples.
    g : array or tensor, shape (n,) or (n, outputs)
        Training labels; several columns are several regressions with one kernel.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.
    dtype : torch.dtype, numpy dtype or str, optional
        The precision in which `K` was computed, ``"float32"`` or ``"float64"``; default: that of `K`, and never a finer
        one. Single precision makes the test for singularity stricter: a float64 matrix that was computed in float32,
        such as those of features in float32, must be declared here.
    overwrite : bool
        Whether `K`, if it is a float64 matrix that can be written to, may be used up, also by a fit that fails: the
        inverse takes its place, and nothing else of its size is made. Default: copies are made.
    progress : bool or callable
        True prints the share of the work that is done; a callable is called with it, a number from 0 to 1.

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

    The fit takes n^3 multiplications and additions. Its matrices are M alone with `overwrite`; else M, the copy of K,
    and the K that was given. Beside them it needs fewer than a thousand rows of n numbers. Only a matrix without
    Cholesky factor takes more: its eigenvectors tell which samples are at fault.

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
        self._inverse, self._diagonal = A, A.diagonal().clone()
        system.refuse_singular(self._diagonal)
        if not torch.isfinite(self.coefficients).all():
            raise ValueError("g is too large for K: the coefficients overflow float64")

    def at(self, rows: Array) -> Evaluation:
        """Predictions, alignments and stabilities at queries, from their kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries. They are not copied.

        Returns
        -------
        Evaluation
            ``.predictions``, ``.alignment``, ``.stability``; of the rows of n queries, ``.own`` and
            ``.own_stability``.
        """
        return Evaluation(self, tensor(rows, "rows", ndim=2, columns=len(self.g), device=self.g.device), _same, rows)

    def predict(self, rows: Array) -> Array:
        """Predictions f(z) at queries, from their kernel rows.

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
        """Feature alignments F(z, z_i) of queries z with all training samples, from the queries' kernel rows.

        Parameters
        ----------
        rows : array or tensor, shape (q, n)
            Kernel rows k(Q, Z) of the queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `rows`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. For its diagonal alone, `at` is faster.
        """
        return self.at(rows).alignment

    def stability(self, rows: Array) -> Array:
        """Changes f(z) - f_{-i}(z) of the predictions at queries when training sample i is left out.

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
    def _residuals(self) -> torch.Tensor:
        residuals: torch.Tensor = self.coefficients / self._diagonal.view(-1, *[1] * (self.g.ndim - 1))
        return residuals

    @property
    def loo_residuals(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (n,) or (n, outputs), the kind of the labels."""
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
    kernel : Kernel or callable
        Anything with ``gram(A, B)``: `RandomFeatures`, `TangentFeatures`, ...; or a callable (A, B) -> kernel matrix,
        such as the kernels of scikit-learn. See Notes.
    Z : array or tensor, shape (n, d)
        Training samples; a copy is kept.
    g : array or tensor, shape (n,) or (n, outputs)
        Training labels; several columns are several regressions with one kernel.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix.
    progress : bool or callable
        As for `Solve`, of the fit that follows the kernel matrix.

    Attributes
    ----------
    solve : Solve
        What takes kernel rows in place of queries.
    K : tensor, shape (n, n)
        The kernel matrix, computed anew at each access: the fit overwrites it.
    g, ridge, coefficients
        As for `Solve`.

    Raises
    ------
    ValueError
        As for `Solve`; samples of another dimension than the kernel's.
    SingularKernelError
        As for `Solve`; more samples than features, at ridge 0.

    Notes
    -----
    The kernel is asked for two matrices, k(Z, Z) and k(Q, Z), always with two arguments. The fit overwrites the first:
    a kernel that keeps it must return a copy, or a read-only array. scikit-learn's ``WhiteKernel`` is zero between two
    sets, even equal ones: ``WhiteKernel()(Z)`` is the identity, ``WhiteKernel()(Z, Z)`` is zero. In a sum of kernels it
    therefore has no effect here; its noise level is a `ridge`.

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
        if ridge == 0:
            _refuse_too_many(n, getattr(kernel, "n_features", None))
            _refuse_equal(z)
        self.kernel, self._kernel = kernel, gram
        self.Z: Array = Z.detach().clone() if isinstance(Z, torch.Tensor) else np.array(Z)
        self.solve = Solve(self._gram(), g, ridge=ridge, dtype=dtype, overwrite=True, progress=progress)
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
        """Predictions, alignments and stabilities at the rows of `Q`, all from one kernel matrix.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        Evaluation
            ``.predictions``, ``.alignment``, ``.stability``; of n queries, ``.own`` and ``.own_stability``.
        """
        tensor(Q, "Q", ndim=2, columns=self._d)
        return Evaluation(self.solve, Q if isinstance(Q, torch.Tensor) else np.asarray(Q), self._rows, Q)

    def predict(self, Q: Array) -> Array:
        """Predictions f(z) at the rows of `Q`.

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
        """Feature alignments F(z, z_i) of the rows z of `Q` with all training samples.

        Parameters
        ----------
        Q : array or tensor, shape (q, d)
            Queries.

        Returns
        -------
        array or tensor, shape (q, n), the kind of `Q`
            ``[k(z, Z) (K + ridge I)^{-1}]_i``. For F(z_i^s, z_i) alone, `at` is faster.
        """
        return self.at(Q).alignment

    def stability(self, Q: Array) -> Array:
        """Changes f(z) - f_{-i}(z) of the predictions at the rows of `Q` when training sample i is left out.

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
        return self.solve.loo_residuals

    @property
    def perp_norms(self) -> Array:
        """Squared norms of the part of each feature vector orthogonal to the other samples', 1 / [K^{-1}]_ii.

        Shape (n,), the kind of the labels; with a ridge, 1 / [(K + ridge I)^{-1}]_ii.
        """
        return self.solve.perp_norms


def _same(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _times(F: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
    """Alignments, whose last axis is the sample, times its residual, or its residuals of all outputs."""
    return F * residuals if residuals.ndim == 1 else F[..., None] * residuals


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


def checked_labels(g: Array, n: int) -> torch.Tensor:
    """Return the labels of n samples, in one or several columns, as a float64 tensor."""
    labels = tensor(g, "g", ndim=(1, 2))
    if len(labels) != n:
        raise ValueError(f"g must have one label a sample: {n} samples, {len(labels)} labels")
    return labels
