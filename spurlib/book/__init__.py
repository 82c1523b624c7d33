"""Tools that only the pages of the book need: claims, notes, figures and the explorer."""

from .claims import Claim, ClaimError, claim
from .explorer import Explorer
from .figures import COLORS, figure_style, size_axis
from .notes import note

__all__ = ["COLORS", "Claim", "ClaimError", "Explorer", "claim", "figure_style", "note", "size_axis"]
