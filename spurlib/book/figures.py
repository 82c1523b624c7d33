"""The common style of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .._checks import needed, numbers

__all__ = ["COLORS", "figure_style", "size_axis"]

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's palette: distinct for the common kinds of color blindness."""


def figure_style() -> None:
    """Set matplotlib's defaults to the style of the book.

    Color and dash pattern change together from one line to the next, so that a figure can be read without color;
    markers need shapes of their own. In a notebook, figures are vector graphics on a white background, with the same
    bytes for the same data. Text is legible on a phone if a figure is at most six inches wide: stack panels rather than
    placing them side by side.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is missing.

    Examples
    --------
    >>> figure_style()  # doctest: +SKIP
    """
    mpl = needed("matplotlib", "plots")
    cycler = mpl.rcsetup.cycler

    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=dashes),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.labelsize": 11,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "figure.figsize": (6.4, 4.0),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "white",
            "legend.frameon": False,
            "lines.markersize": 5,
            "errorbar.capsize": 2.5,
            "font.size": 11,
            "svg.fonttype": "path",
            "svg.hashsalt": "spurlib",
            "savefig.dpi": 200,
        }
    )
    with suppress(ModuleNotFoundError):  # without IPython there are no notebooks
        from matplotlib_inline.config import InlineBackend

        inline = InlineBackend.instance()
        options: dict[str, Any] = {"bbox_inches": "tight", "dpi": 200, "metadata": {"Date": None}}
        inline.print_figure_kwargs = options
        inline.figure_formats = {"svg"}


def size_axis(ax: Any, sizes: Sequence[int]) -> None:
    """Make the horizontal axis of a plot logarithmic, with one tick at each of the sizes that were run.

    Parameters
    ----------
    ax : matplotlib Axes
        The plot.
    sizes : sequence of int
        Sizes, such as numbers of training samples; positive.

    Raises
    ------
    ValueError
        A size is not a positive number, or there are no sizes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> size_axis(ax, [10, 100])
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['10', '100']
    """
    numbers(sizes, "sizes", above=0.0)
    ax.set_xscale("log")
    ax.set_xticks(list(sizes), [str(size) for size in sizes])
    ax.minorticks_off()
