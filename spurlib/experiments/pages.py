"""Results that need images outside the package: recorded once, and computed again where the images are available."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import data as _data
from .records import (
    CorruptedRecordError,
    MissingRecordError,
    StaleRecordError,
    records_folder,
    sealed,
    unsealed,
    write_atomically,
)

__all__ = ["recorded"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ROUNDING = 1e-6  # agreement of what is computed again with what was recorded, relative to the largest entry

Results = Mapping[str, Any]


def recorded(
    name: str, compute: Callable[[], Results], *, data: str, classes: Sequence[int] | None = None, check: bool = True
) -> dict[str, np.ndarray]:
    """Return a recorded result of a page, and compute it again if its images are available.

    A page therefore shows the same numbers on every machine, and they are checked wherever the images are available.

    Parameters
    ----------
    name : str
        Name of the result: lower-case words joined by ``-``. It is stored in ``pages/NAME.json`` of the folder of the
        records.
    compute : callable
        Function without arguments that returns a dict of numbers, or of arrays or lists of numbers, by name. It is
        called if `data` are available, and its results must then agree with the record up to 1e-6 times the largest
        entry of each.
    data, classes
        The images that `compute` needs, as for `framed_images`. If they are part of the package, `compute` is always
        called and nothing is recorded.
    check : bool
        False if the numbers depend on the processor, as those of trained networks do. Then `compute` is called only to
        make a missing record.

    Returns
    -------
    dict of str to ndarray
        The record, even if `compute` was called. If there was no record, the results of `compute`, which are recorded.

    Raises
    ------
    MissingRecordError
        There is no record, and the images are not available.
    CorruptedRecordError
        The record was truncated or edited.
    StaleRecordError
        The computed results do not agree with the record; delete the record to make a new one.
    ValueError
        `name` has another form, or the data set or the classes are not those of `framed_images`.

    Examples
    --------
    >>> import spurlib as sl
    >>> found = sl.recorded("example-cats", lambda: {"mean": 0.5}, data="cifar10")  # doctest: +SKIP
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name must be lower-case words joined by '-', got {name!r}")
    if _data.embedded(data, classes):
        return {key: np.asarray(value, dtype=float) for key, value in compute().items()}
    path = records_folder() / "pages" / f"{name}.json"
    kept = unsealed(path.read_bytes()) if path.is_file() else {}
    if kept is None or (kept and kept.get("record") != name):
        raise CorruptedRecordError(f"result {name!r}: {path} was truncated or edited; delete it to make it anew")
    old = {key: np.asarray(value) for key, value in kept.get("results", {}).items()}
    if kept and not check:
        return old
    if not _data.available(data, classes):
        if not kept:
            raise MissingRecordError(f"result {name!r} is not in {path.parent}, and {data!r} is not here to compute it")
        return old
    new = {key: np.asarray(value, dtype=float) for key, value in compute().items()}
    if not kept:
        results = {key: value.tolist() for key, value in new.items()}
        content = json.loads(sealed({"record": name, "data": data, "results": results}))
        write_atomically(path, json.dumps(content).encode() + b"\n")  # on one line: thousands of numbers
        return new
    _compare(name, old, new)
    return old


def _compare(name: str, old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> None:
    if old.keys() != new.keys():
        raise StaleRecordError(f"result {name!r} has the entries {sorted(old)}, the page computes {sorted(new)}")
    for key, value in new.items():
        if value.shape != old[key].shape:
            raise StaleRecordError(f"result {name!r}: {key} has shape {old[key].shape}, the page's is {value.shape}")
        off, size = np.abs(value - old[key]), np.abs(old[key]).max(initial=0.0)
        if not (off <= _ROUNDING * size).all():
            raise StaleRecordError(
                f"result {name!r}: {key} differs from the record by {off.max():.3g}, with entries up to {size:.3g}"
            )
