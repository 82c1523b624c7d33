"""Runs of experiments: cells are computed in parallel, stored one by one, resumed, and recorded."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._checks import choice, device_of, needed, positive
from . import records
from .definition import SCALES, Experiment, Row, checked_scale, coordinates, entries, scalars
from .machine import commit, peak_bytes, versions
from .records import Record, RecordError, canonical, records_folder, sealed, unsealed, write_atomically

__all__ = ["SCALES", "OptionError", "gram_by", "load", "run"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_IDLE = 10  # seconds after which an idle process ends, so that none survives a run that was killed


class OptionError(ValueError):
    """An argument, such as one of `run` or `verify`, was refused before anything was computed."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn the ``ValueError`` of a check into an `OptionError`."""
    try:
        yield
    except RecordError:
        raise
    except ValueError as error:
        raise OptionError(str(error)) from error


@functools.cache
def _here() -> dict[str, Any]:
    """Commit of the code, and versions of the libraries of this process."""
    return {"commit": commit(), "versions": versions()}


def _work(key: str, experiment: Experiment[Any], settings: Any, seed: int, device: str) -> tuple[str, dict[str, Any]]:
    """Measure one cell, in whatever process."""
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        rows = _checked(experiment.measure(settings, seed, device), experiment, settings)
    except Exception as error:
        error.add_note(f"in the cell {settings}, seed {seed}")
        raise
    return key, _here() | {
        "configuration": entries(settings),
        "seed": seed,
        "rows": rows,
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if gpu else device,
        "seconds": round(time.perf_counter() - start, 3),
        "peak_bytes": peak_bytes(),
        "peak_device_bytes": torch.cuda.max_memory_allocated(device) if gpu else 0,
    }


def _checked(rows: list[Row], experiment: Experiment[Any], settings: Any) -> list[Row]:
    """Return the rows of a cell, or raise a ``ValueError`` if they cannot be rows of a table."""
    known = {"seed", *scalars(entries(settings))}
    for row in rows:
        for name, value in row.items():
            if not (value is None or isinstance(value, (str, bool, int, float, np.bool, np.integer, np.floating))):
                kind = type(value).__name__
                raise ValueError(f"{name!r} in a row is a {kind}: numbers, booleans and strings can be recorded")
            if name in known:
                raise ValueError(f"{name!r} is in a row and in the settings: names of columns must be unique")
        if missing := set(experiment.keys) - set(row):
            raise ValueError(f"a row has no {sorted(missing)[0]!r}, which must distinguish it from the others")
    if len({tuple(row[key] for key in experiment.keys) for row in rows}) < len(rows):
        raise ValueError(f"two rows of one cell have the same {', '.join(experiment.keys)}")
    return rows


def _finished(
    tasks: list[tuple[Any, ...]], jobs: int, backend: str, address: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and cells as they are finished, in any order."""
    if jobs == 1 and backend == "loky":
        yield from (_work(*task) for task in tasks)
        return
    with _of_dask(jobs, address) if backend == "dask" else _of_loky(jobs) as pool:
        for future in as_completed([pool.submit(_work, *task) for task in tasks]):
            yield future.result()


@contextmanager
def _of_loky(jobs: int) -> Iterator[Executor]:
    """Processes that end with the block, immediately if an exception leaves it."""
    loky = needed("joblib.externals.loky", "experiments")
    threads = str(max(1, loky.cpu_count() // jobs))
    env = {name: os.environ.get(name, threads) for name in _THREADS}
    pool = loky.ProcessPoolExecutor(jobs, timeout=_IDLE, env=env)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


@contextmanager
def _of_dask(jobs: int, address: str | None) -> Iterator[Executor]:
    dask = needed("dask.distributed", "experiments")
    local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    try:
        client = dask.Client(address) if address else dask.Client(**local)
    except RuntimeError as error:  # its processes have said why
        raise RuntimeError(f"Dask could not start its processes: {error}") from None
    with client:
        yield client.get_executor(pure=False)


def _devices(device: str, jobs: int) -> list[str]:
    """The devices to which cells are assigned in turn: for several processes on ``"cuda"``, all GPUs."""
    several = jobs > 1 and torch.device(device) == torch.device("cuda")
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] if several else [str(device)]


def run(
    experiment: Experiment[Any],
    scale: str = "page",
    *,
    seeds: int | None = None,
    device: str = "cpu",
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    replace: bool = False,
) -> Record:
    """Measure all cells of an experiment that are not finished yet, and write its record.

    A finished cell is stored in a file of its own until the record is written, so that a run that was interrupted or
    killed loses at most the cells in progress when it is started again. The table does not depend on the order of the
    cells or on interruptions. Stored cells of another version or of other settings are not used, and no stored cells
    are used if the data now come from another source. Arguments are checked before the first cell is computed.

    The provenance contains ``commit`` and ``versions`` of the processes that computed the cells (all of them, if they
    differ); ``seconds``, the total time of computation of all cells; ``wall_seconds``, the elapsed time from one
    finished cell to the next, summed over all calls but without lost cells, or None if a cell was stored by a version
    that did not measure it; and ``cores``, the number of cores of the machine that called `run`.

    Parameters
    ----------
    experiment : Experiment
        What to run.
    scale : {"page", "paper"}
        The scale, which determines the sizes.
    seeds : int, optional
        Number of draws of each cell, with seeds 0, 1, ... Default: that of the experiment.
    device : str
        Device on which to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ... With several processes, ``"cuda"`` uses all
        GPUs in turn.
    jobs : int
        Largest number of processes; there are at most as many as cells.
    backend : {"loky", "dask"}
        What runs the processes: joblib, or the distributed scheduler of Dask.
    address : str, optional
        Address of a running scheduler, for Dask only. Default: a local cluster of `jobs` processes.
    folder : path, optional
        Folder of the records. Default: see `records.records_folder`.
    progress : bool
        Show finished cells and the time left, on standard error.
    replace : bool
        Whether a record of more seeds may be replaced.

    Returns
    -------
    Record
        As `load` reads it back.

    Raises
    ------
    OptionError
        The scale, backend or device is unknown; a number is below 1; an address is given for a backend other than Dask;
        two settings have the same scalars; a record of more seeds would be replaced; the folder cannot be written.
    ValueError
        Rows cannot be recorded, or as for the function `measure` of the experiment.
    ModuleNotFoundError
        An optional dependency is missing; the message names the extra that installs it.
    RuntimeError
        Dask could not start its processes.
    """
    if backend == "dask" and address is None:
        _refuse_unguarded()
    for module in ("pandas", "tqdm"):
        needed(module, "experiments")
    with refusing():
        checked_scale(scale)
        choice(backend, "backend", ("loky", "dask"))
        if address is not None and backend != "dask":
            raise ValueError(f"address is for the backend 'dask', got {address!r} for {backend!r}")
        device_of(device)
        jobs = positive(jobs, "jobs")
        seeds = positive(experiment.draws[scale] if seeds is None else seeds, "seeds")
    every, name, key = experiment.cells(scale), f"{experiment.name}-{scale}", experiment.hash(scale, seeds)
    configurations = [entries(settings) for settings in every]
    with refusing():
        _refuse_indistinct(configurations, experiment)
        kept = records_folder(folder) / ".cells" / f"{name}-{key}"
        if not replace:
            _refuse_fewer(seeds, name, folder)
        _refuse_unwritable(kept)
    grid = {
        f"{index:03d}-{seed:03d}": (settings, seed) for index, settings in enumerate(every) for seed in range(seeds)
    }
    found = {label: cell for label, at in grid.items() if (cell := _kept(kept / f"{label}.json", *at))}
    if progress and found:
        others = sum(cell["commit"] != _here()["commit"] for cell in found.values())
        by = f", {others} of them by another commit of the code" if others else ""
        print(f"{name}: resuming, {len(found)} of {len(grid)} cells were finished before{by}", file=sys.stderr)
    bar = needed("tqdm", "experiments").tqdm(
        desc=name, total=len(grid), initial=len(found), unit="cell", disable=not progress, file=sys.stderr
    )
    cells = dict(found)

    def measure(labels: list[str]) -> None:
        """Measure cells, and keep them."""
        workers = min(jobs, len(labels))
        devices = [str(device)] if address else _devices(device, workers)
        tasks = [
            (label, experiment, *grid[label], devices[position % len(devices)]) for position, label in enumerate(labels)
        ]
        last = time.perf_counter()
        for label, cell in _finished(tasks, workers, backend, address) if tasks else ():
            last, since = (now := time.perf_counter()), now - last
            written = sealed(cell | {"wall_seconds": round(since, 3)})
            write_atomically(kept / f"{label}.json", written)
            cells[label] = json.loads(written)  # as if it had been kept from an earlier run
            bar.update()

    try:
        measure([label for label in grid if label not in found])
        if again := _of_other_data(cells, found):
            for label in again:
                (kept / f"{label}.json").unlink(missing_ok=True)
                del cells[label]
            bar.reset(total=len(grid))
            bar.update(len(cells))
            measure(again)
    except BaseException as error:
        error.add_note(f"{name}: {len(cells)} of {len(grid)} cells are finished and kept: run it again to resume")
        raise
    finally:
        bar.close()
    ordered = [cells[label] for label in grid]
    clocks = [cell["wall_seconds"] for cell in ordered if "wall_seconds" in cell]  # an earlier version kept none
    table, sources = table_of(ordered, experiment)
    made_by = [cell.get("versions", {}) for cell in ordered]  # an earlier version kept none
    provenance = {
        "experiment": experiment.name,
        "about": experiment.about,
        "version": experiment.version,
        "scale": scale,
        "hash": key,
        "configurations": configurations,
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
        "versions": {
            package: ", ".join(sorted({each[package] for each in made_by if package in each}))
            for package in dict.fromkeys(package for each in made_by for package in each)
        },
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    records.save(name, table, provenance, folder)
    record = load(experiment, scale, folder)
    shutil.rmtree(kept, ignore_errors=True)  # the record has been written in full
    return record


def _refuse_indistinct(configurations: list[dict[str, Any]], experiment: Experiment[Any]) -> None:
    columns: list[str] = coordinates(configurations, experiment)
    seen: set[tuple[Any, ...]] = set()
    for configuration in configurations:
        at = tuple(scalars(configuration).get(column) for column in columns)
        if at in seen:
            raise ValueError(f"cells: two settings of {experiment.name!r} have the same scalars: {configuration}")
        seen.add(at)


def _refuse_fewer(seeds: int, name: str, folder: str | os.PathLike[str] | None) -> None:
    try:
        there = records.load(name, folder).provenance.get("seeds", 0)
    except RecordError:
        return  # none, or none of use
    if there > seeds:
        raise ValueError(
            f"seeds: {seeds} would replace the {there} of the record {name!r}; "
            "name another folder, or allow it (replace=True, --replace)"
        )


def _refuse_unwritable(folder: Path) -> None:
    try:
        write_atomically(folder / "probe", b"")
        (folder / "probe").unlink(missing_ok=True)  # another run may have deleted it
    except OSError as error:
        raise ValueError(f"folder: {folder} cannot be written: {error}") from error


def _refuse_unguarded() -> None:
    """End a process of Dask that reaches this point by importing the script that started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit("backend 'dask' starts processes that import this script: put the call under a main guard")


def _of_other_data(cells: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[str]:
    """The cells found at the start if the data of one cell, over its seeds, have two sources; else none."""
    sources: dict[str, set[frozenset[str]]] = {}
    for label, cell in cells.items():
        of_cell = frozenset(row["source"] for row in cell["rows"] if "source" in row)
        sources.setdefault(label.partition("-")[0], set()).add(of_cell)
    return list(found) if any(len(each) > 1 for each in sources.values()) else []


def _kept(path: Path, settings: Any, seed: int) -> dict[str, Any] | None:
    """A finished cell, or None if it is missing, truncated, edited, or belongs to other settings."""
    cell = unsealed(path.read_bytes()) if path.is_file() else None
    same = cell and canonical([cell.get("configuration"), cell.get("seed")]) == canonical([entries(settings), seed])
    return cell if same else None


def table_of(cells: list[dict[str, Any]], experiment: Experiment[Any]) -> tuple[Any, list[str]]:
    """One table of all cells, with the scalars of their settings and the seeds, and the sources of the data."""
    table = needed("pandas", "experiments").DataFrame(
        [{**scalars(cell["configuration"]), "seed": cell["seed"], **row} for cell in cells for row in cell["rows"]]
    )
    sources = sorted(set(table.pop("source"))) if "source" in table else []
    told_apart = [*coordinates((cell["configuration"] for cell in cells), experiment), "seed"]
    if table.duplicated(told_apart).any():
        raise ValueError(f"cells: two rows of {experiment.name!r} have the same {', '.join(told_apart)}")
    return table, sources


def load(experiment: Experiment[Any], scale: str = "paper", folder: str | os.PathLike[str] | None = None) -> Record:
    """Read the record of an experiment, and refuse a record that does not belong to the current code.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    scale : {"page", "paper"}
        The scale of the record.
    folder : path, optional
        Default: see `records.records_folder`.

    Returns
    -------
    Record

    Raises
    ------
    RecordError
        The record is missing, corrupted, or made with other settings; the message gives the command that makes it
        again.
    OptionError
        `scale` is unknown.
    """
    with refusing():
        name, renew = f"{experiment.name}-{checked_scale(scale)}", experiment.command(scale)

    def current(provenance: Mapping[str, Any]) -> str:
        return experiment.hash(scale, provenance.get("seeds", 0))  # any number of them is fine

    return records.load(name, folder, hash=current, renew=renew)


def gram_by(executor: Executor, kernel: Any, A: Any, B: Any = None, *, workers: int) -> Any:
    """Compute the kernel matrix of features whose width is divided among the workers of an executor.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        An executor, for instance of the standard library, of joblib
        (``joblib.externals.loky.get_reusable_executor``) or of Dask (``Client.get_executor``).
    kernel : RandomFeatures or TangentFeatures
        The features.
    A, B
        As for ``kernel.gram``.
    workers : int
        Number of parts into which the width is divided; each part is one task, which draws its own weights.

    Returns
    -------
    array or tensor, shape (n, m)
        The sum of ``kernel.gram(A, B, tiles=(rank, workers))``, equal to ``kernel.gram(A, B)`` up to rounding. Parts
        are added in the order in which they are finished, so rounding errors may differ from call to call.

    Raises
    ------
    ValueError
        As for ``kernel.gram``, or `workers` is below 1.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import numpy as np
    >>> from spurlib import RandomFeatures
    >>> kernel = RandomFeatures("tanh", d=3, k=5000)
    >>> with ThreadPoolExecutor(2) as pool:
    ...     K = gram_by(pool, kernel, np.eye(3), workers=2)
    >>> bool(np.allclose(K, kernel.gram(np.eye(3)), rtol=1e-13))
    True
    """
    workers = positive(workers, "workers")
    parts = [executor.submit(kernel.gram, A, B, tiles=(rank, workers)) for rank in range(workers)]
    total = None
    for part in as_completed(parts):
        total = part.result() if total is None else total + part.result()
    return total
