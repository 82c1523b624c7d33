"""Runs of experiments: grids of cells in parallel, kept one by one, resumed, recorded."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from . import records
from ._checks import device_of, positive
from ._machine import commit, peak_bytes, versions
from .records import Record, canonical, checksum, needed, records_folder, sealed, unsealed, write_atomically

__all__ = ["SCALES", "Experiment", "load", "run"]

SCALES = ("page", "paper")
"""``"page"``: minutes on a laptop; ``"paper"``: the sizes of the paper."""

Configuration = dict[str, Any]
Row = dict[str, Any]


def _itself(configuration: Configuration) -> Configuration:
    return configuration


@dataclass(frozen=True)
class Experiment:
    """A measurement to be repeated over a grid of configurations and over seeds.

    Attributes
    ----------
    name : str
        Its record at a scale is called ``name-scale``.
    about : str
        What is measured, in one line.
    cells : callable
        From ``"page"`` or ``"paper"`` to the configurations: dicts that JSON can hold, told apart by their scalars.
    measure : callable
        From (configuration, seed, device) to rows: dicts. An entry ``"source"`` says which data were used.
    keys : tuple of str
        The entries of a row that tell it from the others of its cell; the rest is measured.
    shorten : callable
        From a configuration to a cheaper one with some of its rows, for `verify`. Default: the configuration itself.
    version : int
        To be raised when `measure` changes its numbers: it makes earlier records stale.
    draws : dict
        Default number of seeds at each scale.
    """

    name: str
    about: str
    cells: Callable[[str], list[Configuration]]
    measure: Callable[[Configuration, int, str], list[Row]]
    keys: tuple[str, ...] = ("n",)
    shorten: Callable[[Configuration], Configuration] = _itself
    version: int = 1
    draws: Mapping[str, int] = field(default_factory=lambda: {"page": 3, "paper": 10})

    def hash(self, scale: str, seeds: int) -> str:
        """Hash of all that decides the numbers: name, version, configurations, seeds; 16 hexadecimal digits."""
        cells = self.cells(checked_scale(scale))
        return checksum(canonical([self.name, self.version, cells, seeds]))[:16]

    def table(self, scale: str = "page", seeds: int | None = None, device: str = "cpu", **changes: Any) -> Any:
        """Measure all cells here and now: the table that `run` records, kept nowhere.

        Parameters
        ----------
        scale, seeds, device
            As for `run`.
        **changes
            Entries of the configurations to be replaced, as in ``data="digits"``.

        Returns
        -------
        pandas.DataFrame
            One observation a row, with the source of the data in the column ``source`` where `measure` names it.
        """
        seeds = positive(self.draws[checked_scale(scale)] if seeds is None else seeds, "seeds")
        rows = []
        for cell in ({**cell, **changes} for cell in self.cells(scale)):
            for seed in range(seeds):
                rows += [{**scalars(cell), "seed": seed, **row} for row in self.measure(cell, seed, device)]
        return needed("pandas").DataFrame(rows)

    def command(self, scale: str) -> str:
        """The command line that makes its record."""
        return f"python -m spurlib.experiments run {self.name} --scale {scale}"


def checked_scale(scale: str) -> str:
    """Return a scale, or raise a ``ValueError``."""
    if scale not in SCALES:
        raise ValueError(f"scale must be 'page' or 'paper', got {scale!r}")
    return scale


def scalars(configuration: Configuration) -> Configuration:
    """The entries of a configuration that become columns of the table."""
    return {key: value for key, value in configuration.items() if not isinstance(value, (list, dict))}


def coordinates(configurations: Iterable[Configuration], experiment: Experiment) -> list[str]:
    """The columns that tell the rows of one seed apart: the scalars of every configuration, and the keys."""
    return list(dict.fromkeys([*(key for each in configurations for key in scalars(each)), *experiment.keys]))


def _work(key: str, experiment: Experiment, configuration: Configuration, seed: int, device: str) -> tuple[str, dict]:
    """Measure one cell, in whatever process."""
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        rows = experiment.measure(configuration, seed, device)
    except Exception as error:
        error.add_note(f"in the cell {configuration}, seed {seed}")
        raise
    return key, {
        "configuration": configuration,
        "seed": seed,
        "rows": rows,
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if gpu else device,
        "seconds": round(time.perf_counter() - start, 3),
        "peak_bytes": peak_bytes(),
        "peak_device_bytes": torch.cuda.max_memory_allocated(device) if gpu else 0,
    }


def _finished(tasks: list[tuple], jobs: int, backend: str, address: str | None) -> Iterator[tuple[str, dict]]:
    """Keys and cells as they are finished, in any order."""
    if backend == "dask":
        dask = needed("dask.distributed")
        local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        with dask.Client(address) if address else dask.Client(**local) as client:
            futures = [client.submit(_work, *task, pure=False) for task in tasks]
            for future in dask.as_completed(futures):
                yield future.result()
    elif jobs == 1:
        yield from (_work(*task) for task in tasks)
    else:
        joblib = needed("joblib")
        parallel = joblib.Parallel(
            n_jobs=jobs, backend="loky", return_as="generator_unordered", pre_dispatch="2*n_jobs"
        )
        yield from parallel(joblib.delayed(_work)(*task) for task in tasks)


def run(
    experiment: Experiment,
    scale: str = "page",
    *,
    seeds: int | None = None,
    device: str = "cpu",
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Record:
    """Measure all cells of an experiment that are not finished yet, and write its record.

    A finished cell is kept in a file of its own until the record is written: an interrupted or killed run, run again,
    loses the cells in flight at most. The table does not depend on the order of the cells or on interruptions.

    The provenance has ``seconds``, the computing of all cells together; ``wall_seconds``, the time by the clock that
    all calls took from one finished cell to the next (what was lost in flight is not counted; None when some cell was
    kept by a version that did not measure it); and ``cores``, the number of cores of the machine that called.

    Parameters
    ----------
    experiment : Experiment
        What to run.
    scale : {"page", "paper"}
        At which sizes.
    seeds : int, optional
        Number of draws of each configuration: seeds 0, 1, ... Default: the experiment's.
    device : str
        Where to compute: ``"cpu"``, ``"cuda"``, ...
    jobs : int
        Number of processes.
    backend : {"loky", "dask"}
        Who runs them: joblib, or Dask's distributed scheduler.
    address : str, optional
        For dask: the address of a running scheduler. Default: a local cluster of `jobs` processes.
    folder : path, optional
        Folder of the records. Default: see `records.records_folder`.
    progress : bool
        Show finished cells and the time left, on standard error.

    Returns
    -------
    Record
        As `load` reads it back.

    Raises
    ------
    ValueError
        An unknown scale, backend or device; a number below 1; configurations that their scalars do not tell apart.
    ModuleNotFoundError
        An optional dependency is missing; the message says which extra brings it.
    """
    if backend not in ("loky", "dask"):
        raise ValueError(f"backend must be 'loky' or 'dask', got {backend!r}")
    if address is not None and backend != "dask":
        raise ValueError(f"address is for the backend 'dask', got {address!r} for {backend!r}")
    device_of(device)
    jobs = positive(jobs, "jobs")
    seeds = positive(experiment.draws[checked_scale(scale)] if seeds is None else seeds, "seeds")
    for module in ("pandas", "tqdm"):
        needed(module)
    key, name = experiment.hash(scale, seeds), f"{experiment.name}-{scale}"
    kept, code = records_folder(folder) / ".cells" / f"{name}-{key}", commit()
    grid = {
        f"{index:03d}-{seed:03d}": (configuration, seed)
        for index, configuration in enumerate(experiment.cells(scale))
        for seed in range(seeds)
    }
    cells = {label: cell for label, at in grid.items() if (cell := _kept(kept / f"{label}.json", *at))}
    tasks = [(label, experiment, *at, device) for label, at in grid.items() if label not in cells]
    if progress and cells:
        print(f"{name}: resuming, {len(cells)} of {len(grid)} cells were finished before", file=sys.stderr)
    bar = needed("tqdm").tqdm(
        desc=name, total=len(grid), initial=len(cells), unit="cell", disable=not progress, file=sys.stderr
    )
    last = time.perf_counter()
    try:
        for label, cell in _finished(tasks, jobs, backend, address) if tasks else ():
            last, since = (now := time.perf_counter()), now - last
            written = sealed(cell | {"commit": code, "wall_seconds": round(since, 3)})
            write_atomically(kept / f"{label}.json", written)
            cells[label] = json.loads(written)  # as if it had been kept from an earlier run
            bar.update()
    except BaseException as error:
        error.add_note(f"{name}: {len(cells)} of {len(grid)} cells are finished and kept: run it again to resume")
        raise
    finally:
        bar.close()
    ordered = [cells[label] for label in grid]
    clocks = [cell["wall_seconds"] for cell in ordered if "wall_seconds" in cell]  # an earlier version kept none
    table, sources = table_of(ordered, experiment)
    provenance = {
        "experiment": experiment.name,
        "about": experiment.about,
        "version": experiment.version,
        "scale": scale,
        "hash": key,
        "configurations": experiment.cells(scale),
        "seeds": seeds,
        "data": sources,
        "device": sorted({cell["device"] for cell in ordered}),
        "seconds": round(sum(cell["seconds"] for cell in ordered), 3),
        "wall_seconds": round(sum(clocks), 3) if len(clocks) == len(ordered) else None,
        "cores": os.cpu_count(),
        "peak_bytes": max(cell["peak_bytes"] for cell in ordered),
        "peak_device_bytes": max(cell["peak_device_bytes"] for cell in ordered),
        "jobs": jobs,
        "backend": backend,
        "commit": sorted({cell["commit"] for cell in ordered}),
        "versions": versions(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    records.save(name, table, provenance, folder)
    shutil.rmtree(kept, ignore_errors=True)
    return load(experiment, scale, folder)


def _kept(path: Path, configuration: Configuration, seed: int) -> dict[str, Any] | None:
    """A finished cell, or None when it is not there, truncated, edited, or another one."""
    cell = unsealed(path.read_bytes()) if path.is_file() else None
    same = cell and canonical([cell.get("configuration"), cell.get("seed")]) == canonical([configuration, seed])
    return cell if same else None


def table_of(cells: list[dict[str, Any]], experiment: Experiment) -> tuple[Any, list[str]]:
    """One table of all cells, with the scalars of their configurations and the seeds, and the sources of the data."""
    table = needed("pandas").DataFrame(
        [{**scalars(cell["configuration"]), "seed": cell["seed"], **row} for cell in cells for row in cell["rows"]]
    )
    sources = sorted(set(table.pop("source"))) if "source" in table else []
    told_apart = [*coordinates((cell["configuration"] for cell in cells), experiment), "seed"]
    if table.duplicated(told_apart).any():
        raise ValueError(f"cells: two rows of {experiment.name!r} have the same {', '.join(told_apart)}")
    return table, sources


def load(experiment: Experiment, scale: str = "paper", folder: str | os.PathLike[str] | None = None) -> Record:
    """Read the record of an experiment, and refuse one that is not the code's.

    Parameters
    ----------
    experiment : Experiment
        Whose record.
    scale : {"page", "paper"}
        At which sizes.
    folder : path, optional
        Default: see `records.records_folder`.

    Returns
    -------
    Record

    Raises
    ------
    RecordError
        It is missing, corrupted, or made with another configuration; the message gives the command that renews it.
    """
    name, renew = f"{experiment.name}-{checked_scale(scale)}", experiment.command(scale)
    seeds = records.load(name, folder, renew=renew).provenance.get("seeds", 0)  # any number of them is fine
    return records.load(name, folder, hash=experiment.hash(scale, seeds), renew=renew)
