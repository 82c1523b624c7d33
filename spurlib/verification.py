"""Random slices of records, run again and compared with what was recorded."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ._checks import positive
from .records import RecordError
from .runs import Experiment, coordinates, load, table_of

__all__ = ["verify"]

_ROUNDING = 1e-6  # agreement asked for, relative to 1 + |value|, where draws do not scatter


def verify(
    experiment: Experiment,
    scale: str = "paper",
    *,
    cells: int = 1,
    whole: bool = False,
    device: str = "cpu",
    folder: str | os.PathLike[str] | None = None,
    seed: int | None = None,
) -> Any:
    """Run a random slice of a record again, with the same seeds, and compare.

    Parameters
    ----------
    experiment, scale, folder
        As for `load`.
    cells : int
        Number of cells, drawn at random.
    whole : bool
        Run the cells as they are. Default: as the experiment shortens them.
    device : str
        Where to compute.
    seed : int, optional
        Of the choice of cells. Default: another one each time.

    Returns
    -------
    pandas.DataFrame
        One measured number a row: the scalars of its configuration, its seed and keys; ``quantity``; ``recorded``;
        ``measured``; ``standard_error`` of the recorded mean over the seeds; ``agrees``: the two are within three
        standard errors, and rounding.

    Raises
    ------
    RecordError
        As for `load`, or the record was made from another copy of the data than the one here.
    """
    record = load(experiment, scale, folder)
    grid = [(c, s) for c in experiment.cells(scale) for s in range(record.provenance["seeds"])]
    chosen = np.random.default_rng(seed).choice(len(grid), size=min(positive(cells, "cells"), len(grid)), replace=False)
    again = []
    for configuration, draw in (grid[index] for index in chosen):
        shorter = configuration if whole else experiment.shorten(configuration)
        again.append({"configuration": shorter, "seed": draw, "rows": experiment.measure(shorter, draw, device)})
    table, sources = table_of(again, experiment)
    if not set(sources) <= set(record.provenance["data"]):
        raise RecordError(
            f"record {experiment.name}-{scale!r} is of the data {record.provenance['data']}, here are {sources}"
        )
    table = table.reindex(columns=record.table.columns).astype(record.table.dtypes)
    point = coordinates((configuration for configuration, _ in grid), experiment)
    index, errors = [*point, "seed"], record.table.groupby(point, dropna=False).sem(numeric_only=True).fillna(0.0)
    quantity = [column for column in table if column not in index]

    def tall(frame: Any, name: str, by: list[str]) -> Any:
        return frame.melt(by, quantity, "quantity", name)

    rows = tall(table, "measured", index).merge(tall(record.table, "recorded", index), "left")
    rows = rows.merge(tall(errors.reset_index(), "standard_error", point), "left")
    allowed = 3 * rows["standard_error"] + _ROUNDING * (1 + rows["recorded"].abs())
    undefined = rows["measured"].isna() & rows["recorded"].isna()
    same = undefined | (rows["measured"] == rows["recorded"])  # infinite numbers have no difference
    near = (rows["measured"] - rows["recorded"]).abs() <= allowed
    rows["agrees"] = same | (near & np.isfinite(rows["recorded"]))
    return rows
