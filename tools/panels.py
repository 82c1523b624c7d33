"""Find where matplotlib's drawing of panels in one column can be cut, so that a slide shows them side by side."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise

SVG = "{http://www.w3.org/2000/svg}"
POINT = re.compile(r"(-?[\d.]+) (-?[\d.]+)")
# A text that is not turned: where its line stands, and the size of its letters in hundredths.
TEXT = re.compile(r"^translate\((-?[\d.]+) (-?[\d.]+)\) scale\(([\d.]+) -[\d.]+\)$")
TICK = 5.5  # points below the frame of a panel: its tick marks, and half a label of its vertical axis


def frame(axes: ET.Element) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of the background of a panel."""
    path = axes.find(f"./{SVG}g/{SVG}path")
    points = POINT.findall("" if path is None else path.get("d", ""))
    if not points:
        raise ValueError("a panel without a background")
    x, y = ([float(part) for part in parts] for parts in zip(*points, strict=True))
    return min(x), max(x), min(y), max(y)


def texts(part: ET.Element) -> Iterator[tuple[float, float]]:
    """Return top and bottom of each text that is not turned."""
    for group in part.iter(f"{SVG}g"):
        if found := TEXT.match(group.get("transform", "")):
            line, size = float(found[2]), 100 * float(found[3])
            yield line - 0.8 * size, line + 0.3 * size


def labelled(axes: ET.Element) -> bool:
    """Return whether the horizontal axis of a panel has labels."""
    axis = next(part for part in axes if part.get("id", "").startswith("matplotlib.axis_"))
    return next(texts(axis), None) is not None


def panels(svg: str) -> list[list[tuple[float, float]]]:
    """Return the bands of each panel, as fractions of the height, or nothing where a drawing cannot be cut.

    A panel without labels below it shares the horizontal axis with the last one, and is shown with the last one's
    labels. A legend below all panels counts as another panel.
    """
    root = ET.fromstring(svg)
    height = float(root.get("viewBox", "0 0 0 0").split()[3])
    drawing = root.find(f"{SVG}g")
    parts = [] if drawing is None else drawing.findall(f"{SVG}g")
    axes = [part for part in parts if part.get("id", "").startswith("axes_")]
    legend = [ends for part in parts if part not in axes for ends in texts(part)]
    try:
        frames = [frame(one) for one in axes]
    except ValueError:
        return []
    if len(axes) < 2 or any(abs(a - b) > 1 for one in frames for a, b in zip(one[:2], frames[0][:2], strict=True)):
        return []
    # From where to where each part reaches, from the top to the bottom of the drawing.
    reach = [
        (min([top, *(a for a, _ in texts(one))]), max([bottom + TICK, *(b for _, b in texts(one))]))
        for one, (_, _, top, bottom) in zip(axes, frames, strict=True)
    ]
    if legend:
        reach.append((min(top for top, _ in legend), height))
    gaps = [(below, top) for (_, below), (top, _) in pairwise(reach)]
    if any(below > top for below, top in gaps):
        return []
    edges = [0.0, *((below + top) / 2 for below, top in gaps), height]
    bands = [[edge] for edge in pairwise(edges)]
    labels = (frames[-1][3] + TICK, edges[len(axes)])
    for at, one in enumerate(axes[:-1]):
        if not labelled(one):
            bands[at] = [(edges[at], frames[at][3] + TICK), labels]
    return [[(round(a / height, 4), round(b / height, 4)) for a, b in band] for band in bands]
