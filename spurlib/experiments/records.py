"""Tables of long runs on disk, with their provenance; a table that was changed is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import needed

__all__ = [
    "CorruptedRecordError",
    "MissingRecordError",
    "Record",
    "RecordError",
    "StaleRecordError",
    "load",
    "records_folder",
    "save",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class RecordError(ValueError):
    """A record cannot be used; the message names it and says why."""


class MissingRecordError(RecordError):
    """There is no such record."""


class CorruptedRecordError(RecordError):
    """A record was truncated or edited, or one of its two files is missing."""


class StaleRecordError(RecordError):
    """A record was made with a configuration that is not the current one of the code."""


@dataclass(frozen=True)
class Record:
    """The table of a run and its provenance.

    Attributes
    ----------
    table : pandas.DataFrame
        The results, one observation in each row.
    provenance : dict
        Configurations and hash, commit, seeds, device, versions, time, memory and data.
    """

    table: Any
    provenance: dict[str, Any]


def records_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the records.

    It is `folder` if given, else ``$SPURLIB_RECORDS``, else the nearest folder ``records`` in the working directory or
    above it, else ``records`` in the working directory. A ``ValueError`` is raised if `folder` is empty.
    """
    if folder is not None and not os.fspath(folder):
        raise ValueError("folder must be the path of a folder, got an empty one")
    if named := folder or os.environ.get("SPURLIB_RECORDS"):
        return Path(named).expanduser()
    here = Path.cwd()
    return next(
        (above / "records" for above in (here, *here.parents) if (above / "records").is_dir()), here / "records"
    )


def canonical(content: Any) -> bytes:
    """JSON in a canonical form, in which equal contents have equal bytes. Scalars of numpy count as numbers."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be stored in a record: use numbers, strings, lists and dicts")


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sealed(content: dict[str, Any]) -> bytes:
    """JSON of a dict together with its checksum, to be read by `unsealed`."""
    content = content | {"sha256": checksum(canonical(content))}
    return json.dumps(content, indent=1, default=_plain).encode() + b"\n"


def unsealed(written: bytes) -> dict[str, Any] | None:
    """The dict that `sealed` wrote, or None if the text was truncated or edited."""
    try:
        content = json.loads(written)
        seal = content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if seal == checksum(canonical(content)) else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there in full."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with _created(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _created(path: Path) -> Any:
    """A new file, opened for bytes. Another process may delete its folder while it is being created: try again."""
    for _ in range(20):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(path, "xb")
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"{path.parent} is deleted again and again")


def save(name: str, table: Any, provenance: dict[str, Any], folder: str | os.PathLike[str] | None = None) -> Path:
    """Write a record: a CSV file, then a JSON file that names it, with its checksum and the types of its columns.

    If the process is killed at any moment, or if several processes save the same record at once, the old record or a
    new one is there in full: every table has a file name of its own, and the only file that is deleted is the table of
    the description that was replaced.

    Parameters
    ----------
    name : str
        Name of the record: letters, digits, ``-`` and ``_``.
    table : pandas.DataFrame
        The results; its index is not kept. Columns hold numbers, booleans, strings, or a mixture of these and of
        missing values.
    provenance : dict
        The provenance of the results, of any types that JSON can store. `load` compares the entry ``"hash"``.
    folder : path, optional
        Default: see `records_folder`.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    ValueError
        `name` has other characters; a column has no name of its own; a value has another type.
    TypeError
        JSON cannot store the provenance.
    """
    folder, name = records_folder(folder), checked_name(name)
    columns, written = _written(table)
    path, file = folder / f"{name}.json", f"{name}.{uuid.uuid4().hex[:12]}.csv"
    content = {
        "record": name,
        "table": {"file": file, "rows": len(table), "columns": columns, "sha256": checksum(written)},
        "provenance": provenance,
    }
    description = sealed(content)
    replaced = _description(path, name) if path.is_file() else None
    write_atomically(folder / file, written)
    try:
        write_atomically(path, description)
    except BaseException:
        (folder / file).unlink(missing_ok=True)
        raise
    if replaced:
        (folder / replaced["table"]["file"]).unlink(missing_ok=True)
    return path


def load(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    hash: str | Callable[[dict[str, Any]], str] | None = None,
    renew: str = "",
) -> Record:
    """Read a record, or refuse it.

    Parameters
    ----------
    name : str
        Name of the record.
    folder : path, optional
        Default: see `records_folder`.
    hash : str or callable, optional
        The hash of the configuration with which the record must have been made, or a function that returns it for the
        provenance.
    renew : str
        The command that makes the record, for the error messages.

    Returns
    -------
    Record

    Raises
    ------
    MissingRecordError
        Both files of the record are missing.
    CorruptedRecordError
        One of the files is missing, truncated or edited; the message names it.
    StaleRecordError
        The hash of the record is not `hash`.
    ValueError
        `name` has characters that `save` does not allow, or `folder` is empty.
    """
    folder, name = records_folder(folder), checked_name(name)
    advice = f": make it again with `{renew}`" if renew else ""
    path = folder / f"{name}.json"
    if not path.is_file():
        if next(folder.glob(f"{name}.*.csv"), None):
            raise CorruptedRecordError(f"record {name!r} has a table, but its description {path} is missing{advice}")
        raise MissingRecordError(f"record {name!r} is not in {folder}{advice}")
    content, written = _description(path, name), None
    while content and written is None:
        try:
            written = (folder / content["table"]["file"]).read_bytes()
        except FileNotFoundError:
            # replaced since the description was read, by another process, or really missing
            missing, content = content["table"], _description(path, name)
            if content and content["table"] == missing:
                csv_file = folder / missing["file"]
                raise CorruptedRecordError(f"record {name!r}: its table {csv_file} is missing{advice}") from None
    if content is None or written is None:
        raise CorruptedRecordError(f"record {name!r}: {path} was truncated or edited{advice}")
    described, provenance = content["table"], content["provenance"]
    if checksum(written) != described["sha256"]:
        file = folder / described["file"]
        raise CorruptedRecordError(f"record {name!r}: {file} was truncated or edited{advice}")
    wanted = hash(provenance) if callable(hash) else hash
    if wanted is not None and provenance.get("hash") != wanted:
        raise StaleRecordError(
            f"record {name!r} was made with configuration {provenance.get('hash')}, the code's is {wanted}{advice}"
        )
    table = _read(written, described.get("columns"))
    if table is None or len(table) != described["rows"]:
        raise CorruptedRecordError(f"record {name!r}: {folder / described['file']} is not as {path} says{advice}")
    return Record(table, provenance)


def _description(path: Path, name: str) -> dict[str, Any] | None:
    """The content of the JSON file of a record, or None if `save` has not written it."""
    content = unsealed(path.read_bytes())
    table = content.get("table") if content and content.get("record") == name else None
    if content is None or not isinstance(table, dict) or not isinstance(content.get("provenance"), dict):
        return None
    file, columns = table.get("file"), table.get("columns", {})
    own = isinstance(file, str) and Path(file).name == file and {"rows", "sha256"} <= set(table)
    return content if own and isinstance(columns, dict) else None


# Numbers are written so that Python reads back the same numbers. Strings are written as they are, with an empty cell
# for a missing one. All other columns (with empty strings or control characters, or of mixed types) have JSON in their
# cells.
_DTYPES = "bool|u?int(8|16|32|64)|float(16|32|64)"
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "f": lambda cell: float(cell) if cell else float("nan"),
    "i": int,
    "u": int,
    "b": {"True": True, "False": False}.__getitem__,
}


def _written(table: Any) -> tuple[dict[str, str], bytes]:
    """Types of the columns of a table, and the table as CSV."""
    columns: dict[str, str] = {}
    cells: list[list[str]] = []
    for position, label in enumerate(table.columns):
        if not isinstance(label, str) or not label.isprintable() or label in columns:
            raise ValueError(f"table: every column needs a printable name of its own, got {label!r}")
        columns[label], text = _column(table.iloc[:, position], label)
        cells.append(text)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*cells, strict=True))
    return columns, out.getvalue().encode()


def _column(column: Any, label: str) -> tuple[str, list[str]]:
    """Type and cells of one column."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in _NUMBERS and dtype.itemsize <= 8:
        return dtype.name, ["" if value != value else str(value) for value in column.to_numpy().tolist()]
    values = [_plain(v) if isinstance(v, np.generic) else v for v in column.tolist()]
    values = [None if missing else value for value, missing in zip(values, column.isna(), strict=True)]
    for value in values:
        if not (value is None or isinstance(value, (str, bool, int, float))):
            found = f"column {label!r} holds a {type(value).__name__}"
            raise ValueError(f"table: {found}; numbers, booleans and strings are allowed")
    if all(value is None or (isinstance(value, str) and value and value.isprintable()) for value in values):
        return "text", [value or "" for value in values]
    return "json", [json.dumps(value) for value in values]


def _read(written: bytes, columns: dict[str, str] | None) -> Any:
    """The table of a CSV file, or None if its columns are not those of its description."""
    pandas = needed("pandas", "experiments")
    header, *rows = list(csv.reader(io.StringIO(written.decode(), newline=""))) or [[]]
    if (columns is not None and header != list(columns)) or any(len(row) != len(header) for row in rows):
        return None
    cells = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    try:
        read = {
            label: _series(pandas, text, columns[label] if columns is not None else _guess(text))
            for label, text in zip(header, cells, strict=True)
        }
    except (ValueError, KeyError, OverflowError):
        return None
    return pandas.DataFrame(read, columns=header)


def _series(pandas: Any, cells: list[str], kind: str) -> Any:
    """A column of a type."""
    if kind == "text":
        return pandas.Series([cell or None for cell in cells], dtype=None if any(cells) else object)
    if kind == "json":
        values = [json.loads(cell) for cell in cells]
        return pandas.Series(values, dtype=None if all(isinstance(v, (str, type(None))) for v in values) else object)
    return pandas.Series(_numbers(cells, kind))


def _numbers(cells: list[str], kind: str) -> np.ndarray:
    """Numbers of a dtype; a ``ValueError``, ``KeyError`` or ``OverflowError`` if the cells are not."""
    dtype = np.dtype(kind) if isinstance(kind, str) and re.fullmatch(_DTYPES, kind) else None
    if dtype is None:
        raise ValueError(f"{kind!r} is not a type of columns")
    return np.array([_NUMBERS[dtype.kind](cell) for cell in cells], dtype=dtype)


def _guess(cells: list[str]) -> str:
    """Type of a column of a record that was made before types were stored."""
    for kind in ("bool", "int64", "float64"):
        try:
            _numbers(cells, kind)
            return kind
        except (ValueError, KeyError, OverflowError):
            continue
    return "text"


def checked_name(name: str) -> str:
    """Return the name of a record, or raise a ``ValueError``."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name must be of letters, digits, '-' and '_', got {name!r}")
    return name
