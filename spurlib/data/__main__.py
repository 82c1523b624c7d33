"""Download image data sets into the data folder, or repair them there: ``python -m spurlib.data [mnist] [cifar10]``."""

from __future__ import annotations

import argparse
import signal
import sys

from .images import DataNotAvailableError, check_folder, data_folder, download, image_set, listed, look


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if all requested data sets are complete in the end, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m spurlib.data", description="Check image data sets, and download what is missing or damaged."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mnist, cifar10 (both if none is given)")
    names = parser.parse_args(arguments).names or ["mnist", "cifar10"]
    for name in names:
        try:
            image_set(name)
        except ValueError as error:
            parser.error(str(error))
    return max([_complete(name) for name in names])


def _complete(name: str) -> int:
    if not image_set(name).copies:
        print(f"{name} is part of spurlib: there is nothing to download")
        return 0
    try:
        folder = data_folder()
        check_folder(folder)
    except DataNotAvailableError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    copy, problems = look(name, folder)
    if copy is not None:
        print(f"{name} is complete in {folder}")
        return 0
    print(f"{name} is not complete in {folder}: {listed(problems)}. Downloading.", flush=True)
    if reason := download(name, folder, None):
        print(f"{name}: {reason}", file=sys.stderr)
        return 1
    print(f"{name} is now complete in {folder}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit removes the folder of the download
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: what had been downloaded was removed")
