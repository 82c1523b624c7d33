"""Interpolation and ridge regression for every size of a growing training set, from one Cholesky factor."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from ._checks import Array, like, tensor
from ._cholesky import System
from .evaluation import checked_labels

__all__ = ["Nested", "nested"]

_BLOCK = 256  # rows of the inverse factor that are multiplied at a time


def nested(K: Array, g: Array, K_query: Array, *, ridge: float = 0.0, dtype: Any = None) -> Nested:
    r"""Fit the first n of N samples for every n = 1, ..., N with one Cholesky factor.

    Parameters
    ----------
    K : array or tensor, shape (N, N)
        Kernel matrix k(Z, Z) of all training samples, in the order in which the training set grows.
    g : array or tensor, shape (N,) or (N, outputs)
        Training labels.
    K_query : array or tensor, shape (q, N)
        Kernel rows k(Q, Z) of the queries.
    ridge : float
        :math:`\lambda \ge 0`, added to the diagonal of the kernel matrix; the same for every n.
    dtype : torch.dtype, numpy dtype or str, optional
        The precision in which `K` was computed, as for `Solve`.

    Returns
    -------
    Nested
        Predictions, alignments, residuals and stabilities, with a row for each size.

    Raises
    ------
    ValueError, SingularKernelError
        As for `Solve`. A sample is refused if its features lie in the span of those of the others in the largest
        training set, even if they do not in smaller ones.

    Notes
    -----
    **Lemma.** Let :math:`A = K + \lambda I` be positive definite, :math:`A = L L^\top` its Cholesky factorization,
    :math:`R = L^{-1}`, :math:`y = R g` and, for a query z with kernel row k, :math:`b = R k`. Let :math:`f_n` and
    :math:`F_n` be the prediction and the alignment of the first n samples. Then

    .. math::
        f_n(z) = \sum_{m \le n} b_m y_m, \quad
        F_n(z, z_i) = \sum_{m \le n} b_m R_{mi}, \quad
        (A_n^{-1})_{ii} = \sum_{m \le n} R_{mi}^2, \quad
        (A_n^{-1} g_{1:n})_i = \sum_{m \le n} R_{mi} y_m,

    where :math:`A_n` is the leading n x n block of A.

    *Proof.* L is lower triangular. If :math:`L_n` is its leading block, the leading block of the product
    :math:`L L^\top` is :math:`L_n L_n^\top`, so :math:`A_n = L_n L_n^\top`. The inverse R is lower triangular too, and
    the leading block of :math:`R L = I` gives :math:`R_n = L_n^{-1}` for its leading block. Hence
    :math:`A_n^{-1} = R_n^\top R_n`. The first n entries of b are :math:`R_n k_{1:n}`, since row m of R ends at its
    diagonal entry, and those of y are :math:`R_n g_{1:n}`. So
    :math:`f_n(z) = k_{1:n}^\top A_n^{-1} g_{1:n} = (R_n k_{1:n})^\top (R_n g_{1:n})`, and
    :math:`F_n(z, z_i) = (A_n^{-1} k_{1:n})_i = (R_n^\top R_n k_{1:n})_i`; these and the entries of :math:`R_n^\top R_n`
    and :math:`R_n^\top R_n g_{1:n}` are the four sums. ∎

    All N sizes therefore require only four cumulative sums, of the products b y, b R, R R and R y. The factor and R
    take 4 N^3 / 3 multiplications and additions, the queries q N^2, and each field a number of operations that is
    proportional to its size.

    Memory, in float64 numbers: N^2 for R and N q for the queries are kept, and N^2 more are needed while the factor is
    inverted. Each field is computed when it is first read, and kept: N q numbers for ``prediction``, N^2 for each of
    ``alignment``, ``residual`` and ``stability`` (times the number of outputs, except for ``alignment``), and N^2 more
    while one of the last two is computed. ``mean_alignment`` keeps N numbers, and takes N^2 while it is computed.

    Examples
    --------
    Polynomials of degree at most two through one, two and three points of a parabola, at the point 3:

    >>> import numpy as np
    >>> Z, g = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])
    >>> curve = nested((1 + np.outer(Z, Z)) ** 2, g, (1 + np.outer([3.0], Z)) ** 2)
    >>> curve.prediction.round(9)
    array([[0.],
           [5.],
           [9.]])
    """
    system = System(K, ridge=ridge, dtype=dtype)
    L, n = system.matrix, len(system.matrix)
    labels = checked_labels(g, n).to(L.device)
    queries = tensor(K_query, "K_query", ndim=2, columns=n, device=L.device)
    system.factor()
    R = torch.eye(n, dtype=L.dtype, device=L.device)
    torch.linalg.solve_triangular(L, R, upper=False, out=R)
    system.refuse_singular(torch.einsum("mi,mi->i", R, R))
    y = R @ labels
    if not torch.isfinite(y).all():
        raise ValueError("g is too large for K: the coefficients overflow float64")
    return Nested(R, y, queries, K_query)


class Nested:
    """The result of `nested`: predictions, alignments, residuals and stabilities for every size of the training set.

    Row n - 1 of each array belongs to the first n samples. All arrays are of the kind of the kernel rows of the
    queries.
    """

    def __init__(self, R: torch.Tensor, y: torch.Tensor, queries: torch.Tensor, kind: Array):
        self._R, self._y, self._kind = R, y, kind
        self._B = R.new_empty(len(R), len(queries))
        for start in range(0, len(R), _BLOCK):  # a block of rows of R, which is lower triangular, ends at its diagonal
            end = start + _BLOCK
            torch.mm(R[start:end, :end], queries[:, :end].T, out=self._B[start:end])

    def at(self, K_query: Array) -> Nested:
        """Return the same fits at other queries, given by their kernel rows k(Q, Z), shape (q, N).

        A ``ValueError`` is raised if `K_query` does not have N columns, is empty, or holds NaN or infinite values.
        """
        queries = tensor(K_query, "K_query", ndim=2, columns=len(self._R), device=self._R.device)
        return Nested(self._R, self._y, queries, K_query)

    @property
    def _paired(self) -> torch.Tensor:
        """The products b_m R_mi of query i, whose cumulative sums over m are its alignments with sample i."""
        if self._B.shape != self._R.shape:
            raise ValueError(
                "alignments pair query i with training sample i: K_query must have "
                f"{len(self._R)} rows, got {self._B.shape[1]}"
            )
        return self._B * self._R

    @cached_property
    def prediction(self) -> Array:
        """Predictions at the queries, shape (N, q), or (N, q, outputs) for labels with several columns."""
        return like(_products(self._B, self._y).cumsum_(0), self._kind)

    @cached_property
    def _alignment(self) -> torch.Tensor:
        later = torch.ones(self._R.shape, dtype=torch.bool, device=self._R.device).triu_(1)
        return self._paired.cumsum_(0).masked_fill_(later, torch.nan)

    @cached_property
    def alignment(self) -> Array:
        """Alignments F(q_i, z_i) of query i with sample i, shape (N, N); they are NaN for i >= n.

        A ``ValueError`` is raised if q is not N.
        """
        return like(self._alignment, self._kind)

    @cached_property
    def mean_alignment(self) -> Array:
        """Mean of F(q_i, z_i) over the first n samples, shape (N,); a ``ValueError`` is raised if q is not N."""
        sizes = torch.arange(1, len(self._R) + 1, device=self._R.device)
        return like(self._paired.sum(1).cumsum_(0) / sizes, self._kind)

    @cached_property
    def _residual(self) -> torch.Tensor:
        diagonal = self._R.square().cumsum_(0)  # zero beyond the training set, and so are the coefficients: NaN
        coefficients = _products(self._R, self._y).cumsum_(0)
        return coefficients.div_(diagonal.view(*diagonal.shape, *[1] * (self._y.ndim - 1)))

    @cached_property
    def residual(self) -> Array:
        """Leave-one-out residuals g_i - f_{-i}(z_i), shape (N, N[, outputs]); NaN for i >= n."""
        return like(self._residual, self._kind)

    @cached_property
    def stability(self) -> Array:
        """Changes f(q_i) - f_{-i}(q_i) when sample i is left out of the first n, shape (N, N[, outputs]).

        They are NaN for i >= n. A ``ValueError`` is raised if q is not N.
        """
        F = self._alignment
        return like(F.view(*F.shape, *[1] * (self._y.ndim - 1)) * self._residual, self._kind)


def _products(rows: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each row times its entry of `y`, or, along a last axis, its entries for all outputs."""
    return rows * y[:, None] if y.ndim == 1 else rows[:, :, None] * y[:, None, :]
