"""Run the cells of submissions, each submission in a process of its own with limits of time and memory.

It is started by `tools.grading`, which sends jobs without the expected values: a process that runs the code of others
holds no reference value. The imports are done once; every job is a fork. What is limited is time, memory and the size
of what is written, not what the code can read: where submissions are not to be trusted, grade in a container.
"""

from __future__ import annotations

import base64
import ctypes
import faulthandler
import io
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from numpy import asarray
from traitlets import Type
from traitlets.config import Config

PRELOADED = ("matplotlib.pyplot", "scipy.integrate", "scipy.special", "scipy.stats", "pandas", "torch", "spurlib")
LETTERS, PICTURES, PICTURE_BYTES, NUMBERS = 4000, 3, 200_000, 20_000
FILE_BYTES = 100 * 2**20
PR_SET_PDEATHSIG = 1
GRACE = 3
"""Seconds that a cell has to end after it was interrupted."""


class TimeLimitError(BaseException):
    """A cell has used up its time; not an Exception, so that ``except Exception`` does not stop it."""


class Limited(io.StringIO):
    """Text up to a length; the rest is counted, not kept."""

    lost = 0

    def write(self, text: str) -> int:
        """Keep what fits."""
        room = max(0, LETTERS - self.tell())
        self.lost += len(text) - len(text[:room])
        super().write(text[:room])
        return len(text)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Interrupt code that takes longer than this, and end the process if that does not help."""

    def ring(*_: object) -> None:
        raise TimeLimitError(f"stopped after {seconds:g} seconds")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=nowhere)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()


class Hook(DisplayHook):
    """A display hook that shows the value of a cell without a number before it."""

    def write_output_prompt(self) -> None:
        """Do nothing."""


class Shell(InteractiveShell):
    """IPython without windows: figures are collected after each cell, whatever ``%matplotlib`` says."""

    displayhook_class = Type(Hook)

    def _showtraceback(self, *_: object) -> None:
        """Do nothing: the error is returned."""

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing."""

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """Do nothing."""
        return "agg", "agg"


def value(thing: Any) -> dict[str, Any]:
    """Return what can be compared: the kind, the shape and the entries of a number, truth value, text or array."""
    if thing is ...:
        return {"kind": "none"}
    if isinstance(thing, str):
        return {"kind": "text", "shape": [], "entries": [thing[:LETTERS]]}
    with suppress(Exception):
        if hasattr(thing, "detach"):
            thing = thing.detach().cpu().numpy()
        array = asarray(thing)
        kind = {"b": "truth", "i": "number", "u": "number", "f": "number"}.get(array.dtype.kind)
        if kind and array.size <= NUMBERS:
            entries = [float(entry) for entry in array.ravel()]
            return {"kind": kind, "shape": list(array.shape), "entries": entries}
    return {"kind": f"{type(thing).__name__}"}


def pictures() -> list[str]:
    """Return the first figures that are open, as PNG in base64, and close all."""
    found = []
    if plt := sys.modules.get("matplotlib.pyplot"):
        with suppress(Exception):
            for number in plt.get_fignums()[:PICTURES]:
                file = io.BytesIO()
                plt.figure(number).savefig(file, format="png", dpi=70)
                if file.tell() <= PICTURE_BYTES:
                    found.append(base64.b64encode(file.getvalue()).decode())
            plt.close("all")
    return found


def run(shell: InteractiveShell, cell: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run one cell; return what it showed, its error in words, and the values of the names that are asked for."""
    said, error = Limited(), ""
    try:
        with alarm(seconds), redirect_stdout(said), redirect_stderr(said):
            done = shell.run_cell(cell["source"], store_history=False)
            problem = done.error_before_exec or done.error_in_exec
            error = f"{type(problem).__name__}: {problem}"[:500] if problem else ""
            found = pictures()
    except BaseException as problem:  # the time was up while IPython was at work, or something was raised on purpose
        error, found = f"{type(problem).__name__}: {problem}"[:500], []
    values = {name: value(shell.user_ns.get(name, ...)) for name in cell.get("collect", ())}
    more = f"\n... and {said.lost} more characters" if said.lost else ""
    return {"text": said.getvalue() + more, "error": error, "pictures": found, "values": values}


def perform(folder: Path, seconds: float, memory: float) -> None:
    """Run the cells in ``cells.json``, and write one line before and one after each into ``results.jsonl``."""
    os.setsid()
    with suppress(AttributeError, OSError):  # on Linux: not to go on when the code kills its parent
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    for which, limit in ((resource.RLIMIT_DATA, int(memory * 2**30)), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        resource.setrlimit(which, (limit, limit))
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = Shell.instance(config=settings)
    with open(folder / "results.jsonl", "w", buffering=1, encoding="utf-8") as log:
        for number, cell in enumerate(cells):
            log.write(json.dumps({"start": number}) + "\n")
            done = run(shell, cell, seconds)
            log.write(json.dumps({"cell": number} | done) + "\n")


def serve() -> None:
    """Run each job, a line of the input, in a fork that is killed when its time is up, and print a line at its end."""
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            with suppress(BaseException):
                perform(Path(job["folder"]), job["seconds"], job["memory"])
            os._exit(0)
        end = time.monotonic() + job["total"]
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                end = float("inf")
            time.sleep(0.02)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what it left running
        print("done", flush=True)


if __name__ == "__main__":
    serve()
