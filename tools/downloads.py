"""Sphinx extension of the book: what the buttons at the top of a page offer.

The download is the stored notebook of the chapter, executed and in plain Markdown, which the theme would replace by
the source in MyST. Buttons that need the address of the repository are shown only where there is one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from .chapters import repository
from .notebooks import path_of
from .repository import hosted, web

BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button", "use_source_button")


def buttons(app: Sphinx, config: Config) -> None:
    """Let the buttons lead to the address of the repository, or remove them if it has none."""
    options, url = config.html_theme_options, web(repository())
    launch = options.get("launch_buttons", {})
    if not hosted(url):
        options.update(dict.fromkeys(BUTTONS, False), launch_buttons={}, repository_url="")
    else:
        options["repository_url"] = url
        if not url.startswith("https://github.com/"):  # all that Colab opens
            options["launch_buttons"] = {key: value for key, value in launch.items() if key != "colab_url"}


def offer(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the page offer the notebook of its chapter, if there is one."""
    if doctree is not None and path_of(Path(pagename).name).exists():
        context["ipynb_source"] = f"{pagename}.ipynb"


def deliver(app: Sphinx, error: Exception | None) -> None:
    """Put the notebooks where the buttons lead, replacing those of the theme."""
    if error is not None or app.builder.format != "html":
        return
    for page in app.env.found_docs:
        if (notebook := path_of(Path(page).name)).exists():
            there = Path(app.outdir, "_sources", f"{page}.ipynb")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(notebook, there)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks; that of the page must come before those of the theme."""
    app.connect("config-inited", buttons)
    app.connect("html-page-context", offer, priority=400)
    app.connect("build-finished", deliver)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
