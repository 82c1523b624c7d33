"""Execute the chapters, each in a fresh kernel, and keep the results until something they rest on changes.

Run as ``python -m tools.execute [--fresh] [NAME ...]``. The executed notebooks go to ``_build/executed``
and into the cache from which the book's builder takes its outputs, so that nothing runs twice. The tests
put there what they execute.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

from .chapters import BUILD, ROOT, SourceError, any_terminal, notebook
from .check import named

EXECUTED = BUILD / "executed"
CACHE = BUILD / ".jupyter_cache"
CELL_SECONDS, CHAPTER_SECONDS = 300, 600
FAILURES = (CellExecutionError, CellTimeoutError, TimeoutError, RuntimeError)  # the last one: the kernel died

VARIABLES = ("SPURLIB_RECORDS",)
"""Environment variables on which results depend; results from images outside the package are recorded instead."""

KERNEL_OPTIONS = ["--log-level=ERROR", "--HistoryManager.hist_file=:memory:"]


def code(nb: NotebookNode) -> list[str]:
    """Return the sources of the code cells."""
    return [cell.source for cell in nb.cells if cell.cell_type == "code"]


def meaning(path: Path) -> bytes:
    """Return the part of a file on which results can depend: for a module, its syntax tree without docstrings."""
    data = path.read_bytes()
    if path.suffix != ".py":
        return data
    try:
        tree = ast.parse(data)
    except SyntaxError:
        return data
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree).encode()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def environment() -> str:
    """Return a digest of what every result rests on besides the chapter itself."""
    digest = hashlib.sha256(platform.python_version().encode())
    for variable in VARIABLES:
        digest.update(f"{variable}={os.environ.get(variable)}\0".encode())
    # Chapters run in their own folder.
    records = ROOT / "chapters" / Path(os.environ.get("SPURLIB_RECORDS") or ROOT / "records").expanduser()
    for folder in (*sorted(ROOT.glob("requirements*")), ROOT / "spurlib", records):
        files = folder.rglob("*") if folder.is_dir() else [folder]
        for path in sorted(path for path in files if path.is_file()):
            if path.suffix != ".pyc" and ".cells" not in path.parts:
                digest.update(str(path.relative_to(folder.parent)).encode() + b"\0" + meaning(path) + b"\0")
    return digest.hexdigest()


def key(nb: NotebookNode, base: str) -> str:
    """Return the digest under which the results of a notebook are valid."""
    parts = [base, *code(nb)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stored(name: str) -> NotebookNode | None:
    """Return the executed notebook of a chapter, however old; None when there is none, or only part of one."""
    try:
        nb = nbformat.read(EXECUTED / f"{name}.ipynb", 4)
        nbformat.validate(nb)
        wanted = {"key": str, "seconds": float, "day": str}
        whole = all(isinstance(nb.metadata.spurlib[field], kind) for field, kind in wanted.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError):
        return None
    return nb if whole else None


def keep(name: str, nb: NotebookNode, base: str, seconds: float) -> None:
    """Store a chapter that was executed just now: either wholly or not at all.

    Parameters
    ----------
    name : str
        Name of the chapter.
    nb : NotebookNode
        The chapter with its outputs, which are numbered here.
    base : str
        The `environment` in which they were computed.
    seconds : float
        How long that took.
    """
    for count, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    nb.metadata["spurlib"] = {
        "key": key(nb, base),
        "seconds": float(round(seconds, 1)),
        "day": time.strftime("%Y-%m-%d"),
    }
    EXECUTED.mkdir(parents=True, exist_ok=True)
    part = EXECUTED / f"{name}.{os.getpid()}.part"
    try:
        nbformat.write(nb, part)
        part.replace(EXECUTED / f"{name}.ipynb")
    finally:
        part.unlink(missing_ok=True)


def offer(names: list[str]) -> None:
    """Put the results of chapters where the book's builder looks for them, replacing all that is there."""
    shutil.rmtree(CACHE, ignore_errors=True)  # a database that was cut short would not open
    cache = get_cache(CACHE)
    for name in names:
        done, nb = stored(name), notebook(name)
        if done is None or code(done) != code(nb):
            raise SourceError(f"chapters/{name}.md was edited while it was executed: build again")
        outputs = iter(cell for cell in done.cells if cell.cell_type == "code")
        for cell in nb.cells:
            if cell.cell_type == "code":
                ran = next(outputs)
                cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        bundle = CacheBundleIn(nb, f"{name}.md", data={"execution_seconds": done.metadata.spurlib.seconds})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def surroundings() -> dict[str, str]:
    """Return the variables for a kernel: this process's, with text in UTF-8 and the library of this very checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1"}


def limited(threads: int) -> dict[str, str]:
    """Return the variables for a kernel with a number of threads."""
    # Threads that wait by spinning make everything ten times slower as soon as something else runs on the machine.
    limits = {"OMP": threads, "MKL": threads, "OPENBLAS": 1, "NUMEXPR": 1}
    environ = surroundings() | {f"{name}_NUM_THREADS": str(count) for name, count in limits.items()}
    return environ | {"OMP_WAIT_POLICY": "passive"}


class Client(AsyncKernelClient):
    """A client without the thread that listens for a heartbeat.

    Whether a kernel is alive is known from its process. If a stop comes while such a thread opens its socket, the
    thread raises an error or does not end.
    """

    def start_channels(self, *_: bool, **__: bool) -> None:
        """Open all channels but the heartbeat."""
        super().start_channels(hb=False)


@asynccontextmanager
async def kernel(threads: int) -> AsyncIterator[AsyncKernelManager]:
    """Start a kernel of this very interpreter in the folder of the chapters, and end it whatever happens."""
    # Without folders to search, no other kernel that is called "python3" can be found.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs, client_factory=Client)
    try:
        await manager.start_kernel(extra_arguments=KERNEL_OPTIONS, env=limited(threads), cwd=str(ROOT / "chapters"))
        yield manager
    finally:
        if manager.has_kernel:
            await manager.shutdown_kernel(now=True)


async def run(nb: NotebookNode, threads: int) -> None:
    """Execute a notebook in place, in a fresh kernel with the given number of threads."""
    async with asyncio.timeout(CHAPTER_SECONDS), kernel(threads) as manager:
        client = NotebookClient(nb, km=manager, timeout=CELL_SECONDS, record_timing=False)
        try:
            await client.async_execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


class Loop(asyncio.SelectorEventLoop):
    """An event loop that leaves signals to `asyncio.Runner`, which reacts to Ctrl-C by stopping everything.

    A notebook client would react by stopping one kernel and going on; it runs without a handler if it cannot add one.
    """

    def add_signal_handler(self, *_: object) -> None:
        """Refuse, as outside the main thread."""
        raise RuntimeError("signals are not for clients")


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
        seconds = time.perf_counter() - start
        keep(name, nb, base, seconds)
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


def up_to_date(name: str, base: str) -> bool:
    """Return whether the results of a chapter are there and valid in an `environment`."""
    nb = stored(name)
    return nb is not None and nb.metadata.spurlib["key"] == key(notebook(name), base)


def counted(variable: str, default: int) -> int:
    """Return the positive integer that a variable of the environment holds, if it is set."""
    text = os.environ.get(variable) or str(default)
    if not re.fullmatch(r"0*[1-9]\d{0,3}", text.strip()):
        raise SourceError(f"{variable} must be a positive number of processes or threads, got {text!r}")
    return int(text)


def execute(names: list[str] | None = None, fresh: bool = False) -> bool:
    """Bring the results of the chapters up to date, or compute all anew; return True when none failed."""
    names, base = named(names or []), environment()
    cores = os.cpu_count() or 1
    # One chapter a core: two threads in one chapter gain next to nothing.
    jobs = counted("SPUR_JOBS", min(4, cores))
    threads = counted("SPUR_THREADS", 1)
    todo = [name for name in names if fresh or not up_to_date(name, base)]
    print(
        f"Executing {len(todo)} of {len(names)} chapters ({jobs} at a time, {threads} threads each)",
        flush=True,
    )
    if not todo:
        return True
    with asyncio.Runner(loop_factory=Loop) as runner:
        return not runner.run(run_all(todo, base, jobs, threads))


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="execute also what is up to date")
    parser.add_argument("names", nargs="*", help="chapters, by name (default: all)")
    options = parser.parse_args()
    any_terminal()
    try:
        return 0 if execute(options.names, options.fresh) else 1
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nStopped; chapters that were done are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
