"""Build the pages: bring the results up to date, then let Jupyter Book render, with warnings as errors.

Run as ``python -m tools.build [--fresh]``.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .chapters import BUILD, ROOT
from .execute import execute


def build(fresh: bool = False) -> bool:
    """Build the pages, executing first what is out of date, or everything; return True when all went well."""
    if not execute(fresh=fresh):
        print("No pages were built: the chapters above failed.", file=sys.stderr)
        return False
    start = time.perf_counter()
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        ".",
    ]
    print("Building the pages", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout)
        # Pages that were read are not read again: without this, the next build would not repeat its warnings.
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        return False
    print(f"  {time.perf_counter() - start:.1f} s")
    print(f"Open {BUILD / 'html' / 'index.html'}")
    return True


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.build", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="execute also what is up to date")
    try:
        return 0 if build(parser.parse_args().fresh) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nStopped; chapters that were done are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
