"""The house style: lines told apart with and without color."""

import itertools
import sys

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

import spurlib as sl
from spurlib.book import size_axis


@pytest.fixture(autouse=True)
def restored():
    with mpl.rc_context():
        yield


def luminance(color):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_colors_are_distinct():
    for a, b in itertools.combinations(map(mpl.colors.to_rgb, sl.COLORS), 2):
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) > 0.05


def test_the_first_colors_stand_out_from_white():
    for color in sl.COLORS[:3]:
        assert 1.05 / (luminance(color) + 0.05) > 3


def test_lines_differ_in_dash_as_well():
    sl.figure_style()
    styles = list(mpl.rcParams["axes.prop_cycle"])
    assert [s["color"] for s in styles] == sl.COLORS
    assert len({str(s["linestyle"]) for s in styles}) == len(styles)


def test_sizes_are_the_ticks():
    axes = Figure().subplots()
    axes.plot([10, 200, 1000], [1, 2, 3])
    size_axis(axes, [10, 200, 1000])
    axes.figure.draw_without_rendering()
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "200", "1000"]
    assert axes.get_xticks().tolist() == [10, 200, 1000]
    assert axes.get_xticks(minor=True).size == 0


def test_the_style_draws(tmp_path):
    sl.figure_style()
    figure = Figure()
    axes = figure.subplots()
    for i in range(len(sl.COLORS)):
        axes.errorbar([0, 1], [i, i + 1], yerr=0.1, label=str(i))
    axes.legend()
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert mpl.colors.to_rgb(mpl.rcParams["savefig.facecolor"]) == (1, 1, 1)


def test_figures_of_notebooks_are_drawings_that_do_not_depend_on_the_day(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import print_figure
    from matplotlib_inline.config import InlineBackend

    inline = InlineBackend(shell=InteractiveShell())
    monkeypatch.setattr(InlineBackend, "instance", lambda: inline)
    sl.figure_style()
    formatters = inline.shell.display_formatter.formatters
    assert Figure in formatters["image/svg+xml"].type_printers and Figure not in formatters["image/png"].type_printers
    drawn = []
    for year in ("2001", "2002"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(365 * 86400 * (int(year) - 1970)))
        figure = Figure()
        figure.subplots().plot([0, 1], "o", label="a")
        drawn.append(print_figure(figure, "svg", **inline.print_figure_kwargs))
    assert drawn[0] == drawn[1]
    assert "<text" not in drawn[0]  # letters look the same where the font is missing


@pytest.mark.parametrize("sizes", [[], [10, 0], [-1], [float("nan")], ["ten"], None])
def test_sizes_must_be_positive(sizes):
    axes = Figure().subplots()
    with pytest.raises(ValueError, match=r"^sizes must be a finite number above 0"):
        size_axis(axes, sizes)
    assert axes.get_xscale() == "linear"


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[plots\]"'):
        sl.figure_style()
