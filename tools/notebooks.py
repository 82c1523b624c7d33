"""Derive ``chapters/NAME.ipynb`` from ``chapters/NAME.md``: executed, with drawings, readable where nothing runs.

Run as ``python -m tools.notebooks [--text] [NAME ...]``.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from spurlib.book.notes import PREFIX as RECORD

from .chapters import CHAPTERS, contents, executable, notebook, repository, sources, titles
from .execute import execute, stored
from .markup import labels
from .repository import placeholder, web
from .translate import Translator

BITMAPS = ("image/png", "image/jpeg")
FOLDED = {"hide-input", "remove-cell", "remove-input"}
"""Tags of cells whose code the pages hide; in notebooks it is folded."""
COLAB = """\
# Derived from {name}.md: edit that file, not this one. On Colab, this cell brings the library and the records;
# elsewhere, run the notebook in a checkout of {repository}.
import sys
if "google.colab" in sys.modules:
    !if [ -d book ]; then git -C book pull --quiet --ff-only; else git clone --quiet --depth 1 {repository} book; fi
    !ln -sfn book/records records
    %pip install --quiet "./book[book]"
"""
NO_ADDRESS = """\
# Derived from {name}.md: edit that file, not this one. It runs in a checkout of the repository of the book.
import sys
if "google.colab" in sys.modules:
    raise RuntimeError("this copy of the book does not say where its repository is, so that Colab cannot install "
                       "it: whoever publishes it sets `repository: url:` in _config.yml and runs `make notebooks-text`")
"""


def install_cell(name: str, url: str) -> str:
    """Return the first cell of a notebook, for the address of the repository."""
    text = NO_ADDRESS if placeholder(url) else COLAB.replace("{repository}", web(url))
    return text.replace("{name}", name).rstrip()


def path_of(name: str) -> Path:
    """Return where the notebook of a chapter is stored."""
    return CHAPTERS / f"{name}.ipynb"


def glued(outputs: list[list[NotebookNode]]) -> dict[str, str]:
    """Return the texts of the noted values among the outputs of all code cells."""
    texts = {}
    for output in (output for cell in outputs for output in cell):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name and (text := output["data"].get(f"{RECORD}text/plain", output["data"].get("text/plain"))):
            texts[name] = "".join(text)
    return texts


def without_bitmaps(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return a copy of the outputs of a cell without bitmaps; vector drawings, which are small, stay."""
    dropped = {*BITMAPS, *(RECORD + mime for mime in BITMAPS)}
    outputs = copy.deepcopy(outputs)
    for output in outputs:
        if "data" in output:
            output.data = {mime: data for mime, data in output.data.items() if mime not in dropped}
    return [output for output in outputs if output.get("data", True)]


def folded(cell: NotebookNode) -> dict[str, object]:
    """Return the metadata of a code cell of a chapter in its notebook."""
    hidden = FOLDED.intersection(cell.metadata.get("tags", ()))
    return {**cell.metadata, **({"jupyter": {"source_hidden": True}} if hidden else {})}


def derive(name: str, outputs: list[list[NotebookNode]]) -> NotebookNode:
    """Return the notebook of a chapter.

    Parameters
    ----------
    name : str
        Name of the chapter.
    outputs : list of list
        Outputs of each code cell of the chapter; cells beyond the list get none.
    """
    texts = sources()
    translator = Translator(
        name, labels(texts, contents()), titles(), executable(), CHAPTERS / "references.bib", glued(outputs)
    )
    cells = [new_code_cell(install_cell(name, repository()))]
    ran = 0
    for cell in notebook(name).cells:
        if cell.cell_type == "markdown":
            if text := translator.text(cell.source):
                cells.append(new_markdown_cell(text))
            continue
        shown = without_bitmaps(outputs[ran]) if ran < len(outputs) else []
        ran += 1
        cells.append(new_code_cell(cell.source, metadata=folded(cell), outputs=shown))
        if caption := translator.caption(cell.metadata):
            cells.append(new_markdown_cell(caption))
    # The title comes first, the installing cell right before the first cell that needs it.
    first = next(i for i, cell in enumerate(cells) if i and cell.cell_type == "code")
    cells.insert(first - 1, cells.pop(0))
    count = 0
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
        if cell.cell_type == "code":
            cell.execution_count = count = count + 1
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.from_dict(new_notebook(cells=cells, metadata=metadata))


def rederive(name: str, old: NotebookNode) -> NotebookNode:
    """Return the notebook of a chapter with the outputs that an older version of it stored."""
    outputs = [cell.outputs for cell in old.cells if cell.cell_type == "code"][1:]
    return derive(name, outputs)


def differences(name: str, old: NotebookNode | None) -> list[str]:
    """Return in words where a stored notebook is not the one that its chapter gives; nothing when it is."""
    if old is None:
        return [f"chapters/{name}.ipynb is missing"]
    new = rederive(name, old)
    found = []
    for kind in ("code", "markdown"):
        have = [(cell.source, cell.metadata) for cell in old.cells if cell.cell_type == kind]
        want = [(cell.source, cell.metadata) for cell in new.cells if cell.cell_type == kind]
        if have != want:
            at = next((i for i, (a, b) in enumerate(zip(have, want, strict=False), 1) if a != b), len(want))
            found.append(f"chapters/{name}.ipynb: {kind} cell {at} is not that of {name}.md")
    if not found and [cell.id for cell in old.cells] != [cell.id for cell in new.cells]:
        found.append(f"chapters/{name}.ipynb: its cells are out of order")
    return found


def code_changed(name: str, old: NotebookNode) -> bool:
    """Return whether the code of a chapter is not what its stored notebook ran, the installing cell aside."""
    ran, now = ([cell for cell in nb.cells if cell.cell_type == "code"] for nb in (old, notebook(name)))
    return [(cell.source, cell.metadata) for cell in ran[1:]] != [(cell.source, folded(cell)) for cell in now]


def load(name: str) -> NotebookNode | None:
    """Return the stored notebook of a chapter, or None."""
    path = path_of(name)
    return nbformat.read(path, 4) if path.exists() else None


def record(names: list[str], text_only: bool = False) -> bool:
    """Store the notebooks of chapters; return True when all were stored."""
    todo = []
    for name in names:
        old = load(name)
        if text_only and old is not None and not code_changed(name, old):
            nbformat.write(rederive(name, old), path_of(name))
            print(f"  chapters/{name}.ipynb  text only")
        else:
            todo.append(name)
    done = not todo or execute(todo, fresh=not text_only)
    for name in todo if done else []:
        nb = stored(name)
        assert nb is not None
        outputs = [cell.outputs for cell in nb.cells if cell.cell_type == "code"]
        nbformat.write(derive(name, outputs), path_of(name))
        print(f"  chapters/{name}.ipynb")
    return done


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    parser.add_argument("--text", action="store_true", help="execute only chapters whose code changed")
    parser.add_argument("names", nargs="*", help="chapters, by name (default: all)")
    options = parser.parse_args()
    try:
        return 0 if record(options.names or executable(), options.text) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nStopped; no notebook was changed.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
