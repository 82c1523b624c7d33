"""The sources of the book: its configuration, its table of contents and its chapters."""

from __future__ import annotations

import io
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t]*$")
LICENSED = '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>'
"""The license of text, figures and slides."""
CELL = re.compile(r"^`{3,}\{code-cell\}", re.MULTILINE)


class SourceError(ValueError):
    """A fault of the book's sources, or of the chapters that were asked for, which the message names."""


def read(path: Path) -> str:
    """Read a text file: UTF-8, with or without a byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def any_terminal() -> None:
    """Let what is printed reach terminals that cannot show all of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@cache
def config() -> dict[str, Any]:
    """Return the contents of ``_config.yml``."""
    return yaml.safe_load(read(ROOT / "_config.yml"))


def myst() -> MdParserConfig:
    """Return how the book's builder reads MyST."""
    return MdParserConfig(enable_extensions=set(config()["parse"]["myst_enable_extensions"]))


def repository() -> str:
    """Return the address of the repository: one line of ``_config.yml``, from which all else follows."""
    return config()["repository"]["url"].rstrip("/")


@cache
def contents() -> dict[str, int | None]:
    """Return the chapters of ``_toc.yml`` in reading order, with their numbers (None for the back matter)."""
    toc = yaml.safe_load(read(ROOT / "_toc.yml"))
    chapters: dict[str, int | None] = {Path(toc["root"]).name: None}
    count = 0
    for part in toc["parts"]:
        for entry in part["chapters"]:
            count += bool(part.get("numbered"))
            chapters[Path(entry["file"]).name] = count if part.get("numbered") else None
    return chapters


def sources() -> dict[str, str]:
    """Return the text of every chapter, in reading order."""
    return {name: read(CHAPTERS / f"{name}.md") for name in contents()}


def titles() -> dict[str, str]:
    """Return the title of every chapter by name."""
    return {
        name: next((found[2] for line in text.splitlines() if (found := HEADING.match(line))), name)
        for name, text in sources().items()
    }


def executable() -> list[str]:
    """Return the names of the chapters that run: those that declare a kernel and hold a code cell."""
    return [name for name, text in sources().items() if is_myst_markdown_notebook(text) and CELL.search(text)]


def notebook(name: str) -> NotebookNode:
    """Read a chapter as a notebook without outputs, cell by cell exactly as the book's builder reads it."""
    path = CHAPTERS / f"{name}.md"
    return read_myst_markdown_notebook(read(path), myst(), add_source_map=True, path=path)
