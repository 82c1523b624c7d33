"""Random slices of records, which are run again and compared with the records."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from statistics import fmean, median
from typing import Any

import numpy as np

from .._checks import device_of, needed, positive
from .definition import Experiment, Row, checked_scale, coordinates, entries
from .records import RecordError
from .runs import load, refusing, table_of
from .tolerances import Tolerance

__all__ = ["compare", "verify"]

_TINY = 1e-12  # difference that is always allowed, for quantities whose scale is zero


def verify(
    experiment: Experiment[Any],
    scale: str = "paper",
    *,
    cells: int = 1,
    whole: bool = False,
    device: str = "cpu",
    folder: str | os.PathLike[str] | None = None,
    seed: int | None = None,
) -> Any:
    """Run a random slice of a record again with the same seeds, and compare the results.

    Results that are computed without training agree up to rounding errors, as defined by `rounding`. Training amplifies
    these: the networks are the same on the same machine, and differ on a processor with other instructions. These
    differences were measured for each experiment and determine its ``tolerance``.

    Parameters
    ----------
    experiment, scale, folder
        As for `load`.
    cells : int
        Number of cells, drawn at random.
    whole : bool
        Whether to run the cells in full. Default: they are shortened as the experiment defines.
    device : str
        Device on which to compute.
    seed : int, optional
        Seed of the choice of cells. Default: a new one each time.

    Returns
    -------
    pandas.DataFrame
        As for `compare`.

    Raises
    ------
    OptionError
        An argument is out of range.
    RecordError
        As for `load`, or the record was made with a copy of the data that is not the one on this machine.
    """
    with refusing():
        checked_scale(scale)
        positive(cells, "cells")
        device_of(device)
    record = load(experiment, scale, folder)
    grid = [(c, s) for c in experiment.cells(scale) for s in range(record.provenance["seeds"])]
    chosen = np.random.default_rng(seed).choice(len(grid), size=min(cells, len(grid)), replace=False)
    again = []
    for settings, draw in (grid[index] for index in chosen):
        shorter = settings if whole else experiment.shorten(settings)
        rows = experiment.measure(shorter, draw, device)
        again.append({"configuration": entries(shorter), "seed": draw, "rows": rows})
    table, sources = table_of(again, experiment)
    if not set(sources) <= set(record.provenance["data"]):
        raise RecordError(
            f"record {experiment.name}-{scale!r} is of the data {record.provenance['data']}, here are {sources}"
        )
    return compare(record.table, table, experiment, scale)


def compare(recorded: Any, measured: Any, experiment: Experiment[Any], scale: str = "paper") -> Any:
    """Compare the rows of a table with those of a recorded one, quantity by quantity.

    Parameters
    ----------
    recorded : pandas.DataFrame
        The table of a record.
    measured : pandas.DataFrame
        Some of its rows, measured again.
    experiment : Experiment
        The experiment. Its ``tolerance`` determines how far numbers may differ, and its ``samples`` over which rows
        means are taken.
    scale : {"page", "paper"}
        The scale of the record.

    Returns
    -------
    pandas.DataFrame
        One row for each quantity of a measured row, with the scalars of the settings, the seed and the keys;
        ``quantity``; ``measured``; ``recorded``, missing unless the record has exactly one such row; ``allowed``, the
        largest difference that is allowed; and ``agrees``.
    """
    point = coordinates(map(entries, experiment.cells(scale)), experiment)
    index = [*point, "seed"]
    level = [column for column in point if column not in experiment.samples]
    quantities = [column for column in dict.fromkeys([*recorded, *measured]) if column not in index]
    found: dict[tuple[Any, ...], list[Row]] = {}
    others: dict[tuple[Any, ...], list[Row]] = {}
    for row in recorded.to_dict("records"):
        found.setdefault(_at(row, index), []).append(row)
        others.setdefault(_at(row, level), []).append(row)
    rows: list[Row] = []
    means: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured.to_dict("records"):
        same = found.get(_at(row, index), [])
        for quantity in quantities:
            new, old = row.get(quantity), same[0].get(quantity) if len(same) == 1 else None
            exact = isinstance(new, (bool, str)) or _missing(new)
            tolerance = Tolerance() if exact else experiment.tolerance(quantity, row)
            if isinstance(new, int) and not tolerance.unit:
                tolerance = Tolerance()
            size = 0.0 if exact else _scale(new, (each.get(quantity) for each in others.get(_at(row, level), ())))
            allowed = tolerance.relative * size + tolerance.steps * tolerance.unit + tolerance.absolute
            compared = {column: row.get(column) for column in index}
            compared |= {"quantity": quantity, "measured": new, "recorded": old, "allowed": allowed}
            rows.append(compared | {"agrees": _agree(new, old, allowed, tolerance.unit)})
            if tolerance.statistical:
                means.setdefault((_at(row, [*level, "seed"]), quantity), []).append(rows[-1])
    for samples in means.values():
        if all(sample["agrees"] for sample in samples):
            new, old, allowed = (fmean(s[name] for s in samples) for name in ("measured", "recorded", "allowed"))
            if not _agree(new, old, allowed / math.sqrt(len(samples)), 0.0):
                for sample in samples:
                    sample["agrees"] = False
    return needed("pandas", "experiments").DataFrame(
        rows, columns=[*index, "quantity", "measured", "recorded", "allowed", "agrees"]
    )


def _missing(value: Any) -> bool:
    return value is None or value != value


def _at(row: Row, columns: list[str]) -> tuple[Any, ...]:
    """The values of some columns in a row; None where the configuration does not define them."""
    return tuple(None if _missing(row.get(column)) else row[column] for column in columns)


def _scale(measured: float, recorded: Iterable[Any]) -> float:
    """The larger of a measured number and the median of those recorded at other seeds and samples."""
    sizes = [abs(value) for value in (measured, median(_numbers(recorded) or [0.0])) if math.isfinite(value)]
    return max(sizes, default=0.0)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [abs(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and v == v]


def _agree(new: Any, old: Any, allowed: float, unit: float) -> bool:
    """Whether a recorded value is the measured one, up to the allowed difference."""
    if _missing(new) or _missing(old):
        return _missing(new) and _missing(old)
    if isinstance(new, (bool, str)) or isinstance(old, (bool, str)):
        return type(new) is type(old) and new == old
    if unit and abs(old / unit - round(old / unit)) > 1e-6:
        return False
    return bool(new == old or abs(new - old) <= allowed + _TINY)  # infinite numbers have no difference
