"""Predictions, alignments and stabilities at queries, all from one kernel matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from ._checks import Array, like, tensor

__all__ = ["Evaluation", "Fit", "checked_labels", "same_rows"]

_ROWS = 2**26  # entries of kernel rows that are computed at a time: half a gigabyte


@dataclass(frozen=True)
class Fit:
    """The parts of a fit from which alignments and predictions are computed: f(z) = k(z, Z) `inverse` g."""

    g: torch.Tensor
    coefficients: torch.Tensor
    inverse: torch.Tensor
    residuals: torch.Tensor | None  # of leave-one-out; None where there is no closed form


class Evaluation:
    r"""Predictions, alignments and stabilities at queries, all from one kernel matrix of queries and samples.

    It is returned by `Interpolator.at`, `Solve.at` and `FilteredSolve.at`. Each attribute is computed when it is first
    read, and kept. The kernel rows of the queries are computed once, and kept if they take at most half a gigabyte. The
    rows of more queries are computed in pieces that are not kept: once for ``predictions``, ``own`` and
    ``own_stability`` together, and once more for ``alignment`` and ``stability`` together. The array of queries must
    not be changed before the last attribute is read.

    Examples
    --------
    >>> import numpy as np
    >>> from spurlib import Solve
    >>> at = Solve(np.array([[2.0, 1.0], [1.0, 2.0]]), [1.0, -1.0]).at(np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> at.predictions.round(9), at.own.round(9), at.own_stability.round(9)
    (array([ 0.5, -0.5]), array([0.5, 0.5]), array([ 0.75, -0.75]))
    """

    def __init__(self, fit: Fit, Q: Array, rows: Callable[[Array], torch.Tensor], kind: Array):
        self._fit, self._Q, self._ask, self._kind = fit, Q, rows, kind

    @cached_property
    def _all_rows(self) -> torch.Tensor:
        return self._ask(self._Q)

    def _pieces(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The kernel rows: all at once, which are kept, or in pieces, which are not."""
        step = max(1, _ROWS // len(self._fit.g))
        if len(self._Q) <= step:
            yield slice(None), self._all_rows
            return
        for start in range(0, len(self._Q), step):
            part = slice(start, start + step)
            yield part, self._ask(self._Q[part])

    @cached_property
    def _pass(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predictions and, if there are as many queries as samples, own alignments, in one pass over the rows."""
        fit, q = self._fit, len(self._Q)
        predictions = fit.g.new_empty(q, *fit.g.shape[1:])
        own = fit.g.new_empty(q) if q == len(fit.g) else None
        for part, rows in self._pieces():
            predictions[part] = rows @ fit.coefficients
            if own is not None:
                own[part] = torch.einsum("ij,ij->i", rows, fit.inverse[part])
        return predictions, own

    @cached_property
    def _alignment(self) -> torch.Tensor:
        F = self._fit.g.new_empty(len(self._Q), len(self._fit.g))
        for part, rows in self._pieces():
            torch.mm(rows, self._fit.inverse, out=F[part])
        return F

    @property
    def _residuals(self) -> torch.Tensor:
        if self._fit.residuals is None:
            raise ValueError("stability: leaving a sample out has a closed form for a ridge only, not for a filter")
        return self._fit.residuals

    @property
    def _own(self) -> torch.Tensor:
        own = self._pass[1]
        if own is None:
            raise ValueError(
                "own pairs query i with training sample i: "
                f"there must be {len(self._fit.g)} queries, got {len(self._Q)}"
            )
        return own

    @cached_property
    def predictions(self) -> Array:
        """Predictions f(z), shape (q,), or (q, outputs) for labels with several columns; of the kind of the queries."""
        return like(self._pass[0], self._kind)

    @cached_property
    def alignment(self) -> Array:
        """Feature alignments F(z, z_i) = [k(z, Z) (K + ridge I)^{-1}]_i, shape (q, n); of the kind of the queries.

        For a fit with a filter q, the inverse is replaced by q(K).
        """
        return like(self._alignment, self._kind)

    @cached_property
    def stability(self) -> Array:
        """Changes f(z) - f_{-i}(z) when sample i is left out, exact for every ridge; of the kind of the queries.

        Shape (q, n), or (q, n, outputs) for labels with several columns. A ``ValueError`` is raised for a fit
        with a filter.
        """
        return like(_times(self._alignment, self._residuals), self._kind)

    @cached_property
    def own(self) -> Array:
        """Alignments F(q_i, z_i) of query i with sample i, shape (n,), for as many queries as samples.

        They take O(n^2) operations besides the kernel rows, while the diagonal of ``alignment`` takes O(n^3). At the
        spurious queries these are the F(z_i^s, z_i) of the theory. A ``ValueError`` is raised if q is not n.
        """
        return like(self._own, self._kind)

    @cached_property
    def own_stability(self) -> Array:
        """Changes f(q_i) - f_{-i}(q_i), shape (n,) or (n, outputs), for as many queries as samples.

        They take O(n^2) operations besides the kernel rows. A ``ValueError`` is raised if q is not n, or for a fit
        with a filter.
        """
        return like(_times(self._own, self._residuals), self._kind)


def same_rows(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _times(F: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
    """Alignments, whose last axis is the sample, times its residual, or its residuals for all outputs."""
    return F * residuals if residuals.ndim == 1 else F[..., None] * residuals


def checked_labels(g: Array, n: int) -> torch.Tensor:
    """Return the labels of n samples, in one or several columns, as a float64 tensor."""
    labels = tensor(g, "g", ndim=(1, 2))
    if len(labels) != n:
        raise ValueError(f"g must have one label a sample: {n} samples, {len(labels)} labels")
    return labels
