"""Execute the chapters, each in a fresh kernel, and keep the results until something they rest on changes.

Run as ``python -m tools.execute [--fresh] [NAME ...]``. The executed notebooks go to ``_build/executed``
and into the cache from which the book's builder takes its outputs, so that nothing runs twice.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import re
import signal
import sys
import time

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from spurlib.data import available

from .chapters import BUILD, ROOT, executable, notebook

EXECUTED = BUILD / "executed"
CACHE = BUILD / ".jupyter_cache"
DATA_SETS = ("mnist", "cifar10")
CELL_SECONDS, CHAPTER_SECONDS = 300, 600
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError, TimeoutError)


def code(nb: NotebookNode) -> list[str]:
    """Return the sources of the code cells."""
    return [cell.source for cell in nb.cells if cell.cell_type == "code"]


def data_used(nb: NotebookNode) -> tuple[list[str], list[str]]:
    """Return the image data sets that a notebook names: those on this machine, and those missing."""
    text = "\n".join(code(nb))
    named = [name for name in DATA_SETS if re.search(rf"""["']{name}["']""", text)]
    here = [name for name in named if available(name, range(10))]
    return here, [name for name in named if name not in here]


def environment() -> str:
    """Return a digest of what every result rests on besides the chapter itself."""
    digest = hashlib.sha256(platform.python_version().encode())
    files = [ROOT / "requirements.txt", *(ROOT / "spurlib").rglob("*"), *(ROOT / "records").rglob("*")]
    for path in sorted(
        path for path in files if path.is_file() and path.suffix != ".pyc" and ".cells" not in path.parts
    ):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    for variable in ("SPUR_SCALE", "SPURLIB_DATA"):
        digest.update(f"{variable}={os.environ.get(variable)}".encode())
    return digest.hexdigest()


def key(nb: NotebookNode, base: str) -> str:
    """Return the digest under which the results of a notebook are valid."""
    parts = [base, *data_used(nb)[0], *code(nb)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stored(name: str) -> NotebookNode | None:
    """Return the executed notebook of a chapter, however old, or None."""
    path = EXECUTED / f"{name}.ipynb"
    return nbformat.read(path, 4) if path.exists() else None


def keep(name: str, nb: NotebookNode) -> None:
    """Store an executed notebook: either wholly or not at all."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    part = EXECUTED / f"{name}.part"
    nbformat.write(nb, part)
    part.replace(EXECUTED / f"{name}.ipynb")


def offer(name: str) -> None:
    """Put the results of a chapter where the book's builder looks for them."""
    done, nb = stored(name), notebook(name)
    assert done is not None
    outputs = iter(cell for cell in done.cells if cell.cell_type == "code")
    for cell in nb.cells:
        if cell.cell_type == "code":
            ran = next(outputs)
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    bundle = CacheBundleIn(nb, f"{name}.md", data={"execution_seconds": done.metadata.spurlib.seconds})
    get_cache(CACHE).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


async def run(nb: NotebookNode, threads: int) -> None:
    """Execute a notebook in place, in a fresh kernel with the given number of threads."""
    # Threads that wait by spinning make everything ten times slower as soon as something else runs on the machine.
    limits = {"OMP": threads, "MKL": threads, "OPENBLAS": 1, "NUMEXPR": 1}
    environ = os.environ | {f"{name}_NUM_THREADS": str(count) for name, count in limits.items()}
    environ["OMP_WAIT_POLICY"] = "passive"
    client = NotebookClient(
        nb,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(ROOT / "chapters")}},
        # The client would answer Ctrl-C by stopping one kernel and going on: stop everything instead.
        on_notebook_start=lambda notebook: loop.add_signal_handler(signal.SIGINT, stop),
    )
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        for other in asyncio.all_tasks(loop):
            other.cancel()

    assert task is not None
    async with asyncio.timeout(CHAPTER_SECONDS):
        await client.async_execute(env=environ)


async def run_all(names: list[str], base: str, jobs: int, threads: int) -> list[str]:
    """Execute chapters, some at a time, with a line for each; return the names of those that failed."""
    failed: list[str] = []
    slots, width = asyncio.Semaphore(jobs), max(map(len, names))

    async def one(name: str) -> None:
        nb = notebook(name)
        async with slots:
            start = time.perf_counter()
            try:
                await run(nb, threads)
            except FAILURES as error:
                failed.append(name)
                print(f"  {name:<{width}}  FAILED\n{explain(name, nb, error)}", flush=True)
                return
        seconds = round(time.perf_counter() - start, 1)
        day = time.strftime("%Y-%m-%d")
        nb.metadata["spurlib"] = {"key": key(nb, base), "data": data_used(nb)[0], "seconds": seconds, "day": day}
        keep(name, nb)
        print(f"  {name:<{width}}  {seconds:5.1f} s", flush=True)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return failed


def explain(name: str, nb: NotebookNode, error: BaseException) -> str:
    """Say in which cell of a chapter an error was raised, with the cell's traceback."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
                return f"chapters/{name}.md, code cell {number} of {len(cells)}:\n{cell.source}\n\n{trace}\n"
    ran = sum(cell.get("execution_count") is not None for cell in cells)
    reason = str(error) or f"the chapter took more than {CHAPTER_SECONDS} s"
    return f"chapters/{name}.md, after code cell {ran} of {len(cells)}: {type(error).__name__}: {reason}\n"


def execute(names: list[str] | None = None, fresh: bool = False) -> bool:
    """Bring the results of the chapters up to date, or compute all anew; return True when none failed."""
    names, base = names or executable(), environment()
    todo = []
    for name in names:
        old = None if fresh else stored(name)
        if old is None or old.metadata.get("spurlib", {}).get("key") != key(notebook(name), base):
            todo.append(name)
    cores = os.cpu_count() or 1
    jobs = int(os.environ.get("SPUR_JOBS") or max(1, min(4, cores // 2)))
    threads = int(os.environ.get("SPUR_THREADS") or min(2, cores))
    print(
        f"Executing {len(todo)} of {len(names)} chapters ({jobs} at a time, {threads} threads each)",
        flush=True,
    )
    failed = asyncio.run(run_all(todo, base, jobs, threads)) if todo else []
    for name in names:
        if name not in failed:
            offer(name)
    return not failed


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="execute also what is up to date")
    parser.add_argument("names", nargs="*", help="chapters, by name (default: all)")
    options = parser.parse_args()
    try:
        return 0 if execute(options.names, options.fresh) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nStopped; chapters that were done are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
