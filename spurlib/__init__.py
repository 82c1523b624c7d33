"""Kernels, Hermite expansions and feature alignment for the study of memorized spurious features."""

from .claims import Claim, ClaimError, claim
from .plotting import COLORS, figure_style

__all__ = ["COLORS", "Claim", "ClaimError", "claim", "figure_style"]
