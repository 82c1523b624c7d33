"""How nbval compares the stored notebooks with a fresh execution; loaded by ``-p tests.nbval_settings``.

With ``--keep`` what the cells of a chapter's notebook put out is kept for the pages, which are then built without
executing it again.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import nbformat
import nbval.kernel
import pytest
from nbformat import NotebookNode

from tools.chapters import CHAPTERS, executable, notebook
from tools.execute import KERNEL_OPTIONS, code, environment, keep, stored, surroundings

# Images are not stored. A claim's JSON holds measured numbers, which its target judges and not this comparison.
NOT_COMPARED = (
    "image/svg+xml",
    "application/papermill.record/image/png",
    "application/vnd.spurlib.claim+json",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--keep``."""
    parser.addoption("--keep", action="store_true", help="keep the results of the chapters for the pages")


def pytest_configure(config: pytest.Config) -> None:
    """Start kernels as chapters are executed: without a file of history, and with every cell in the history.

    IPython looks there for the semicolon that silences a result.
    """
    start, run = nbval.kernel.start_new_kernel, nbval.kernel.RunningKernel

    def execute(self: nbval.kernel.RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
        return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    patch = pytest.MonkeyPatch()
    patch.setattr(nbval.kernel, "start_new_kernel", partial(start, extra_arguments=KERNEL_OPTIONS, env=surroundings()))
    patch.setattr(run, "execute_cell_input", execute)
    config.add_cleanup(patch.undo)


def seconds(path: Path) -> float:
    """Return how long a notebook ran when it last did; where that is not known, its size, which tells less."""
    nb = stored(path.stem) if path.parent == CHAPTERS else None
    return nb.metadata.spurlib["seconds"] if nb else path.stat().st_size / 1e9


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the notebooks that take longest, so that no worker is left with one of them at the end."""
    took = {item.path: seconds(item.path) for item in items if hasattr(item, "cell")}
    items.sort(key=lambda item: -took.get(item.path, 0.0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose what is compared in a cell, and begin to measure a notebook with its first one."""
    if not hasattr(item, "cell"):
        return
    file = item.parent
    file.skip_compare = tuple(dict.fromkeys((*file.skip_compare, *NOT_COMPARED)))
    if not hasattr(file, "executed"):
        file.executed, file.began, file.base = [], time.perf_counter(), environment()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Collect what a cell put out; after the last cell of a chapter, keep it for the pages."""
    if not hasattr(item, "cell"):
        return
    file, outputs = item.parent, item.test_outputs
    if outputs is not None and not file.timed_out and all(output.output_type != "error" for output in outputs):
        file.executed.append((item.cell.source, outputs))
    if item.config.option.keep and (nextitem is None or nextitem.parent is not file):
        harvest(file.path, file.executed, file.base, time.perf_counter() - file.began)


def harvest(path: Path, executed: list[tuple[str, list[NotebookNode]]], base: str, seconds: float) -> bool:
    """Keep the results of a stored notebook when all cells of its chapter ran without error; return whether.

    Parameters
    ----------
    path : path
        The stored notebook. Its first code cell, which brings the library to other machines, is not the chapter's.
    executed : list of (str, list)
        Source and outputs of the cells that ran without error, in order.
    base : str
        The `environment` in which they ran.
    seconds : float
        How long that took.
    """
    if path.parent != CHAPTERS or path.stem not in executable():
        return False
    nb = notebook(path.stem)
    if [source for source, _ in executed[1:]] != code(nb):
        return False
    for cell, (_, outputs) in zip((cell for cell in nb.cells if cell.cell_type == "code"), executed[1:], strict=True):
        cell.outputs = nbformat.from_dict(outputs)
    keep(path.stem, nb, base, seconds)
    return True
