"""The command line: ``python -m spurlib.experiments list | run NAME | verify [NAME]``; see ``--help``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..data import DataNotAvailableError
from .definition import SCALES
from .records import MissingRecordError, RecordError, StaleRecordError, records_folder
from .registry import KNOWN, experiment, experiment_names, load_record
from .runs import OptionError, refusing, run
from .verification import verify

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with _stopped_by_sigterm():
            return int(options.act(options))
    except (KeyboardInterrupt, OptionError, RecordError, DataNotAvailableError, OSError, ModuleNotFoundError) as error:
        # errors of the user or the machine; any other error is a bug, whose traceback is needed
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{type(error).__name__}: {error}", *notes]), file=sys.stderr)
        return 1 if not isinstance(error, KeyboardInterrupt) else 143 if error.args else 130


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does: finished cells are kept, and no process is left behind."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("terminated")

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spurlib.experiments", description="Run, list and verify records.")
    commands = parser.add_subparsers(required=True, metavar="list | run | verify")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", help="folder of the records (default: $SPURLIB_RECORDS, or records)")
    listing = commands.add_parser("list", parents=[common], help="list experiments and their records")
    listing.set_defaults(act=_list)
    running = commands.add_parser("run", parents=[common], help="run an experiment, or resume it")
    running.add_argument("name", metavar="NAME")
    running.add_argument("--scale", choices=SCALES, default="page", help="default: page")
    running.add_argument("--seeds", type=int, help="number of draws (default: the experiment's)")
    running.add_argument("--jobs", type=int, default=1, help="number of processes (default: 1)")
    running.add_argument("--backend", choices=("loky", "dask"), default="loky", help="what runs them (default: loky)")
    running.add_argument("--replace", action="store_true", help="replace a record of more seeds")
    running.add_argument("--address", help="dask: address of a scheduler (default: a local cluster)")
    running.set_defaults(act=_run)
    verifying = commands.add_parser("verify", parents=[common], help="run a random slice of records again, and compare")
    verifying.add_argument("name", metavar="NAME", nargs="?", help="default: all that have a record")
    verifying.add_argument("--scale", choices=SCALES, help="default: both")
    verifying.add_argument("--cells", type=int, default=1, help="number of cells of each record (default: 1)")
    verifying.add_argument("--whole", action="store_true", help="run the cells in full (default: small sizes only)")
    verifying.add_argument("--seed", type=int, help="seed of the choice of cells (default: a new one each time)")
    verifying.set_defaults(act=_verify)
    for sub in (running, verifying):
        sub.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return parser


def _state(name: str, scale: str, folder: str | None) -> str:
    try:
        return f"current ({load_record(name, scale, folder).provenance['seeds']} seeds)"
    except MissingRecordError:
        return "none"
    except StaleRecordError:
        return "stale"
    except RecordError:
        return "corrupted"


def _there(folder: str | None) -> None:
    """Refuse a folder that was given and does not exist."""
    with refusing():
        found = records_folder(folder)
    if folder is not None and not found.is_dir():
        raise OptionError(f"folder: {folder!r} is not a folder")


def _list(options: argparse.Namespace) -> int:
    _there(options.folder)
    print(f"{'experiment':24} {'scale':6} {'cells':>5}  record")
    for name, e in KNOWN.items():
        for scale in SCALES:
            count = len(e.cells(scale)) * e.draws[scale]
            print(f"{name:24} {scale:6} {count:5}  {_state(name, scale, options.folder)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    names = ("seeds", "device", "jobs", "backend", "address", "folder", "replace")
    record = run(experiment(options.name), options.scale, **{name: getattr(options, name) for name in names})
    seconds, data = record.provenance["seconds"], ", ".join(record.provenance["data"])
    print(f"{options.name}-{options.scale}: {len(record.table)} rows in {seconds:.0f} s of computing; data: {data}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    _there(options.folder)
    verified = failed = 0
    scales = [options.scale] if options.scale else SCALES
    for name in [options.name] if options.name else experiment_names():
        experiment(name)
        found = [scale for scale in scales if _state(name, scale, options.folder) != "none"]
        for scale in found or ([scales[-1]] if options.name else []):
            chosen = {key: getattr(options, key) for key in ("cells", "whole", "device", "folder", "seed")}
            rows = verify(experiment(name), scale, **chosen)
            wrong = rows[~rows["agrees"]]
            verdict = "all agree" if wrong.empty else f"{len(wrong)} DISAGREE"
            print(f"{name}-{scale}: {len(rows)} numbers of seeds {sorted(set(rows['seed']))} again: {verdict}")
            if not wrong.empty:
                print(wrong.to_string(index=False))
            verified, failed = verified + 1, failed + (not wrong.empty)
    if not verified:
        raise MissingRecordError(f"there is no record in {records_folder(options.folder)} to verify")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
