"""Cholesky factors and inverses that overwrite a kernel matrix, and the samples that make one singular."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ._checks import Array, number, precision, square

__all__ = ["SingularKernelError", "System", "factor", "invert", "listed", "silent"]

_LEVERAGE = {torch.float64: 1e-10, torch.float32: 1e-5}  # below it a sample counts as lying in the span of the others
_BLOCK = 192  # rows of a matrix that are worked on at a time


class SingularKernelError(ValueError):
    """The kernel matrix has no usable inverse.

    Attributes
    ----------
    rows : list of int
        The samples at fault, if they can be identified: each has features in the span of those of the others, or
        entries that no kernel matrix has.
    """

    def __init__(self, message: str, rows: list[int] | None = None):
        super().__init__(message)
        self.rows = rows or []


def silent(share: float) -> None:
    """Report no progress."""


class System:
    """A checked kernel matrix with its ridge, which its Cholesky factor overwrites; used by `Solve` and `nested`.

    ``matrix`` holds K until `factor` is called, and then the factor in its lower triangle. With `overwrite` it is the
    given K if possible, else a copy.
    """

    def __init__(self, K: Array, *, ridge: float, dtype: Any, overwrite: bool = False):
        device = K.device if isinstance(K, torch.Tensor) else torch.device("cpu")
        matrix = square(K, "K", device=device)
        self.ridge, self._least = number(ridge, "ridge", least=0.0), _LEVERAGE[_judged_in(K, dtype)]
        _refuse_indefinite(matrix, self.ridge)
        self.matrix = matrix if overwrite else matrix.clone()

    def factor(self, tell: Callable[[float], object] = silent) -> None:
        """Add the ridge and factor the matrix, reporting the fraction done, or raise a `SingularKernelError`."""
        self.matrix.diagonal().add_(self.ridge)
        self._diagonal = self.matrix.diagonal().clone()
        if not factor(self.matrix, tell):
            system = self.matrix.triu_(1)  # the strict upper triangle is still that of K
            system = system.add_(system.T.clone())
            system.diagonal().copy_(self._diagonal)
            leverage = _leverage_by_eigenvalues(system, self.ridge, self._least)
            raise _singular((~(leverage > self._least)).nonzero().flatten().tolist(), self.ridge)

    def refuse_singular(self, inverse_diagonal: torch.Tensor) -> None:
        """Raise a `SingularKernelError` if the diagonal of the inverse shows linearly dependent features."""
        low = ~(1 / (inverse_diagonal * self._diagonal) > self._least)
        if bool(low.any()):
            raise _singular(low.nonzero().flatten().tolist(), self.ridge)


def factor(A: torch.Tensor, tell: Callable[[float], object]) -> bool:
    """Put the Cholesky factor of `A` in its lower triangle and keep the rest; return False if there is none.

    Column block J of the factor follows from those before it: ``L_J = (A_J - L_{<J} L_{J,<J}^T) L_JJ^{-T}``.
    """
    n = len(A)
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        before, block, below = A[start:end, :start], A[start:end, start:end], A[end:, start:end]
        corner, info = torch.linalg.cholesky_ex(block - before @ before.T)
        if int(info):
            return False
        below.addmm_(A[end:, :start], before.T, alpha=-1)
        below.copy_(torch.linalg.solve_triangular(corner.T, below, upper=True, left=False))
        block.copy_(block.triu(1) + corner)
        done = end / n
        tell((3 * done**2 - 2 * done**3) / 3)
    return True


def invert(A: torch.Tensor, tell: Callable[[float], object]) -> None:
    """Overwrite `A`, whose lower triangle is L, with the inverse of L L^T.

    The blocks are processed from the last to the first. Let J be the rows of a block, W = (L_{>J,J} L_JJ^{-1})^T, and M
    the inverse for the rows after J, which is already in place. By block inversion, the block in the rows J and the
    columns after J is -W M, and the diagonal block of J is (L_JJ L_JJ^T)^{-1} + W M W^T.
    """
    n = len(A)
    for start in reversed(range(0, n, _BLOCK)):
        end = min(start + _BLOCK, n)
        corner = A[start:end, start:end].tril()
        W = torch.linalg.solve_triangular(corner.T, A[end:, start:end].T, upper=True)
        beside = W @ A[end:, end:]
        A[start:end, start:end] = torch.cholesky_inverse(corner).addmm_(beside, W.T)
        A[start:end, end:] = beside.neg_()
        A[end:, start:end] = beside.T
        tell((1 + 2 * (1 - start / n) ** 3) / 3)


def _judged_in(K: Array, told: Any) -> torch.dtype:
    """The precision in which a matrix was computed: that of its dtype, or a coarser one that was declared."""
    kind = K.dtype if isinstance(K, torch.Tensor) else np.asarray(K).dtype
    floating = kind.is_floating_point if isinstance(kind, torch.dtype) else kind.kind == "f"
    if floating and kind.itemsize < 4:
        raise ValueError(f"K must be computed in float32 or float64: {kind} is too coarse for an inverse")
    own = torch.float32 if floating and kind.itemsize == 4 else torch.float64
    return own if told is None or own == torch.float32 else precision(told)


def _refuse_indefinite(K: torch.Tensor, ridge: float) -> None:
    """Refuse entries that no kernel matrix has: k(x, x) < 0, or k(x, y)^2 > k(x, x) k(y, y)."""
    own = K.diagonal()
    rounding = 1e-4 * max(-float(K.amin()), float(K.amax()))
    roots = own.clamp(min=0).sqrt()
    bad = own < 0
    for rows, some, found in zip(*(x.split(64) for x in (K, roots, bad)), strict=True):
        found |= (rows.abs().sub_(torch.outer(some, roots)) > rounding).any(dim=1)
    rows = bad.nonzero().flatten().tolist()
    if rows:
        raise SingularKernelError(
            f"K is not positive semidefinite, so not a kernel matrix: rows {listed(rows)} have a negative entry on its "
            "diagonal, or an entry off it that is larger than the diagonal allows",
            rows,
        )
    rows = (own == 0).nonzero().flatten().tolist()
    if rows and ridge == 0:
        raise SingularKernelError(
            f"Z holds samples without features: rows {listed(rows)}, whose kernel with themselves is zero. Drop them, "
            "use another activation, or ridge > 0",
            rows,
        )


def _leverage_by_eigenvalues(system: torch.Tensor, ridge: float, least: float) -> torch.Tensor:
    """Relative squared norm of the part of each feature vector orthogonal to the others, without a Cholesky factor."""
    values, vectors = torch.linalg.eigh(system)
    if values[0] < -least * values[-1]:
        low, high = float(values[0]) - ridge, float(values[-1]) - ridge
        raise SingularKernelError(
            f"K is not positive semidefinite, so not a kernel matrix: its eigenvalues go from {low:.3g} to {high:.3g}. "
            "If this is due to rounding, pass the precision in which it was computed as dtype, and use a ridge"
        )
    floor = values[-1] * len(values) * torch.finfo(torch.float64).eps
    inverse_diagonal = (vectors**2 / values.clamp(min=float(floor) + 1e-300)).sum(dim=1)
    leverage: torch.Tensor = 1 / (inverse_diagonal * system.diagonal())
    return leverage


def _singular(rows: list[int], ridge: float) -> SingularKernelError:
    found = (
        f"rows {listed(rows)} lie in the span of the other samples in feature space"
        if rows
        else "no single row is at fault"
    )
    advice = (
        "Drop repeated samples, use a wider kernel, float64 features, or ridge > 0"
        if ridge == 0
        else "Use a larger ridge"
    )
    return SingularKernelError(f"Z gives a kernel matrix without a usable inverse: {found}. {advice}", rows)


def listed(rows: list[int], most: int = 12) -> str:
    more = f", ... ({len(rows)} in all)" if len(rows) > most else ""
    return ", ".join(map(str, rows[:most])) + more
