"""The buttons of a page: the download is the stored notebook; what needs an address has one, or is hidden."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tools.chapters import ROOT, config, executable
from tools.notebooks import path_of

SETTINGS = """\
import sys
sys.path.insert(0, {root!r})
import tools.downloads
tools.downloads.repository = lambda: {url!r}
extensions = ["myst_nb", "tools.downloads"]
nb_execution_mode, html_theme, root_doc = "off", "sphinx_book_theme", "chapters/index"
html_theme_options = dict(
    repository_url={url!r}, repository_branch="main", use_repository_button=True, use_issues_button=True,
    use_edit_page_button=True,
    launch_buttons=dict(binderhub_url="https://binder.example.org", colab_url="https://colab.example.org"),
)
"""
HEAD = "---\nkernelspec: {display_name: Python 3, language: python, name: python3}\nfile_format: mystnb\n---\n"


def pages(folder: Path, url: str, names: list[str], root: Path = ROOT) -> dict[str, str]:
    """Build pages with the names of chapters, for an address of the repository; return them by name.

    The notebooks, and what offers them, are those of the checkout in `root`.
    """
    (folder / "chapters").mkdir()
    (folder / "conf.py").write_text(SETTINGS.format(root=str(root), url=url))
    for name in names:
        head = HEAD if name in executable() else ""
        (folder / "chapters" / f"{name}.md").write_text(f"{head}# {name}\n\n```{{code-cell}}\n1 + 1\n```\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(folder), str(folder / "html")]
    environ = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "repository" not in done.stderr.lower()
    return {name: (folder / "html" / "chapters" / f"{name}.html").read_text() for name in names}


def links(page: str, name: str) -> list[str]:
    """Return where the links of a page lead."""
    return [urljoin(f"chapters/{name}.html", link) for link in re.findall(r'href="([^"]+)"', page)]


@pytest.mark.parametrize("url", ["https://github.com/OWNER/REPOSITORY", "git@github.com:someone/book.git"])
def test_the_download_is_the_stored_notebook(url, tmp_path):
    chapter = executable()[1]
    built = pages(tmp_path, url, ["index", chapter, "notation"])
    for name in ("index", chapter):
        address = f"_sources/chapters/{name}.ipynb"
        assert address in links(built[name], name)
        assert (tmp_path / "html" / address).read_bytes() == path_of(name).read_bytes()
    assert not any(link.endswith(".ipynb") for link in links(built["notation"], "notation"))
    leading = [link for link in links(built["index"], "index") if re.search("github.com|example.org", link)]
    if "OWNER" in url:
        assert leading == []
        assert "OWNER" not in built["index"]
    else:
        repository = "https://github.com/someone/book"
        assert repository in leading
        assert f"{repository}/edit/main/chapters/index.md" in leading
        assert any(link.startswith(f"{repository}/issues/new") for link in leading)
        assert any("/gh/someone/book/main" in link for link in leading)  # Binder
        assert any("/github/someone/book/blob/main/chapters/index" in link for link in leading)  # Colab


def test_the_book_is_built_with_them():
    assert "tools.downloads" in config()["sphinx"]["local_extensions"]
