"""Build the pages: bring the results up to date, then let Jupyter Book render, with warnings as errors.

Run as ``python -m tools.build [--fresh]``. The pages are made in ``_build/draft`` and take the place of those in
``_build/html`` when nothing was wrong with them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ipykernel.kernelspec import write_kernel_spec

from . import check, ledger
from .chapters import BUILD, ROOT, SourceError, any_terminal, contents, executable, repository, sources
from .execute import execute, offer, stored
from .extension import MOVED
from .repository import notice

HTML = BUILD / "html"
DRAFT = BUILD / "draft"
# Not the script of that name: the first line of one cannot hold a path with a space.
BOOK = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
COMMAND = [*BOOK, "build", "-W", "--keep-going", "-n", "-q"]


def build(fresh: bool = False) -> bool:
    """Build the pages, executing first what is out of date, or everything; return True when all went well."""
    if not execute(fresh=fresh):
        print("No pages were built: the chapters above failed.", file=sys.stderr)
        return False
    results = [fault for name in executable() if (nb := stored(name)) for fault in check.results(name, nb)]
    if wrong := [*map(str, results), *ledger.contradictions(sources(), ledger.claims())]:
        print("\n".join(["No pages were built:", *wrong]), file=sys.stderr)
        return False
    start = time.perf_counter()
    print("Building the pages", flush=True)
    offer(executable())
    if (said := render()) is not None:
        print(said)
        print(f"The pages have faults: {HTML} was left as it was, and these are in {pages()}.", file=sys.stderr)
        return False
    publish()
    print(f"  {time.perf_counter() - start:.1f} s")
    if said := notice(repository()):
        print(said)
    print(f"Open {HTML / 'index.html'}")
    return True


def render(builder: str = "html", draft: Path | None = None) -> str | None:
    """Let Jupyter Book make the pages in a draft; return what it says when something is wrong with them."""
    # Pages that were read are not read again, and their warnings not repeated; after a stop, some are not written.
    draft = draft or DRAFT
    unfinished = draft / "unfinished"
    if unfinished.exists():
        shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    # All outputs are in the cache. Should one be missing, it is this interpreter that runs the chapter.
    specs = BUILD / "jupyter"
    shutil.rmtree(specs, ignore_errors=True)
    write_kernel_spec(specs / "kernels" / "python3")
    done = subprocess.run(
        [*COMMAND, "--builder", builder, "--path-output", str(draft), str(ROOT)],
        cwd=ROOT,
        env=os.environ | {"JUPYTER_PATH": str(specs), "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        return done.stdout
    unfinished.unlink()
    return None


def pages() -> Path:
    """Return the folder of the draft in which the pages are."""
    return DRAFT / "_build" / "html"


def publish() -> None:
    """Replace the pages by a copy of the draft."""
    new, old = BUILD / "html.new", BUILD / "html.old"
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pages(), new)
    for page in (new / "chapters").glob("*.html"):
        if page.stem not in {*contents(), *MOVED}:  # a chapter that is no longer there
            page.unlink()
    if HTML.exists():
        HTML.rename(old)
    new.rename(HTML)
    shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.build", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="execute also what is up to date")
    options = parser.parse_args()
    any_terminal()
    try:
        return 0 if build(options.fresh) else 1
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nStopped; chapters that were done are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
