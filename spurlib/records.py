"""Tables of long runs on disk, with provenance, and refused when anything in them was changed."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A record was truncated, edited, or lost one of its two files."""


class StaleRecordError(RecordError):
    """A record was made with another configuration than the code's."""


@dataclass(frozen=True)
class Record:
    """The table of a run and where it comes from.

    Attributes
    ----------
    table : pandas.DataFrame
        The results, one observation a row.
    provenance : dict
        Configuration and hash, commit, seeds, device, dtype, versions, time, memory, data.
    """

    table: Any
    provenance: dict[str, Any]


def records_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the records.

    It is `folder`, else ``$SPURLIB_RECORDS``, else the nearest ``records`` at or above the working directory, else
    ``records`` in the working directory.
    """
    if named := folder or os.environ.get("SPURLIB_RECORDS"):
        return Path(named).expanduser()
    here = Path.cwd()
    return next(
        (above / "records" for above in (here, *here.parents) if (above / "records").is_dir()), here / "records"
    )


def needed(module: str) -> Any:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(f"{package} is needed here: pip install 'spurlib[experiments]'") from error


def canonical(content: Any) -> bytes:
    """JSON with one spelling: equal content, equal bytes. Scalars of numpy count as numbers."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be stored in a record: use numbers, strings, lists and dicts")


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sealed(content: dict[str, Any]) -> bytes:
    """JSON of a dict that carries the checksum of the rest of it, to be read by `unsealed`."""
    content = content | {"sha256": checksum(canonical(content))}
    return json.dumps(content, indent=1, default=_plain).encode() + b"\n"


def unsealed(written: bytes) -> dict[str, Any] | None:
    """Content of what `sealed` wrote, or None when it is truncated or was edited."""
    try:
        content = json.loads(written)
        seal = content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return content if seal == checksum(canonical(content)) else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment there is the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(name: str, table: Any, provenance: dict[str, Any], folder: str | os.PathLike[str] | None = None) -> Path:
    """Write a record: a CSV file, then a JSON file that names it with its checksum.

    Killed at any moment, it leaves the old record or the new one, whole.

    Parameters
    ----------
    name : str
        Name of the record: letters, digits, ``-`` and ``_``.
    table : pandas.DataFrame
        The results; its index is not kept.
    provenance : dict
        Where they come from: anything JSON can hold. `load` compares its entry ``"hash"``.
    folder : path, optional
        Default: see `records_folder`.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    ValueError
        A name of other characters.
    """
    folder, name = records_folder(folder), _checked(name)
    csv = table.to_csv(index=False, lineterminator="\n").encode()
    file = f"{name}.{checksum(csv)[:12]}.csv"
    content = {
        "record": name,
        "table": {"file": file, "rows": len(table), "sha256": checksum(csv)},
        "provenance": provenance,
    }
    description = sealed(content)
    write_atomically(folder / file, csv)
    write_atomically(folder / f"{name}.json", description)
    for old in folder.glob(f"{name}.*.csv"):
        if old.name != file:
            old.unlink(missing_ok=True)
    return folder / f"{name}.json"


def load(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    hash: str | None = None,
    renew: str = "",
) -> Record:
    """Read a record, or refuse it.

    Parameters
    ----------
    name : str
        Name of the record.
    folder : path, optional
        Default: see `records_folder`.
    hash : str, optional
        The hash of the configuration that the record must have been made with.
    renew : str
        The command that makes the record, for the error messages.

    Returns
    -------
    Record

    Raises
    ------
    MissingRecordError
        Neither of its files is there.
    CorruptedRecordError
        One of them is missing, truncated or edited; the message names the file.
    StaleRecordError
        Its hash is not `hash`.
    """
    folder, name = records_folder(folder), _checked(name)
    advice = f": make it again with `{renew}`" if renew else ""
    path = folder / f"{name}.json"
    if not path.is_file():
        if next(folder.glob(f"{name}.*.csv"), None):
            raise CorruptedRecordError(f"record {name!r} has a table, but its description {path} is missing{advice}")
        raise MissingRecordError(f"record {name!r} is not in {folder}{advice}")
    content = unsealed(path.read_bytes())
    if content is None or content.get("record") != name:
        raise CorruptedRecordError(f"record {name!r}: {path} was truncated or edited{advice}")
    provenance, file, seal = content["provenance"], content["table"]["file"], content["table"]["sha256"]
    csv = folder / file
    if not csv.is_file():
        raise CorruptedRecordError(f"record {name!r}: its table {csv} is missing{advice}")
    written = csv.read_bytes()
    if checksum(written) != seal:
        raise CorruptedRecordError(f"record {name!r}: {csv} was truncated or edited{advice}")
    if hash is not None and provenance.get("hash") != hash:
        raise StaleRecordError(
            f"record {name!r} was made with configuration {provenance.get('hash')}, the code's is {hash}{advice}"
        )
    table = needed("pandas").read_csv(io.BytesIO(written), keep_default_na=False, na_values=[""])
    return Record(table, provenance)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name must be of letters, digits, '-' and '_', got {name!r}")
    return name
